"""Jobs under a common deadline: what does not fit is left out and said so, what fails does not stop the rest."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from accelerator_parts.store import Row, Store

RESERVE = 6.0  # seconds kept for writing
GRACE = 15.0  # seconds that a job may exceed its budget before it is stopped


@dataclass(frozen=True)
class Setting:
    """Where and how jobs run.

    Attributes:
        device: of all tensors.
        tiny: the sizes of a rehearsal.
        folder: of the results.
        seed: of everything random.
        budget: seconds that the job at hand may take.
        started: when it did, in seconds of `time.monotonic`.
    """

    device: str
    tiny: bool
    folder: Any
    seed: int = 0
    budget: float = 60.0
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that remain of the budget."""
        return self.budget - (time.monotonic() - self.started)


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        name: of the job.
        part: "checks", "cost" or "studies".
        work: from the setting to rows.
        least: seconds without which it is not begun.
        most: seconds that it may use at most.
    """

    name: str
    part: str
    work: Callable[[Setting], Iterator[Row]]
    least: float
    most: float


@dataclass(frozen=True)
class Ended:
    """How a job ended: "done", "skipped: …" or "failed: …", after so many seconds."""

    job: Job
    verdict: str
    seconds: float


def run(jobs: Sequence[Job], setting: Setting, seconds: float, store: Store) -> list[Ended]:
    """Do the jobs in order within so many seconds, writing the rows of each as soon as it ends."""
    deadline, value = time.monotonic() + seconds - RESERVE, []
    for job in jobs:
        left = deadline - time.monotonic()
        if left < job.least and not setting.tiny:
            ended = Ended(job, f"skipped: needs {job.least:.0f} s, {max(left, 0):.0f} s are left", 0.0)
        else:
            ended = _do(job, setting, min(job.most, left), store)
        value.append(ended)
        store.write({each.job.name: each.verdict for each in value}, {each.job.name: each.seconds for each in value})
        print(f"[{job.name}] {ended.verdict} ({ended.seconds:.1f} s)", flush=True)
    return value


def _do(job: Job, setting: Setting, budget: float, store: Store) -> Ended:
    start, verdict = time.monotonic(), "done"
    result = Setting(setting.device, setting.tiny, setting.folder, setting.seed, budget, start)
    try:
        with _stopped_after(budget + GRACE):
            for row in job.work(result):
                store.add(job.name, row)
    except Exception as error:  # whatever fails, the other jobs go on
        verdict = f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[:110]
        store.log(f"[{job.name}]\n{traceback.format_exc()}")
    gc.collect()
    if setting.device.startswith("cuda"):
        # After an error in a kernel the context is lost: that is reported by the jobs that follow.
        with contextlib.suppress(RuntimeError):
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    return Ended(job, verdict, time.monotonic() - start)


@contextlib.contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread after so many seconds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"stopped after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1.0))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
