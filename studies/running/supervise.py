"""Success must be proven: the command runs in a process of its own, and this one believes what that one proves.

Studies and estimators are foreign code. They may end the process with status 0 (`os._exit`), crash it, or leave a copy
of it behind; the system may kill it. So the command's process writes its verdict into a pipe once everything is stored,
and whoever waits for it returns 0 or 1 for such a verdict only, and 2 for any other end.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["NO_VERDICT", "supervised"]

NO_VERDICT = 2  # neither that the claims hold, nor that they do not
LAST_SECONDS = 10.0  # that a process may take to end once its verdict is written
POLL_SECONDS = 0.2
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP")


def supervised(command: Callable[[], int], say: Callable[[str], int]) -> int:
    """Run a command in a child process; its proven exit code, or 2.

    Args:
        command: returns the exit code; called in the child.
        say: prints a sentence and returns 2.
    """
    if not hasattr(os, "fork"):  # Windows
        return command()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    # One pipe for the verdict; and one that nobody writes to, whose end tells the child that its parent is gone.
    proof_out, proof_in = os.pipe()
    alive_out, alive_in = os.pipe()
    child = os.fork()
    if not child:
        os.close(proof_out)
        os.close(alive_in)
        return _child(command, proof_in, alive_out)
    os.close(proof_in)
    os.close(alive_out)
    return _parent(child, proof_out, say)


def _child(command: Callable[[], int], proof: int, alive: int) -> int:
    """Run the command and write its verdict, unless this is a copy of the process that ran it."""
    owner = os.getpid()
    threading.Thread(target=_end_with, args=(alive,), name="supervisor", daemon=True).start()
    with suppress(ValueError):
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupted_once())
    code = command()
    # A copy that a study has forked comes back here too: its word is not the command's.
    if os.getpid() == owner:
        os.write(proof, f"{owner} {code}\n".encode())
    return code


def _end_with(alive: int) -> None:
    """End this process when the one that waits for it is gone: the other end of the pipe closes."""
    with suppress(OSError):
        os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def _interrupted_once() -> Callable[[int, Any], None]:
    """A terminal interrupts both processes, and the waiting one passes it on: one of the two is enough."""
    last = -LAST_SECONDS

    def handler(number: int, frame: Any) -> None:
        nonlocal last
        if time.monotonic() - last < LAST_SECONDS / 4:
            return
        last = time.monotonic()
        raise KeyboardInterrupt

    return handler


def _parent(child: int, proof: int, say: Callable[[str], int]) -> int:
    for name in FORWARDED:
        with suppress(AttributeError, ValueError):
            number = getattr(signal, name)
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda sent, frame: _pass_on(child, sent))
    written, status = _wait(child, proof)
    return _verdict(child, written, status, say)


def _wait(child: int, proof: int) -> tuple[bytes, int]:
    """What the child wrote, and its wait status once it has ended."""
    written, listening, deadline = b"", True, float("inf")
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if listening and select.select([proof], [], [], 0 if ended else POLL_SECONDS)[0]:
            content = os.read(proof, 100)
            written, listening = written + content, bool(content)  # nothing is found once no process can write any more
        elif not ended:
            time.sleep(POLL_SECONDS / 10)
        if ended:
            return written, status
        if written:
            deadline = min(deadline, time.monotonic() + LAST_SECONDS)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)  # its verdict stands; something of a study's keeps it from ending


def _pass_on(child: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, number)


def _verdict(child: int, written: bytes, status: int, say: Callable[[str], int]) -> int:
    owner, _, code = written.decode("ascii", "replace").partition(" ")
    if owner == str(child) and code.strip() in ("0", "1", "2"):
        return int(code)
    how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit status {os.WEXITSTATUS(status)}"
    return say(f"the process ended with {how} before it had a verdict; what was stored is kept, run the command again")
