"""A word every half minute while something takes its time, so that a wait is never silent."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TextIO

from studies.running import text

__all__ = ["EVERY", "aloud", "waiting"]

EVERY = 30.0  # seconds


def aloud(sentence: str, stream: TextIO | None = None) -> None:
    """Say a sentence on standard error, or on the stream."""
    with suppress(OSError, ValueError):  # nobody listens
        print(f"studies: {text.line(sentence)}", file=stream or sys.stderr, flush=True)


@contextmanager
def waiting(
    what: Callable[[], str], say: Callable[[str], None] | None = None, every: float | None = None
) -> Iterator[None]:
    """Say what is waited for, and for how long, while the block runs.

    Args:
        what: the thing waited for, now; said as "waiting for ...".
        say: takes the sentence, in a thread of its own; by default it goes to what is standard error now, whatever the
            block redirects.
        every: seconds between two words, `EVERY` by default.
    """
    done, start = threading.Event(), time.monotonic()
    tell = partial(aloud, stream=sys.stderr) if say is None else say

    def speak() -> None:
        while not done.wait(EVERY if every is None else every):
            tell(f"waiting for {what()}, {time.monotonic() - start:.0f} s so far")

    speaker = threading.Thread(target=speak, name="waiting", daemon=True)
    speaker.start()
    try:
        yield
    finally:
        done.set()
