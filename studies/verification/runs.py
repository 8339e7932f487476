"""One call of an estimator on one problem: value, standard error, cost, or the sentence that says why there is none."""

from __future__ import annotations

import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.verification.backends import Backend, to_numpy
from studies.verification.kit import Kit
from studies.verification.problem import BudgetError, Meter, Problem
from studies.verification.tasks.base import Arrays, Case, Task

__all__ = ["Estimator", "Run", "call", "pose"]

Estimator = Callable[[Problem], Any]


@dataclass(frozen=True)
class Run:
    """What came back.

    Args:
        value: the estimate, float64, or None.
        standard_error: of the value's shape, or (n,) for a whole row, or None.
        error: why there is no usable value, one sentence; empty if there is one.
        check: the check that `error` belongs to: `runs`, `shape` or `budget`.
        applicable: False where the estimator returned `NotImplemented`.
        calls: black-box calls.
        rows: rows evaluated in them.
        seconds: wall time.
        megabytes: growth of the process's peak memory.
        trace: traceback of an exception, for the saved report.
    """

    value: np.ndarray | None = None
    standard_error: np.ndarray | None = None
    error: str = ""
    check: str = ""
    applicable: bool = True
    calls: int = 0
    rows: int = 0
    seconds: float = 0.0
    megabytes: float = 0.0
    trace: str = ""


def pose(task: Task, case: Case, inputs: Arrays, backend: Backend, seed: int, meter: Meter | None = None) -> Problem:
    """The problem as the estimator sees it."""
    fields = task.fields(case, inputs, Kit(backend, meter or Meter(task.budget)))
    return Problem(case.name, task.name, {**fields, "seed": seed})


def call(
    estimator: Estimator, task: Task, case: Case, inputs: Arrays, shape: tuple[int, ...], backend: Backend, seed: int
) -> Run:
    """Run the estimator once on fresh arrays; whatever it raises becomes a sentence."""
    meter = Meter(task.budget)
    problem = pose(task, case, inputs, backend, seed, meter)
    before, start = _peak(), time.perf_counter()
    try:
        answer = estimator(problem)
    except BudgetError as error:
        return Run(error=str(error), check="budget", calls=meter.calls, rows=meter.rows)
    except Exception as error:
        sentence = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        return Run(error=sentence, check="runs", trace=traceback.format_exc(), calls=meter.calls, rows=meter.rows)
    cost = {
        "calls": meter.calls,
        "rows": meter.rows,
        "seconds": time.perf_counter() - start,
        "megabytes": _peak() - before,
    }
    return _read(answer, shape, cost)


def _read(answer: Any, shape: tuple[int, ...], cost: dict[str, Any]) -> Run:
    if answer is NotImplemented:
        return Run(applicable=False, **cost)
    value, spread = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, None)
    try:
        array = to_numpy(value)
        bars = None if spread is None else to_numpy(spread)
    except (TypeError, ValueError) as error:
        return Run(error=f"the value is not an array of numbers: {error}.", check="shape", **cost)
    if array.shape != shape:
        return Run(error=f"the value has shape {array.shape}, not {shape}.", check="shape", **cost)
    if bars is not None and bars.shape not in (shape, shape[:1], ()):
        return Run(error=f"the standard error has shape {bars.shape}, not {shape}.", check="shape", **cost)
    return Run(value=array, standard_error=bars, **cost)


def _peak() -> float:
    """Peak resident memory of this process in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
