"""Moving data points: `y_i → y_i + h v_i`, a sum of dipoles.

Symbols: `τ² = σ² + b²`, `w_i` the weights of the points, `r_i = N(x; y_i, τ²I)/p_σ(x)`, `s_i = (y_i − x)/τ²`,
`a_i = (x − y_i)·v_i/τ²`. The measure ν is replaced by its image ν_h: `ρ_η = ρ + η (ν_h − ν)`, and for small h

- `u = Σ w_i r_i a_i` and `ṡ = Σ w_i r_i [v_i/τ² + a_i (s_i − s)]` (per unit h),
- `p̈/p = Σ w_i r_i q_i` with `q_i = a_i² − |v_i|²/τ²`, `∇[p̈/p] = Σ w_i r_i [(s_i − s) q_i + 2 a_i v_i/τ²]`.

The density at finite h is not linear in h: first and second order only, the finite-η score does not apply.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sensitivity._checks import check_finite, check_like, check_log_density, full_precision, per_sample
from sensitivity.measures.distances import kernel
from sensitivity.measures.points import Points, whole
from sensitivity.perturbations.perturbation import Perturbation, Terms

__all__ = ["Move"]


class Move(Perturbation):
    """Points y_i are displaced along v_i; a sensitivity is the derivative in the length h of the displacement.

    Args:
        points: the points that move, `Points`, or their data `(M, *shape)` with equal weights; part of the data.
        displacement: v, like the data of the points.

    `mass(N)` is `M/N`: the share of the data that moves. A multiple of a `Move` multiplies this share; a longer
    displacement is given as such.

    Raises:
        ValueError, TypeError: where `displacement` is not like the data, or not finite.

    Source: derived as Scarvelis & Solomon 2025, arXiv 2509.23092, with χ the derivative of the empirical measure in the
    positions of its points.

    Example:
        >>> import torch
        >>> shift = Move(torch.tensor([[0.0]]), torch.tensor([[1.0]]))  # the whole law N(0, σ²), shifted
        >>> x = torch.tensor([[0.5]])
        >>> shift.source(x, 1.0, -x, torch.tensor([-1.0439]))  # ṡ = 1/σ²
        tensor([[1.0000]])
        >>> shift.mass(10)
        0.1
    """

    def __init__(self, points: Points | Tensor, displacement: Tensor):
        self.points = points if isinstance(points, Points) else Points(points)
        check_like(displacement, self.points.data, "displacement", "the data of the points")
        check_finite(displacement, "displacement")
        self.displacement = displacement
        self._moves = displacement.detach().reshape(len(self.points), -1)

    @property
    def needs_density(self) -> bool:
        """Always: `r_i` is relative to the density of the base law."""
        return True

    @property
    def masses(self) -> None:
        """`None`: the finite-η score does not apply."""
        return None

    def mass(self, count: int, moved: int | None = None) -> float:
        """`M/N`, the share of `count` = N training points that moves."""
        m, n = len(self.points) if moved is None else whole(moved, "moved"), whole(count, "count")
        if m > n:
            raise ValueError(f"count = {n} is fewer than the {m} points moved: pass N ≥ {m}.")
        return m / n

    @full_precision
    def terms(self, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None) -> Terms:
        """u, ṡ and `∇[p̈/p]` in one pass."""
        source, curvature = _Combination(x), _Combination(x)
        ratio = x.new_zeros(x.shape[0])
        for block in self._blocks(x, sigma, score, log_density):
            # The second derivative of the kernel in h, over the kernel.
            curve = block.slope**2 - (block.moves**2).sum(1) / block.variance
            ratio = ratio + (block.ratio * block.slope).sum(1)
            source.add(block, block.slope, torch.ones_like(block.slope))
            curvature.add(block, curve, 2 * block.slope)
        return Terms(ratio, source.total(score), curvature.total(score))

    @full_precision
    def source_product(
        self,
        x: Tensor,
        sigma: Tensor | float,
        score: Tensor,
        score_product: Tensor,
        log_density: Tensor | None,
        tangent: Tensor,
    ) -> Tensor:
        """`∇ṡ t`, like `x`; with `b_i = (s_i − s)·t` it is
        `Σ w_i r_i {b_i [v_i/τ² + a_i (s_i − s)] + (v_i·t/τ²)(s_i − s) − a_i (t/τ² + ∇s t)}`.
        """
        check_like(score_product, x, "score_product")
        check_like(tangent, x, "tangent")
        t, total = tangent.flatten(1), _Combination(x)
        rest = torch.zeros_like(x)
        for block in self._blocks(x, sigma, score, log_density):
            along = block.differences(t, score.flatten(1))
            total.add(block, along * block.slope + t @ block.moves.T / block.variance, along)
            weight = per_sample((block.ratio * block.slope).sum(1, keepdim=True), x)
            rest = rest - weight * (tangent / per_sample(block.variance, x) + score_product)
        return total.total(score) + rest

    def log_ratio(self, x: Tensor, sigma: Tensor | float, log_density: Tensor | None) -> Tensor:
        """`log ν_σ(x) − log p_σ(x)` of the points before they move."""
        return self.points.log_density(x, sigma) - check_log_density(log_density, x)

    def _blocks(self, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None) -> Iterator[_Block]:
        check_like(score, x, "score")
        offset = check_log_density(log_density, x)
        state, moves = x.flatten(1), self._moves.split(self.points.block)
        for (log_normal, rows, variance), v in zip(self.points.normals(x, sigma), moves, strict=True):
            ratio = kernel(log_normal - offset[:, None]).to(x.dtype)
            variance = variance.to(x.dtype)
            slope = (state @ v.T - (rows * v).sum(1)) / variance
            yield _Block(ratio, slope, rows, v, state, variance)


class _Block(NamedTuple):
    """One block of points: `w_i r_i` and `a_i`, `(batch, rows)`; rows and moves `(rows, d)`; state; τ²."""

    ratio: Tensor
    slope: Tensor
    rows: Tensor
    moves: Tensor
    state: Tensor
    variance: Tensor

    def differences(self, tangent: Tensor, score: Tensor) -> Tensor:
        """`(s_i − s)·t`, `(batch, rows)`."""
        at_state = (self.state * tangent).sum(1, keepdim=True) / self.variance + (score * tangent).sum(1, keepdim=True)
        return tangent @ self.rows.T / self.variance - at_state


class _Combination:
    """`Σ_i w_i r_i [c_i (s_i − s) + e_i v_i/τ²]`, summed over blocks."""

    def __init__(self, x: Tensor):
        self._x = x
        self._sum = torch.zeros_like(x.flatten(1))
        self._weight = x.new_zeros(x.shape[0], 1)

    def add(self, block: _Block, c: Tensor, e: Tensor) -> None:
        on_points, on_moves = block.ratio * c, block.ratio * e
        weight = on_points.sum(1, keepdim=True)
        self._sum = (
            self._sum + (on_points @ block.rows - weight * block.state + on_moves @ block.moves) / block.variance
        )
        self._weight = self._weight + weight

    def total(self, score: Tensor) -> Tensor:
        return self._sum.reshape(self._x.shape) - per_sample(self._weight, self._x) * score
