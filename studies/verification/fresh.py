"""How often a right estimator is rejected, counted on fresh seeds: `python -m studies.verification.fresh [TASK ...]`.

A seed draws fresh rows of a problem, and a verdict is about one seed's rows. As rows are independent, the rows of many
seeds go through the estimator in one call, are cut apart and judged seed by seed, exactly as `verify` judges them: 300
verdicts cost what a few do. (A stochastic estimator draws its noise for the block; its rows are as independent as they
are within one seed. Points whose influence is asked for are shared by the 25 seeds of a block.) Problems that are
judged as a sample are posed one seed at a time.

By design a stochastic check errs with probability one in a million per problem for normal noise, see
`studies.verification.metrics`; checks of deterministic estimates have no chance in them beyond that of the rows drawn.
The counts are written to `fresh.json` beside this module one by one; those it has are kept, so that a run that
was cut off goes on, and one without the file starts anew.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from studies.files import as_json, write
from studies.verification.backends import backend as load_backend
from studies.verification.judge import Verdict, judge
from studies.verification.replies import Estimator, Reply
from studies.verification.session import REPEATS, ROWWISE, coupled, repeated, with_coupling
from studies.verification.tasks import TASKS
from studies.verification.tasks import task as find_task
from studies.verification.tasks.base import Arrays, Case, Task
from studies.verification.truths import computed

__all__ = ["SEEDS", "TABLE", "count_alarms", "verdicts"]

TABLE = Path(__file__).with_name("fresh.json")
SEEDS = range(1, 301)
BLOCK_ROWS, BLOCK_OF_POINTS = 1600, 25
# A path costs hundreds of score calls, and 64 repeats as much: these are the problems whose verdicts fit a few minutes.
CHOSEN = {
    **dict.fromkeys(("hutchinson", "divergence[hutchinson]", "divergence[hutch++]"), ("plane-s0.1", "five-s0.3")),
    "corrected_exponential": ("plane-s0.1", "five-s0.2"),
    "flow_density": ("line-s0.05", "plane-s0.1", "five-s0.2"),
    "probed_density": (),  # a hundred repeats of a path: counted on twenty seeds by `studies.verification.power`
    "log_ratio": ("line-s0.2", "plane-s0.3"),
    "probed_ratio": (),
    "flow_sample": ("line-s0.05", "plane-s0.1", "gaussian-s0.1", "five-s0.1", "hundred-s0.3", "line-s0.3-law"),
    "ancestral": ("line-s0.3-law", "plane-s0.3-law", "five-s0.3-law"),
    "sensitivity": ("line-s0.05", "plane-s0.1", "five-s0.1"),
    "influence": ("plane-s0.3", "training-s0.3"),
    "conditioned_draws": ("gaussian-s0.1", "plane-s0.1"),
    "posterior_flow": ("gaussian-s0.1",),
}


def verdicts(
    estimator: Estimator, task: str, problem: str, seeds: Iterable[int] = SEEDS, *, backend: str = "torch"
) -> Iterator[tuple[int, Verdict]]:
    """The verdict of every seed, in order, as (seed, verdict).

    Args:
        estimator: as `studies.verify` takes it; its rows must be independent.
        task: one of `studies.verification.TASKS`.
        problem: a problem of the task.
        seeds: not 0, which is the published suite.
        backend: the array library.

    Raises:
        StudyError: unknown task, problem or backend.

    Example:
        >>> from studies.verification.faults import CORRECT
        >>> judged = verdicts(CORRECT["score"]["mixture_score"], "score", "line-s0.3", range(1, 4))
        >>> [(seed, verdict.holds) for seed, verdict in judged]
        [(1, True), (2, True), (3, True)]
    """
    chosen = find_task(task)
    case = chosen.case(problem)
    for block in blocks(case, list(seeds)):
        if case.judge != "rows":
            yield from _alone(estimator, chosen, case, block, backend)
        else:
            yield from _together(estimator, chosen, case, block, backend)


def blocks(case: Case, seeds: list[int]) -> Iterator[list[int]]:
    size = BLOCK_OF_POINTS if case.points else max(1, BLOCK_ROWS // case.count)
    return (seeds[start : start + size] for start in range(0, len(seeds), size))


def _alone(
    estimator: Estimator, task: Task, case: Case, seeds: list[int], backend: str
) -> Iterator[tuple[int, Verdict]]:
    for seed in seeds:
        inputs, truth = computed(task, case, seed)
        replies = repeated(estimator, task, case, inputs, truth, load_backend(backend), seed, REPEATS)
        yield seed, judge(task, case, truth, replies, 1.0)


def _together(
    estimator: Estimator, task: Task, case: Case, seeds: list[int], backend: str
) -> Iterator[tuple[int, Verdict]]:
    inputs, truth = posed(task.name, case.name, tuple(seeds))
    replies = repeated(estimator, task, case, inputs, truth, load_backend(backend), seeds[0], REPEATS)
    mixed = coupled(replies)
    for index, (seed, part) in enumerate(zip(seeds, np.split(truth, len(seeds)), strict=True)):
        rows = [cut(reply, slice(index * len(part), (index + 1) * len(part))) for reply in replies]
        verdict = judge(task, case, part, rows, 1.0)
        yield seed, with_coupling(verdict) if mixed else verdict


@lru_cache(maxsize=400)  # several estimators answer the same blocks
def posed(name: str, problem: str, seeds: tuple[int, ...]) -> tuple[Arrays, np.ndarray]:
    """The rows of all seeds, one after the other, and their truth."""
    task = find_task(name)
    case = task.case(problem)
    drawn = [task.draw(case, case.rng(name, seed)) for seed in seeds]
    rows = {key: np.concatenate([one[key] for one in drawn]) for key in drawn[0] if key in ROWWISE}
    inputs = drawn[0] | rows
    return inputs, task.truth(case, inputs)


def cut(reply: Reply, rows: slice) -> Reply:
    """The rows that belong to one seed."""
    value, bar = reply.value, reply.standard_error
    bar = bar if bar is None or bar.ndim == 0 else bar[rows]
    return replace(reply, value=None if value is None else value[rows], standard_error=bar)


def count_alarms(estimator: Estimator, task: str, problem: str, seeds: Iterable[int] = SEEDS) -> dict[str, Any]:
    """How many seeds reject, which, by which checks, and the largest error over its limit.

    Example:
        >>> from studies.verification.faults import CORRECT
        >>> count_alarms(CORRECT["score"]["mixture_score"], "score", "line-s0.3", range(1, 4))["rejected"]
        []
    """
    start, rejected, checks, largest, repeats, total = time.perf_counter(), [], set(), 0.0, 1, 0
    for seed, verdict in verdicts(estimator, task, problem, seeds):
        total, repeats = total + 1, max(repeats, len(verdict.replies))
        errors = [check.measured for check in verdict.checks if check.name in ("accuracy", "bias")]
        largest = max([largest, *errors])
        if not verdict.holds:
            rejected.append(seed)
            checks |= set(verdict.failed)
    return {
        "task": task,
        "estimator": estimator.__name__,
        "problem": problem,
        "seeds": total,
        "runs": repeats,
        "rejected": rejected,
        "checks": sorted(checks),
        "largest": largest,
        "seconds": round(time.perf_counter() - start, 1),
    }


def right(task: str) -> list[Estimator]:
    """Right estimators of a task: the planted faults' counterparts, and the engine's own where no path is walked."""
    from studies.verification.engine import ENGINE
    from studies.verification.faults import CORRECT

    paths = any(case.steps for case in TASKS[task].cases) and task != "score-derivative"
    return [*CORRECT[task].values(), *(() if paths else ENGINE.get(task, ()))]


def problems(task: str, estimator: Estimator) -> list[str]:
    """The quick suite but for image-sized problems, or what is chosen for the costly ones."""
    small = [case.name for case in TASKS[task].suite("quick") if "image-sized" not in case.tags]
    return list(CHOSEN.get(estimator.__name__, small))


def main(tasks: list[str], table: Path = TABLE) -> int:
    """Count for the named tasks (all by default) what the table does not have; returns how many rejections it holds."""
    for name in tasks or list(TASKS):
        for case in find_task(name).suite("quick"):
            for estimator in right(name):
                if case.name in problems(name, estimator) and (name, estimator.__name__, case.name) not in _known(
                    table
                ):
                    _add(table, count_alarms(estimator, name, case.name))
            posed.cache_clear()
    return sum(len(entry["rejected"]) for entry in _counts(table))


def _counts(table: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(table.read_text())["counts"] if table.exists() else []
    return rows


def _known(table: Path) -> set[tuple[str, str, str]]:
    return {(entry["task"], entry["estimator"], entry["problem"]) for entry in _counts(table)}


def _add(table: Path, entry: dict[str, Any]) -> None:
    print(json.dumps(entry), flush=True)
    written = {
        "date": datetime.now(UTC).date().isoformat(),
        "version": importlib.metadata.version("score-sensitivity"),
        "counts": [*_counts(table), entry],
    }
    write(table, as_json(written))


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
