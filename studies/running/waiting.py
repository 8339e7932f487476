"""A word every half minute while something takes its time, so that a wait is never silent."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from studies.running import text

__all__ = ["EVERY", "aloud", "waiting"]

EVERY = 30.0  # seconds


def aloud(sentence: str) -> None:
    """Say a sentence on standard error."""
    with suppress(OSError, ValueError):  # nobody listens
        print(f"studies: {text.line(sentence)}", file=sys.stderr, flush=True)


@contextmanager
def waiting(what: Callable[[], str], say: Callable[[str], None] = aloud, every: float | None = None) -> Iterator[None]:
    """Say what is waited for, and for how long, while the block runs.

    Args:
        what: the thing waited for, now; said as "waiting for ...".
        say: takes the sentence, in a thread of its own.
        every: seconds between two words, `EVERY` by default.
    """
    done, start = threading.Event(), time.monotonic()

    def speak() -> None:
        while not done.wait(EVERY if every is None else every):
            say(f"waiting for {what()}, {time.monotonic() - start:.0f} s so far")

    speaker = threading.Thread(target=speak, name="waiting", daemon=True)
    speaker.start()
    try:
        yield
    finally:
        done.set()
