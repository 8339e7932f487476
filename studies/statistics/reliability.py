"""How well a noisy truth can be predicted at all.

A change measured by retraining is signal plus noise of the seed. With reliability ρ (the correlation of two
independent replicates), the mean of k replicates has the reliability `ρ_k = kρ / (1 + (k−1)ρ)` (Spearman 1910, Brown
1910), and no prediction made without knowledge of that noise can correlate with that mean by more than `√ρ_k`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from studies.statistics._checks import Floats, check_level, finite
from studies.statistics.intervals import Interval

__all__ = ["Ceiling", "ceiling", "correlations", "spearman_brown"]


def spearman_brown(reliability: ArrayLike, factor: float) -> Floats:
    """Reliability of a mean of `factor` replicates, `kρ / (1 + (k−1)ρ)`.

    Args:
        reliability: ρ of one replicate, in (−1/(k−1), 1].
        factor: k > 0; below one it shortens.

    Raises:
        ValueError: k not positive, or ρ outside its range.

    Example:
        >>> float(spearman_brown(0.5, 3))
        0.75
    """
    rho = np.asarray(reliability, dtype=np.float64)
    if not factor > 0:
        raise ValueError(f"factor={factor} is not positive; give the number of replicates that are averaged.")
    if (rho > 1).any() or (1 + (factor - 1) * rho <= 0).any():
        raise ValueError(f"reliability={reliability!r} is no correlation that {factor:g} replicates can share.")
    return factor * rho / (1 + (factor - 1) * rho)


@dataclass(frozen=True)
class Ceiling:
    """Greatest attainable correlation with the mean of some replicates.

    Attributes:
        reliability: mean correlation of two replicates, ρ.
        mean_reliability: of the mean of all replicates, ρ_k.
        correlation: `√ρ_k` with a bootstrap interval over items; 0 where the reliability is not positive.
    """

    reliability: float
    mean_reliability: float
    correlation: Interval


def ceiling(replicates: ArrayLike, *, level: float = 0.95, resamples: int = 500, seed: int = 0) -> Ceiling:
    """Correlation ceiling of a quantity measured several times.

    Args:
        replicates: (k, n), k ≥ 2 independent measurements of n ≥ 3 items (pixels, samples, training points).
        level: confidence level of the interval.
        resamples: draws of items with replacement.
        seed: of the draws.

    Raises:
        ValueError: fewer than two replicates or three items, or values that are not finite.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> signal = rng.normal(size=4000)
        >>> top = ceiling(signal + rng.normal(size=(2, 4000)))
        >>> round(top.reliability, 1), round(top.correlation.estimate, 1)
        (0.5, 0.8)
    """
    data = finite("replicates", replicates, dimensions=2, minimum=3)
    if len(data) < 2:
        raise ValueError("replicates holds one measurement; two or more are needed to know their noise.")
    rng = np.random.default_rng(seed)
    rho = _mean_correlation(data)
    draws = [_mean_correlation(data[:, rng.integers(data.shape[1], size=data.shape[1])]) for _ in range(resamples)]
    attainable = np.array([_attainable(each, len(data)) for each in draws])
    low, high = np.quantile(attainable, [(1 - check_level(level)) / 2, (1 + level) / 2])
    estimate = _attainable(rho, len(data))
    return Ceiling(rho, estimate**2, Interval(estimate, float(low), float(high), float(attainable.std(ddof=1))))


def _mean_correlation(data: Floats) -> float:
    pairs = [correlations(data[i], data[j]) for i, j in itertools.combinations(range(len(data)), 2)]
    return float(np.mean(np.nan_to_num(pairs)))  # a constant replicate tells nothing


def _attainable(reliability: float, count: int) -> float:
    return float(np.sqrt(spearman_brown(reliability, count))) if reliability > 0 else 0.0


def correlations(first: ArrayLike, second: ArrayLike) -> Floats:
    """Pearson correlations along the last axis; NaN where one of the two is constant.

    Args:
        first, second: (..., n).

    Example:
        >>> correlations([[1.0, 2.0, 3.0], [1.0, 2.0, 4.0]], [[2.0, 4.0, 6.0], [1.0, 0.0, -2.0]]).round(3).tolist()
        [1.0, -1.0]
    """
    a = np.asarray(first, dtype=np.float64)
    b = np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim < 1 or a.shape[-1] < 2:
        raise ValueError(
            f"first and second have shapes {a.shape} and {b.shape}; give equal ones with two items or more."
        )
    varies = np.asarray((np.ptp(a, axis=-1) > 0) & (np.ptp(b, axis=-1) > 0))
    a = a - a.mean(-1, keepdims=True)
    b = b - b.mean(-1, keepdims=True)
    size = np.asarray(np.sqrt((a**2).sum(-1) * (b**2).sum(-1)))
    return np.divide((a * b).sum(-1), size, out=np.full(size.shape, np.nan), where=varies & (size > 0))
