"""What a machine could do at best: rates of arithmetic and memory, and the work of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from studies.statistics._checks import Floats

__all__ = ["ARITHMETIC", "MEMORY", "Work", "floor_seconds", "references", "work_of"]

ARITHMETIC, MEMORY = "machine arithmetic", "machine memory"
SIDE = 384  # of the matrices multiplied, large enough for full speed
BYTES = 2**25  # copied, more than a cache holds


@dataclass(frozen=True)
class Work:
    """Arithmetic and traffic that a call cannot do without.

    Attributes:
        operations: floating-point operations of matrix products and convolutions, as executed.
        bytes: parameters, inputs and outputs, once per network call.
    """

    operations: int
    bytes: int


def work_of(run: Callable[[], object], bytes_moved: int = 0) -> Work:
    """Count the operations of a call (torch's counter sees through jvp, vjp and vmap).

    Example:
        >>> a = torch.ones(4, 3)
        >>> work_of(lambda: a @ a.T).operations  # 2 · 4 · 4 · 3
        96
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]  # torch's own refuses reverse mode at a leaf
    with counter:
        run()
    return Work(int(counter.get_total_flops()), bytes_moved)


class _NoModules:
    """Stands for the tracker of modules: everything is counted in one place."""

    parents = frozenset({"Global"})

    def __enter__(self) -> _NoModules:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def references(dtype: torch.dtype = torch.float32, device: str = "cpu") -> dict[str, Callable[[], object]]:
    """A matrix product and a copy, to be timed in the same rounds as what they are held against."""
    square = torch.ones(SIDE, SIDE, dtype=dtype, device=device)
    source = torch.ones(BYTES // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return {ARITHMETIC: lambda: square @ square, MEMORY: lambda: target.copy_(source)}


def floor_seconds(work: Work, times: dict[str, Floats]) -> float:
    """Least time for the work at the rates measured in the same rounds: the larger of arithmetic and traffic.

    Args:
        work: of one call.
        times: seconds of `references`, (rounds,) each; their fastest rounds count.
    """
    # A product takes a multiplication and an addition for each of SIDE³ terms; a copy reads every byte and writes it.
    operations_per_second = 2 * SIDE**3 / float(np.min(times[ARITHMETIC]))
    bytes_per_second = 2 * BYTES / float(np.min(times[MEMORY]))
    return max(work.operations / operations_per_second, work.bytes / bytes_per_second)
