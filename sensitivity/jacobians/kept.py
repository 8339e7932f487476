"""Graphs that a run keeps, so that a later backward pass need not evaluate the network again.

An influence goes down with probes and back with cotangents, through the same stage inputs. Where the graph of a stage
is still there, going back costs a backward pass alone, and gives the same bits as a new evaluation would.

A graph holds the network's intermediate results. How many bytes is measured at the first stage; graphs are kept up to
`LIMIT` bytes for a whole run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
LIMIT = 1 << 30


@dataclass
class Graph:
    """A score's value with its graph: cotangents (F, *value.shape) become Jᵀu, as long as it is retained."""

    score: Any
    state: Tensor
    value: Tensor

    def pull(self, cotangents: Tensor, *, serial: bool = False, retain: bool = False) -> Tensor:
        """Jᵀu_k, (F, *state.shape); all at once where there are several, unless `serial`."""
        if len(cotangents) > 1 and not serial:
            (images,) = torch.autograd.grad(
                self.value, self.state, cotangents, is_grads_batched=True, materialize_grads=True, retain_graph=retain
            )
            return images
        last = len(cotangents) - 1
        rows = [
            torch.autograd.grad(self.value, self.state, u, retain_graph=retain or k < last, materialize_grads=True)[0]
            for k, u in enumerate(cotangents)
        ]
        return rows[0][None] if last == 0 else torch.stack(rows)

    @property
    def size(self) -> int:
        """Bytes that the graph holds beside the network's parameters."""
        held = {}
        for tensor in _saved(self.value):
            if not isinstance(tensor, torch.nn.Parameter):
                storage = tensor.untyped_storage()
                # By address, since views share storage; a data pointer would need data, which subclasses may not have.
                held[storage._cdata] = storage.nbytes()
        return sum(held.values())


def _saved(value: Tensor) -> Iterator[Tensor]:
    """The tensors that the nodes of a graph keep for their backward pass."""
    waiting, seen = [value.grad_fn], set()
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [each for each, _ in node.next_functions]
        names = [name for name in dir(node) if name.startswith("_saved_") or name == "saved_tensors"]
        for kept in (getattr(node, name) for name in names):
            yield from (each for each in (kept if isinstance(kept, tuple | list) else [kept]) if _is_tensor(each))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


@dataclass
class Graphs:
    """What a run keeps.

    Attributes:
        limit: bytes.
        size: of one stage's graphs, for each sample; None until a stage was measured.
        used: bytes kept so far.
        stage: the graphs of the stage at hand; None while nothing is kept of it.
    """

    limit: int = LIMIT
    size: float | None = None
    used: float = 0.0
    stage: list[Graph] | None = field(default=None, repr=False)

    def during(self, batch: int, values: Callable[[], T]) -> tuple[T, tuple[Graph, ...]]:
        """A stage's values, and its graphs, or none where there is no room."""
        if self.size is not None and self.used + self.size * batch > self.limit:
            return values(), ()
        self.stage = []
        try:
            local, graphs = values(), tuple(self.stage)
        finally:
            self.stage = None
        if self.size is None:
            self.size = sum(graph.size for graph in graphs) / max(batch, 1)
        self.used += self.size * batch
        return local, graphs if self.used <= self.limit else ()
