"""Sending cells to a Dask cluster: tiny cells in groups, so that the cluster's own cost per task is shared.

A group is sized by the slowest of the last cells, so that it takes about a quarter of a second; long cells travel
alone. Cells whose workers keep dying run again at the end, one by one with nothing beside them, so that only a guilty
one is reported.
"""

from __future__ import annotations

import gc
import importlib
import pickle
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from studies.errors import StudyError
from studies.running import code, text
from studies.running.execution import Outcome, run_one
from studies.running.waiting import EVERY, aloud
from studies.study import Cell, Context

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["dispatch"]

GROUP_SECONDS = 0.25
LARGEST_GROUP = 100
FEWEST_WAITING = 16  # tasks sent ahead, so that a cluster that grows with its queue sees one
REFRESH_SECONDS = 2.0
ANSWER_SECONDS = 5.0  # for a question to the scheduler while nothing else happens


def run_group(module: str, packed: bytes) -> list[Outcome]:
    """Run cells one after another on a worker; if it has other code than the run, none of them."""
    cells, context, expected = pickle.loads(packed)
    if expected and (here := code.digest(module)) != expected:
        sentence = f"the worker has other code or package versions ({here}) than the run ({expected}); install the same"
        return [Outcome(cell.name, None, error=sentence) for cell in cells]
    with suppress(Exception):  # becomes the outcome of a cell below
        importlib.import_module(module)
    gc.freeze()  # what is imported lives as long as this worker: the collector need not walk it again and again
    return [run_one(module, cell, context) for cell in cells]


def pack(cells: Sequence[Cell], context: Context, expected: str = "") -> bytes:
    """What a group needs; in bytes, because a scheduler unpacks what it is given and need not know the study."""
    return pickle.dumps((list(cells), context, expected))


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
        # By the slowest of the last ones: a group of cells that are all as slow takes no longer than that.
        fitting = int(GROUP_SECONDS / max(*self.recent, 1e-6))
        fair = left // (2 * threads)  # so that the last groups end together
        return max(1, min(fitting, fair, LARGEST_GROUP))


class Threads:
    """Number of threads of a cluster, asked for now and then: workers come and go."""

    def __init__(self, client: Client) -> None:
        self.client, self.asked, self.count = client, 0.0, 1

    def now(self) -> int:
        if time.monotonic() - self.asked > REFRESH_SECONDS:
            self.count = max(1, self.ask() or 1)
            self.asked = time.monotonic()
        return self.count

    def ask(self) -> int | None:
        """Threads of all workers, or None where the scheduler does not answer in time: it shows in the futures."""
        try:
            scheduler: Any = self.client.scheduler
            cores = self.client.sync(scheduler.ncores, callback_timeout=ANSWER_SECONDS)
            return sum(cores.values())
        except (OSError, TimeoutError):
            return None


class Landing:
    """Futures as they end; a word goes to `say` whenever none does for half a minute.

    Args:
        client: of the cluster.
        say: takes a sentence.
    """

    def __init__(self, client: Client, say: Callable[[str], None]) -> None:
        self.threads, self.say = Threads(client), say
        self.landed: queue.Queue[Future] = queue.Queue()

    def add(self, future: Future) -> None:
        future.add_done_callback(self.landed.put)

    def next(self, flying: int) -> Future:
        start = time.monotonic()
        while True:
            try:
                return self.landed.get(timeout=EVERY)
            except queue.Empty:
                self.say(f"waiting for {flying} groups of cells, {time.monotonic() - start:.0f} s so far{self._why()}")

    def _why(self) -> str:
        count = self.threads.ask()
        if count is None:
            return "; the scheduler does not answer"
        return f"; the cluster has {count} threads" if count else "; no worker has joined the cluster"


def dispatch(
    client: Client,
    module: str,
    cells: Sequence[Cell],
    context: Context,
    say: Callable[[str], None] = aloud,
    expected: str = "",
) -> Iterator[Outcome]:
    """Run cells on a cluster; outcomes come as they finish.

    Args:
        client: of the cluster.
        module: the study's.
        cells, context: what to run.
        say: takes a sentence about a long wait.
        expected: digest of the code that workers must have; empty where they cannot have another.

    Raises:
        StudyError: the scheduler was lost, or the cluster failed otherwise.
    """

    def send(group: Sequence[Cell]) -> Future:
        return client.submit(run_group, module, pack(group, context, expected), pure=False)

    suspects: list[Cell] = []
    landing = Landing(client, say)
    with _one_sentence():
        yield from _together(send, deque(cells), suspects, landing)
        for cell in suspects:
            yield _alone(send([cell]), cell, landing)


@contextmanager
def _one_sentence() -> Iterator[None]:
    """What a cluster raises besides, such as a connection that broke while a group was sent."""
    try:
        yield
    except (StudyError, GeneratorExit):
        raise
    except Exception as error:
        raise StudyError(
            f"the cluster failed ({text.sentence_of(error, 200)}); finished cells are kept, run the same command again."
        ) from error


def _together(
    send: Callable[[Sequence[Cell]], Future], waiting: deque[Cell], suspects: list[Cell], landing: Landing
) -> Iterator[Outcome]:
    """Keep all threads busy; cells whose workers died go to `suspects`."""
    flying: dict[object, list[Cell]] = {}
    pace, threads = Pace(), landing.threads
    while waiting or flying:
        while waiting and len(flying) < max(FEWEST_WAITING, 2 * threads.now()):
            group = [waiting.popleft() for _ in range(pace.size(len(waiting), threads.now()))]
            future = send(group)
            flying[future.key] = group
            landing.add(future)
        future = landing.next(len(flying))
        group = flying.pop(future.key)
        if future.status == "error":
            suspects.extend(group)
            continue
        for outcome in _result(future):
            pace.saw(outcome.seconds)
            yield outcome


def _alone(future: Future, cell: Cell, landing: Landing) -> Outcome:
    """Outcome of a cell with nothing beside it: if its workers die now, it is their cause."""
    landing.add(future)
    landing.next(1)
    if future.status != "error":
        return _result(future)[0]
    error: Any = future.exception()
    return Outcome(cell.name, None, error=text.sentence_of(error), traceback=text.block(error))


def _result(future: Future) -> list[Outcome]:
    if future.status != "finished":
        raise StudyError("the scheduler was lost; finished cells are kept, run the same command again.")
    outcomes: list[Outcome] = future.result()
    return outcomes
