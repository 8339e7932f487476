"""Benchmarks: every module in this folder is one, found by itself; the study `cost` runs them.

A benchmark module defines

- `QUESTION`: one sentence;
- `SIZES`: problem sizes by level, `{"smoke": [{...}], "quick": [...], "full": [...]}`, each a dictionary of JSON-able
  parameters (levels may be left out: the benchmark then does not run at them);
- `prepare(parameters, device, seed) -> Setup`: the alternatives, ready to be called;
- `EXPECTED`: bounds on ratios of time that the study claims, a tuple of `Bound`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from studies.timing import Counter

__all__ = ["Benchmark", "Bound", "Setup", "load", "names"]


@dataclass(frozen=True)
class Setup:
    """Alternatives to be timed against each other.

    Args:
        alternatives: two or more functions without arguments; the first is the baseline.
        counter: wraps the network that they all call, if there is one.
        bytes_per_call: parameters, inputs and outputs of one network call.
    """

    alternatives: Mapping[str, Callable[[], object]]
    counter: Counter | None = None
    bytes_per_call: int = 0


@dataclass(frozen=True)
class Bound:
    """`alternative` takes at most `ratio` times as long as `against`.

    Args:
        source: where the bound comes from.
    """

    alternative: str
    against: str
    ratio: float
    source: str


class Benchmark(Protocol):
    """The attributes of a benchmark module."""

    QUESTION: str
    SIZES: dict[str, list[dict[str, Any]]]
    EXPECTED: tuple[Bound, ...]

    def prepare(self, parameters: Mapping[str, Any], device: str, seed: int) -> Setup: ...


def names() -> list[str]:
    """Names of all benchmarks.

    Example:
        >>> "sampling" in names()
        True
    """
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in names():
        raise ValueError(f"there is no benchmark {name!r}; choose one of {', '.join(names())}.")
    return cast(Benchmark, importlib.import_module(f"studies.benchmarks.{name}"))
