"""`verify`: an estimator held against every case of a task."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from studies.errors import StudyError
from studies.running import text
from studies.verification.backends import Backend
from studies.verification.backends import backend as load_backend
from studies.verification.bars import honesty
from studies.verification.judge import Check, Verdict, judge, reported
from studies.verification.problem import Problem
from studies.verification.replies import Estimator, Reply, call, pose
from studies.verification.report import Report
from studies.verification.tasks import task as find_task
from studies.verification.tasks.base import Arrays, Case, Task
from studies.verification.truths import prepared

__all__ = [
    "REPEATS",
    "ROWWISE",
    "Asking",
    "coupled",
    "decided",
    "reproduce",
    "verify",
    "wants_more",
    "with_coupling",
]

REPEATS = 16
CHEAP_CALLS, CHEAP_REPEATS = 20, 64  # few calls buy more repeats, and with them sharper verdicts on bias
# Repeats are doubled until error bars are told right or wrong, within these numbers of repeats, score calls and rows.
MOST_REPEATS, MOST_CALLS, MOST_ROWS = 1024, 40_000, 2_000_000
PROBE_ROWS = 4
ROWWISE = ("x", "vectors", "latents", "observations")


def verify(
    estimator: Estimator,
    task: str,
    *,
    suite: str = "quick",
    backend: str = "torch",
    seed: int = 0,
    repeats: int = REPEATS,
    problems: Iterable[str] | None = None,
    slack: float = 1.0,
    orders: bool = True,
    name: str = "",
    seedless: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Hold an estimator against the truth on every problem of a task.

    Args:
        estimator: `f(problem) -> value`, `(value, standard_error)` or an object that has both, such as the engine's
            `Estimate`; `NotImplemented` declines a problem. The fields of `problem` are those that the task lists
            (`print(problem)`), in arrays of `backend`; row i of the value belongs to row i of the input;
            `problem.seed` is to be the only source of randomness.
        task: one of `studies.verification.TASKS`.
        suite: `"quick"` or `"full"`.
        backend: `"torch"`, `"numpy"` or `"jax"`; float64, CPU.

    Other args:
        seed: 0 is the published suite; others draw fresh rows of the same laws, and other estimator seeds.
        repeats: runs with different seeds where the estimate turns out to be stochastic, at least 4; estimators of few
            score calls are run 64 times.
        problems: names of the cases to keep; all by default.
        slack: widens every limit by this factor.
        orders: also measure observed orders, where the task has some.
        name: what the report calls the estimator.
        seedless: the estimator is known to use no seed; it is asked with another one, and for fewer rows, on the first
            problem only. By default every problem is asked twice to tell.
        progress: called with each case's name before it runs.

    Returns:
        A `Report`: `.holds`, `.table()`, `.figures()`, `.save(folder)`, `.to_html()`.

    Raises:
        StudyError: unknown task, suite, backend or problem, fewer than four repeats, slack that is not positive, or a
            negative seed.

    Example:
        >>> import numpy as np
        >>> def gaussian_score(problem):  # right for one Gaussian only
        ...     centre = problem.law.weights @ problem.law.means
        ...     return -(problem.x - centre) / problem.sigma**2
        >>> verify(gaussian_score, "score", backend="numpy", problems=["line-s0.3"]).holds
        False
    """
    chosen = find_task(task)
    library = load_backend(backend)
    _check(estimator, repeats, slack, seed)
    start, verdicts = time.perf_counter(), list[Verdict]()
    for case in _selected(chosen, suite, problems):
        if progress is not None:
            progress(case.name)
        told = seedless and any(len(verdict.replies) == 1 for verdict in verdicts)
        verdicts.append(_examine(estimator, chosen, case, library, seed, repeats, slack, probe=not told))
    measured = _orders(estimator, chosen, library, seed, verdicts) if orders else []
    return Report(
        task=chosen,
        estimator=text.line(name or getattr(estimator, "__name__", type(estimator).__name__)),
        suite=suite,
        backend=backend,
        seed=seed,
        verdicts=tuple(verdicts),
        orders=tuple(measured),
        seconds=time.perf_counter() - start,
        slack=slack,
        chosen=None if problems is None else tuple(verdict.case.name for verdict in verdicts),
    )


