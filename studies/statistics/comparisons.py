"""Paired comparisons: which of two things measured on the same cases is larger, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from studies.statistics._checks import Floats, finite, same_length
from studies.statistics.intervals import Interval, median_interval

__all__ = ["Paired", "family_intervals", "holm", "paired"]


@dataclass(frozen=True)
class Paired:
    """Difference `first − second` over cases.

    Attributes:
        difference: its median with a distribution-free interval.
        p_value: of the two-sided Wilcoxon signed-rank test of a median of zero; 1 when no case differs.
        cases: their number.
        larger: in how many of them the first is larger.
    """

    difference: Interval
    p_value: float
    cases: int
    larger: int


def paired(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Paired:
    """Compare two measurements of the same cases (Wilcoxon 1945; Pratt's treatment of ties at zero).

    Args:
        first, second: (n,), case by case.
        level: confidence level of the interval.

    Raises:
        ValueError: different lengths or values that are not finite.

    Example:
        >>> first = np.arange(20.0)
        >>> paired(first, first - 1).difference.estimate
        1.0
    """
    a, b = finite("first", first), finite("second", second)
    same_length(a, b, "first and second")
    difference = a - b
    return Paired(
        median_interval(difference, level=level), _wilcoxon(difference), len(difference), int((difference > 0).sum())
    )


def _wilcoxon(difference: Floats) -> float:
    if not difference.any():
        return 1.0
    # The exact null law holds without ties and zeros only.
    distinct = len(np.unique(np.abs(difference))) == len(difference) and bool((difference != 0).all())
    method = "exact" if distinct and len(difference) <= 50 else "approx"
    return float(stats.wilcoxon(difference, zero_method="pratt", method=method).pvalue)


def holm(p_values: ArrayLike) -> Floats:
    """p-values adjusted for their number (Holm 1979): reject those ≤ α and at most a share α of families err.

    Args:
        p_values: (n,) in [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    p = finite("p_values", p_values)
    if ((p < 0) | (p > 1)).any():
        raise ValueError("p_values must lie between 0 and 1.")
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def family_intervals(
    estimates: ArrayLike, errors: ArrayLike, freedom: ArrayLike, null: float, *, tail: float = 0.05
) -> list[Interval]:
    """One-sided bounds of a family of means, at the levels at which Holm's procedure tests them.

    Each end stands beyond `null` exactly where Holm's step-down procedure of one-sided t-tests, lower ends against
    "at most null" and upper ends against "at least null", rejects: at most a share `tail` of families has a lower end
    wrongly above, and at most as many an upper end wrongly below.

    Args:
        estimates, errors: (m,) means and their standard errors, positive.
        freedom: (m,) degrees of freedom, or one for all.
        null: what all are tested against.
        tail: level of the family on each side.

    Raises:
        ValueError: different lengths, values that are not finite, or errors that are not positive.

    Example:
        >>> low = [each.low for each in family_intervals([3.0, 1.0], [1.0, 1.0], 20, 0.0)]
        >>> low[0] > 0, low[1] > 0
        (True, False)
    """
    means, scale = finite("estimates", estimates), finite("errors", errors)
    same_length(means, scale, "estimates and errors")
    if (scale <= 0).any() or not 0 < tail < 0.5:
        raise ValueError(f"errors must be positive and tail={tail} between 0 and .5.")
    dof = np.broadcast_to(np.asarray(freedom, dtype=np.float64), means.shape)
    lows = means - _steps(stats.t.sf((means - null) / scale, dof), dof, tail) * scale
    highs = means + _steps(stats.t.cdf((means - null) / scale, dof), dof, tail) * scale
    return [Interval(*map(float, each)) for each in zip(means, lows, highs, scale, strict=True)]


def _steps(p_values: Floats, freedom: Floats, tail: float) -> Floats:
    """t quantiles at the level at which Holm's procedure meets each test; after the first that stands, its level."""
    order, count = np.argsort(p_values), len(p_values)
    levels = np.empty(count)
    level = tail / count
    for rank, index in enumerate(order):
        level = tail / (count - rank)
        if p_values[index] > level:
            levels[order[rank:]] = level
            break
        levels[index] = level
    return np.asarray(stats.t.isf(levels, freedom))
