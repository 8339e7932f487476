"""Input checks shared by the statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Floats", "check_level", "finite", "same_length"]

Floats = NDArray[np.float64]


def finite(name: str, values: ArrayLike, *, dimensions: int = 1, minimum: int = 1) -> Floats:
    """`values` as a float64 array.

    Raises:
        ValueError: wrong number of dimensions, too few values, or one that is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions:
        raise ValueError(f"{name} has shape {array.shape}; give an array of {dimensions} dimension(s).")
    if array.shape[-1] < minimum:
        raise ValueError(f"{name} has {array.shape[-1]} value(s), at least {minimum} are needed; add measurements.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values; leave them out and report how many there were.")
    return array


def same_length(first: Floats, second: Floats, names: str) -> None:
    """Refuse arrays of different length."""
    if first.shape[-1] != second.shape[-1]:
        raise ValueError(f"{names} have {first.shape[-1]} and {second.shape[-1]} values; they must match one to one.")


def check_level(level: float) -> float:
    """Refuse confidence levels outside (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level={level} is no probability between 0 and 1; give 0.95, say.")
    return level
