"""What is asked of points, what one shard answers, and how answers become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from sensitivity.readings.streaming import Lengths


@dataclass(frozen=True)
class Question:
    """What is asked of a shard.

    Attributes:
        top_k: number of points to keep for each functional and sample, or None for all.
        bandwidth: b of the points, see `Points`.
        prune: what every value may lose, or None.
        axes: axes that distances are bounded in, (d, k), where pruned.
        rates: for each law the rates of the shard's points, or None.
        labels: the groups of the shard's points; the name of a field; or None.
    """

    top_k: int | None = None
    bandwidth: float = 0.0
    prune: float | None = None
    axes: Tensor | None = None
    rates: tuple[Tensor | None, ...] = (None,)
    labels: Sequence[Any] | str | None = None

    def of(self, first: int, size: int) -> Question:
        """The question to the shard that begins at point `first`."""
        here = slice(first, first + size)
        labels = self.labels if self.labels is None or isinstance(self.labels, str) else self.labels[here]
        return replace(self, rates=tuple(None if r is None else r[here] for r in self.rates), labels=labels)


@dataclass(frozen=True)
class Answer:
    """What a shard, or all so far, say.

    Attributes:
        values: (F, batch, points), or (F, batch, k).
        indices: like values, of the whole data set; None where all are kept.
        bound: what pruning may have taken from any value, (F, batch), double.
        sums, losses: for each group, Σ values and what pruning may have taken from it, (F, batch), double.
        skipped: samples × points left out of each stage, (stages,), double.
        points, bytes: how many points were met and bytes read for them.
        lengths: of the values over all points and of what each stage adds to them; None where no stages are met.
    """

    values: Tensor
    indices: Tensor | None
    bound: Tensor
    skipped: Tensor
    points: int
    bytes: int
    sums: Mapping[Any, Tensor] = field(default_factory=dict)
    losses: Mapping[Any, Tensor] = field(default_factory=dict)
    lengths: Lengths | None = None


A = TypeVar("A")


class Total(Protocol[A]):
    """The answer of all shards so far."""

    def take(self, new: A) -> None:
        """The answer of the next shard."""
        ...

    def result(self) -> A | None:
        """The answer of all shards that did not fail; None where all did."""
        ...


@dataclass
class Merger(Generic[A]):
    """Answers in the order of their shards, whatever the order of their arrival, so that sums keep their bits.

    Attributes:
        total: what they are added to.
        order: the shards that are wanted.
    """

    total: Total[A]
    order: list[int]
    _early: dict[int, A | None] = field(default_factory=dict)

    def add(self, shard: int, answer: A | None) -> None:
        """The answer of a shard, or None where it failed."""
        self._early[shard] = answer
        while self.order and self.order[0] in self._early:
            early = self._early.pop(self.order.pop(0))
            if early is not None:
                self.total.take(early)


@dataclass
class Values:
    """Influences of all shards so far.

    Attributes:
        top_k: as asked.
    """

    top_k: int | None
    _all: list[Tensor] = field(default_factory=list)
    _total: Answer | None = None

    def take(self, new: Answer) -> None:
        """The values, sums and bounds of the next shard."""
        old = self._total
        if self.top_k is None:
            self._all.append(new.values)
            new = replace(new, values=new.values[..., :0])
        if old is None:
            self._total = new
            return
        values, indices = new.values, new.indices
        if self.top_k is not None and indices is not None and old.indices is not None:
            values, indices = kept(self.top_k, (old.values, old.indices), (values, indices))
        sums, losses = _added(old.sums, new.sums), _added(old.losses, new.losses)
        bound, skipped = torch.maximum(old.bound, new.bound), old.skipped + new.skipped
        points, read = old.points + new.points, old.bytes + new.bytes
        lengths = None if old.lengths is None or new.lengths is None else old.lengths + new.lengths
        self._total = Answer(values, indices, bound, skipped, points, read, sums, losses, lengths)

    def result(self) -> Answer | None:
        """The answer of all shards that did not fail; None where all did."""
        if self._total is None or self.top_k is not None:
            return self._total
        return replace(self._total, values=torch.cat(self._all, -1))


def _added(old: Mapping[Any, Tensor], new: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
    both = dict(old)
    for name, value in new.items():
        both[name] = both[name] + value if name in both else value
    return both


def kept(k: int, old: tuple[Tensor, Tensor] | None, new: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The k largest |value| of two lists with their indices."""
    values, indices = new if old is None else (torch.cat([a, b], -1) for a, b in zip(old, new, strict=True))
    chosen = values.abs().topk(min(k, values.shape[-1]), -1).indices
    return values.gather(-1, chosen), indices.gather(-1, chosen)
