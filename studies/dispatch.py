"""Sending cells to a Dask cluster: tiny cells in groups, so that the cluster's own cost per task is shared.

A group is sized by the slowest of the last cells, so that it takes about a quarter of a second; long cells travel
alone. When a worker dies with a group, its cells are sent again one by one, so that only a guilty one is reported.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from studies.errors import StudyError
from studies.execution import Outcome, run_one
from studies.study import Cell, Context

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["dispatch"]

GROUP_SECONDS = 0.25
LARGEST_GROUP = 100
FEWEST_WAITING = 16  # tasks sent ahead, so that a cluster that grows with its queue sees one
REFRESH_SECONDS = 2.0


def run_group(module: str, cells: Sequence[Cell], context: Context) -> list[Outcome]:
    """Run cells one after another on a worker."""
    return [run_one(module, cell, context) for cell in cells]


class Pace:
    """How many cells make a group, from how long the last ones took."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=30)

    def saw(self, seconds: float) -> None:
        self.recent.append(seconds)

    def size(self, left: int, threads: int) -> int:
        """Cells of the next group, when so many are left for so many threads."""
        if not self.recent:
            return 1
        fitting = int(GROUP_SECONDS / max(*self.recent, 1e-6))
        fair = left // (2 * threads)  # so that the last groups end together
        return max(1, min(fitting, fair, LARGEST_GROUP))


class Threads:
    """Number of threads of a cluster, asked for now and then: workers come and go."""

    def __init__(self, client: Client) -> None:
        self.client, self.asked, self.count = client, 0.0, 1

    def now(self) -> int:
        if time.monotonic() - self.asked > REFRESH_SECONDS:
            self.count = max(1, sum(self.client.nthreads().values()))
            self.asked = time.monotonic()
        return self.count


def dispatch(client: Client, module: str, cells: Sequence[Cell], context: Context) -> Iterator[Outcome]:
    """Run cells on a cluster; outcomes come as they finish.

    Raises:
        StudyError: the scheduler was lost.
    """
    from distributed import as_completed

    waiting, alone = deque(cells), deque[Cell]()
    flying: dict[object, list[Cell]] = {}
    landed = as_completed(loop=client.loop)
    pace, threads = Pace(), Threads(client)
    while waiting or alone or flying:
        while (waiting or alone) and len(flying) < max(FEWEST_WAITING, 2 * threads.now()):
            group = [alone.popleft()] if alone else _take(waiting, pace.size(len(waiting), threads.now()))
            future = client.submit(run_group, module, group, context, pure=False)
            flying[future.key] = group
            landed.add(future)
        future = next(landed)
        group = flying.pop(future.key)
        for outcome in _outcomes(future, group, alone):
            pace.saw(outcome.seconds)
            yield outcome


def _take(waiting: deque[Cell], count: int) -> list[Cell]:
    return [waiting.popleft() for _ in range(min(count, len(waiting)))]


def _outcomes(future: Future, group: list[Cell], alone: deque[Cell]) -> list[Outcome]:
    if future.status == "finished":
        found: list[Outcome] = future.result()
        return found
    if future.status != "error":
        raise StudyError("the scheduler was lost; finished cells are kept, run the same command again.")
    if len(group) > 1:
        alone.extend(group)
        return []
    error = future.exception()
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    return [Outcome(group[0].name, None, error=line, traceback=str(error))]
