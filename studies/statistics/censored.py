"""Scaling laws from onsets that may lie outside the range that was looked at.

`log y = a + b log x + s ε`, ε standard normal. Where y was not reached within the range, only a bound is known: leaving
such points out bends the slope, because they are left out for what they are. The likelihood has the density for what
was seen and the tail probability for what was not (Tobin 1958); the slope's interval is where the profile likelihood
ratio stays below the value that would make Student's interval of it if nothing were censored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from studies.statistics._checks import Floats, check_level, finite, same_length
from studies.statistics.intervals import Interval

__all__ = ["CensoredSlope", "censored_slope"]

FEWEST = 3  # values that were seen, at two x or more
SMALLEST = 1e-3  # of s, in e-folds: a perfect line has no likelihood
FARTHEST = 20.0  # the slope is searched within ± this


@dataclass(frozen=True)
class CensoredSlope:
    """A slope on logarithmic axes.

    Attributes:
        slope: b with its profile-likelihood interval.
        intercept: a.
        scatter: s, in e-folds.
        seen, censored: how many values were seen, and how many were not.
    """

    slope: Interval
    intercept: float
    scatter: float
    seen: int
    censored: int


def censored_slope(x: ArrayLike, y: ArrayLike, *, lowest: float, highest: float, level: float = 0.95) -> CensoredSlope:
    """Slope of log y on log x where y outside a range is censored.

    Args:
        x: (n,) positive.
        y: (n,) positive; `inf` or above `highest`: it lies above the range; NaN or below `lowest`: below it.
        lowest, highest: the range.
        level: confidence level.

    Raises:
        ValueError: x not positive, no range, or fewer than three values seen or all at one x.

    Example:
        >>> x = np.repeat([1.0, 10.0, 100.0, 1000.0], 3)
        >>> y = x**-0.5 * np.exp(0.1 * np.random.default_rng(0).normal(size=12))
        >>> fit = censored_slope(x, np.where(y < 0.05, np.nan, y), lowest=0.05, highest=10.0)
        >>> fit.censored, fit.slope.low < -0.5 < fit.slope.high
        (3, True)
    """
    sizes = finite("x", x)
    values = np.asarray(y, dtype=np.float64)
    same_length(sizes, values, "x and y")
    if not 0 < lowest < highest or (sizes <= 0).any():
        raise ValueError(f"lowest={lowest}, highest={highest} are no range of positive values, or x is not positive.")
    below = np.isnan(values) | (values < lowest)
    above = ~below & (values > highest)
    seen = ~below & ~above
    if seen.sum() < FEWEST or np.ptp(sizes[seen]) == 0:
        raise ValueError(f"{int(seen.sum())} values lie in the range; a slope needs {FEWEST} at different x.")
    u, ends = np.log(sizes), (np.log(lowest), np.log(highest))
    logs = np.where(below, ends[0], np.where(above, ends[1], np.log(np.where(seen, values, 1.0))))
    return _fitted(u - u.mean(), logs, below, above, level, float(u.mean()))


def _fitted(u: Floats, v: Floats, below: np.ndarray, above: np.ndarray, level: float, middle: float) -> CensoredSlope:
    seen = ~below & ~above
    start = stats.linregress(u, v)
    # Bounds stand where nothing was seen, so that this line is a place to start from and no estimate.
    scale = max(float(np.std(v - start.intercept - start.slope * u)), 10 * SMALLEST)

    def cost(intercept: float, slope: float, log_scale: float) -> float:
        z = (v - intercept - slope * u) / np.exp(log_scale)
        parts = np.where(seen, log_scale - stats.norm.logpdf(z), np.where(below, -stats.norm.logcdf(z), 0.0))
        return float((parts - np.where(above, stats.norm.logsf(z), 0.0)).sum())

    limits = (np.log(SMALLEST), np.log(scale) + 5)
    best = optimize.minimize(
        lambda p: cost(p[0], p[1], p[2]), [start.intercept, start.slope, np.log(scale)], method="L-BFGS-B",
        bounds=[(None, None), (-FARTHEST, FARTHEST), limits],
    )  # fmt: skip
    intercept, slope, log_scale = map(float, best.x)

    def profile(b: float) -> float:
        start = [intercept, log_scale]
        optimum = optimize.minimize(
            lambda p: cost(p[0], b, p[1]), start, method="L-BFGS-B", bounds=[(None, None), limits]
        )
        return float(optimum.fun - best.fun)

    freedom = max(int(seen.sum()) - 2, 1)
    quantile = float(stats.t.ppf((1 + check_level(level)) / 2, freedom))
    # Uncensored, the profile of n values rises by n/2 log(1 + t²/(n − 2)), t the slope's Student statistic.
    allowed = (freedom + 2) / 2 * float(np.log1p(quantile**2 / freedom))
    low, high = (_crossing(profile, slope, allowed, side) for side in (-1, 1))
    counts = int(seen.sum()), int((~seen).sum())
    return CensoredSlope(Interval(slope, low, high), intercept - slope * middle, float(np.exp(log_scale)), *counts)


def _crossing(profile: Callable[[float], float], start: float, allowed: float, side: int) -> float:
    """Where the profile reaches `allowed` on one side; infinite if it does not."""
    step = 0.05
    # The profile rises from 0 at the optimum, but how fast depends on the data: doubling finds the bracket that brentq
    # needs.
    while profile(start + side * step) < allowed:
        step *= 2
        if step > FARTHEST:
            return side * np.inf
    optimum = optimize.brentq(lambda b: profile(b) - allowed, start, start + side * step, xtol=1e-4)
    return float(optimum)
