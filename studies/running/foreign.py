"""Calling code that is not ours: studies and estimators may raise, exit or fork, and none of it may pass for success.

What ends a call is an exception of one kind, with its text made safe. A copy of the process that a call left behind by
forking ends where the call ends; it would otherwise do all that follows a second time.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from studies.running import text

__all__ = ["ForeignError", "contained"]

FORKED = 70  # exit status of a copy that came back from a call


class ForeignError(Exception):
    """Foreign code did not return.

    Args:
        line: kind of the exception and first line of its message.
        trace: its traceback.
    """

    def __init__(self, line: str, trace: str) -> None:
        super().__init__(line)
        self.line, self.trace = line, trace


@contextmanager
def contained(*passed: type[BaseException]) -> Iterator[None]:
    """Run foreign code; an interrupt from the keyboard and the exceptions `passed` go through as they are.

    Raises:
        ForeignError: anything else was raised, `SystemExit` included.

    Example:
        >>> try:
        ...     with contained():
        ...         raise SystemExit(0)
        ... except ForeignError as error:
        ...     print(error)
        SystemExit: 0
    """
    owner = os.getpid()
    try:
        yield
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, *passed)):
            raise
        raise ForeignError(text.sentence_of(error), text.block(traceback.format_exc())) from error
    finally:
        if os.getpid() != owner:
            os.write(2, b"studies: a forked copy of the process came back from a call; it ends here.\n")
            os._exit(FORKED)
