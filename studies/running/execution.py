"""Where cells run: in this process, on a local Dask cluster, or on an existing one.

An existing cluster is named by its scheduler's address (`--scheduler tcp://HOST:8786`). Scheduler and workers need this
package, workers also the study's module and the folder of results at the same path. On SLURM, with dask-jobqueue:

    from dask_jobqueue import SLURMCluster
    cluster = SLURMCluster(cores=1, processes=1, memory="4GB", walltime="02:00:00")
    cluster.adapt(maximum_jobs=50)
    print(cluster.scheduler_address)  # give this to --scheduler, and keep the process open

One worker for every GPU of a machine, with dask-cuda (then `--device cuda`):

    dask scheduler --port 8786 & dask cuda worker tcp://localhost:8786 --nthreads 1

A cell's exception is caught where it happens and comes back as an outcome, so that the others go on. A worker that
dies is replaced and its cell tried again; a cell that keeps killing workers is reported as failed.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import logging
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.errors import StudyError
from studies.running import text
from studies.running.foreign import ForeignError, contained
from studies.running.memory import peak_since
from studies.running.tables import encode
from studies.running.tls import temporary
from studies.running.waiting import aloud, waiting
from studies.study import Cell, Context

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Outcome", "in_process", "local_client", "remote_client", "run_one"]

TRIALS = 2  # deaths of its workers that a task survives; its cells are then tried once more, alone
STARTS = 2  # attempts to start a local cluster
CONNECT_SECONDS = 20
LOGGERS = ("distributed", "distributed.client", "distributed.scheduler", "distributed.nanny", "asyncio", "tornado")

# Dask tells glibc to give memory back after every 64 KiB freed. A torch program then spends more time in page faults
# than in arithmetic (measured: 14.5 s of 25 s against 0.3 s of 9 s); workers keep their memory instead.
ALLOCATOR = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 1 << 30,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 1 << 25,
}


# Dask serves pages about its work to every user of the machine; without routes it serves none.
NO_PAGES: dict[str, Any] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}


@dataclass(frozen=True)
class Outcome:
    """How one cell ended.

    Attributes:
        cell: its name.
        content: its rows as Parquet, or None if it failed.
        seconds: time spent in `run_cell`.
        peak_memory_bytes: peak resident memory of the process while the cell ran.
        error: the exception in one line, if it failed.
        traceback: its traceback.
        rows: the number of its rows.
    """

    cell: str
    content: bytes | None
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    error: str = ""
    traceback: str = ""
    rows: int = 0

    def measurements(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "peak_memory_bytes": self.peak_memory_bytes}


def run_one(module: str, cell: Cell, context: Context) -> Outcome:
    """Run one cell of the study in `module`; however it ends becomes part of the outcome."""
    start = time.perf_counter()
    try:
        with contained():
            study = importlib.import_module(module)
            with peak_since() as peak:
                _seed(cell.seed, torch=getattr(study, "TORCH", True))
                rows = study.run_cell(cell, context)
            seconds = time.perf_counter() - start
            return Outcome(cell.name, encode(cell.name, rows), seconds, peak(), rows=len(rows))
    except ForeignError as error:
        return Outcome(cell.name, None, time.perf_counter() - start, 0, error.line, error.trace)


def _seed(seed: int, *, torch: bool) -> None:
    # Studies use generators of their own; this makes a forgotten one repeatable too. Torch is loaded before the cell
    # loads it, for its number of threads decides the last bits of its sums.
    random.seed(seed)
    # NumPy's global state takes 32 bits.
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global state is what is being fixed
    if torch or "torch" in sys.modules:
        module = importlib.import_module("torch")
        module.manual_seed(seed)
        module.set_num_threads(1)


def in_process(
    module: str, cells: Sequence[Cell], context: Context, say: Callable[[str], None] = aloud
) -> Iterator[Outcome]:
    """Run cells one after another here: slow, and right for debugging."""
    for cell in cells:
        with waiting(lambda name=cell.name: f"cell {name}", say):  # type: ignore[misc]
            outcome = run_one(module, cell, context)
        yield outcome


@contextmanager
def local_client(workers: int, *, dashboard: bool = False) -> Iterator[Client]:
    """A Dask cluster of processes on this machine, one thread each; they end with this process, however it ends.

    Its connections are encrypted with a key of this run, so that other users of the machine cannot send it code.

    Raises:
        StudyError: it could not be started, twice.
    """
    import dask
    import distributed  # noqa: F401 - its defaults would be forgotten if it were first imported below

    pages = {} if dashboard else NO_PAGES
    with (
        _silence(),
        _without_main(),
        dask.config.set({"distributed.scheduler.allowed-failures": TRIALS, **ALLOCATOR, **pages}),
        _sheltered_loop() as loop,
        _started(workers, dashboard, loop) as client,
    ):
        yield client


@contextmanager
def _started(workers: int, dashboard: bool, loop: Any) -> Iterator[Client]:
    """Cluster and client. What goes wrong while they start is tried once more, and then one sentence."""
    for trial in range(STARTS):
        stack = ExitStack()
        try:
            with waiting(lambda: f"{workers} local workers to start"):
                client = _start(stack, workers, dashboard, loop)
            break
        except StudyError:
            raise
        except KeyboardInterrupt:
            _abandon(stack)
            raise
        except Exception as error:
            _abandon(stack)
            if trial == STARTS - 1:
                raise StudyError(
                    f"the {workers} local workers could not be started ({text.sentence_of(error, 200)}); look at the "
                    "limits of memory, processes and open files, take fewer with --workers, or --workers 0."
                ) from error
    with stack:
        yield client


def _abandon(stack: ExitStack) -> None:
    """Give up a cluster that did not start: what started badly ends badly, and would say so when this process ends."""
    from distributed.deploy.spec import close_clusters

    atexit.unregister(close_clusters)  # worker processes are ended by their own parent's end
    logging.getLogger("distributed.process").setLevel(logging.CRITICAL + 1)  # it tells of every process that it ends
    with suppress(Exception):
        stack.close()


def _start(stack: ExitStack, workers: int, dashboard: bool, loop: Any) -> Client:
    from distributed import Client, LocalCluster

    cluster = stack.enter_context(
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            security=temporary(),
            dashboard_address="127.0.0.1:0",  # any free port; the usual one may be taken
            scheduler_kwargs={"dashboard": dashboard},
            silence_logs=logging.CRITICAL,
            loop=loop,
        )
    )
    return stack.enter_context(Client(cluster))


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep new processes from importing the calling script: without a main guard it would start this run once more.

    `multiprocessing` reads where the script lies from these two names; cells are found by their module's name.
    """
    main = sys.modules["__main__"]
    known = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    try:
        for name in known:
            setattr(main, name, None)
        yield
    finally:
        for name, value in known.items():
            setattr(main, name, value)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep distributed's own log off the screen: what matters of it becomes one sentence here."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _sheltered_loop() -> Iterator[Any]:
    """An event loop in a thread that blocks interrupts from the keyboard, and so do all processes that it starts, from
    their first moment: this process answers an interrupt by ending them."""
    from distributed.utils import LoopRunner

    resource_tracker.ensure_running()  # it would unblock interrupts in the thread that starts it
    runner = LoopRunner()
    mask = getattr(signal, "pthread_sigmask", None)
    before = mask(signal.SIG_BLOCK, {signal.SIGINT}) if mask else None
    try:
        runner.start()
    finally:
        if mask:
            mask(signal.SIG_SETMASK, before)
    try:
        yield runner.loop
    finally:
        runner.stop()


