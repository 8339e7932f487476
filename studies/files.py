"""Files that are either whole or absent: written beside their place, then renamed; checked by SHA-256.

Nothing is flushed to disk for a single cell: renaming is enough against a killed process, and after a power cut the
checksum tells a torn file from a whole one, so the cell is redone.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from studies.errors import StudyError

__all__ = ["TEMPORARY", "as_json", "checksum", "leftovers", "make_folder", "read", "write"]

TEMPORARY = ".tmp"  # suffix of files being written; left over only when a process was killed
_counter = itertools.count()


def checksum(content: bytes) -> str:
    """SHA-256 in hexadecimal.

    Example:
        >>> checksum(b"")[:8]
        'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def as_json(content: Any) -> bytes:
    """A table as JSON, which knows no NaN and no infinity: they are null.

    Example:
        >>> as_json({"slope": float("nan"), "seeds": 2}).split()
        [b'{', b'"slope":', b'null,', b'"seeds":', b'2', b'}']
    """
    return (json.dumps(_finite(content), indent=1, allow_nan=False) + "\n").encode()


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        StudyError: the disk is full, the folder is read-only, or the path cannot be written for another reason.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(_counter)}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException as error:  # an interrupt too
        with suppress(OSError):  # where nothing can be written, nothing can be removed
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StudyError(explain(error, path)) from error
        raise


def read(path: Path) -> bytes:
    """Content of a regular file; a pipe, which could be waited for without end, and a device are refused.

    Raises:
        StudyError: absent, not a regular file, or unreadable.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise StudyError(f"cannot use {path}: it is no regular file; move it away.")
            return file.read()
    except OSError as error:
        raise StudyError(explain(error, path)) from error


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def leftovers(folder: Path) -> list[Path]:
    """Files in a folder that a killed process was writing."""
    return [path for path in folder.glob(f".*{TEMPORARY}") if path.is_file() or path.is_symlink()]


def make_folder(path: Path) -> Path:
    """Create a folder and its parents.

    Raises:
        StudyError: it cannot be created or is not a folder.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(explain(error, path)) from error
    return path


ADVICE = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again; finished cells are kept",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again; finished cells are kept",
    errno.EFBIG: "the file would exceed the size limit: raise it and run the same command again; "
    "finished cells are kept",
    errno.EROFS: "the file system is read-only: choose a writable folder with --out, or copy the results to one",
    errno.EACCES: "permission is denied: choose a writable folder with --out",
    errno.EPERM: "permission is denied: choose a writable folder with --out",
    errno.ENOENT: "it does not exist and cannot be made: check the path",
    errno.ENOTDIR: "a part of the path is a file: choose another folder with --out",
    errno.EEXIST: "it is a file: choose another folder with --out",
    errno.EISDIR: "it is a folder where a file is needed: move it away",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter folder with --out",
}


def explain(error: OSError, path: Path) -> str:
    """One sentence for a file-system error."""
    advice = ADVICE.get(error.errno or 0, f"{error.strerror or error}: check the path")
    return f"cannot use {path}: {advice}."
