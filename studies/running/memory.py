"""Peak memory of a stretch of code."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["peak_since"]

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def peak_since() -> Iterator[Callable[[], int]]:
    """Yield a function that gives the process's peak resident memory in bytes since the block began.

    On Linux the peak is reset at the start. Elsewhere it is the peak of the whole process so far.

    Example:
        >>> with peak_since() as peak:
        ...     data = bytearray(1000)
        >>> peak() > 1000
        True
    """
    try:
        # proc(5): 5 sets the peak resident size back to the present one.
        CLEAR.write_text("5")
    except OSError:
        yield _peak_of_process
        return
    yield _high_water


def _high_water() -> int:
    match = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    return int(match.group(1)) * 1024 if match else _peak_of_process()


def _peak_of_process() -> int:
    import resource  # absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
