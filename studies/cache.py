"""Trained networks and large arrays, kept between runs as safetensors (never pickle).

Several workers may want one network: the first trains it under a lock, the others wait and read it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from studies.errors import StudyError
from studies.files import checksum, explain, make_folder, read, write
from studies.running.names import safe
from studies.running.waiting import waiting

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Cache"]

LONGEST_SECONDS = 12 * 3600.0  # that one network may take to train


class Cache:
    """A folder of safetensors files named by what they depend on.

    Args:
        folder: where files are kept; it must be shared by all workers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str, key: Mapping[str, Any]) -> Path:
        """File of `name` under `key` (JSON-able: everything the tensors depend on, seeds included)."""
        return self.folder / f"{safe(name, 'cached name')}-{checksum(_text(key).encode())[:16]}.safetensors"

    def tensors(
        self, name: str, key: Mapping[str, Any], build: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The stored tensors, or those of `build()`, which are then stored.

        A damaged file, or one of another key, is built anew. What is returned has always been through a file, so that
        a first and a later run see the same bits.

        Raises:
            StudyError: the file cannot be written.
        """
        path = self.path(name, key)
        make_folder(self.folder)
        with _held(path.with_suffix(".lock")):
            stored = self._read(path, key)
            if stored is None:
                self._write(path, key, build())
                stored = self._read(path, key)
        if stored is None:
            raise StudyError(f"{path} could not be read back after writing; check the disk.")
        return stored

    def _write(self, path: Path, key: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        from safetensors.torch import save

        plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        content = save(plain, metadata={"key": _text(key)})
        write(path, content)
        write(path.with_suffix(".sha256"), checksum(content).encode())

    def _read(self, path: Path, key: Mapping[str, Any]) -> dict[str, Tensor] | None:
        """The tensors, or None where the file is absent, damaged, or of another key: it is built anew."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            content = read(path)
            if checksum(content) != read(path.with_suffix(".sha256")).decode() or _key(content) != _text(key):
                return None
            return load(content)
        except (StudyError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
            return None


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps(dict(key), sort_keys=True, allow_nan=False)


def _key(content: bytes) -> Any:
    """The key inside a file of safetensors: its header is JSON, whose length stands in the first eight bytes."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header["__metadata__"]["key"]


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold the lock of a file that somebody else may be building; a long wait is told.

    Raises:
        StudyError: the lock cannot be had.
    """
    handle = filelock.FileLock(path)
    try:
        with waiting(lambda: f"another process that builds {path.stem} (its lock is {path})"):
            handle.acquire(timeout=LONGEST_SECONDS)
    except filelock.Timeout:
        raise StudyError(
            f"{path} has been held for {LONGEST_SECONDS / 3600:.0f} hours; end the process that holds it."
        ) from None
    except (OSError, NotImplementedError) as error:
        raise StudyError(explain(error, path) if isinstance(error, OSError) else str(error)) from error
    try:
        yield
    finally:
        handle.release()
