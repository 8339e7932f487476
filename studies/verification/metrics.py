"""Metrics as plain functions of estimates (R, n, ...) from R repeats, truth (n, ...) and limits (n,).

Row errors are norms over the row; the *scaled* error of a row is its error over its limit, so 1 is just allowed.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

__all__ = [
    "ONE_IN_A_MILLION",
    "coverage",
    "errors",
    "mean_shift",
    "noise",
    "scale",
    "scaled_bias",
]

# A stochastic check of a problem rejects a right estimator with normal noise this rarely, whether or not rows share
# their noise: whole suites must hold on 300 seeds.
ONE_IN_A_MILLION = 1e-6


def errors(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Error of each row and repeat: `|v − t|` (R, n).

    Example:
        >>> errors(np.array([[3.0, 0.0]]), np.array([1.0, 0.0]))
        array([[2., 0.]])
    """
    return _norm(values - truth[None])


def _norm(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(*values.shape[:2], -1)
    size = _size(flat, -1)
    with np.errstate(invalid="ignore"):  # an infinite error is none, and the values are judged not finite
        return np.linalg.norm(flat / size, axis=-1) * size[..., 0]


def _size(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Largest magnitude along axes that are kept, 1 for zero: ratios of densities reach 1e200, and squares overflow."""
    size = np.abs(values).max(axis=axis, keepdims=True)
    return np.where(size > 0, size, 1.0)


def deviation(values: np.ndarray) -> np.ndarray:
    """Standard deviation of each row over the repeats: root of the summed variances of its entries (n,)."""
    flat = values.reshape(*values.shape[:2], -1)
    size = _size(flat, (0, 2))
    return np.sqrt((flat / size).var(axis=0, ddof=1).sum(axis=-1)) * size[0, :, 0]


def bias(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Norm of each row's mean error over the repeats (n,); contains the noise of R repeats."""
    return _norm((values.mean(axis=0) - truth)[None])[0]


def threshold(repeats: int, rows: int = 1) -> float:
    """Student's t, two-sided, for the mean of that many repeats: one in a million for the largest of `rows`."""
    return float(stats.t.isf(ONE_IN_A_MILLION / (2 * rows), repeats - 1))


def scaled_bias(values: np.ndarray, truth: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Mean error of each row beyond what noise explains (in all rows together), over its limit (n,)."""
    noise = deviation(values) / np.sqrt(len(values))
    return np.maximum(bias(values, truth) - threshold(len(values), len(truth)) * noise, 0.0) / limit


def mean_shift(values: np.ndarray, truth: np.ndarray, limit: np.ndarray) -> float:
    """Signed scaled error, averaged over rows and repeats, less what noise explains; |shift| ≤ 1 is allowed.

    Averaging over rows first shows a common bias that no single row could; the noise is that of the R row averages, so
    rows may share their randomness. Vector rows count by their component along the truth.
    """
    difference = (values - truth[None]).reshape(*values.shape[:2], -1)
    unit = truth.reshape(len(truth), -1) / np.maximum(_norm(truth[None])[0], np.finfo(float).tiny)[:, None]
    signed = difference[..., 0] if truth.ndim == 1 else (difference * unit[None]).sum(axis=-1)
    averages = (signed / limit[None]).mean(axis=1)
    noise = threshold(len(averages)) * averages.std(ddof=1) / np.sqrt(len(averages))
    return float(np.sign(averages.mean()) * max(abs(averages.mean()) - noise, 0.0))


def noise(values: np.ndarray, truth: np.ndarray, absolute: bool) -> float:
    """Median over rows of the standard deviation, relative to the row's truth unless absolute."""
    spread = deviation(values)
    return float(np.median(spread if absolute else spread / np.maximum(_norm(truth[None])[0], np.finfo(float).tiny)))


def coverage(values: np.ndarray, bars: np.ndarray, truth: np.ndarray, allowed: np.ndarray) -> float:
    """Share of entries with `|v − t| ≤ 1.96 se` plus the row's limit on systematic error; .95 is nominal."""
    extra = (1,) * (values.ndim - 2)
    room = allowed.reshape(1, -1, *extra)
    if bars.ndim == values.ndim:
        inside = np.abs(values - truth[None]) <= 1.96 * bars + room
    else:
        inside = errors(values, truth) <= 1.96 * bars + allowed[None]
    return float(inside.mean())


def scale(values: np.ndarray, truth: np.ndarray) -> float:
    """Median over rows of `v·t/t·t` of the mean estimate: 2 where everything is twice the truth, −1 for a sign."""
    flat = truth.reshape(len(truth), -1)
    largest = _size(flat, 1)
    mean, flat = values.mean(axis=0).reshape(len(truth), -1) / largest, flat / largest
    size = (flat**2).sum(axis=1)
    known = size > 0
    return float(np.median((mean * flat).sum(axis=1)[known] / size[known])) if known.any() else float("nan")
