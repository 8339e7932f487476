"""Points in a torch `Dataset` or `DataLoader`, or in a table of Hugging Face `datasets`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler, default_collate

from sensitivity.sources.arrays import digest
from sensitivity.sources.source import PointSource, SourceError, cut


class DatasetSource(PointSource):
    """Items of a torch data set in its own order.

    Args:
        data: the data set, with a length; an item is a tensor, or a tuple or mapping that holds one.
        rows: the number of items of a shard.
        column: position in a tuple (0 where not given) or key of a mapping.
        collate: makes a batch of a list of items.
    """

    def __init__(
        self, data: Any, rows: int, column: Any, collate: Callable[[list[Any]], Any] = default_collate
    ) -> None:
        if isinstance(data, IterableDataset) or not isinstance(data, Sized):
            raise TypeError(
                f"points is a {type(data).__name__} without a length, so that points have no index: write it to shards."
            )
        self._data: Any = data
        self._column, self._collate = column, collate
        self._bounds = list(cut(len(data), rows))
        self.sizes = [last - first for first, last in self._bounds]

    @classmethod
    def of_loader(cls, loader: DataLoader[Any], rows: int, column: Any) -> DatasetSource:
        """The items that a loader would load, by its own `collate_fn`, in the order of the data set."""
        if not isinstance(loader.dataset, IterableDataset) and not isinstance(loader.sampler, SequentialSampler):
            raise ValueError(
                f"points is a DataLoader with a {type(loader.sampler).__name__}, so that indices mean nothing: pass it "
                "with shuffle=False, or its data set."
            )
        return cls(loader.dataset, rows, column, loader.collate_fn)

    def name(self, shard: int) -> str:
        """Its items."""
        return "items {} to {} of a {}".format(*self._bounds[shard], type(self._data).__name__)

    def read(self, shard: int) -> Tensor:
        """The items, collated."""
        return self._points(self._batch(shard), shard)

    def _batch(self, shard: int) -> Any:
        try:
            return self._collate([self._data[i] for i in range(*self._bounds[shard])])
        except Exception as error:
            reason = str(error).split("\n")[0].rstrip(".")
            raise SourceError(
                f"{self.name(shard)} could not be loaded ({type(error).__name__}: {reason}): mend the data set."
            ) from error

    def _points(self, batch: Any, shard: int) -> Tensor:
        if not isinstance(batch, Tensor) and isinstance(batch, Mapping | Sequence):
            key = 0 if self._column is None else self._column
            try:
                batch = batch[key]
            except (KeyError, IndexError, TypeError) as error:
                raise SourceError(
                    f"column={key!r} is not in {self.name(shard)}: name the part that holds points."
                ) from error
        if not isinstance(batch, Tensor):
            raise SourceError(f"{self.name(shard)} collate to a {type(batch).__name__}: name the tensor with column=.")
        return batch

    def labels(self, shard: int, field: str) -> Sequence[Any]:
        """A key of items that are mappings."""
        batch = self._batch(shard)
        if not isinstance(batch, Mapping) or field not in batch:
            return super().labels(shard, field)
        values = batch[field]
        return values.tolist() if isinstance(values, Tensor) else list(values)

    def fingerprint(self, shard: int) -> str:
        """SHA-256 of the items, which reads them."""
        return digest(self.read(shard))


class TableSource(PointSource):
    """Rows of a Hugging Face table (`datasets.Dataset`).

    Args:
        table: the table.
        rows: rows of a shard.
        column: the column of the points: lists of numbers, arrays or images.
    """

    def __init__(self, table: Any, rows: int, column: str | None) -> None:
        if column not in table.column_names:
            raise ValueError(f"column={column!r} is no column of the table: choose one of {table.column_names}.")
        self._table, self._column = table, str(column)
        self._bounds = list(cut(len(table), rows))
        self.sizes = [last - first for first, last in self._bounds]

    def name(self, shard: int) -> str:
        """Its rows."""
        return "rows {} to {} of a table".format(*self._bounds[shard])

    def read(self, shard: int) -> Tensor:
        """The column of the points as one tensor."""
        import numpy as np

        try:
            return torch.from_numpy(np.stack([np.asarray(v) for v in self.labels(shard, self._column)]))
        except (TypeError, ValueError) as error:
            raise SourceError(
                f"{self.name(shard)} are no points of one shape ({error}): mend {self._column!r}."
            ) from error

    def labels(self, shard: int, field: str) -> Sequence[Any]:
        """A column of the table."""
        if field not in self._table.column_names:
            raise SourceError(f"groups={field!r} is no column of the table: choose one of {self._table.column_names}.")
        values: Sequence[Any] = self._table[slice(*self._bounds[shard])][field]
        return values

    def fingerprint(self, shard: int) -> str:
        """The table's own fingerprint, which changes with every step of its making."""
        return f"{getattr(self._table, '_fingerprint', '')}:{self._bounds[shard]}:{self._column}"
