"""Points in files: `.npy`, `.safetensors` and Parquet shards; headers are read at once, rows when needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensitivity.sources.arrays import check_storage, stamp
from sensitivity.sources.source import PointSource, SourceError, cut


@dataclass(frozen=True)
class Piece:
    """Some rows of a file (row group `first` of a Parquet file), with the file's stamp when it was opened."""

    path: Path
    first: int
    last: int
    stamp: str

    @property
    def words(self) -> str:
        """File and rows."""
        return f"{self.path} ({self.first} to {self.last})"


class FileSource(PointSource):
    """Files of one kind, row by row in the order given; a large file is cut into several shards.

    Args:
        paths: the files, all `.npy`, all `.safetensors` or all `.parquet`, of one shape a point and one dtype.
        rows: the largest number of rows of a shard; a Parquet file is cut at its row groups instead.
        column: the tensor of a safetensors file or the column of a Parquet file that holds the points.
    """

    def __init__(self, paths: Sequence[Path], rows: int, column: str | None) -> None:
        self._column, self._kind = column, paths[0].suffix
        if self._kind not in KINDS:
            raise ValueError(f"points={paths[0]} is no .npy, .safetensors or .parquet file: convert it to one of them.")
        self._pieces: list[Piece] = []
        self.sizes: list[int] = []
        self._form: tuple[Any, ...] | None = None
        for path in paths:
            self._open(path, rows)

    def _open(self, path: Path, rows: int) -> None:
        if path.suffix != self._kind:
            raise ValueError(f"shard {path} is no {self._kind} file as the first one is: give shards of one kind.")
        mark = stamp(path)
        count, form, bounds = _guarded(path, lambda: KINDS[self._kind][0](path, rows, self._column))
        self._form = self._form or form
        if form != self._form:
            raise SourceError(
                f"shard {path} holds {_described(form)}, but the first holds {_described(self._form)}: make them alike."
            )
        for first, last, size in bounds:
            self._pieces.append(Piece(path, first, last, mark))
            self.sizes.append(size)
        if not count:
            raise SourceError(f"shard {path} has no rows: leave it out.")

    def name(self, shard: int) -> str:
        """File and rows."""
        return self._pieces[shard].words

    def read(self, shard: int) -> Tensor:
        """The rows, after a look whether the file is still the one that was opened."""
        piece = self._pieces[shard]
        self.fingerprint(shard)
        data = _guarded(piece.path, lambda: KINDS[self._kind][1](piece, self._column))
        if len(data) != self.sizes[shard]:
            raise SourceError(f"shard {piece.words} has {len(data)} rows in place of {self.sizes[shard]}: restore it.")
        return data

    def fingerprint(self, shard: int) -> str:
        """Name, size and time of change, and the rows."""
        piece = self._pieces[shard]
        if stamp(piece.path) != piece.stamp:
            raise SourceError(f"shard {piece.path} has changed since it was opened: give the paths anew.")
        return f"{piece.stamp}:{piece.first}:{piece.last}:{self._column}"

    def labels(self, shard: int, field: str) -> Sequence[Any]:
        """A column of a Parquet file."""
        if self._kind != ".parquet":
            return super().labels(shard, field)
        piece = self._pieces[shard]
        return _guarded(piece.path, lambda: _group(piece, field).to_pylist())


def _guarded(path: Path, act: Callable[[], Any]) -> Any:
    """What a reader says of a damaged file, in one sentence that names it."""
    try:
        return act()
    except (SourceError, TypeError, ImportError):
        raise
    except Exception as error:
        # The readers raise errors of their own classes; all mean that the file is not what its name says.
        reason = str(error).split("\n")[0].rstrip(".")
        raise SourceError(f"shard {path} cannot be read ({type(error).__name__}: {reason}): write it again.") from error


def _described(form: tuple[Any, ...]) -> str:
    return f"points of shape {form[1]} stored as {form[0]}"


# Number of rows, what all shards must share, and (first, last, rows) of the pieces that a file is cut into.
Header = tuple[int, tuple[Any, ...], list[tuple[int, int, int]]]


