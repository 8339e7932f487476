"""Times of alternatives that take turns, by events of the GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from accelerator_parts.store import Row, row
from studies.cost.timing import ratio
from studies.statistics import median_interval

LEAST = 7  # rounds without which a median has no interval of 95 %


def times(
    alternatives: Mapping[str, Callable[[], object]], device: str, *, rounds: int, warmup: int = 2
) -> dict[str, np.ndarray]:
    """Seconds of one call by name, (rounds,), in a new random order every round, after `warmup` calls of each."""
    for run in alternatives.values():
        for _ in range(warmup):
            run()
    names, random = list(alternatives), np.random.default_rng(0)
    spent = {name: np.empty(rounds) for name in names}
    for turn in range(rounds):
        for index in random.permutation(len(names)):
            spent[names[index]][turn] = seconds(alternatives[names[index]], device)
    return spent


def seconds(run: Callable[[], object], device: str) -> float:
    """Seconds of one call: from an event before it to one after it; on a CPU by the wall clock."""
    if not device.startswith("cuda"):
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    torch.cuda.synchronize()
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    run()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def compared(
    case: str, found: Mapping[str, np.ndarray], baseline: str, *, shown: tuple[str, ...] = ()
) -> Iterator[Row]:
    """Rows of every alternative's median time, and of its ratio to the baseline, paired by round."""
    for name, values in found.items():
        interval = median_interval(1e3 * values)
        yield row(case, name, interval.estimate, "ms", low=interval.low, high=interval.high)
        if name != baseline:
            paired = ratio(values, found[baseline])
            label = f"{name} / {baseline}"
            yield row(case, label, paired.estimate, "×", low=paired.low, high=paired.high, shown=name in shown)
