"""How often a right estimator is rejected, counted on fresh seeds: `python -m studies.verification.fresh [TASK ...]`.

Options: `--problem NAME` counts one problem, also one of the full suite, with the task's first right estimator then;
`--seeds 301-600` other seeds than 1 to 300.

A seed draws fresh rows of a problem, and a verdict is about one seed's rows. As rows are independent, the rows of many
seeds go through the estimator in one call, are cut apart and judged seed by seed, exactly as `verify` judges them: 300
verdicts cost what a few do. (A stochastic estimator draws its noise for the block; its rows are as independent as they
are within one seed. Where error bars are undecided the repeats are doubled, as `verify` doubles them, for the rows of
the seeds that they are undecided for. Points whose influence is asked for are shared by the 25 seeds of a block.)
Problems that are judged as a sample are posed one seed at a time.

By design a stochastic check errs with probability one in a million per problem for normal noise, see
`studies.verification.metrics`; checks of deterministic estimates have no chance in them beyond that of the rows drawn.
The counts are written to `fresh.json` beside this module one by one; those it has are kept, so that a run that
was cut off goes on, and one without the file starts anew.
"""

from __future__ import annotations

import argparse
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
from studies.verification.session import (
    REPEATS,
    ROWWISE,
    Asking,
    coupled,
    wants_more,
    with_coupling,
)
from studies.verification.tasks import TASKS
from studies.verification.tasks import task as find_task
from studies.verification.tasks.base import Arrays, Case, Task
from studies.verification.truths import computed

__all__ = ["SEEDS", "TABLE", "count_alarms", "uncounted", "verdicts"]

