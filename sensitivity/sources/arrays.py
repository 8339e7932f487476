"""Points in memory, or in a NumPy memory map, of which only the shard that is read comes into memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sensitivity.sources.source import PointSource, SourceError, cut


class TensorSource(PointSource):
    """Rows of a tensor."""

    def __init__(self, data: Tensor, rows: int) -> None:
        self._data = data.detach()
        self._bounds = list(cut(len(data), rows))
        self.sizes = [last - first for first, last in self._bounds]

    def name(self, shard: int) -> str:
        """Its rows."""
        return "rows {} to {} of a tensor".format(*self._bounds[shard])

    def read(self, shard: int) -> Tensor:
        """A view of the rows."""
        return self._data[slice(*self._bounds[shard])]

    def fingerprint(self, shard: int) -> str:
        """SHA-256 of the rows."""
        return digest(self.read(shard))


class ArraySource(PointSource):
    """Rows of a NumPy array; a memory map of a whole file is opened anew by whoever reads it."""

    def __init__(self, data: np.ndarray, rows: int) -> None:
        check_storage(data.dtype, "points")
        self._bounds = list(cut(len(data), rows))
        self.sizes = [last - first for first, last in self._bounds]
        self._map: tuple[str, int, np.dtype, tuple[int, ...]] | None = None
        # A view into a map keeps the file's name but not its own place in it, so it is kept as an array.
        whole = isinstance(data, np.memmap) and not isinstance(data.base, np.memmap) and data.flags.c_contiguous
        if whole and isinstance(data, np.memmap) and data.filename is not None:
            self._map = (str(data.filename), data.offset, data.dtype, data.shape)
        self._array = np.empty(0) if self._map else data

    def _rows(self, shard: int) -> np.ndarray:
        if self._map is None:
            return self._array[slice(*self._bounds[shard])]
        path, offset, dtype, shape = self._map
        try:
            whole = np.memmap(path, dtype, "r", offset, shape)
        except (OSError, ValueError) as error:
            raise SourceError(f"{self.name(shard)} cannot be read ({error}): restore the file.") from error
        return whole[slice(*self._bounds[shard])]

    def name(self, shard: int) -> str:
        """Its rows, and the file of a memory map."""
        place = "a NumPy array" if self._map is None else self._map[0]
        return "rows {} to {} of {}".format(*self._bounds[shard], place)

    def read(self, shard: int) -> Tensor:
        """A copy of the rows."""
        return torch.from_numpy(np.array(self._rows(shard)))

    def fingerprint(self, shard: int) -> str:
        """File, size and time of change of a memory map; SHA-256 of an array's rows."""
        if self._map is None:
            return digest(self.read(shard))
        return f"{stamp(Path(self._map[0]))}:{self._bounds[shard]}"


def check_storage(dtype: np.dtype, name: str) -> None:
    """Numbers that torch holds in the machine's byte order: real floats, or integers with a transform."""
    fine = (
        dtype.kind in "fui"
        and dtype.isnative
        and dtype.itemsize <= 8
        and dtype not in (np.uint16, np.uint32, np.uint64)
    )
    if not fine:
        raise TypeError(
            f"{name} is stored as {dtype}: store real floats, uint8 or signed integers in native byte order."
        )


def digest(data: Tensor) -> str:
    """SHA-256 of a tensor's dtype, shape and bytes.

    Example:
        >>> digest(torch.zeros(2))[:8] == digest(torch.zeros(2, 1))[:8]
        False
    """
    plain = data.detach().cpu().contiguous()
    hasher = hashlib.sha256(f"{plain.dtype}{tuple(plain.shape)}".encode())
    hasher.update(plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
    return hasher.hexdigest()


def stamp(path: Path) -> str:
    """Name, size and time of change of a file.

    Raises:
        SourceError: for a file that is not there.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read ({error.strerror}): restore the file or give another path."
        ) from error
    return f"{path.name}:{state.st_size}:{state.st_mtime_ns}"
