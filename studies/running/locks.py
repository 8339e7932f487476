"""One writer at a time for a result folder, and whether there is one now.

The operating system lets go of a lock when its process ends, however it ends. The lock file names its holder, for the
sentence that whoever comes second reads.
"""

from __future__ import annotations

import errno
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from studies.errors import StudyError
from studies.files import explain, read
from studies.running import text

__all__ = ["holder", "lock", "running"]

WAIT_SECONDS = 0.5  # long enough for another command that only looked
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a result folder.

    Raises:
        StudyError: another run holds it, or it cannot be locked.
    """
    path = folder / "lock"
    handle = filelock.FileLock(path)
    try:
        with warnings.catch_warnings():
            # Where flock is missing, filelock warns and takes a marker file, which a killed run would leave behind.
            warnings.simplefilter("error")
            handle.acquire(timeout=WAIT_SECONDS)
    except filelock.Timeout:
        raise StudyError(
            f"another run is writing to {folder} ({holder(folder)}); wait until it ends, or choose another folder "
            "with --out."
        ) from None
    except (OSError, NotImplementedError, Warning) as error:
        raise StudyError(_unlockable(error, path)) from error
    try:
        with suppress(OSError):
            path.write_text(f"process {os.getpid()} on {socket.gethostname()} since {time.ctime()}\n")
        yield
    finally:
        handle.release()


def _unlockable(error: Exception, path: Path) -> str:
    number = getattr(error, "errno", None)
    if isinstance(error, NotImplementedError | Warning) or number in NO_LOCKS:
        return f"the storage of {path.parent} has no file locks; choose a folder on another disk with --out."
    return explain(error, path) if isinstance(error, OSError) else str(error)


def holder(folder: Path) -> str:
    """What the lock file says of its last holder."""
    try:
        return text.line(read(folder / "lock").decode("utf-8", "replace"), 120) or "it left no name"
    except StudyError:
        return "its lock file cannot be read"


def running(folder: Path) -> bool | None:
    """Whether a run holds the folder now; None where that cannot be told. Nothing is written, so that it works on
    read-only storage and in the folders of others."""
    try:
        import fcntl

        handle = os.open(folder / "lock", os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return False
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    else:
        return False
    finally:
        os.close(handle)
