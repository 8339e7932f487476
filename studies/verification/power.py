"""How small a fault `verify` sees, measured by planting it: `python -m studies.verification.power [TASK ...]`.

`--suite full` measures the full suite. Of every task it has the quick suite's problems and others, so that it sees at
least as much.

On fresh seeds a right estimator is run once, and its answers are made wrong afterwards: multiplied by a constant
factor, shifted by a constant, or reported with standard errors off by a factor. The judge, which is not told, judges
every seed, and a seed counts as rejected if any problem is. The smallest fault of a grid (ten steps a decade) that is
rejected on at least 99 of 100 seeds, in both directions, is the power of the task; it is kept in `power.json` beside
this module, and printed in reports and in the book.

A factor is `v (1 ± f)`. A shift is in nats where errors are absolute; elsewhere it is a multiple of the median size of
the truth's rows, along all coordinates alike. Error bars are multiplied or divided by m, with as many repeats as
`verify` would ask for: those that a right estimator reports, or, where the task has none that does, those of normal
noise of a tenth of the answer (or of a nat), added to the truth (`bars_of` says which; `--bars` measures these alone).
For that the right estimator says once what an answer costs, on which the number of repeats depends.

The problems are those of the suite of at most a hundred dimensions (paths: those of the quick suite whose false alarms
are counted, see `studies.verification.fresh`): the whole suite sees at least as much. Each entry names them.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from studies.files import as_json, write
from studies.verification import fresh
from studies.verification.backends import backend as load_backend
from studies.verification.faults import CORRECT
from studies.verification.judge import judge
from studies.verification.replies import Estimator, Reply
from studies.verification.session import CHEAP_CALLS, CHEAP_REPEATS, REPEATS, Asking, wants_more
from studies.verification.sight import TABLE, entries, sentence
from studies.verification.tasks import SUITES, TASKS
from studies.verification.tasks import task as find_task
from studies.verification.tasks.base import Case, Task, rownorm
from studies.verification.truths import computed

__all__ = ["TABLE", "Answers", "entries", "measure", "sentence", "smallest"]

SEEDS, FEW_SEEDS = 100, 20  # few of draws judged by permutations, of influences, and of paths with random probes
SHARE = 0.99
LARGEST_DIMENSION = 100
MOST_REPEATS, MOST_OF_PATHS = 256, 64
NOISE = 0.1
GRID = tuple(float(f"{value:.2g}") for value in 10 ** (np.arange(-70, 21) / 10))
BARS = tuple(round(1 + 0.05 * step, 2) for step in range(1, 41))
STOCHASTIC = {"divergence": "hutchinson", "log-density": "probed_density", "log-density-ratio": "probed_ratio"}
CHOSEN = {
    "probed_density": ["plane-s0.1"],
    "probed_ratio": ["plane-s0.3"],
    "conditioned_draws": ["gaussian-s0.1"],
}
# Of the full suite's own problems: what its cost leaves an estimator, and for draws the image-sized one, there being no
# other.
CHOSEN_OF_FULL = {
    "probed_density": ["points-s0.4"],
    "probed_ratio": ["plane-s3"],
    "conditioned_draws": ["photo-784-s0.3"],
}
Plant = Callable[[Task, np.ndarray, Reply], Reply]


@dataclass(frozen=True)
class Answers:
    """The answers of a right estimator on one problem for one seed, in order of the repeats."""

    case: Case
    truth: np.ndarray
    replies: tuple[Reply, ...]


def factor(size: float) -> Plant:
    """`v (1 + size)`, and standard errors with it."""

    def plant(task: Task, truth: np.ndarray, reply: Reply) -> Reply:
        bars = None if reply.standard_error is None else reply.standard_error * (1 + size)
        return replace(reply, value=None if reply.value is None else reply.value * (1 + size), standard_error=bars)

    return plant


def shift(size: float) -> Plant:
    """A constant added to every entry of the value."""

    def plant(task: Task, truth: np.ndarray, reply: Reply) -> Reply:
        if reply.value is None:
            return reply
        # A row that is shifted by c/√d in each of d entries is shifted by c.
        entries = np.sqrt(max(reply.value[0].size, 1))
        unit = 1.0 if task.absolute or not truth.size else float(np.median(rownorm(truth)))
        return replace(reply, value=reply.value + size * unit / entries)

    return plant


def bars(size: float) -> Plant:
    """Standard errors multiplied by `size`."""

    def plant(task: Task, truth: np.ndarray, reply: Reply) -> Reply:
        return replace(reply, standard_error=None if reply.standard_error is None else reply.standard_error * size)

    return plant


def rejected(task: Task, seed: list[Answers], plant: Plant | None) -> bool:
    """Whether the judge rejects any of a seed's problems, with repeats added as `verify` adds them."""
    return any(not _verdict(task, each, plant) for each in seed)


