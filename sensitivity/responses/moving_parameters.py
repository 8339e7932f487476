"""A response of parameters: ṡ = ∂_θ s θ̇, whatever θ̇ is.

Forward, one Jacobian product a stage along (δ, θ̇) together. Transposed, Γ = Σ_j (∂_θ s)ᵀ μ_j over the stages of the
sampler, the discrete ∫ σ (∂_θ s)ᵀ λ dσ, is all that the answer to any change of the data needs: φ̇ = Γ·θ̇.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap

from sensitivity._callables import evaluate
from sensitivity.grid import Grid
from sensitivity.jacobians.differences import norms, step_length
from sensitivity.jacobians.dual_layers import push
from sensitivity.jacobians.duals import alone
from sensitivity.jacobians.products import Products
from sensitivity.perturbations.perturbation import Perturbation
from sensitivity.responses.response import Pushed, SourceResponse, Stage
from sensitivity.responses.weights import Weights
from sensitivity.scores.score import Score


class MovingParameters(SourceResponse):
    """ṡ = ∂_θ s θ̇; subclasses say how θ moves.

    Attributes:
        weights: the score as a function of θ.
        block: rows in one network call.
        pulled: rows at which Γ was accumulated so far.
    """

    weights: Weights
    block: int
    pulled: int = 0
    _asked: tuple[Perturbation, ...] = ()
    _found: Tensor

    @abstractmethod
    def _solved(self, changes: Sequence[Perturbation]) -> Tensor:
        """θ̇_k per unit mass, (K, P)."""

    def _directions(self, changes: Sequence[Perturbation]) -> Tensor:
        """θ̇_k per unit mass, (K, P); the last are kept: a solution or a run costs more than a batch of latents."""
        if not (len(changes) == len(self._asked) and all(a is b for a, b in zip(changes, self._asked, strict=True))):
            self._asked, self._found = tuple(changes), self._solved(changes)
        return self._found

    def pushed(self, products: Products, changes: Sequence[Perturbation], grid: Grid) -> Pushed:
        """J δ_k + ∂_θ s θ̇_k in one product along both."""
        return Along(self.weights, products, self._directions(changes))

    def _pulled(self, stages: Sequence[Stage]) -> Tensor:
        """Γ, (F, batch, P): all stages of one latent are one batch of the network."""
        functionals, batch = stages[0].cotangents.shape[:2]
        result = self.weights.vector.new_zeros(functionals, batch, len(self.weights))
        for b in range(batch):
            x = torch.stack([stage.x[b] for stage in stages])
            sigma = torch.stack([stage.sigma for stage in stages])
            mu = torch.stack([stage.cotangents[:, b] for stage in stages], 1)
            for rows in torch.arange(len(x), device=x.device).split(self.block):
                result[:, b] += self._pull(x[rows], sigma[rows], mu[:, rows])
        return result

    def _pull(self, x: Tensor, sigma: Tensor, cotangents: Tensor) -> Tensor:
        self.pulled += len(x)
        with torch.enable_grad():
            vector = self.weights.vector.detach().requires_grad_()
            value = self.weights.score_at(vector)(x, sigma).to(x.dtype)
            rows = [torch.autograd.grad(value, vector, mu, retain_graph=True)[0] for mu in cotangents]
        return torch.stack(rows)

    def finite(
        self, score: Score, changes: Sequence[Perturbation], masses: Sequence[Tensor], grid: Grid
    ) -> Callable[[slice], Score]:
        """The score with parameters θ + Σ_k η_k θ̇_k, a linear step; η is one number for all latents."""
        if any(bool((mass != mass[0]).any()) for mass in masses):
            raise ValueError("eta differs between latents, but a network has one set of parameters; give one number.")
        etas = torch.stack([mass[0] for mass in masses])
        vector = self.weights.vector + etas.to(self.weights.vector) @ self._directions(changes)
        moved = self.weights.score_at(vector)
        return lambda rows: moved


@dataclass(frozen=True)
class Along:
    """(x, σ, δ) ↦ (s, J δ_k + ∂_θ s θ̇_k) by the method that the score's products have; rates θ̇ are (K, P)."""

    weights: Weights
    products: Products
    rates: Tensor
    _verdicts: list[bool] = field(default_factory=list)

    def __call__(self, x: Tensor, sigma: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        with self.products._context():
            if not self.products.exact:
                return self._differences(x, sigma, tangents)
            if "rules" in self.products.cures and self._ruled(x[:1], sigma if sigma.dim() == 0 else sigma[:1]):
                return self._by_rules(x, sigma, tangents)
            x = alone(x)
            route = self._forward if self.products.method == "forward" else self._double
            return self._map(route(x, sigma), tangents)

    @cached_property
    def _moving(self) -> Callable[[Tensor, Tensor], Tensor]:
        return self.weights.score_along(self.rates)

    def _by_rules(self, x: Tensor, sigma: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """By own rules of dual numbers: a convolution takes its value and both parts of its tangent in two calls."""
        return push(lambda y: evaluate(self._moving, y, sigma), x, tangents)

    def _ruled(self, x: Tensor, sigma: Tensor) -> bool:
        """Whether own rules give torch's derivative in the parameters, decided once, on one sample.

        The rules were tried for the state alone; a layer may use its parameters in ways that have none.
        """
        if not self._verdicts:
            # With δ = 0 the answer is the parameters' part alone. A missing rule loses all of some layer's; two right
            # ways differ by rounding, hence half the digits.
            zeros = x.new_zeros(len(self.rates), *x.shape)
            try:
                moved = self._by_rules(x, sigma, zeros)[1]
                gap = (moved - self._map(self._forward(x, sigma), zeros)[1]).abs().max()
                agree = bool(gap <= torch.finfo(x.dtype).eps ** 0.5 * moved.abs().max())
            except (NotImplementedError, RuntimeError):
                agree = False
            self._verdicts.append(agree)
        return self._verdicts[0]

    def _at(self, sigma: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda y, vector: self.weights.score_at(vector)(y, sigma).to(y.dtype)

    def _forward(self, x: Tensor, sigma: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        def push(tangent: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
            pair: Any = jvp(self._at(sigma), (x, self.weights.vector), (tangent, rate))
            return pair

        return push

    def _double(self, x: Tensor, sigma: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Forward derivatives as derivatives of the reverse ones."""
        transposed: Any = vjp(self._at(sigma), x, self.weights.vector)
        value, pull = transposed
        forward: Any = vjp(pull, torch.zeros_like(value))[1]
        return lambda tangent, rate: (value, forward((tangent, rate))[0])

    def _map(self, push: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], tangents: Tensor) -> tuple[Tensor, Tensor]:
        if len(tangents) == 1:
            value, moved = push(tangents[0], self.rates[0])
            return value, moved[None]
        if "serial" in self.products.cures:
            pairs = [push(tangent, rate) for tangent, rate in zip(tangents, self.rates, strict=True)]
            return pairs[0][0], torch.stack([moved for _, moved in pairs])
        values, moved = vmap(push)(tangents, self.rates)
        return values[0], moved

    def _differences(self, x: Tensor, sigma: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """Central or forward differences along (δ, θ̇); one length for all samples, which share θ."""
        order = 1 if self.products.method == "finite" else 0
        function, vector = self._at(sigma), self.weights.vector
        value, rows = function(x, vector), []
        lengths = (step_length(x, sigma, order) / norms(tangents)).amin(1)
        for tangent, rate, length in zip(tangents, self.rates, lengths, strict=True):
            length = torch.minimum(length, self._length(rate, order))
            ahead = function(x + length * tangent, vector + length.to(vector) * rate)
            behind = function(x - length * tangent, vector - length.to(vector) * rate) if order else value
            rows.append((ahead - behind) / ((1 + order) * length))
        return value, torch.stack(rows)

    def _length(self, rate: Tensor, order: int) -> Tensor:
        size = self.weights.vector.norm() * torch.finfo(rate.dtype).eps ** (1 / (order + 2))
        length = rate.norm()
        return torch.where(length > 0, size / length, torch.ones_like(length))
