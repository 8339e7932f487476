"""The derivative of a training run: of the parameters it ends with, in the weights and places of its data.

Every drawn datum i enters the loss with its relative weight a_i, `L_t = (1/B) Σ_b a_i(t,b) ℓ(θ; x_i(t,b), σ_t, ε_t)`;
seed, order and noise stay as they are. The run is the composition of maps `(θ, m) ↦ step((θ, m), ∇L_t(θ; a))` and of
averages `θ̄ ← θ̄ + c_t (θ − θ̄)`. Along a change (ȧ, ẋ) of the data and a tangent θ̇,

    ġ = H θ̇ + (1/B) Σ_b [a_b ∂_x∇_θ ℓ_b ẋ_b + ȧ_b ∇_θ ℓ_b],    H = ∇²_θ L_t,

one directional derivative of the gradient a step (forward mode). Transposed, and since H is symmetric, the directional
derivatives along a cotangent μ of g, H μ of the gradient and ∂ℓ_b·μ/B of every loss, are the cotangents of θ and of
every weight a_b: one pass back through the run is the derivative in all N weights. The states on the way back are
computed again from checkpoints.

Both take forward mode over reverse mode. Reverse over forward is as cheap, but wrong through PyTorch's `layer_norm`,
whose forward mode holds mean and scale fixed when it is differentiated again (seen in 2.13: 6 % of a product).

Source: the reverse pass is that of Maclaurin et al. 2015 (arXiv 1502.03492), for data weights Ilyas & Engstrom 2025
(arXiv 2504.16430, there called replay).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp, vjp, vmap

from sensitivity._checks import per_sample
from studies.networks import Denoiser
from studies.training.batches import Batches, Draw
from studies.training.descent import Rule, State
from studies.training.loop import Recipe

Report = Callable[[int, int], None]
Saved = Mapping[int, State]


class At:
    """A network with other parameters, as objectives call it."""

    def __init__(self, network: Denoiser, parameters: dict[str, Tensor]) -> None:
        self.network, self.parameters, self.scale = network, parameters, network.scale

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, σ)."""
        values: Tensor = functional_call(self.network, self.parameters, (x, sigma))
        return values

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """s(x, σ)."""
        return (self(x, sigma) - x) / per_sample(sigma, x) ** 2


