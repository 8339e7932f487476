"""Sending cells to a Dask cluster: tiny cells in groups, so that the cluster's own cost per task is shared.

A group is sized by the slowest of the last cells, so that it takes about a quarter of a second; long cells travel
alone. Cells whose workers keep dying run again at the end, one by one with nothing beside them, so that only a guilty
one is reported.
"""

from __future__ import annotations

import contextlib
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from studies.errors import StudyError
from studies.running.execution import Outcome, run_one
from studies.study import Cell, Context

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["dispatch"]

GROUP_SECONDS = 0.25
LARGEST_GROUP = 100
FEWEST_WAITING = 16  # tasks sent ahead, so that a cluster that grows with its queue sees one
REFRESH_SECONDS = 2.0


def run_group(module: str, packed: bytes) -> list[Outcome]:
    """Run cells one after another on a worker."""
    cells, context = pickle.loads(packed)
    return [run_one(module, cell, context) for cell in cells]


def pack(cells: Sequence[Cell], context: Context) -> bytes:
    """What a group needs; in bytes, because a scheduler unpacks what it is given and need not know the study."""
    return pickle.dumps((list(cells), context))


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
            with contextlib.suppress(OSError):  # a lost scheduler shows in the futures
                self.count = max(1, sum(self.client.nthreads().values()))
            self.asked = time.monotonic()
        return self.count


def dispatch(client: Client, module: str, cells: Sequence[Cell], context: Context) -> Iterator[Outcome]:
    """Run cells on a cluster; outcomes come as they finish.

    Raises:
        StudyError: the scheduler was lost.
    """

    def send(group: Sequence[Cell]) -> Future:
        return client.submit(run_group, module, pack(group, context), pure=False)

    suspects: list[Cell] = []
    yield from _together(client, send, deque(cells), suspects)
    for cell in suspects:
        yield _alone(send([cell]), cell)


def _together(
    client: Client, send: Callable[[Sequence[Cell]], Future], waiting: deque[Cell], suspects: list[Cell]
) -> Iterator[Outcome]:
    """Keep all threads busy; cells whose workers died go to `suspects`."""
    from distributed import as_completed

    flying: dict[object, list[Cell]] = {}
    landed = as_completed(loop=client.loop)
    pace, threads = Pace(), Threads(client)
    while waiting or flying:
        while waiting and len(flying) < max(FEWEST_WAITING, 2 * threads.now()):
            group = [waiting.popleft() for _ in range(pace.size(len(waiting), threads.now()))]
            future = send(group)
            flying[future.key] = group
            landed.add(future)
        future = next(landed)
        group = flying.pop(future.key)
        if future.status == "error":
            suspects.extend(group)
            continue
        for outcome in _result(future):
            pace.saw(outcome.seconds)
            yield outcome


def _alone(future: Future, cell: Cell) -> Outcome:
    """Outcome of a cell with nothing beside it: if its workers die now, it is their cause."""
    from distributed import as_completed

    next(as_completed([future]))
    if future.status != "error":
        return _result(future)[0]
    error = future.exception()
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    return Outcome(cell.name, None, error=line, traceback=str(error))


def _result(future: Future) -> list[Outcome]:
    if future.status != "finished":
        raise StudyError("the scheduler was lost; finished cells are kept, run the same command again.")
    found: list[Outcome] = future.result()
    return found
