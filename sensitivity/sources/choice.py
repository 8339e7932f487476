"""Which source reads what a caller gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from sensitivity._checks import check_count
from sensitivity.sources.arrays import ArraySource, TensorSource
from sensitivity.sources.files import FileSource
from sensitivity.sources.source import SHARD, PointSource
from sensitivity.sources.tables import DatasetSource, TableSource

WAYS = (
    "a tensor, a NumPy array or memory map, a path or list of paths (.npy, .safetensors, .parquet), a torch Dataset or "
    "DataLoader, a table of datasets, or a PointSource"
)


def as_source(points: Any, *, shard_rows: int = SHARD, column: Any = None) -> PointSource:
    """The source that reads `points`.

    Args:
        points: a tensor (N, *shape), a NumPy array or memory map, a path or list of paths to `.npy`, `.safetensors` or
            `.parquet` shards, a torch `Dataset` or `DataLoader`, a table of Hugging Face `datasets`, or a source.
        shard_rows: points of a shard, which bounds the memory; a Parquet file is cut at its row groups.
        column: where points lie in a table, a file with several tensors, or an item of a data set.

    Raises:
        ValueError, TypeError: for anything else, no points, shards that differ, files that cannot be read.

    Example:
        >>> as_source(np.zeros((3, 2), dtype=np.float32)).sizes
        [3]
    """
    check_count(shard_rows, "shard_rows")
    source = _source(points, shard_rows, column)
    if not len(source):
        raise ValueError("points has no rows: give at least one point.")
    return source


def _source(points: Any, rows: int, column: Any) -> PointSource:
    if isinstance(points, PointSource):
        return points
    if isinstance(points, Tensor | np.ndarray):
        if points.ndim < 2:
            raise ValueError(f"points has shape {tuple(points.shape)}: points have shape (N, *shape).")
        return TensorSource(points, rows) if isinstance(points, Tensor) else ArraySource(points, rows)
    if isinstance(points, str | Path):
        points = [points]
    if isinstance(points, DataLoader):
        return DatasetSource.of_loader(points, rows, column)
    # The package `datasets` is optional: its tables are known by their columns, so that nothing is imported to see.
    if hasattr(points, "column_names") and hasattr(points, "features"):
        return TableSource(points, rows, column)
    if isinstance(points, Dataset | IterableDataset):
        return DatasetSource(points, rows, column)
    if isinstance(points, Sequence) and points and all(isinstance(p, str | Path) for p in points):
        return FileSource([Path(p) for p in points], rows, column)
    raise TypeError(f"points is a {type(points).__name__}: give {WAYS}.")
