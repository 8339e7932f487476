"""Orders of convergence: slopes on logarithmic axes.

An error `e(h) = C h^p` is a line of slope p in `(log h, log e)`. Below some size another error takes over (rounding,
the solver's tolerance); the **floor rule** leaves out every point with `e < margin · floor`, where `floor` is the size
of that other error as the caller knows it and `margin` is 10 unless said otherwise, so that what is left is moved by
at most one part in ten. Nothing is left out when no floor is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from studies.statistics._checks import Floats, check_level, finite, same_length
from studies.statistics.intervals import Interval

__all__ = ["Slope", "fit_slope", "local_slopes", "slope_of_medians"]

MARGIN = 10.0
FEWEST = 3  # points of a fit: two give no standard error


@dataclass(frozen=True)
class Slope:
    """A line `log e = intercept + slope · log h` fitted by least squares.

    Attributes:
        slope: the order p.
        standard_error: of the slope, from the residuals with `count − 2` degrees of freedom.
        intercept: `log C`.
        used: which points were above the floor.
    """

    slope: float
    standard_error: float
    intercept: float
    used: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """Number of points fitted."""
        return int(self.used.sum())

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student-t interval of the slope at a confidence level."""
        half = stats.t.ppf((1 + check_level(level)) / 2, self.count - 2) * self.standard_error
        return self.slope - half, self.slope + half

    def __str__(self) -> str:
        return f"{self.slope:.3f} ± {self.standard_error:.3f}"


def fit_slope(h: ArrayLike, error: ArrayLike, *, floor: ArrayLike = 0.0, margin: float = MARGIN) -> Slope:
    """Fit the order p of `error ≈ C h^p`.

    Args:
        h: step sizes, perturbation sizes or resolutions (n,), positive.
        error: positive errors (n,), one per h (a zero error lies below every floor and is left out).
        floor: size of other errors, a number or one per h (n,), what lies below `margin` times it is left out.
        margin: how many floors an error must exceed.

    Raises:
        ValueError: not positive, not finite, of different length, fewer than three points above the floor, or all at
            one h.

    Example:
        >>> h = np.array([1e-1, 1e-2, 1e-3, 1e-4])
        >>> fit_slope(h, 2 * h**2 + 1e-9, floor=1e-9).used.tolist()
        [True, True, True, True]
        >>> fit_slope(h, 2 * h**2 + 1e-8, floor=1e-8).used.tolist()
        [True, True, True, False]
    """
    x, y = finite("h", h), finite("error", error)
    same_length(x, y, "h and error")
    if (x <= 0).any() or (y < 0).any():
        raise ValueError("h must be positive and error not negative: both are drawn on logarithmic axes.")
    used = _above_floor(y, floor, margin)
    if used.sum() < FEWEST or np.ptp(x[used]) == 0:
        raise ValueError(
            f"{int(used.sum())} of {len(y)} errors exceed {margin:g} times the floor, and a slope needs {FEWEST} "
            "at different h; use larger h or lower the floor by tighter tolerances."
        )
    line = stats.linregress(np.log(x[used]), np.log(y[used]))
    return Slope(float(line.slope), float(line.stderr), float(line.intercept), used)


def _above_floor(error: Floats, floor: ArrayLike, margin: float) -> NDArray[np.bool_]:
    limits = np.broadcast_to(np.asarray(floor, dtype=np.float64), error.shape)
    if margin < 1 or not np.isfinite(limits).all() or (limits < 0).any():
        raise ValueError(f"floor must be finite and not negative and margin={margin} at least 1.")
    return np.asarray((error > 0) & (error >= margin * limits))


def local_slopes(h: ArrayLike, error: ArrayLike) -> Floats:
    """Slopes between neighbouring points, `log(e_{i+1}/e_i) / log(h_{i+1}/h_i)`, of shape (n − 1,).

    Example:
        >>> local_slopes([0.4, 0.2, 0.1], [16.0, 4.0, 1.0]).round(12).tolist()
        [2.0, 2.0]
    """
    x, y = finite("h", h, minimum=2), finite("error", error, minimum=2)
    same_length(x, y, "h and error")
    if (x <= 0).any() or (y <= 0).any() or (np.diff(x) == 0).any():
        raise ValueError("h and error must be positive and neighbouring h different: slopes are between logarithms.")
    return np.diff(np.log(y)) / np.diff(np.log(x))


def slope_of_medians(
    h: ArrayLike,
    errors: ArrayLike,
    *,
    floor: ArrayLike = 0.0,
    margin: float = MARGIN,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Order of the median error over samples, with a bootstrap interval.

    One sample's errors at all h belong together, so samples (columns) are drawn with replacement as a whole; the line
    is fitted to the medians of each draw, at the points that the floor rule keeps for the medians of all samples.

    Args:
        h: (n,).
        errors: (n, samples).
        floor, margin: the floor rule, for the medians.
        level: of the percentile interval.
        resamples: number of draws.
        seed: of the draws.

    Raises:
        ValueError: as `fit_slope`, or fewer than two samples.

    Example:
        >>> h = np.array([1e-1, 1e-2, 1e-3])
        >>> rates = np.linspace(1, 2, 50)
        >>> round(slope_of_medians(h, h[:, None] * rates).estimate, 9)
        1.0
    """
    values = finite("errors", errors, dimensions=2, minimum=2)
    x = finite("h", h)
    fitted = fit_slope(x, np.median(values, axis=1), floor=floor, margin=margin)
    rng = np.random.default_rng(seed)
    draws = rng.integers(values.shape[1], size=(resamples, values.shape[1]))
    medians = np.stack([np.median(row[draws], axis=1) for row in values[fitted.used]])
    u = np.log(x[fitted.used])
    # The slope of least squares is linear in the logarithms: the lines of all draws are one product.
    weights = (u - u.mean()) / ((u - u.mean()) ** 2).sum()
    slopes = weights @ np.log(np.maximum(medians, np.finfo(np.float64).tiny))
    low, high = np.quantile(slopes, [(1 - check_level(level)) / 2, (1 + level) / 2])
    return Interval(fitted.slope, float(low), float(high), float(slopes.std(ddof=1)))
