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

import importlib
import logging
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.errors import StudyError
from studies.running.memory import peak_since
from studies.running.tables import encode
from studies.study import Cell, Context

if TYPE_CHECKING:
    from distributed import Client, WorkerPlugin

__all__ = ["Outcome", "in_process", "local_client", "remote_client", "run_one"]

TRIALS = 2  # deaths of its workers that a task survives; its cells are then tried once more, alone
CONNECT_SECONDS = 20

# Dask tells glibc to give memory back after every 64 KiB freed. A torch program then spends more time in page faults
# than in arithmetic (measured: 14.5 s of 25 s against 0.3 s of 9 s); workers keep their memory instead.
ALLOCATOR = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 1 << 30,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 1 << 25,
}


@dataclass(frozen=True)
class Outcome:
    """How one cell ended.

    Args:
        cell: its name.
        content: its rows as Parquet, or None if it failed.
        seconds: time spent in `run_cell`.
        peak_memory_bytes: peak resident memory of the process while the cell ran.
        error: the exception in one line, if it failed.
        traceback: its traceback.
    """

    cell: str
    content: bytes | None
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    error: str = ""
    traceback: str = ""

    def measurements(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "peak_memory_bytes": self.peak_memory_bytes}


def run_one(module: str, cell: Cell, context: Context) -> Outcome:
    """Run one cell of the study in `module`; every ordinary exception becomes part of the outcome."""
    start = time.perf_counter()
    try:
        study = importlib.import_module(module)
        with peak_since() as peak:
            _seed(cell.seed, torch=getattr(study, "TORCH", True))
            rows = study.run_cell(cell, context)
        seconds = time.perf_counter() - start
        return Outcome(cell.name, encode(cell.name, rows), seconds, peak())
    except Exception as error:
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        return Outcome(cell.name, None, time.perf_counter() - start, 0, line, traceback.format_exc())


def _seed(seed: int, *, torch: bool) -> None:
    # Studies use generators of their own; this makes a forgotten one repeatable too. Torch is loaded before the cell
    # loads it, for its number of threads decides the last bits of its sums.
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global state is what is being fixed
    if torch or "torch" in sys.modules:
        module = importlib.import_module("torch")
        module.manual_seed(seed)
        module.set_num_threads(1)


def in_process(module: str, cells: Sequence[Cell], context: Context) -> Iterator[Outcome]:
    """Run cells one after another here: slow, and right for debugging."""
    for cell in cells:
        yield run_one(module, cell, context)


@contextmanager
def local_client(workers: int) -> Iterator[Client]:
    """A Dask cluster of processes on this machine, one thread each; they end with this process, however it ends."""
    import dask
    from distributed import Client, LocalCluster

    with (
        _silence(),
        _without_main(),
        dask.config.set({"distributed.scheduler.allowed-failures": TRIALS, **ALLOCATOR}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port; the usual one may be taken
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(_deaf())
        yield client


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
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "distributed.scheduler")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _deaf() -> WorkerPlugin:
    """Lets workers ignore an interrupt from the keyboard, which this process answers by ending them."""
    from distributed import WorkerPlugin

    class Deaf(WorkerPlugin):
        name = "deaf"

        def setup(self, worker: Any) -> None:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Deaf()


@contextmanager
def remote_client(address: str) -> Iterator[Client]:
    """An existing Dask cluster.

    Raises:
        StudyError: nothing answers at `address`.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise StudyError(
            f"no Dask scheduler answers at {address!r}; start one with 'dask scheduler' and give its tcp:// address."
        ) from error
    with _silence(), client:
        yield client