def reproduce(task: str, problem: str, *, seed: int = 0, backend: str = "torch") -> tuple[Problem, np.ndarray]:
    """A problem as `verify` poses it, and its truth: for debugging one case by hand.

    Example:
        >>> problem, truth = reproduce("score", "line-s0.3", backend="numpy")
        >>> problem.x.shape == truth.shape
        True
    """
    chosen = find_task(task)
    case = chosen.case(problem).at(seed)
    inputs, truth = prepared(chosen, case, seed)
    return pose(chosen, case, inputs, load_backend(backend), _seed(case, seed, 0)), truth


def _check(estimator: Any, repeats: int, slack: float, seed: int) -> None:
    if not callable(estimator):
        raise StudyError(f"the estimator {estimator!r} cannot be called; give a function of one problem.")
    if repeats < 4:
        raise StudyError(f"repeats = {repeats} cannot tell bias from noise; give at least 4.")
    if seed < 0:
        raise StudyError(f"seed = {seed} must not be negative: 0 is the published suite, others draw fresh rows.")
    if not 0 < slack < math.inf:
        raise StudyError(f"slack = {slack} must be positive and finite: it multiplies every limit.")


def _selected(task: Task, suite: str, problems: Iterable[str] | None) -> list[Case]:
    cases = task.suite(suite)
    if problems is None:
        return cases
    return [task.case(name) for name in problems]


def _seed(case: Case, seed: int, repeat: int) -> int:
    entropy = [zlib.crc32(case.name.encode()), seed, repeat]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)


def _examine(
    estimator: Estimator,
    task: Task,
    case: Case,
    library: Backend,
    seed: int,
    repeats: int,
    slack: float,
    *,
    probe: bool,
) -> Verdict:
    if case.judge == "lds":
        return _attributed(estimator, task, case.at(seed), library, seed)
    inputs, truth = prepared(task, case, seed)
    replies = Asking(estimator, task, case, inputs, truth, library, seed).repeated(repeats, probe=probe)
    return with_coupling(judge(task, case, truth, replies, slack))


def _attributed(estimator: Estimator, task: Task, case: Case, library: Backend, seed: int) -> Verdict:
    """An attribution, asked of the published problem and, where that can be, of one that nobody has seen."""
    from studies.verification.attributions.judge import judge_attribution, posed

    replies = [
        call(estimator, task, each, {}, shape, library, _seed(case, seed, repeat))
        for repeat, (each, shape) in enumerate(posed(case))
    ]
    return judge_attribution(case, replies)


@dataclass(frozen=True)
class Asking:
    """A case that is posed to an estimator: what every repeat has in common.

    Attributes:
        estimator, task, case: who is asked what.
        inputs: the problem's arrays.
        truth: of their rows.
        library: of the arrays.
        seed: of the suite; a repeat has a seed of its own.
    """

    estimator: Estimator
    task: Task
    case: Case
    inputs: Arrays
    truth: np.ndarray
    library: Backend
    seed: int

    def reply(self, repeat: int) -> Reply:
        """The reply of one repeat, on as many rows as the truth has."""
        shape, seed = _shape(self.case, self.truth), _seed(self.case, self.seed, repeat)
        return call(self.estimator, self.task, self.case, self.inputs, shape, self.library, seed)

    def begun(self, repeats: int, *, probe: bool = True) -> list[Reply]:
        """The replies that every verdict begins with, before any are added because error bars are undecided."""
        first = self.reply(0)
        if not probe or first.error or not first.applicable or self.case.judge != "rows":
            return [first]
        few = {key: value[:PROBE_ROWS] if key in ROWWISE else value for key, value in self.inputs.items()}
        other = replace(self, inputs=few, truth=self.truth[:PROBE_ROWS]).reply(1)
        if other.error or _same(self.task, first, other, self.truth):
            return [first, other] if other.error else [first]
        times = max(repeats, CHEAP_REPEATS) if first.calls <= CHEAP_CALLS else repeats
        return [first, *(self.reply(repeat) for repeat in range(1, times))]

    def repeated(self, repeats: int, *, probe: bool = True) -> list[Reply]:
        """One reply of a deterministic estimator (or one that fails); of others as many as their cost allows.

        Which it is a second question tells, the `probe`: for fewer rows, with another seed.
        """
        replies = self.begun(repeats, probe=probe)
        while wants_more(replies):
            replies += [self.reply(repeat) for repeat in range(len(replies), 2 * len(replies))]
        return replies


