"""`studies verify --isolated --timeout SECONDS`: the same command in a process of its own, ended when its time is up.

What the estimator does to its process (default dtype, random state, threads, working directory, memory, a crash of
native code) stays there; the exit code comes back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from studies.errors import StudyError

__all__ = ["command_line", "run"]


def command_line(estimator: str | None, engine: bool, problems: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """The arguments of `studies` for one verification.

    Example:
        >>> command_line("mine:f", False, ["line-s0.3"], {"task": "score", "out": None})
        ['verify', 'mine:f', '--problem', 'line-s0.3', '--task', 'score']
    """
    arguments = ["verify", *([estimator] if estimator else []), *(["--engine"] if engine else [])]
    for name in problems:
        arguments += ["--problem", name]
    for key, value in options.items():
        if value is not None:
            arguments += [f"--{key}", str(value)]
    return arguments


def run(arguments: Sequence[str], timeout: float | None = None) -> int:
    """Run `studies` with these arguments in a new process and return its exit code.

    Args:
        arguments: as on the command line, after `studies`.
        timeout: seconds after which the process and all that it started are ended; None waits.

    Raises:
        StudyError: a timeout that is not positive; the time is up; the process was ended by a signal.
    """
    if timeout is not None and not timeout > 0:
        raise StudyError(f"--timeout {timeout:g} is no time; give a positive number of seconds.")
    sys.stdout.flush()
    # A session of its own, so that ending it ends the processes that the estimator started, too.
    process = subprocess.Popen([sys.executable, "-m", "studies.cli", *arguments], start_new_session=True)
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired as error:
        raise StudyError(f"the estimator took longer than --timeout {timeout:g} s and was ended.") from error
    finally:
        if process.poll() is None:
            _end(process)
    if code < 0:  # the child itself reports how its own process for the estimator ended
        name = signal.Signals(-code).name
        raise StudyError(f"the estimator's process was ended by {name}: it crashed, or ran out of memory.")
    return code


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, AttributeError):  # gone already; systems without process groups
        process.kill()
    process.wait()
