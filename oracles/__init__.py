"""Ground truth for diffusion scores, densities and samples, and for their derivatives in the data measure.

Laws are written once against the array API standard: NumPy, PyTorch, JAX or array-api-strict arrays in, the same kind
out. Importing this package loads neither torch nor JAX; the larger truths are loaded when they are first named.

Lives here: exact laws (`mixture`, `empirical`, `lines`), paths of laws (`perturbation`, `parameters`, `edits`), flows
and transports, a network that is trained exactly, symbolic proofs and arbitrary precision. May touch: nothing of the
other two rooms, since a truth that shares code with what it judges is none.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from oracles.mixture import GaussianMixture
from oracles.perturbation import AdditivePerturbation

_MODULES = (
    "capabilities",
    "edits",
    "empirical",
    "features",
    "flow",
    "geometries",
    "information",
    "lines",
    "parameters",
    "perturbation",
    "reference",
    "symbolic",
    "transport",
)

__all__ = ["AdditivePerturbation", "GaussianMixture"]


def __getattr__(name: str) -> ModuleType:
    """Load a module of the package when it is first named."""
    if name in _MODULES:
        return importlib.import_module(f"oracles.{name}")
    raise AttributeError(f"module 'oracles' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
