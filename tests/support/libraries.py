"""The array libraries that the oracles are tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import jax.numpy as jnp
import numpy as np
import torch

LIBRARIES: dict[str, Any] = {"numpy": np, "torch": torch, "jax": jnp, "strict": array_api_strict}


def converter(library: str, dtype: str = "float64") -> Callable[[Any], Any]:
    """A function that makes arrays of the library and dtype from NumPy arrays."""
    xp = LIBRARIES[library]
    return lambda values: xp.asarray(np.array(values, dtype=dtype), dtype=getattr(xp, dtype))


def kind(array: Any) -> tuple[str, str]:
    """The library and the dtype of an array, as words."""
    return type(array).__module__.split(".")[0], str(array.dtype).rsplit(".", 1)[-1]