TABLE = Path(__file__).with_name("fresh.json")
SEEDS = range(1, 301)
# Rows of a block: as many as share the cost of a call, and fewer where rows are long.
BLOCK_ROWS, MOST_BLOCK_ROWS, BLOCK_NUMBERS, BLOCK_OF_POINTS = 1600, 9600, 160_000, 25
# A path costs hundreds of score calls, and 64 repeats as much: these are the problems whose verdicts fit a few minutes.
PROBED = ("line-s0.3", "plane-s0.1", "plane-s3-tilted", "five-s0.3")
CHOSEN = {
    **dict.fromkeys(("hutchinson", "divergence[hutchinson]", "divergence[hutch++]"), PROBED),
    "corrected_exponential": ("line-s0.05", "line-s1", "plane-s0.1", "plane-s2", "gaussian-s0.2", "five-s0.2"),
    "sensitivity: score_derivative": ("line-s0.05", "line-s1", "plane-s0.1", "plane-s2", "gaussian-s0.2", "five-s0.2"),
    "flow_density": ("line-s0.05", "plane-s0.1", "plane-s0.5-tail", "gaussian-s0.2", "five-s0.2"),
    "probed_density": ("plane-s0.1",),
    "log_density": ("plane-s0.1",),
    "log_ratio": ("line-s0.2", "plane-s0.3", "gaussian-s0.2", "five-s0.2"),
    "probed_ratio": ("plane-s0.3",),
    "log_density_ratio": ("plane-s0.3",),
    "flow_sample": ("line-s0.05", "plane-s0.1", "gaussian-s0.1", "five-s0.1", "hundred-s0.3", "line-s0.3-law"),
    "ancestral": ("line-s0.3-law", "plane-s0.3-law", "five-s0.3-law"),
    "sample": ("line-s0.05", "plane-s0.1"),
    "sensitivity": ("line-s0.05", "plane-s0.1", "five-s0.1"),
    "sample_sensitivity": (),
    "influence": ("plane-s0.3", "training-s0.3"),
    "sensitivity: influence": (),
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
    rows = max(BLOCK_ROWS, min(MOST_BLOCK_ROWS, BLOCK_NUMBERS // case.dimension))
    size = BLOCK_OF_POINTS if case.points else max(1, rows // case.count)
    return (seeds[start : start + size] for start in range(0, len(seeds), size))


def _alone(
    estimator: Estimator, task: Task, case: Case, seeds: list[int], backend: str
) -> Iterator[tuple[int, Verdict]]:
    for seed in seeds:
        inputs, truth = computed(task, case, seed)
        replies = Asking(estimator, task, case, inputs, truth, load_backend(backend), seed).repeated(REPEATS)
        yield seed, judge(task, case, truth, replies, 1.0)


def _together(
    estimator: Estimator, task: Task, case: Case, seeds: list[int], backend: str
) -> Iterator[tuple[int, Verdict]]:
    inputs, truth = posed(task.name, case.name, tuple(seeds))
    together = Asking(estimator, task, case, inputs, truth, load_backend(backend), seeds[0])
    replies = together.begun(REPEATS)
    parts = np.split(truth, len(seeds))
    owned = [[part(reply, index, len(seeds)) for reply in replies] for index in range(len(seeds))]
    while undecided := [index for index, own in enumerate(owned) if wants_more(own)]:
        few = {
            key: _of_seeds(value, undecided, len(seeds)) if key in ROWWISE else value for key, value in inputs.items()
        }
        asking = replace(together, inputs=few, truth=np.concatenate([parts[index] for index in undecided]))
        known = len(owned[undecided[0]])
        for repeat in range(known, 2 * known):
            reply = asking.reply(repeat)
            for place, index in enumerate(undecided):
                owned[index].append(part(reply, place, len(undecided)))
    mixed = coupled(replies)
    for seed, rows, own in zip(seeds, parts, owned, strict=True):
        verdict = judge(task, case, rows, own, 1.0)
        yield seed, with_coupling(verdict) if mixed else verdict


def _of_seeds(value: np.ndarray, chosen: list[int], seeds: int) -> np.ndarray:
    """The rows of the chosen ones of so many seeds."""
    return np.concatenate([np.split(value, seeds)[index] for index in chosen])


@lru_cache(maxsize=400)  # several estimators answer the same blocks
def posed(name: str, problem: str, seeds: tuple[int, ...]) -> tuple[Arrays, np.ndarray]:
    """The rows of all seeds, one after the other, and their truth."""
    task = find_task(name)
    case = task.case(problem)
    drawn = [task.draw(case, case.rng(name, seed)) for seed in seeds]
    rows = {key: np.concatenate([one[key] for one in drawn]) for key in drawn[0] if key in ROWWISE}
    inputs = drawn[0] | rows
    return inputs, task.truth(case, inputs)


def part(reply: Reply, index: int, parts: int) -> Reply:
    """The rows, and the cost in rows, of one of the seeds that were asked together."""
    value, bar, rows = reply.value, reply.standard_error, reply.rows // parts
    if value is None:
        return replace(reply, rows=rows)
    bar = bar if bar is None or bar.ndim == 0 else np.split(bar, parts)[index]
    return replace(reply, value=np.split(value, parts)[index], standard_error=bar, rows=rows)


def count_alarms(estimator: Estimator, task: str, problem: str, seeds: Iterable[int] = SEEDS) -> dict[str, Any]:
    """How many seeds reject, which, by which checks, the most repeats of one, and the largest error over its limit.

    Example:
        >>> from studies.verification.faults import CORRECT
        >>> count_alarms(CORRECT["score"]["mixture_score"], "score", "line-s0.3", range(1, 4))["rejected"]
        []
    """
    start, rejected, checks, largest, repeats, total, first = time.perf_counter(), [], set(), 0.0, 1, 0, 0
    for seed, verdict in verdicts(estimator, task, problem, seeds):
        total, repeats, first = total + 1, max(repeats, len(verdict.replies)), first or seed
        errors = [check.measured for check in verdict.checks if check.name in ("accuracy", "bias")]
        largest = max([largest, *errors])
        if not verdict.holds:
            rejected.append(seed)
            checks |= set(verdict.failed)
    return {
        "task": task,
        "estimator": estimator.__name__,
        "problem": problem,
        "first": first,
        "seeds": total,
        "runs": repeats,
        "rejected": rejected,
        "checks": sorted(checks),
        "largest": largest,
        "seconds": round(time.perf_counter() - start, 1),
    }


def right(task: str) -> list[Estimator]:
    """Right estimators of a task: the planted faults' counterparts, and the engine's own."""
    from studies.verification.engine import ENGINE
    from studies.verification.faults import CORRECT
    from studies.verification.faults.base import variant

    known = CORRECT[task]
    ours = ENGINE.get(task, ())
    return [*known.values(), *(variant(e, f"sensitivity: {e.__name__}") if e.__name__ in known else e for e in ours)]


def problems(task: str, estimator: Estimator) -> list[str]:
    """The quick suite but for image-sized problems, or what is chosen for the costly ones."""
    small = [case.name for case in TASKS[task].suite("quick") if "image-sized" not in case.tags]
    return list(CHOSEN.get(estimator.__name__, small))


def uncounted(table: Path = TABLE) -> list[tuple[str, str, list[str]]]:
    """Right estimators and the quick problems that they were not counted on, as (task, estimator, problems).

    Example:
        >>> found = {name: problems for task, name, problems in uncounted()}
        >>> found["probed_density"][0]
        'line-s0.05'
    """
    known, left = _known(table), []
    for name, task in TASKS.items():
        for estimator in right(name):
            key, cases = (name, estimator.__name__), task.suite("quick")
            lacking = [case.name for case in cases if (*key, case.name, SEEDS[0]) not in known]
            left += [(*key, lacking)] if lacking else []
    return left


def main(arguments: list[str], table: Path = TABLE) -> int:
    """Count for the named tasks (all by default) what the table does not have; returns how many rejections it holds."""
    given = _given(arguments)
    for name in given.tasks or list(TASKS):
        for case in find_task(name).suite("full" if given.problem else "quick"):
            for number, estimator in enumerate(right(name)):
                key = (name, estimator.__name__, case.name, given.seeds[0])
                chosen = case.name in problems(name, estimator) or (case.suite == "full" and number == 0)
                if chosen and given.problem in ("", case.name) and key not in _known(table):
                    _add(table, count_alarms(estimator, name, case.name, given.seeds))
            posed.cache_clear()
    return sum(len(entry["rejected"]) for entry in _counts(table))


def _given(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studies.verification.fresh")
    parser.add_argument("tasks", nargs="*", help="tasks; all by default")
    parser.add_argument("--problem", default="", help="count this problem alone")
    parser.add_argument("--seeds", type=_range, default=SEEDS, metavar="FIRST-LAST", help="1-300 by default")
    return parser.parse_args(arguments)


def _range(words: str) -> range:
    first, _, last = words.partition("-")
    found = range(int(first), int(last) + 1)
    if not found or found[0] < 1:  # 0 is the published suite
        raise argparse.ArgumentTypeError(f"{words!r} are no seeds; give two numbers from 1 on, the smaller first.")
    return found


def _counts(table: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(table.read_text())["counts"] if table.exists() else []
    return rows


def _known(table: Path) -> set[tuple[str, str, str, int]]:
    return {(entry["task"], entry["estimator"], entry["problem"], entry["first"]) for entry in _counts(table)}


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
