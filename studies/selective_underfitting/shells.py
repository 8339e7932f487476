"""Where training states fall: shells around the data.

A state noised from a point x_i, `x = x_i + σ ε`, has `|x − x_i|²/σ² ~ χ²_d` exactly. With the radius ratio
`r_i(x) = |x − x_i|/(σ√d)` and a probability p, the supervision region at level σ is the union of shells

    S_σ = ∪_i { x : a ≤ r_i(x) ≤ b },    a² d, b² d = the (1 ∓ p)/2 quantiles of χ²_d,

which holds each point's states with probability p (a state may lie in another point's shell too). This replaces the
half-width `√log(1/δ)` of Song et al. 2025, arXiv 2510.01378, which is not thin in units of one radius.
"""

from __future__ import annotations

import math

import torch
from scipy import stats
from torch import Tensor

__all__ = ["Shells", "shell_bounds", "shell_probability"]


def shell_bounds(dimension: int, probability: float = 0.99) -> tuple[float, float]:
    """The radius ratios (a, b) between which `√(χ²_d/d)` lies with the given probability, half of the rest each side.

    Args:
        dimension: d ≥ 1.
        probability: p in (0, 1).

    Raises:
        ValueError: d < 1 or p outside (0, 1).

    Example:
        >>> [round(ratio, 3) for ratio in shell_bounds(784)]
        [0.935, 1.065]
    """
    if dimension < 1:
        raise ValueError(f"dimension={dimension} has no shells: give d ≥ 1.")
    if not 0 < probability < 1:
        raise ValueError(f"probability={probability} is not between 0 and 1: give 0.99, say.")
    low, high = stats.chi2.ppf([(1 - probability) / 2, (1 + probability) / 2], dimension) / dimension
    return math.sqrt(low), math.sqrt(high)


def shell_probability(dimension: int, low: float, high: float) -> float:
    """`P(low ≤ √(χ²_d/d) ≤ high)`: the share of a point's noised states that a shell of these radius ratios holds.

    Raises:
        ValueError: d < 1, or not 0 ≤ low ≤ high.

    Example:
        >>> round(shell_probability(20, *shell_bounds(20, 0.9)), 12)
        0.9
    """
    if dimension < 1 or not 0 <= low <= high:
        raise ValueError(f"dimension={dimension}, low={low}, high={high}: need d ≥ 1 and 0 ≤ low ≤ high.")
    below, above = stats.chi2.cdf([low**2 * dimension, high**2 * dimension], dimension)
    return float(above - below)


class Shells:
    """The supervision region of a data set.

    Args:
        data: x_i, (N, *shape), floating.
        probability: p of one shell, in (0, 1).

    Raises:
        ValueError: data without rows or dimension, or p outside (0, 1).

    Source: Song et al. 2025, arXiv 2510.01378 (supervision region); bounds from the χ² law (module docstring).

    Example:
        >>> shells = Shells(torch.zeros(1, 4))
        >>> shells.contains(torch.tensor([[1.0, 1.0, 1.0, 1.0], [9.0, 0.0, 0.0, 0.0]]), 1.0).tolist()
        [True, False]
    """

    def __init__(self, data: Tensor, probability: float = 0.99) -> None:
        if data.ndim < 2 or not len(data) or not data.dtype.is_floating_point:
            raise ValueError(f"data of shape {tuple(data.shape)}, {data.dtype}: need floating data (N, *shape), N ≥ 1.")
        self.rows = data.detach().flatten(1)
        self.low, self.high = shell_bounds(self.rows.shape[1], probability)

    def ratios(self, x: Tensor, sigma: float) -> Tensor:
        """`r_i(x) = |x − x_i|/(σ√d)`, (batch, N), for states x (batch, *shape) at level σ > 0."""
        if not sigma > 0:
            raise ValueError(f"sigma={sigma}: radius ratios need a noise level σ > 0.")
        state = x.flatten(1)
        if state.shape[1] != self.rows.shape[1]:
            raise ValueError(f"x has {state.shape[1]} entries a state but the data have {self.rows.shape[1]}.")
        distances = torch.cdist(state, self.rows, compute_mode="donot_use_mm_for_euclid_dist")
        return distances / (sigma * math.sqrt(state.shape[1]))

    def deviation(self, x: Tensor, sigma: float) -> Tensor:
        """r⋆: the ratio closest to 1 among all points, (batch,); 1 in the middle of a shell."""
        ratios = self.ratios(x, sigma)
        return ratios.gather(1, (ratios - 1).abs().argmin(1, keepdim=True)).squeeze(1)

    def nearest(self, x: Tensor, sigma: float) -> Tensor:
        """The smallest ratio, (batch,): near 0 for a state collapsed onto a point, whatever r⋆ says."""
        return self.ratios(x, sigma).amin(1)

    def contains(self, x: Tensor, sigma: float) -> Tensor:
        """Whether x lies in any shell, (batch,) bool."""
        ratios = self.ratios(x, sigma)
        return ((ratios >= self.low) & (ratios <= self.high)).any(1)

    def overlap(self, sigma: float) -> float:
        """The worst pair's Bhattacharyya coefficient, `max_{i≠j} exp(−|x_i − x_j|²/8σ²)`; 0 for a single point."""
        if len(self.rows) < 2:
            return 0.0
        if not sigma > 0:
            raise ValueError(f"sigma={sigma}: the overlap of noised points needs σ > 0.")
        nearest = torch.nn.functional.pdist(self.rows.double()).min()
        return float(torch.exp(-(nearest**2) / (8 * sigma**2)))
