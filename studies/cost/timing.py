"""Fair timing: alternatives take turns, in a new random order every round, so that load falls on all alike.

Only ratios within a round mean something on a shared machine: seconds of one forward pass were seen to vary
seventeenfold with load. A ratio is therefore the median over rounds of the quotient of neighbouring times, with a
distribution-free interval. On a CPU the clock is that of the process: with one thread it agrees with the wall on an
idle machine, and leaves out the time in which other processes run on a busy one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from studies.running.memory import peak_since
from studies.statistics import Interval, median_interval
from studies.statistics._checks import Floats

__all__ = ["Counter", "alternate", "peak_memory", "ratio"]

LEAST_SECONDS = 0.01  # of one timing; faster alternatives are repeated within it
SLOW = 0.5  # seconds of a call of which the first one tells enough
LEAST_ROUNDS = 7  # fewer give a median no interval at 95 %


class Counter:
    """Counts the calls of a network; all else is passed on.

    Example:
        >>> network = Counter(lambda x: 2 * x)
        >>> network(1), network(2), network.calls
        (2, 4, 2)
    """

    def __init__(self, network: Callable[..., Any]) -> None:
        self.network, self.calls = network, 0

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        self.calls += 1
        return self.network(*arguments, **keywords)


def alternate(
    alternatives: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    seconds: float = math.inf,
    seed: int = 0,
    device: str = "cpu",
    clock: Callable[[], float] | None = None,
) -> dict[str, Floats]:
    """Time alternatives in turn.

    Args:
        alternatives: functions without arguments, by name; each is called once beforehand.
        rounds: how often each is timed, at most.
        seconds: fewer rounds, but at least `LEAST_ROUNDS`, if all of them would take longer than this.
        seed: of the orders.
        device: where they run; a GPU is waited for.
        clock: seconds; by default the processor time of this process on a CPU, the wall's on other devices.

    Returns:
        Seconds of one call, (rounds,), by name.

    Raises:
        ValueError: no alternatives or no rounds.

    Example:
        >>> times = alternate({"short": lambda: sum(range(10)), "long": lambda: sum(range(10_000))}, rounds=5)
        >>> bool((times["short"] < times["long"]).all())
        True
    """
    if not alternatives or rounds < 1:
        raise ValueError(f"{len(alternatives)} alternatives in rounds={rounds}; give at least one of each.")
    clock = clock or (time.process_time if device == "cpu" else time.perf_counter)
    repeats, expected = {}, 0.0
    for name, run in alternatives.items():
        repeats[name], one = _repeats(run, device, clock)
        expected += repeats[name] * one
    if rounds > LEAST_ROUNDS and math.isfinite(seconds):
        rounds = min(rounds, max(LEAST_ROUNDS, int(seconds / expected)))
    names, rng = list(alternatives), np.random.default_rng(seed)
    times: dict[str, Floats] = {name: np.empty(rounds) for name in names}
    with _no_garbage_collection():
        for turn in range(rounds):
            # Every round in another order: whatever else the machine does meets all of them alike.
            for index in rng.permutation(len(names)):
                name = names[index]
                times[name][turn] = _seconds(alternatives[name], repeats[name], device, clock)
    return times


def _repeats(run: Callable[[], object], device: str, clock: Callable[[], float]) -> tuple[int, float]:
    """Calls within one timing, and the seconds of one."""
    one = _seconds(run, 1, device, clock)  # the first call loads and allocates
    if one < SLOW:
        one = max(_seconds(run, 1, device, clock), 1e-9)
    return max(1, math.ceil(LEAST_SECONDS / one)), one


def _seconds(run: Callable[[], object], repeats: int, device: str, clock: Callable[[], float]) -> float:
    _wait(device)
    start = clock()
    for _ in range(repeats):
        run()
    _wait(device)
    return (clock() - start) / repeats


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def _no_garbage_collection() -> Any:
    # A collection would fall on whichever alternative runs when it is due.
    gc.collect()
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def ratio(times: Floats, baseline: Floats, *, level: float = 0.95) -> Interval:
    """Median over rounds of `times / baseline`, with its distribution-free interval.

    Example:
        >>> ratio(np.array([2.0, 4.0, 20.0]), np.array([1.0, 2.0, 10.0])).estimate
        2.0
    """
    return median_interval(times / baseline, level=level)


def peak_memory(run: Callable[[], object], device: str = "cpu") -> int:
    """Bytes that a call needs beyond what was in use before it.

    On a GPU torch's allocator is asked; on the CPU it is the growth of the resident peak, after freed memory has been
    given back, and so coarse below a megabyte.
    """
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return int(torch.cuda.max_memory_allocated(device) - before)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)
    with peak_since() as peak:
        before = peak()
        run()
        return max(0, peak() - before)
