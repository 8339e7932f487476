"""Are reported standard errors honest? An interval for (reported standard error)/(true standard deviation).

With R repeats of n rows let `u_ri = |v_ri − mean_i|² R/(R − 1) / rms_i²`, where `rms_i` is the root mean square of the
standard errors reported for row i over the repeats; the mean of all u is `1/ratio²`. Its relative variance is
`ω g/(n R)`: ω that of one u (2 for one normal number, measured, and never taken below 2) plus that of the reported
variances, and g = 1 for rows of independent noise up to g = n for rows that share it. g is measured as the variance of
the row averages over what independence would give, and widened, because it is itself measured from R repeats. A mean
of relative variance `2/f` is compared with χ² of f degrees of freedom, at one in a million for all looks together.

Rows are pooled to the extent that they are independent, so that 32 rows decide with as many repeats less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from studies.verification.metrics import ONE_IN_A_MILLION

__all__ = ["ALLOWED", "LOOKS", "TOLD", "Honesty", "honesty"]

ALLOWED = 1.2  # a standard error this factor off is honest: it is itself estimated from few probes
TOLD = 1.5  # the factor that is to be told from an honest one
LOOKS = 7  # how often repeats may be added before the last verdict


@dataclass(frozen=True)
class Honesty:
    """Reported over observed, and where the true ratio lies.

    Attributes:
        ratio: (reported standard error)/(observed standard deviation), pooled over rows; below 1: overconfident.
        low: lower end for the true ratio.
        high: upper end.
        freedom: degrees of freedom f of the comparison.
    """

    ratio: float
    low: float
    high: float
    freedom: float

    @property
    def holds(self) -> bool:
        """Whether the true ratio may lie within what is allowed."""
        return self.high >= 1 / ALLOWED and self.low <= ALLOWED

    @property
    def is_decided(self) -> bool:
        """Whether more repeats are needless: the ratio is wrong, or not so wrong as is to be told."""
        return not self.holds or (self.low > 1 / TOLD and self.high < TOLD)


def honesty(values: np.ndarray, bars: np.ndarray) -> Honesty | None:
    """The interval, or None where nothing varies or no error was reported.

    Args:
        values: estimates (R, n, ...) of R repeats.
        bars: their reported standard errors, of that shape or (R, n).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> ratio = honesty(rng.standard_normal((64, 32)), np.full((64, 32), 0.5))  # half of what they should be
        >>> round(ratio.ratio, 1), ratio.holds
        (0.5, False)
    """
    squares, reported = _squares(values), _reported(values, bars)
    known = (squares.max(axis=0) > 0) & (reported.mean(axis=0) > 0)
    if not known.any():
        return None
    mean = reported[:, known].mean(axis=0)
    u, b = squares[:, known] / mean, reported[:, known] / mean
    freedom = _freedom(u, b)
    ratio = float(1 / np.sqrt(u.mean()))
    tail = ONE_IN_A_MILLION / (2 * LOOKS)
    low, high = (float(ratio * np.sqrt(end / freedom)) for end in _ends(tail, freedom))
    return Honesty(ratio, low, high, freedom)


def _squares(values: np.ndarray) -> np.ndarray:
    """`|v_ri − mean_i|² R/(R − 1)` (R, n), each row in units of its largest value, lest squares overflow."""
    flat = values.reshape(*values.shape[:2], -1) / _unit(values)[:, None]
    repeats = len(flat)
    return ((flat - flat.mean(axis=0)) ** 2).sum(axis=-1) * repeats / (repeats - 1)


def _reported(values: np.ndarray, bars: np.ndarray) -> np.ndarray:
    """Squares of the reported standard errors (R, n), in the same units."""
    size = bars.reshape(*bars.shape[:2], -1) / _unit(values)[:, None]
    return (size**2).sum(axis=-1)


def _unit(values: np.ndarray) -> np.ndarray:
    largest = np.abs(values).reshape(*values.shape[:2], -1).max(axis=(0, 2))
    return np.where(largest > 0, largest, 1.0)


def _freedom(u: np.ndarray, b: np.ndarray) -> float:
    repeats, rows = u.shape
    spread = u / u.mean(axis=0)
    omega = max(2.0, float(spread.var(ddof=1))) + float(b.var())
    shared = rows * float(spread.mean(axis=1).var(ddof=1)) / omega
    # From R repeats a variance of row averages is known to a factor: four standard deviations of that of shared rows.
    # Rows that share their noise average to one χ²₁, whose fourth central moment is 15 squared variances: a variance
    # from R of them has the relative variance (15 − 1)/R.
    widened = shared * (1 + 4 * np.sqrt(14 / (repeats - 1)))
    return 2 * repeats * rows / (omega * float(np.clip(widened, 1.0, rows)))


def _ends(tail: float, freedom: float) -> tuple[float, float]:
    return float(stats.chi2.ppf(tail, freedom)), float(stats.chi2.isf(tail, freedom))
