"""The answer of a network's parameters.

With the training loss L(θ; η) = (1 − η) L_ρ + η L_ν and its optimum θ(η), θ̇ = −(H + λ)⁻¹ (g_ν − g_ρ): g are gradients
at θ, H the curvature of L_ρ, λ a ridge or damping (Koh & Liang 2017, arXiv 1703.04730; for diffusion models Mlodozeniec
et al. 2024, arXiv 2410.13850). The score then changes by ṡ(x) = ∂_θ s_θ(x) θ̇ at every state, and the sample by one
Jacobian product a stage along (δ, θ̇) together.

Transposed: with Γ = Σ_j (∂_θ s)ᵀ μ_j over the stages of the sampler, which stands for ∫ σ (∂_θ s)ᵀ a dσ with a(σ) the
adjoint of the flow, the influence of point i is −Γ·(H + λ)⁻¹ (g_i − g_ρ): one solution for each functional and latent,
then one gradient for each point. Where published attribution takes the gradient of a loss at the sample, this is the
gradient of the functional itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from sensitivity._checks import check_choice, check_positive_number
from sensitivity.grid import Grid
from sensitivity.measures.points import Points, whole
from sensitivity.perturbations.perturbation import Perturbation
from sensitivity.responses.curvature import Conjugate, Curvature, Exact, GaussNewton
from sensitivity.responses.examples import check_points
from sensitivity.responses.gradients import DataLoss, check_change
from sensitivity.responses.kronecker import Kronecker, covered
from sensitivity.responses.moving_parameters import MovingParameters
from sensitivity.responses.response import Condensed, Stage, module_of
from sensitivity.responses.weights import Weights
from sensitivity.scores.score import Score

CURVATURES = ("ggn", "exact", "kfac", "ekfac")
GRADIENTS = 64  # gradients of examples held at once


class ParameterResponse(MovingParameters):
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
        ValueError, TypeError: for a score without parameters, a loss that is not callable, data that do not fit.

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
        >>> result = sample_sensitivity(score, torch.ones(1, 1), change, Grid(2.0, 0.5, 4), response=response)
        >>> bool(result.sensitivity > 0)
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
            network = module_of(score) if module is None else module
            parameters = None if network is None else covered(network)
        self.weights = Weights(score, module, parameters)
        self.losses, self.block = DataLoss(self.weights, loss, self.data, block), block

    @property
    def needs(self) -> str:
        """Parameters, and the data they were trained on."""
        return "the network's parameters, its training loss and its training data"

    @property
    def evaluations(self) -> int:  # type: ignore[override]  # counted where the loss is
        """Rows at which the network was evaluated away from the sampler's path."""
        return self.losses.evaluations + self.pulled

    @property
    def rows_per_point(self) -> int:  # type: ignore[override]  # as above
        """The draws of an example."""
        return self.losses.draws

    @property
    def example(self) -> Points:
        """The first training point."""
        return Points(self.data.data[:1])

    @property
    def damping(self) -> float:
        """λ; where none was given, by the rule."""
        return self.curvature.damping

    @property
    def residual(self) -> float:
        """Largest relative residual of the last solution, 0 for `curvature="exact"`."""
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

    def _solved(self, changes: Sequence[Perturbation]) -> Tensor:
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

    def check_points(self, points: Points) -> None:
        """Examples like the training data, without a bandwidth."""
        check_points(points, self.data, "ParameterResponse")

    def condensed(self, stages: Sequence[Stage], score: Score, grid: Grid) -> Condensed:
        """(H + λ)⁻¹Γ, (F, batch, P), and its products with g_ρ, (F, batch)."""
        pulled = self._pulled(stages)
        # A solution may come transposed, and products of the one and the other layout differ in their last bits.
        solved = self.curvature.solve(pulled.flatten(0, 1)).contiguous()
        return {"solved": solved.reshape(pulled.shape), "base": (solved @ self.losses.base).reshape(pulled.shape[:2])}

    def against(self, kept: Sequence[Condensed], points: Points, first: int = 0) -> Tensor:
        """−Γ·(H + λ)⁻¹(g_i − g_ρ) for every functional and latent; each gradient is taken once for all of them."""
        self.check_points(points)
        gradients, values = self.losses.of_each(points.data.detach()), []
        # Products have one shape, and a point one column in them, whatever shard brings it: so its values have one
        # sequence of bits.
        table = self.weights.vector.new_zeros(GRADIENTS, len(self.weights))
        for start, stop in _aligned(first, first + len(points), GRADIENTS):
            for row in range(start, stop):
                table[row] = next(gradients)
            parts = [(one["solved"].flatten(0, 1) @ table.T).unflatten(0, one["base"].shape) for one in kept]
            values.append(torch.cat(parts, 1)[..., start:stop])
        return torch.cat([one["base"] for one in kept], 1)[..., None] - torch.cat(values, -1)


def _aligned(first: int, last: int, size: int) -> Iterator[tuple[int, int]]:
    """The numbers first to last − 1 cut at multiples of `size`, and counted from the multiple before."""
    for edge in range(first - first % size, last, size):
        yield max(first - edge, 0), min(last - edge, size)
