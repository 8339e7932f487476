"""Estimates with intervals: bootstrap, order statistics, shares and coverage."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from studies.statistics._checks import check_level, finite, same_length

__all__ = ["Coverage", "Interval", "bootstrap", "coverage", "median_interval", "quantile_interval", "share_interval"]


@dataclass(frozen=True)
class Interval:
    """An estimate with an interval and, where there is one, a standard error (NaN where there is none)."""

    estimate: float
    low: float
    high: float
    standard_error: float = float("nan")

    @property
    def bounds(self) -> tuple[float, float]:
        """(low, high), as a claim takes it."""
        return self.low, self.high

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def bootstrap(
    values: ArrayLike,
    statistic: Callable[..., Any] = np.mean,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    method: str = "BCa",
) -> Interval:
    """Bootstrap interval of a statistic of independent values (Efron 1987), by SciPy.

    Args:
        values: (n,).
        statistic: a function with an `axis` argument, such as `np.mean`.
        level: confidence level.
        resamples: number of draws with replacement.
        seed: of the draws.
        method: "BCa", "percentile" or "basic". Medians are better served by `median_interval`.

    Returns:
        The interval; its ends are NaN for a single value and equal the estimate when all values are equal.

    Raises:
        ValueError: values that are not finite, or no values.

    Example:
        >>> values = np.random.default_rng(0).normal(3, 1, 200)
        >>> interval = bootstrap(values)
        >>> interval.low < 3 < interval.high
        True
    """
    data = finite("values", values)
    check_level(level)
    estimate = float(statistic(data, axis=0))
    if len(data) == 1:
        return Interval(estimate, float("nan"), float("nan"))
    if np.ptp(data) == 0:
        return Interval(estimate, estimate, estimate, 0.0)
    interval = _scipy_bootstrap(data, statistic, level, resamples, seed, method)
    if not np.isfinite(interval.confidence_interval).all():  # BCa has no answer when all draws agree
        interval = _scipy_bootstrap(data, statistic, level, resamples, seed, "percentile")
    low, high = interval.confidence_interval
    return Interval(estimate, float(low), float(high), float(interval.standard_error))


def _scipy_bootstrap(
    data: np.ndarray, statistic: Callable[..., Any], level: float, resamples: int, seed: int, method: str
) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        return stats.bootstrap(
            (data,),
            statistic,
            confidence_level=level,
            n_resamples=resamples,
            method=method,
            vectorized=True,
            rng=np.random.default_rng(seed),
        )


def quantile_interval(values: ArrayLike, quantile: float, *, level: float = 0.95) -> Interval:
    """Distribution-free interval of a quantile from order statistics.

    The number of values below the q-quantile is binomial(n, q), so `[x_(a), x_(b)]` covers it with at least the given
    probability for any continuous law (Conover 1999, section 3.2). An end is infinite when n is too small for it.

    Args:
        values: (n,) independent.
        quantile: q in (0, 1).
        level: confidence level, half of the rest on each side.

    Raises:
        ValueError: q or level outside (0, 1), or values that are not finite.

    Example:
        >>> quantile_interval(np.arange(1.0, 101.0), 0.5).bounds
        (40.0, 61.0)
    """
    data = np.sort(finite("values", values))
    if not 0 < quantile < 1:
        raise ValueError(f"quantile={quantile} is not between 0 and 1; give 0.99, say.")
    tail, n = (1 - check_level(level)) / 2, len(data)
    # Largest a with P(count < a) <= tail, and smallest b with P(count >= b) <= tail (counting from one).
    a = int(stats.binom.ppf(tail, n, quantile))
    a = a if stats.binom.cdf(a - 1, n, quantile) <= tail else a - 1
    b = int(stats.binom.isf(tail, n, quantile)) + 1
    low = float(data[a - 1]) if a >= 1 else -np.inf
    high = float(data[b - 1]) if b <= n else np.inf
    return Interval(float(np.quantile(data, quantile)), low, high)


def median_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Median with its distribution-free interval, see `quantile_interval`.

    Example:
        >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]).bounds
        (2.0, 8.0)
    """
    return quantile_interval(values, 0.5, level=level)


def share_interval(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """A share with its Wilson interval (Wilson 1927).

    Raises:
        ValueError: no trials, or more successes than trials.

    Example:
        >>> print(share_interval(8, 10))
        0.8 [0.4902, 0.9433]
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials is no share; count again.")
    interval = stats.binomtest(int(successes), int(trials)).proportion_ci(check_level(level), method="wilson")
    return Interval(successes / trials, float(interval.low), float(interval.high))


@dataclass(frozen=True)
class Coverage:
    """How often the truth lay within `width` standard errors of the estimate, against the share a Gaussian gives."""

    share: Interval
    expected: float
    width: float

    @property
    def holds(self) -> bool:
        """Whether the expected share lies in the interval of the measured one."""
        return self.share.low <= self.expected <= self.share.high


def coverage(
    estimates: ArrayLike, standard_errors: ArrayLike, truths: ArrayLike, *, width: float = 2.0, level: float = 0.99
) -> Coverage:
    """Share of `|estimate − truth| ≤ width · standard error`, independent cases.

    Args:
        estimates, standard_errors, truths: (n,).
        width: k, in standard errors.
        level: confidence level of the share's interval.

    Raises:
        ValueError: different lengths, values that are not finite, or a negative standard error.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> coverage(rng.normal(size=500), np.ones(500), np.zeros(500)).holds
        True
    """
    x, s, t = finite("estimates", estimates), finite("standard_errors", standard_errors), finite("truths", truths)
    same_length(x, s, "estimates and standard_errors")
    same_length(x, t, "estimates and truths")
    if (s < 0).any():
        raise ValueError("standard_errors holds negative values; a standard error is a square root of a variance.")
    inside = int((np.abs(x - t) <= width * s).sum())
    return Coverage(share_interval(inside, len(x), level=level), float(2 * stats.norm.cdf(width) - 1), width)
