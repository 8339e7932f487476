"""Points streamed through the stages of a path: the transposed source.

Adding mass at a point y changes φ by the sum over stages of μ_j·ṡ_j[y], where μ_j is the cotangent of stage j and
ṡ[y] = r_y (s_y − s) with r_y = N(x; y, τ²I)/p_σ(x), s_y = (y − x)/τ². The points are the outer loop: each block of them
meets all stages in two matrix products, its values are final when it is left, and no array of size batch × N × d, nor
for the k largest one of size batch × N, is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .adjoint import Pairing, Record
from .laws import Laws
from .measures import Points

# Stage rows handled at once: with a block of points they make one matrix product that stays near the cache.
ROWS = 2048
# Stands for log p = ∞: a halted sample receives nothing from any point.
NOTHING = 1e30


def blocks_of(data: Points) -> list[Points]:
    return [Points(part, bandwidth=data.bandwidth, block=len(part)) for part in data.data.detach().split(data.block)]


def paired(
    laws: Laws,
    pairings: Sequence[Pairing],
    blocks: Sequence[Points],
    rates: list[Tensor | None],
    top_k: int | None,
) -> tuple[Tensor, Tensor | None]:
    """Values (F, batch, N), or the k largest with their indices."""
    stages = [_Stacked.of(laws, b, pairings) for b in range(len(laws.laws))]
    laws.cost.sources += len(pairings) * len(laws.laws)
    found: list[Tensor] = []
    best: tuple[Tensor, Tensor] | None = None
    first = 0
    for block in blocks:
        here = slice(first, first + len(block))
        total = sum(
            stacked.against(block, None if r is None else r[here]) for stacked, r in zip(stages, rates, strict=True)
        )
        if top_k is None:
            found.append(torch.as_tensor(total))
        else:
            best = _merged(best, torch.as_tensor(total), first, top_k)
        first = here.stop
    return best if best is not None else (torch.cat(found, -1), None)


def _merged(best: tuple[Tensor, Tensor] | None, values: Tensor, first: int, k: int) -> tuple[Tensor, Tensor]:
    indices = torch.arange(first, first + values.shape[-1], device=values.device).expand(values.shape)
    if best is not None:
        values, indices = torch.cat([best[0], values], -1), torch.cat([best[1], indices], -1)
    chosen = values.abs().topk(min(k, values.shape[-1]), -1).indices
    return values.gather(-1, chosen), indices.gather(-1, chosen)


@dataclass(frozen=True)
class _Stacked:
    """All stages of one law as rows: stage-major, then functional, then sample."""

    share: float
    x: Tensor
    sigma: Tensor
    score: Tensor
    logs: Tensor
    cotangents: Tensor
    functionals: int
    batch: int

    @classmethod
    def of(cls, laws: Laws, b: int, pairings: Sequence[Pairing]) -> _Stacked:
        count, batch = pairings[0].cotangents.shape[:2]

        def rows(tensors: Sequence[Tensor]) -> Tensor:
            stacked = torch.stack(list(tensors))[:, None]
            return stacked.expand(-1, count, *stacked.shape[2:]).flatten(0, 2)

        return cls(
            laws.laws[b].share,
            rows([p.record.x for p in pairings]),
            rows([p.record.sigma.expand(batch) for p in pairings]),
            rows([p.scores[b] for p in pairings]),
            rows([_logs(p.record, b) for p in pairings]),
            torch.stack([p.cotangents for p in pairings]).flatten(0, 2),
            count,
            batch,
        )

    def against(self, block: Points, rates: Tensor | None) -> Tensor:
        """Σ over stages of share · rate_i · μ·ṡ_i for the points of a block, (F, batch, points)."""
        total = self.x.new_zeros(self.functionals, self.batch, len(block))
        size = max(1, ROWS // (self.functionals * self.batch)) * self.functionals * self.batch
        for first in range(0, len(self.x), size):
            part = slice(first, first + size)
            values = block.pairing(
                self.x[part], self.sigma[part], self.score[part], self.logs[part], self.cotangents[part]
            )
            total += values.reshape(-1, self.functionals, self.batch, len(block)).sum(0)
        total *= self.share
        return total if rates is None else total * rates


def _logs(record: Record, b: int) -> Tensor:
    if record.logs is None:
        raise ValueError("the log density of the base law was not carried along the path; give an anchor.")
    return torch.where(record.running, record.logs[b], NOTHING)