def _verdict(task: Task, each: Answers, plant: Plant | None) -> bool:
    replies = [reply if plant is None else plant(task, each.truth, reply) for reply in each.replies]
    count = min(len(replies), CHEAP_REPEATS if replies[0].calls <= CHEAP_CALLS else REPEATS)
    while count < len(replies) and wants_more(replies[:count]):
        count = min(2 * count, len(replies))
    return judge(task, each.case, each.truth, replies[:count], 1.0).holds


def smallest(
    task: Task, seeds: list[list[Answers]], plants: Callable[[float], tuple[Plant, Plant]], grid: tuple[float, ...]
) -> float:
    """The smallest size of the grid that is rejected on a share of .99 of the seeds in both directions; inf if none."""

    allowed = int((1 - SHARE) * len(seeds) + 1e-9)

    def seen(size: float) -> bool:
        for plant in plants(size):
            missed = 0
            for seed in seeds:
                missed += not rejected(task, seed, plant)
                if missed > allowed:
                    return False
        return True

    # By bisection: what is seen at one size is seen at every larger one.
    low, high = 0, len(grid)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if seen(grid[middle]) else (middle + 1, high)
    return grid[low] if low < len(grid) else float("inf")


def recorded(estimator: Estimator, task: str, problems: list[str], count: int) -> list[list[Answers]]:
    """For each of `count` fresh seeds the answers on every problem."""
    return [list(seed) for seed in zip(*(_answers(estimator, task, name, count) for name in problems), strict=True)]


def _answers(estimator: Estimator, task: str, problem: str, count: int) -> Iterator[Answers]:
    chosen, library = find_task(task), load_backend("torch")
    case, seeds = chosen.case(problem), list(range(1, count + 1))
    if case.judge != "rows":
        for seed in seeds:
            inputs, truth = computed(chosen, case, seed)
            asking = Asking(estimator, chosen, case, inputs, truth, library, seed)
            yield Answers(case, truth, tuple(asking.repeated(4)))
        return
    for block in fresh.blocks(case, seeds):
        inputs, truth = fresh.posed(task, problem, tuple(block))
        most = MOST_OF_PATHS if case.steps else MOST_REPEATS
        repeats = most if estimator.__name__ in STOCHASTIC.values() else 16
        replies = Asking(estimator, chosen, case, inputs, truth, library, block[0]).repeated(repeats)
        for index, rows in enumerate(np.split(truth, len(block))):
            yield Answers(case, rows, tuple(fresh.part(reply, index, len(block)) for reply in replies))


def blurred(estimator: Estimator, task: str, problems: list[str], count: int) -> list[list[Answers]]:
    """For each of `count` fresh seeds the truth of every problem with honest noise, at the cost of an answer."""
    return [list(seed) for seed in zip(*(_blurred(estimator, task, name, count) for name in problems), strict=True)]


def _blurred(estimator: Estimator, task: str, problem: str, count: int) -> Iterator[Answers]:
    chosen = find_task(task)
    case, rng = chosen.case(problem), np.random.default_rng(zlib.crc32(f"{task}/{problem}".encode()))
    for seed in range(1, count + 1):
        inputs, truth = fresh.posed(task, problem, (seed,))
        if seed == 1:
            cost = Asking(estimator, chosen, case, inputs, truth, load_backend("torch"), seed).reply(0)
        size = NOISE * (np.ones(len(truth)) if chosen.absolute else rownorm(truth))
        wide = (size / np.sqrt(truth[0].size)).reshape(-1, *[1] * (truth.ndim - 1))
        replies: list[Reply] = []
        while len(replies) < MOST_REPEATS:
            noise = wide * rng.standard_normal(truth.shape)
            replies.append(replace(cost, value=truth + noise, standard_error=size))
        yield Answers(case, truth, tuple(replies))


def measured_bars(estimator: Estimator, task: str, suite: str = "quick") -> dict[str, Any]:
    """The smallest wrong factor of error bars that is rejected, of noise added to the truth.

    There is none for draws, nor where a task allows no noise.
    """
    chosen, names = find_task(task), problems(task, estimator, suite)
    names = [name for name in names if chosen.case(name).judge == "rows"]
    if not names or not chosen.noise:
        return {"bars": None, "bars_of": ""}
    answers = blurred(estimator, task, names, FEW_SEEDS)
    found = smallest(chosen, answers, lambda m: (bars(m), bars(1 / m)), BARS)
    return {"bars": found, "bars_of": "added noise"}