@dataclass(frozen=True)
class Descent:
    """A training run of one network as a map from data weights to parameters.

    Attributes:
        recipe: steps, batch, rates, averages and objective.
        rule: of descent.
        network: the network; its own parameters play no part.
        pool: the data (N, *shape).
        weights: a, (N,), 1 for each of equally weighted data.
        seed: of order and noise.
    """

    recipe: Recipe
    rule: Rule
    network: Denoiser
    pool: Tensor
    weights: Tensor
    seed: int

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """Shapes of the parameters, in the order in which they lie in θ."""
        return {name: value.shape for name, value in self.network.named_parameters()}

    @cached_property
    def batches(self) -> Batches:
        """Order and noise."""
        return Batches(self.pool, [None], [self.seed], self.recipe.batch)

    def start(self, theta: Tensor) -> State:
        """The state before the first step."""
        return (theta, *[torch.zeros_like(theta) for _ in range(self.rule.memory)])

    def losses(self, theta: Tensor, draw: Draw) -> Tensor:
        """The loss of every drawn datum, (batch,)."""
        parts = theta.split([shape.numel() for shape in self.shapes.values()])
        named = {n: part.reshape(s) for (n, s), part in zip(self.shapes.items(), parts, strict=True)}
        return self.recipe.objective.losses(At(self.network, named), draw)

    def draw(self, step: int) -> Draw:
        """The data, levels and noise of a step, (batch, ...)."""
        return Draw(*(part[0] for part in self.batches.draw(step)))

    def rows(self, step: int) -> Tensor:
        """The drawn data's numbers, (batch,)."""
        return self.batches.rows(step)[0]

    def gradient(self, theta: Tensor, step: int) -> Tensor:
        """∇L_t(θ; a)."""
        draw, a = self.draw(step), self.weights[self.rows(step)]
        gradient: Tensor = grad(lambda v: (a * self.losses(v, draw)).mean())(theta)
        return gradient

    def forward(self, theta: Tensor, keep: int = 0, progress: Report | None = None) -> tuple[Tensor, dict[int, State]]:
        """The averaged parameters that a run from θ ends with, and its states before every `keep`-th step."""
        state, average, saved, total = self.start(theta), theta, {}, self.recipe.steps
        for step in range(total):
            if keep and step % keep == 0:
                saved[step] = state
            state = self._next(state, self.gradient(state[0], step), step)
            average = torch.lerp(average, state[0], self.recipe.average_at(step))
            if step % 50 == 0 or step + 1 == total:
                _finite(average, step)
            if progress is not None:
                progress(step + 1, total)
        return average, saved | {total: state}

    def push(self, theta: Tensor, rates: Tensor, moves: Tensor | None = None) -> Tensor:
        """The averaged parameters' derivatives along K changes of the data, (K, P), by one run in forward mode.

        Args:
            theta: the parameters before the run.
            rates: ȧ, (K, N).
            moves: ẋ, (K, N, *shape), or None where data stay in their places.
        """
        state, count = self.start(theta), len(rates)
        tangent: State = tuple(part.new_zeros(count, len(theta)) for part in state)
        average = torch.zeros_like(tangent[0])
        for step in range(self.recipe.steps):
            gradient = self.gradient(state[0], step)
            moved = self._gradient_rates(state[0], tangent[0], rates, moves, step)
            along = self._along(state, gradient, step)
            tangent = vmap(along)(tangent, moved)
            state = self._next(state, gradient, step)
            average = torch.lerp(average, tangent[0], self.recipe.average_at(step))
        return average

    def pull(self, saved: Saved, cotangents: Tensor, progress: Report | None = None) -> Tensor:
        """The derivatives of K functionals of the averaged parameters in every weight a_i, (K, N), by one pass back.

        Args:
            saved: states by number of steps done, the first (0) and the last included, see `forward`.
            cotangents: the functionals' gradients in the averaged parameters, (K, P).
            progress: is told how many steps are done.

        Raises:
            RuntimeError: where states that are computed again do not meet the saved ones.
        """
        values = cotangents.new_zeros(len(cotangents), len(self.pool))
        back = tuple(torch.zeros_like(cotangents) for _ in range(1 + self.rule.memory))
        average, marks = cotangents.clone(), sorted(saved)
        for first, last in zip(reversed(marks[:-1]), reversed(marks[1:]), strict=True):
            for step, state, gradient in reversed(self._again(saved, first, last)):
                # θ̄ ← (1 − c) θ̄ + c θ, transposed: θ receives c of the average's cotangent, which keeps the rest.
                share = self.recipe.average_at(step)
                back = (back[0] + share * average, *back[1:])
                average = (1 - share) * average
                back, slopes = vmap(self._transposed(state, gradient, step))(back)
                moved, of_weights = self._pulled(state[0], slopes, step)
                back = (back[0] + moved, *back[1:])
                # A datum that a batch holds twice receives both.
                values.index_add_(1, self.rows(step), of_weights)
                if progress is not None:
                    progress(self.recipe.steps - step, self.recipe.steps)
        return values

    def _next(self, state: State, gradient: Tensor, step: int) -> State:
        return self.rule.step(state, gradient, self.recipe.rate_at(step), step + 1)

    def _along(self, state: State, gradient: Tensor, step: int) -> Callable[[State, Tensor], State]:
        """The step's tangent map."""

        def along(tangent: State, moved: Tensor) -> State:
            tangents: Any = jvp(lambda s, g: self._next(s, g, step), (state, gradient), (tangent, moved))
            return tangents[1]

        return along

    def _transposed(self, state: State, gradient: Tensor, step: int) -> Callable[[State], tuple[State, Tensor]]:
        """The step's cotangent map."""
        pair: Any = vjp(lambda s, g: self._next(s, g, step), state, gradient)
        return pair[1]

    def _gradient_rates(
        self, theta: Tensor, tangents: Tensor, rates: Tensor, moves: Tensor | None, step: int
    ) -> Tensor:
        """ġ of each change, (K, P)."""
        draw, rows = self.draw(step), self.rows(step)
        a = self.weights[rows]

        def loss(v: Tensor, a: Tensor, clean: Tensor) -> Tensor:
            return (a * self.losses(v, draw._replace(clean=clean))).mean()

        def rate_of(tangent: Tensor, rate: Tensor, *move: Tensor) -> Tensor:
            # Data that stay where they are carry no tangent: it would be pushed through the network as zeros.
            moving = grad(loss) if move else grad(lambda v, b: loss(v, b, draw.clean))
            moved: Any = jvp(moving, (theta, a, draw.clean)[: 2 + len(move)], (tangent, rate, *move))
            return moved[1]

        return self._mapped(rate_of, tangents, rates[:, rows], *([] if moves is None else [moves[:, rows]]))

    def _pulled(self, theta: Tensor, slopes: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """H μ, (K, P), and the slope of every drawn loss along μ over B, (K, batch)."""
        draw, a = self.draw(step), self.weights[self.rows(step)]

        def loss(v: Tensor) -> tuple[Tensor, Tensor]:
            losses = self.losses(v, draw)
            return (a * losses).mean(), losses / len(losses)

        def pulled(slope: Tensor) -> tuple[Tensor, Tensor]:
            pair: Any = jvp(grad(loss, has_aux=True), (theta,), (slope,))
            return pair[1]

        return self._mapped(pulled, slopes)

    def _mapped(self, function: Callable[..., Any], *parts: Tensor) -> Any:
        if len(parts[0]) == 1:
            values = function(*(part[0] for part in parts))
            return values[None] if isinstance(values, Tensor) else tuple(each[None] for each in values)
        return vmap(function, chunk_size=CHUNK)(*parts)

    def _again(self, saved: Saved, first: int, last: int) -> list[tuple[int, State, Tensor]]:
        """(step, state before it, gradient) of a part of the run, computed from its checkpoint."""
        state, saved_states = saved[first], []
        for step in range(first, last):
            gradient = self.gradient(state[0], step)
            saved_states.append((step, state, gradient))
            state = self._next(state, gradient, step)
        self._check_end(state[0], saved[last][0], last)
        return saved_states

    def _check_end(self, again: Tensor, kept: Tensor, step: int) -> None:
        # The same operations in the same order give the same bits; a machine that rounds otherwise drifts along the
        # run, and half the digits are let pass.
        gap = float((again - kept).norm() / kept.norm().clamp(min=1e-300))
        if not gap <= math.sqrt(torch.finfo(kept.dtype).eps):
            raise RuntimeError(
                f"parameters computed again to step {step} lie {gap:.1e} from those recorded: the record belongs to "
                "other data, another recipe, or a machine that rounds otherwise; record the run again here."
            )


CHUNK = 8  # changes or functionals at once: memory only


def _finite(theta: Tensor, step: int) -> None:
    if not bool(torch.isfinite(theta).all()):
        raise FloatingPointError(f"parameters are not finite at step {step}: lower the recipe's learning rate.")
