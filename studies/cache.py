"""Trained networks and large arrays, kept between runs as safetensors (never pickle).

Several workers may want one network: the first trains it under a lock, the others wait and read it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from studies.errors import StudyError
from studies.files import make_folder, write

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Cache"]


class Cache:
    """A folder of safetensors files named by what they depend on.

    Args:
        folder: where files are kept; it must be shared by all workers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str, key: Mapping[str, Any]) -> Path:
        """File of `name` under `key` (JSON-able: everything the tensors depend on, seeds included)."""
        text = json.dumps(dict(key), sort_keys=True, allow_nan=False)
        return self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"

    def tensors(
        self, name: str, key: Mapping[str, Any], build: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The stored tensors, or those of `build()`, which are then stored.

        A damaged file is built anew. What is returned has always been through a file, so that a first and a later
        run see the same bits.

        Raises:
            StudyError: the file cannot be written.
        """
        path = self.path(name, key)
        make_folder(self.folder)
        with filelock.FileLock(path.with_suffix(".lock")):
            found = self._read(path, key)
            if found is None:
                self._write(path, key, build())
                found = self._read(path, key)
        if found is None:
            raise StudyError(f"{path} could not be read back after writing; check the disk.")
        return found

    def _write(self, path: Path, key: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        from safetensors.torch import save

        plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        content = save(plain, metadata={"key": json.dumps(dict(key), sort_keys=True)})
        digest = hashlib.sha256(content).hexdigest()
        write(path, content)
        write(path.with_suffix(".sha256"), digest.encode())

    def _read(self, path: Path, key: Mapping[str, Any]) -> dict[str, Tensor] | None:
        from safetensors.torch import load

        try:
            content = path.read_bytes()
            digest = path.with_suffix(".sha256").read_text()
        except (OSError, UnicodeDecodeError):
            return None
        if hashlib.sha256(content).hexdigest() != digest:
            return None
        return load(content)
