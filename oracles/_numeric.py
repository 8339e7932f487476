"""The border between array libraries and the truths computed in NumPy float64, all that SciPy's solvers know."""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles import _arrays
from oracles._protocols import Convertible


def numpy_law(law: Any) -> Any:
    """A law that can be had in NumPy float64, in NumPy float64; other laws unchanged."""
    return law.numpy() if isinstance(law, Convertible) else law


def numpy_states(latents: Any) -> np.ndarray:
    """Finite states as NumPy float64; numbers and sequences are welcome."""
    known = _arrays.concrete(latents, "latents") if _arrays.is_array(latents) else latents
    states = np.asarray(known, dtype=np.float64)
    if not np.all(np.isfinite(states)):
        raise ValueError("latents must be finite: an infinite or NaN state has no path")
    return states


def restored(result: np.ndarray, latents: Any) -> Any:
    """The result in the library, dtype and device of the latents."""
    return (
        result
        if isinstance(latents, np.ndarray) or not _arrays.is_array(latents)
        else _arrays.from_numpy(result, latents)
    )


def check_levels(sigma_max: float, sigma_min: float) -> None:
    """Raise unless 0 < sigma_min < sigma_max < inf."""
    if not (np.isfinite(sigma_max) and 0 < sigma_min < sigma_max):
        raise ValueError(
            f"sigma_max = {sigma_max!r} and sigma_min = {sigma_min!r} must satisfy 0 < sigma_min < sigma_max < inf: "
            "the flow runs from the noise down to the data and needs a positive last level"
        )
