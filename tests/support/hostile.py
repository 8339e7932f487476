"""Foreign code that ends in every way but the right one, and a way to run a command with it.

`ENDINGS` are what a cell, a claim, a figure or an estimator may do instead of returning; the module-level `action` is
what `estimate` and `Reader` do beforehand.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from studies.cli import answer, fail
from studies.running.supervise import supervised

PATIENCE = 60.0  # seconds
action: Callable[[], Any] = lambda: None  # noqa: E731 - replaced by each test


class Abort(BaseException):
    """Not an Exception: what catches those lets it through."""


class Mute(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def leave(code: int) -> None:
    os._exit(code)


def throw(error: BaseException) -> None:
    raise error


def dive() -> None:
    dive()


def hush() -> None:
    """Closes what it finds open, the pipe of the verdict included, and stops."""
    os.closerange(3, 256)
    sys.exit(0)


def linger() -> None:
    """Leaves a thread that keeps the process from ending."""
    threading.Thread(target=time.sleep, args=(3600,)).start()
    raise SystemExit(0)


def double_and_fail() -> None:
    """A copy of the process raises, and so does the original."""
    os.fork()
    raise ValueError("twice")


ENDINGS: dict[str, Callable[[], Any]] = {
    "sys.exit(0)": lambda: sys.exit(0),
    "sys.exit()": lambda: sys.exit(),
    "sys.exit of a text": lambda: sys.exit("all claims hold"),
    "os._exit(0)": lambda: leave(0),
    "os._exit(1)": lambda: leave(1),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "terminated": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "a crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "an exception": lambda: throw(ValueError("no")),
    "an interrupt": lambda: throw(KeyboardInterrupt()),
    "no Exception": lambda: throw(Abort("out")),
    "a generator's end": lambda: throw(GeneratorExit()),
    "an exception without text": lambda: throw(Mute()),
    "a message of 3 MB": lambda: throw(ValueError("x" * 3_000_000)),
    "half a surrogate": lambda: throw(ValueError("\udc80 \ud800")),
    "escape sequences": lambda: throw(ValueError("\x1b]0;title\x07\x1b[2J\x1b[31mred")),
    "a recursion": dive,
    "closed pipes": hush,
    "a copy that raises too": double_and_fail,
}


def estimate(problem: Any) -> Any:
    """A right estimator of the task `score`, after the action."""
    action()
    return right(problem)


class Reader:
    """A value whose reading is the action."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __array__(self, *arguments: Any, **keywords: Any) -> Any:
        action()
        return self.value.numpy()


def read(problem: Any) -> Any:
    return Reader(right(problem))


def right(problem: Any) -> Any:
    """The score of a mixture, in closed form: a fork of a process that ran a backward pass can run none."""
    import torch

    law, x = problem.law, problem.x
    spread = problem.alpha**2 * law.covariances + problem.sigma**2 * torch.eye(x.shape[1], dtype=x.dtype)
    normal = torch.distributions.MultivariateNormal(problem.alpha * law.means, spread)
    shares = (law.weights.log() + normal.log_prob(x[:, None])).softmax(1)
    pulls = torch.linalg.solve(spread, (normal.mean - x[:, None])[..., None])[..., 0]
    return (shares[..., None] * pulls).sum(1)


def command(*arguments: str) -> int:
    """Run a command as the program does, supervised, in a copy of this process; its exit status."""
    sys.stdout.flush()
    sys.stderr.flush()
    owner = os.fork()
    if not owner:
        code = 99
        with contextlib.suppress(BaseException):
            os.setpgid(0, 0)
            code = supervised(lambda: answer(arguments), fail)
            sys.stdout.flush()
        os._exit(code)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        ended, status = os.waitpid(owner, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    raise AssertionError(f"{arguments} did not end within {PATIENCE:.0f} s")