def problems(task: str, estimator: Estimator, suite: str = "quick") -> list[str]:
    """The problems whose answers are recorded."""
    own = [case for case in TASKS[task].suite(suite) if case.suite == "full"]
    names = CHOSEN.get(estimator.__name__) or _small(task, fresh.problems(task, estimator))
    more = CHOSEN_OF_FULL.get(estimator.__name__) or _small(task, [case.name for case in own])
    return [*names, *(more if own else [])]


def _small(task: str, names: list[str]) -> list[str]:
    chosen = find_task(task)
    return [name for name in names if chosen.case(name).base.dimension <= LARGEST_DIMENSION]


def measure(estimator: Estimator, task: str, *, seeds: int = SEEDS, suite: str = "quick") -> dict[str, Any]:
    """The power of a task as seen with one right estimator.

    Args:
        estimator: a right one, of independent rows.
        task: one of `studies.verification.TASKS`.
        seeds: how many fresh seeds.
        suite: `"quick"` or `"full"`.

    Returns:
        The smallest `factor`, `shift` and (where errors are reported) `bars` that are rejected, and how many seeds
        `rejected` the estimator as it is.

    Example:
        >>> from studies.verification.faults import CORRECT
        >>> power = measure(CORRECT["evidence"]["evidence"], "evidence", seeds=2)
        >>> power["rejected"], power["factor"] < 0.01
        (0, True)
    """
    chosen, names = find_task(task), problems(task, estimator, suite)
    answers = recorded(estimator, task, names, seeds)
    reported = all(reply.standard_error is not None for each in answers[0] for reply in each.replies)
    return {
        "task": task,
        "suite": suite,
        "estimator": estimator.__name__,
        "problems": names,
        "seeds": seeds,
        "rejected": int(sum(rejected(chosen, seed, None) for seed in answers)),
        "factor": smallest(chosen, answers, lambda f: (factor(f), factor(-f)), GRID),
        "shift": smallest(chosen, answers, lambda f: (shift(f), shift(-f)), GRID),
    } | (
        {"bars": smallest(chosen, answers, lambda m: (bars(m), bars(1 / m)), BARS), "bars_of": "its own"}
        if reported
        else measured_bars(estimator, task, suite)
    )


def estimators(task: str) -> list[Estimator]:
    """The first right estimator of a task, and the one that reports standard errors."""
    names = list(dict.fromkeys([next(iter(CORRECT[task])), STOCHASTIC.get(task, "")]))
    return [CORRECT[task][name] for name in names if name]


def main(arguments: list[str], table: Path = TABLE) -> int:
    """Measure the named tasks (all by default) and keep what others have; returns how many right ones were rejected."""
    parser = argparse.ArgumentParser(prog="python -m studies.verification.power")
    parser.add_argument("tasks", nargs="*", help="tasks; all by default")
    parser.add_argument("--suite", choices=SUITES, default="quick")
    parser.add_argument("--bars", action="store_true", help="error bars of added noise alone; the rest is kept")
    given = parser.parse_args(arguments)
    for name in given.tasks or list(TASKS):
        drawn = any(case.judge == "posterior" or case.points for case in find_task(name).cases)
        paths = any(case.steps for case in find_task(name).cases)
        for estimator in estimators(name):
            few = drawn or (paths and estimator.__name__ in STOCHASTIC.values())
            if given.bars and estimator.__name__ not in STOCHASTIC.values():
                known = json.loads(table.read_text())["power"]
                same = {"task": name, "estimator": estimator.__name__, "suite": given.suite}
                old = [entry for entry in known if same.items() <= entry.items()]
                if not old:
                    parser.error(f"--bars adds to what was measured, and {name!r} was not: run it without --bars first")
                _add(table, {**old[0], **measured_bars(estimator, name, given.suite)})
            elif not given.bars:
                _add(table, measure(estimator, name, seeds=FEW_SEEDS if few else SEEDS, suite=given.suite))
    return sum(entry["rejected"] for entry in json.loads(table.read_text())["power"])


def _add(table: Path, entry: dict[str, Any]) -> None:
    print(json.dumps(entry), flush=True)
    known = json.loads(table.read_text())["power"] if table.exists() else []
    same = ("task", "estimator", "suite")
    kept = [old for old in known if any(old[key] != entry[key] for key in same)]
    order = list(TASKS)
    powers = sorted(
        [*kept, entry],
        key=lambda e: (order.index(e["task"]), e["estimator"] in STOCHASTIC.values(), e["suite"] == "full"),
    )
    write(table, as_json({"date": datetime.now(UTC).date().isoformat(), "power": powers}))
    entries.cache_clear()


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
