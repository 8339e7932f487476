"""What a source of points is: shards of known sizes that can be read in any order, by any process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

SHARD = 16384


class SourceError(ValueError):
    """A shard that cannot be used; the sentence names it."""


class PointSource(ABC):
    """Points cut into shards; point i of the whole is row i − start of the shard that holds it.

    Attributes:
        sizes: the number of points of each shard, known before anything is read.

    A source of your own derives from this class; it must be picklable where a Dask client is to read it.

    Example:
        >>> import torch
        >>> from sensitivity.sources import as_source
        >>> source = as_source(torch.zeros(5, 2), shard_rows=2)
        >>> source.sizes, source.name(2), len(source)
        ([2, 2, 1], 'rows 4 to 5 of a tensor', 5)
    """

    sizes: list[int]

    @abstractmethod
    def name(self, shard: int) -> str:
        """The shard in words, for messages."""

    @abstractmethod
    def read(self, shard: int) -> Tensor:
        """The points of a shard as they are stored, (rows, ...).

        Raises:
            SourceError: for a shard that is missing, damaged or not as it was when the source was opened.
        """

    @abstractmethod
    def fingerprint(self, shard: int) -> str:
        """What changes when the content of the shard does, without reading it whole where that can be had."""

    def labels(self, shard: int, field: str) -> Sequence[Any]:
        """The values of a field of the data set for the points of a shard; a table knows such fields."""
        raise SourceError(
            f"groups={field!r} names a field, but {self.name(shard)} has none: give one label a point, (N,), instead."
        )

    def __len__(self) -> int:
        return sum(self.sizes)

    @property
    def starts(self) -> list[int]:
        """Index of the first point of each shard."""
        return [sum(self.sizes[:k]) for k in range(len(self.sizes))]


def cut(count: int, rows: int) -> Iterator[tuple[int, int]]:
    """First and last row + 1 of consecutive shards."""
    return ((first, min(first + rows, count)) for first in range(0, count, rows))
