"""The array library that a problem is handed over in: NumPy, PyTorch or JAX; float64 on the CPU in all three."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.errors import StudyError
from studies.study import suggestion

__all__ = ["BACKENDS", "Backend", "backend", "to_numpy"]


@dataclass(frozen=True)
class Backend:
    """A library's name, and conversion to its arrays (back again: `to_numpy`)."""

    name: str
    array: Callable[[np.ndarray], Any]


def _numpy() -> Callable[[np.ndarray], Any]:
    return np.array  # a copy: what the estimator writes must not reach the next run


def _torch() -> Callable[[np.ndarray], Any]:
    import torch

    return torch.tensor


def _jax() -> Callable[[np.ndarray], Any]:
    try:
        import jax
    except ImportError as error:
        raise StudyError("backend 'jax' needs JAX, which is not installed; run `pip install jax`.") from error
    jax.config.update("jax_enable_x64", True)  # the truths are float64
    return jax.numpy.asarray


BACKENDS: dict[str, Callable[[], Callable[[np.ndarray], Any]]] = {"numpy": _numpy, "torch": _torch, "jax": _jax}


def backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        StudyError: unknown name, or the library is not installed.

    Example:
        >>> backend("numpy").array(np.ones(2))
        array([1., 1.])
    """
    if name not in BACKENDS:
        raise StudyError(f"there is no backend {name!r}; {suggestion(name, BACKENDS)}.")
    return Backend(name, BACKENDS[name]())


def to_numpy(value: Any) -> np.ndarray:
    """Any library's array, or nested sequence of numbers, as float64 NumPy.

    Raises:
        TypeError: `value` is not an array of real numbers; what its own conversion raises goes through.
    """
    if hasattr(value, "detach"):  # a tensor, known without importing torch
        value = value.detach().cpu().numpy()
    elif isinstance(value, list | tuple) and any(isinstance(item, list) or hasattr(item, "detach") for item in value):
        value = [to_numpy(item) for item in value]  # tensors that require grad hide from NumPy
    try:
        array = np.asarray(value)
    except ValueError as error:
        if not isinstance(value, list | tuple):
            raise  # by the value's own code
        raise TypeError("an array of numbers was expected, not rows of different lengths") from error
    if array.dtype.kind not in "fiub":
        kind = type(value).__name__ if array.dtype.kind in "OUSV" else f"one of {array.dtype}"
        raise TypeError(f"an array of real numbers was expected, not {kind}")
    return array.astype(np.float64)
