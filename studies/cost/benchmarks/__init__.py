"""Benchmarks: every module in this folder is one, found by itself; the studies `cost` and `single_pass` run them.

A benchmark module defines

- `QUESTION`: one sentence;
- `SIZES`: problem sizes by level, `{"smoke": [{...}], "quick": [...], "full": [...]}`, each a dictionary of JSON-able
  parameters (levels may be left out: the benchmark then does not run at them);
- `prepare(parameters, device, seed) -> Setup`: the alternatives, ready to be called;
- `EXPECTED`: bounds on ratios of time that the study claims, a tuple of `Bound`;
- optionally `figures(table) -> {name: Figure}` from the benchmark's rows, in place of the common one.

Modules whose names begin with an underscore are shared by benchmarks. Those of `SINGLE_PASS` run in the study
`single_pass`, those of `LONG` in `single_pass_long`, the others in `cost`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from torch import Tensor

from studies.cost.timing import Counter

__all__ = ["ELSEWHERE", "LONG", "SINGLE_PASS", "Benchmark", "Bound", "Setup", "load", "names"]

SINGLE_PASS = ("fused", "equal_accuracy")
LONG = ("fused_long",)
ELSEWHERE = (*SINGLE_PASS, *LONG)  # what `cost` leaves to other studies


@dataclass(frozen=True)
class Setup:
    """Alternatives to be timed against each other.

    Attributes:
        alternatives: two or more functions without arguments; the first is the baseline, unless there are references.
        counter: wraps the network that they all call, if there is one.
        bytes_per_call: parameters, inputs and outputs of one network call.
        references: alternatives of which the fastest is the baseline.
        errors: relative errors of an alternative's result, (batch,), for those that have one to be held against.
    """

    alternatives: Mapping[str, Callable[[], object]]
    counter: Counter | None = None
    bytes_per_call: int = 0
    references: tuple[str, ...] = ()
    errors: Mapping[str, Callable[[], Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Bound:
    """`alternative` takes at most `ratio` times as long as `against`, or as the fastest of several.

    Attributes:
        source: where the bound comes from.
        error: the median relative error that `alternative` may have for the claim to hold; None asks for none.
        kind: the `kind` of the sizes that it is meant for; None for all.
        batch: likewise their `batch`.
    """

    alternative: str
    against: str | tuple[str, ...]
    ratio: float
    source: str
    error: float | None = None
    kind: str | None = None
    batch: int | None = None

    def meant_for(self, size: str) -> bool:
        """Whether it is claimed at a size, as the rows of the study write it: "kind=mlp, width=704, …"."""
        asked = {"kind": self.kind, "batch": self.batch}
        return all(value is None or f" {key}={value}," in f" {size}," for key, value in asked.items())

    def rivals(self) -> tuple[str, ...]:
        """`against` as a tuple."""
        return (self.against,) if isinstance(self.against, str) else self.against


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
        ValueError: there is no benchmark of that name.
    """
    if name not in names():
        raise ValueError(f"there is no benchmark {name!r}; choose one of {', '.join(names())}.")
    return cast(Benchmark, importlib.import_module(f"studies.cost.benchmarks.{name}"))