def wants_more(replies: Sequence[Reply]) -> bool:
    """Whether the repeats are to be doubled: they do not decide on the error bars, and there is budget."""
    return len(replies) > 1 and not decided(replies) and 2 * len(replies) <= _most(replies[0])


def _shape(case: Case, truth: np.ndarray) -> tuple[int, ...]:
    """The shape of the value: that of the truth, or of the draws."""
    draws = {"law": (case.count, case.base.dimension), "posterior": (case.count, case.draws, case.base.dimension)}
    return draws.get(case.judge, truth.shape)


def decided(replies: Sequence[Reply]) -> bool:
    """Whether the repeats decide on the error bars, or there are none to decide on."""
    values = [reply.value for reply in replies if reply.value is not None]
    bars = reported(replies) if len(values) == len(replies) else None
    if bars is None or not np.all(np.isfinite(values)):
        return True
    honest = honesty(np.stack(values), bars)
    return honest is None or honest.is_decided


def _most(first: Reply) -> int:
    """The largest number of repeats: what is cheap in score calls and rows may be repeated more often."""
    calls, rows = MOST_CALLS // max(first.calls, 1), MOST_ROWS // max(first.rows, 1)
    return min(MOST_REPEATS, calls, rows)


def _same(task: Task, first: Reply, probe: Reply, truth: np.ndarray) -> bool:
    """Whether another seed, and fewer rows, gave the same values: then the estimate is deterministic."""
    if first.value is None or probe.value is None:
        return False
    few = len(probe.value)
    with np.errstate(invalid="ignore"):  # infinities are judged later
        gap = np.abs(first.value[:few] - probe.value).reshape(few, -1).max(axis=1)
    # Differences far below what is judged are rounding, which depends on the number of rows.
    size = 1e-3 * task.limit(truth[:few]) + 1e-9 * np.abs(first.value[:few]).reshape(few, -1).max(axis=1)
    return bool(np.all((gap <= size) | ~np.isfinite(gap)))


def coupled(replies: Sequence[Reply]) -> bool:
    """Whether repeats were made, because fewer rows gave other values, and yet all gave the same."""
    values = [reply.value for reply in replies if reply.value is not None]
    return 1 < len(values) == len(replies) and all(np.array_equal(values[0], value) for value in values[1:])


def with_coupling(verdict: Verdict) -> Verdict:
    """Adds a failed check where fewer rows gave other values although seeds do not matter: rows are coupled."""
    if not coupled(verdict.replies):
        return verdict
    sentence = "values change with the number of rows although no seed changes them: rows depend on each other."
    check = Check("rows", 1.0, 0.0, False, sentence)
    return Verdict(
        verdict.case, (*verdict.checks, check), verdict.replies, verdict.truth, verdict.scaled, verdict.measures
    )


def _orders(
    estimator: Estimator, task: Task, library: Backend, seed: int, verdicts: list[Verdict]
) -> list[dict[str, Any]]:
    from studies.verification.orders import observed

    return observed(estimator, task, library, seed, verdicts)
