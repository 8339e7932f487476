"""The answer of a network's parameters.

With the training loss L(θ; η) = (1 − η) L_ρ + η L_ν and its optimum θ(η), θ̇ = −(H + λ)⁻¹ (g_ν − g_ρ): g are gradients
at θ, H the curvature of L_ρ, λ a ridge or damping (Koh & Liang 2017, arXiv 1703.04730; for diffusion models Mlodozeniec
et al. 2024, arXiv 2410.13850). The score then changes by ṡ(x) = ∂_θ s_θ(x) θ̇ at every state, and the sample by one
Jacobian product a stage along (δ, θ̇) together.

Transposed: with Γ = Σ_j (∂_θ s)ᵀ μ_j over the stages of the sampler, the discrete ∫ σ (∂_θ s)ᵀ λ dσ, the influence of
point i is −Γ·(H + λ)⁻¹ (g_i − g_ρ): one solution for each functional and latent, then one gradient for each point.
Where published attribution takes the gradient of a loss at the sample, this is the gradient of the functional itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap

from sensitivity._checks import check_choice, check_positive_number
from sensitivity.grid import Grid
from sensitivity.jacobians.differences import norms, step_length
from sensitivity.jacobians.products import Products
from sensitivity.measures.points import Points, whole
from sensitivity.perturbations.perturbation import Perturbation
from sensitivity.responses.curvature import Conjugate, Curvature, Exact, GaussNewton
from sensitivity.responses.gradients import DataLoss, check_change
from sensitivity.responses.kronecker import Kronecker, covered
from sensitivity.responses.response import Pushed, SourceResponse, Stage, module_of
from sensitivity.responses.weights import Weights
from sensitivity.scores.score import Score

CURVATURES = ("ggn", "exact", "kfac", "ekfac")
GRADIENTS = 64  # gradients of examples held at once


class ParameterResponse(SourceResponse):
    """ṡ = ∂_θ s θ̇ with θ̇ = −(H + λ)⁻¹ (g_ν − g_ρ): what a trained network's parameters answer.

    No density, no divergence, no anchor. Perturbations are made of `Points` without a bandwidth, or are a `Move`.

    Args:
        score: the score that is sampled from; its network's parameters answer.
        loss: the training loss of an example, see `DenoisingLoss`.
        data: the training data ρ, a tensor (N, *shape) or `Points` with weights.
        curvature: "ggn": conjugate gradients with the Gauss-Newton matrix H; "exact": the same matrix written out, for
            up to 5 000 parameters; "kfac", "ekfac": Kronecker factors of each layer, by the package curvlinops, for
            linear and 2-d convolution layers, whose parameters then answer alone unless others are named.
        damping: λ ≥ 0, in the loss's units: a ridge (λ/2)|θ|² of the training if there was one; None is a tenth of the
            mean eigenvalue of H, which looks at the training data alone.
        module: the `nn.Module` that the score calls, where the score does not show it (adapters, closures).
        parameters: names of the parameters that answer; None is all.
        pairs: how many (example, draw) stand for the training data in H; None is all. Gradients take all.
        steps, tolerance: of conjugate gradients.
        block: rows in one network call.
        seed: of the draw of pairs.

    Attributes:
        evaluations: rows at which the network was evaluated for gradients and curvature so far.
        residual: relative residual of the last solution.

    Raises:
        ValueError, TypeError: for a score without parameters, a loss that is none, data that do not fit.

    Source: Koh & Liang 2017, arXiv 1703.04730; Mlodozeniec et al. 2024, arXiv 2410.13850; Grosse et al. 2023, arXiv
    2308.03296 (Gauss-Newton and damping).

    Example (a network D(x) = w x, trained exactly on one point at 1; mass moves to a point at 2, w rises):
        >>> from sensitivity import DenoisingLoss, Grid, Points, Toward, as_score, sample_sensitivity
        >>> network = nn.Linear(1, 1, bias=False)
        >>> score = as_score(lambda x, sigma: network(x), "denoiser")
        >>> loss = DenoisingLoss(weighting=torch.ones_like, quantile=torch.ones_like, draws=64)
        >>> data = torch.ones(1, 1)
        >>> response = ParameterResponse(score, loss, data, "exact", damping=0.0, module=network)
        >>> change = Toward(Points(torch.full((1, 1), 2.0)))
        >>> found = sample_sensitivity(score, torch.ones(1, 1), change, Grid(2.0, 0.5, 4), response=response)
        >>> bool(found.sensitivity > 0)
        True
    """

    def __init__(
        self,
        score: Score,
        loss: Any,
        data: Tensor | Points,
        curvature: str = "ggn",
        damping: float | None = None,
        *,
        module: nn.Module | None = None,
        parameters: Sequence[str] | None = None,
        pairs: int | None = 2048,
        steps: int = 50,
        tolerance: float = 1e-6,
        block: int = 256,
        seed: int = 0,
    ):
        check_choice(curvature, CURVATURES, "curvature")
        for name, count in (("steps", steps), ("block", block), ("pairs", 1 if pairs is None else pairs)):
            whole(count, name)
        self.score, self.kind, self.pairs, self.seed = score, curvature, pairs, seed
        self.steps, self.tolerance = steps, check_positive_number(tolerance, "tolerance")
        self._damping = None if damping is None else check_positive_number(damping, "damping", zero=True)
        self.data = data if isinstance(data, Points) else Points(data)
        if parameters is None and curvature in ("kfac", "ekfac"):
            found = module_of(score) if module is None else module
            parameters = None if found is None else covered(found)
        self.weights = Weights(score, module, parameters)
        self.losses = DataLoss(self.weights, loss, self.data, block)

    @property
    def needs(self) -> str:
        """Parameters, and the data they were trained on."""
        return "the network's parameters, its training loss and its training data"

    @property
    def evaluations(self) -> int:  # type: ignore[override]  # counted where the loss is
        """Rows at which the network was evaluated away from the sampler's path."""
        return self.losses.evaluations

    @property
    def damping(self) -> float:
        """λ; where none was given, by the rule."""
        return self.curvature.damping

    @property
    def residual(self) -> float:
        """Largest relative residual of the last solution, 0 for curvature="exact"."""
        return self.curvature.residual

    @cached_property
    def curvature(self) -> Curvature:
        """(H + λ)⁻¹."""
        matrix = GaussNewton(self.losses, self.pairs, self.seed)
        if self.kind == "exact":
            return Exact(matrix, self._damping)
        if self.kind in ("kfac", "ekfac"):
            return Kronecker(matrix, self._damping, self.kind, self.seed)
        return Conjugate(matrix, self._damping, self.steps, self.tolerance)

    def direction(self, change: Perturbation) -> Tensor:
        """θ̇ per unit mass moved, (P,), in the order of `weights.names`."""
        return self._directions([change])[0]

    def _directions(self, changes: Sequence[Perturbation]) -> Tensor:
        gradients = torch.stack([self.losses.of_change(change) for change in changes])
        return -self.curvature.solve(gradients)

    def check(self, score: Score, change: Perturbation | None, x: Tensor) -> None:
        """The score that is sampled from, and points."""
        if score is not self.score:
            raise ValueError(
                "response=ParameterResponse was made for another score than the one that is sampled from; give the "
                "same object to both."
            )
        if change is not None:
            check_change(change, self.data)

    def pushed(self, products: Products, changes: Sequence[Perturbation], grid: Grid) -> Pushed:
        """J δ_k + ∂_θ s θ̇_k in one product along both."""
        return Along(self.weights, products, self._directions(changes))

    def paired(self, stages: Sequence[Stage], points: Points, score: Score, grid: Grid) -> Tensor:
        """−Γ·(H + λ)⁻¹(g_i − g_ρ) for every functional and latent."""
        pulled = self._pulled(stages)
        functionals, batch = pulled.shape[:2]
        solved = self.curvature.solve(pulled.flatten(0, 1))
        base, values, held = solved @ self.losses.base, [], []
        for gradient in self.losses.of_each(points.data.detach()):
            held.append(gradient)
            if len(held) == GRADIENTS:
                values.append(base[:, None] - solved @ torch.stack(held, 1))
                held = []
        values += [base[:, None] - solved @ torch.stack(held, 1)] if held else []
        return torch.cat(values, 1).reshape(functionals, batch, len(points))

    def _pulled(self, stages: Sequence[Stage]) -> Tensor:
        """Γ, (F, batch, P): all stages of one latent are one batch of the network."""
        functionals, batch = stages[0].cotangents.shape[:2]
        result = self.weights.vector.new_zeros(functionals, batch, len(self.weights))
        for b in range(batch):
            x = torch.stack([stage.x[b] for stage in stages])
            sigma = torch.stack([stage.sigma for stage in stages])
            mu = torch.stack([stage.cotangents[:, b] for stage in stages], 1)
            for rows in torch.arange(len(x), device=x.device).split(self.losses.block):
                result[:, b] += self._pull(x[rows], sigma[rows], mu[:, rows])
        return result

    def _pull(self, x: Tensor, sigma: Tensor, cotangents: Tensor) -> Tensor:
        self.losses.evaluations += len(x)
        with torch.enable_grad():
            vector = self.weights.vector.detach().requires_grad_()
            value = self.weights.score_at(vector)(x, sigma).to(x.dtype)
            rows = [torch.autograd.grad(value, vector, mu, retain_graph=True)[0] for mu in cotangents]
        return torch.stack(rows)

    def finite(
        self, score: Score, changes: Sequence[Perturbation], masses: Sequence[Tensor], grid: Grid
    ) -> Callable[[slice], Score]:
        """The score with parameters θ + Σ_k η_k θ̇_k, one Newton step; η is one number for all latents."""
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

    def __call__(self, x: Tensor, sigma: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        with self.products._context():
            if not self.products.exact:
                return self._differences(x, sigma, tangents)
            x = x.clone() if 0 in x.stride() else x  # forward mode refuses expanded states
            route = self._forward if self.products.method == "forward" else self._double
            return self._map(route(x, sigma), tangents)

    def _at(self, sigma: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda y, vector: self.weights.score_at(vector)(y, sigma).to(y.dtype)

    def _forward(self, x: Tensor, sigma: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        def push(tangent: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
            pair: Any = jvp(self._at(sigma), (x, self.weights.vector), (tangent, rate))
            return pair

        return push

    def _double(self, x: Tensor, sigma: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Forward derivatives as derivatives of the reverse ones."""
        found: Any = vjp(self._at(sigma), x, self.weights.vector)
        value, pull = found
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
        own = (step_length(x, sigma, order) / norms(tangents)).amin(1)
        for tangent, rate, length in zip(tangents, self.rates, own, strict=True):
            length = torch.minimum(length, self._length(rate, order))
            ahead = function(x + length * tangent, vector + length.to(vector) * rate)
            behind = function(x - length * tangent, vector - length.to(vector) * rate) if order else value
            rows.append((ahead - behind) / ((1 + order) * length))
        return value, torch.stack(rows)

    def _length(self, rate: Tensor, order: int) -> Tensor:
        size = self.weights.vector.norm() * torch.finfo(rate.dtype).eps ** (1 / (order + 2))
        length = rate.norm()
        return torch.where(length > 0, size / length, torch.ones_like(length))
