"""One call of an estimator on one problem: value, standard error, cost, or the sentence that says why there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from studies.running import text
from studies.running.foreign import ForeignError, contained
from studies.running.memory import peak_since
from studies.verification.backends import Backend, to_numpy
from studies.verification.containment import undone
from studies.verification.kit import Kit
from studies.verification.problem import BudgetError, Meter, Problem
from studies.verification.tasks.base import Arrays, Case, Task

__all__ = ["Estimator", "Reply", "call", "pose"]

Estimator = Callable[[Problem], Any]


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        value: the estimate, float64, or None.
        standard_error: of the value's shape, or (n,) for a whole row, or None.
        error: why there is no usable value, one sentence; empty if there is one.
        check: the check that `error` belongs to: `runs`, `shape`, `budget` or `error bars`.
        applicable: False where the estimator returned `NotImplemented`.
        calls: black-box calls.
        rows: rows evaluated in them.
        seconds: wall time.
        megabytes: peak memory of the process during the call, over what it held before (Linux; elsewhere growth of the
            peak of the whole process).
        trace: traceback of an exception, for the saved report.
        beside: what the call did beside its answer, all of it undone: see `studies.verification.containment`.
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
    beside: tuple[str, ...] = ()


def pose(task: Task, case: Case, inputs: Arrays, backend: Backend, seed: int, meter: Meter | None = None) -> Problem:
    """The problem as the estimator sees it."""
    fields = task.fields(case, inputs, Kit(backend, meter or Meter(task.budget)))
    return Problem(case.name, task.name, {**fields, "seed": seed})


def call(
    estimator: Estimator, task: Task, case: Case, inputs: Arrays, shape: tuple[int, ...], backend: Backend, seed: int
) -> Reply:
    """Run the estimator once on fresh arrays; whatever it raises becomes a sentence."""
    meter = Meter(task.budget)
    problem = pose(task, case, inputs, backend, seed, meter)
    outcome, start, beside = Reply(), time.perf_counter(), list[str]()
    with peak_since() as peak:
        before = peak()
        try:
            with undone(problem) as beside, contained(BudgetError):  # reading the value may run the estimator's code
                outcome = _read(estimator(problem), shape)
        except BudgetError as error:
            outcome = Reply(error=text.line(error), check="budget")
        except ForeignError as error:
            outcome = Reply(error=error.line, check="runs", trace=error.trace)
        megabytes = (peak() - before) / 1e6
    spent = time.perf_counter() - start
    outcome = replace(outcome, calls=meter.calls, rows=meter.rows, seconds=spent, megabytes=megabytes)
    return replace(outcome, beside=tuple(beside))


def _of_estimate(answer: Any) -> tuple[Any, Any]:
    """Value and standard error of an object that has both, such as the engine's `Estimate`; else the value alone."""
    # An estimator's own class, which may answer for its attributes by code: it is asked, not compared with a type.
    if hasattr(answer, "value") and hasattr(answer, "standard_error"):
        return answer.value, answer.standard_error
    return answer, None


def _read(answer: Any, shape: tuple[int, ...]) -> Reply:
    if answer is NotImplemented:
        return Reply(applicable=False)
    if isinstance(answer, tuple) and len(answer) != 2:
        sentence = f"a tuple of {len(answer)} came back; return the value, or the pair (value, standard_error)."
        return Reply(error=sentence, check="shape")
    value, spread = answer if isinstance(answer, tuple) else _of_estimate(answer)
    try:
        array = to_numpy(value)
        bars = None if spread is None else to_numpy(spread)
    except TypeError as error:
        return Reply(error=f"the value is unusable: {text.line(error).rstrip('.')}.", check="shape")
    if array.shape != shape:
        return Reply(error=f"the value has shape {array.shape}, not {shape}.", check="shape")
    if bars is not None and bars.shape not in (shape, shape[:1], ()):
        return Reply(error=f"the standard error has shape {bars.shape}, not {shape}.", check="shape")
    if bars is not None and np.any(bars < 0):
        sentence = f"a standard error is negative ({bars.min():.3g}); return NaN where it is not known."
        return Reply(error=sentence, check="error bars")
    return Reply(value=array, standard_error=bars)