@contextmanager
def remote_client(address: str) -> Iterator[Client]:
    """An existing Dask cluster.

    Raises:
        StudyError: no scheduler answers at `address` in time.
    """
    from distributed import Client

    with _silence():
        try:
            asyncio.run(_answer(address))
            client = Client(address, timeout=CONNECT_SECONDS)
        except (OSError, ValueError, TypeError, RuntimeError, TimeoutError) as error:
            raise StudyError(
                f"no Dask scheduler answers at {text.line(repr(address), 200)} ({text.sentence_of(error, 150)}); start "
                "one with 'dask scheduler' and give its tcp:// address."
            ) from error
        with client:
            yield client


async def _answer(address: str) -> None:
    """Ask who is there. A port of another program may take the connection and stay silent; a client would not give up.

    Raises:
        TimeoutError: no answer in `CONNECT_SECONDS`.
        OSError: another program answers.
    """
    from distributed.comm import connect
    from distributed.security import Security

    async with asyncio.timeout(CONNECT_SECONDS):
        comm = await connect(address, timeout=CONNECT_SECONDS, **Security().get_connection_args("client"))
        try:
            await comm.write({"op": "identity", "reply": True})
            result = await comm.read()
        finally:
            comm.abort()
    if not isinstance(result, dict) or result.get("type") != "Scheduler":
        raise OSError("another program answers there")