def _npy_header(path: Path, rows: int, column: str | None) -> Header:
    data = np.load(path, mmap_mode="r", allow_pickle=False)
    check_storage(data.dtype, f"shard {path}")
    if data.ndim < 2:
        raise SourceError(f"shard {path} has shape {data.shape}: points have shape (rows, *shape).")
    form = (str(data.dtype), tuple(data.shape[1:]))
    return len(data), form, [(a, b, b - a) for a, b in cut(len(data), rows)]


def _npy_rows(piece: Piece, column: str | None) -> Tensor:
    data = np.load(piece.path, mmap_mode="r", allow_pickle=False)
    return torch.from_numpy(np.array(data[piece.first : piece.last]))


def _tensor_of(path: Path, file: Any, column: str | None) -> str:
    names = list(file.keys())
    if column is None and len(names) == 1:
        return str(names[0])
    if column not in names:
        raise SourceError(
            f"column={column!r} is not in shard {path}: choose one of {', '.join(map(repr, sorted(names)))}."
        )
    return str(column)


def _safetensors_header(
    path: Path, rows: int, column: str | None
) -> tuple[int, tuple[Any, ...], list[tuple[int, int, int]]]:
    with needed("safetensors", "shards in .safetensors").safe_open(path, "pt") as file:
        part = file.get_slice(_tensor_of(path, file, column))
        shape, kind = tuple(part.get_shape()), part.get_dtype()
    if len(shape) < 2:
        raise SourceError(f"shard {path} has shape {shape}: points have shape (rows, *shape).")
    return shape[0], (kind, shape[1:]), [(a, b, b - a) for a, b in cut(shape[0], rows)]


def _safetensors_rows(piece: Piece, column: str | None) -> Tensor:
    with needed("safetensors", "shards in .safetensors").safe_open(piece.path, "pt") as file:
        return file.get_slice(_tensor_of(piece.path, file, column))[piece.first : piece.last].clone()


def _parquet_header(
    path: Path, rows: int, column: str | None
) -> tuple[int, tuple[Any, ...], list[tuple[int, int, int]]]:
    with needed("pyarrow.parquet", "Parquet shards").ParquetFile(path) as file:
        known = file.schema_arrow.names
        if column not in known:
            raise SourceError(f"column={column!r} is not in shard {path}: choose one of {known}.")
        kind = file.schema_arrow.field(column).type
        sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    return sum(sizes), (str(kind), "of a list"), [(g, g + 1, size) for g, size in enumerate(sizes)]


def _parquet_rows(piece: Piece, column: str | None) -> Tensor:
    chunk = _group(piece, str(column)).combine_chunks()
    if chunk.null_count:
        raise SourceError(f"shard {piece.words} has empty entries in column {column!r}: fill or drop them.")
    flat = chunk.flatten()
    if flat.null_count or len(flat) % len(chunk):
        raise SourceError(
            f"shard {piece.words} has points of several lengths in {column!r}: give all points one length."
        )
    # Only lists of free length have offsets; those of fixed length are another class of pyarrow, which is optional.
    lengths = np.unique(np.diff(chunk.offsets.to_numpy())) if hasattr(chunk, "offsets") else np.ones(1)
    if len(lengths) != 1:
        raise SourceError(
            f"shard {piece.words} has points of several lengths in {column!r}: give all points one length."
        )
    numbers = flat.to_numpy(zero_copy_only=False)
    check_storage(numbers.dtype, f"column {column!r} of shard {piece.path}")
    return torch.from_numpy(np.array(numbers)).reshape(len(chunk), -1)


def _group(piece: Piece, column: str) -> Any:
    with needed("pyarrow.parquet", "Parquet shards").ParquetFile(piece.path) as file:
        if column not in file.schema_arrow.names:
            raise SourceError(
                f"{column!r} is no column of shard {piece.path}: choose one of {file.schema_arrow.names}."
            )
        return file.read_row_group(piece.first, columns=[column]).column(column)


def needed(module: str, what: str) -> Any:
    """A module of an optional package.

    Raises:
        ImportError: in one sentence that says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise ImportError(f"{what} need {package}: pip install {package}, or 'score-sensitivity[data]'.") from error


KINDS: dict[str, tuple[Callable[..., Any], Callable[..., Tensor]]] = {
    ".npy": (_npy_header, _npy_rows),
    ".safetensors": (_safetensors_header, _safetensors_rows),
    ".parquet": (_parquet_header, _parquet_rows),
}
