"""Points streamed through the stages of a path: the transposed source.

Adding mass at a point y changes φ by the sum over stages of μ_j·ṡ_j[y], where μ_j is the cotangent of stage j and
ṡ[y] = r_y (s_y − s) with r_y = N(x; y, τ²I)/p_σ(x), s_y = (y − x)/τ². The points are the outer loop: each block of them
meets all stages in two matrix products, its values are final when it is left, and no array of size batch × N × d, nor
for the k largest one of size batch × N, is made. How a block meets a stage is the matter of `kernels`. Points may lie
in host memory while the states are on a GPU: blocks then go there one by one, beside the products if they are pinned.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sensitivity.measures.points import Points
from sensitivity.readings.adjoint import Pairing, Record
from sensitivity.readings.point_kernels import Block, Stages
from sensitivity.sampler.local_maps import Laws

# Stands for log p = ∞: a halted sample receives nothing from any point.
NOTHING = 1e30


def paired(
    laws: Laws,
    pairings: Sequence[Pairing],
    points: Points,
    rates: Sequence[Tensor | None],
    top_k: int | None,
) -> tuple[Tensor, Tensor | None]:
    """Values (F, batch, N), or the k largest with their indices."""
    laws.cost.sources += len(pairings) * len(laws.laws)
    stages = [_stages(b, pairings) for b in range(laws.samplers)]
    farthest = float(points.squares.max()) ** 0.5
    for one in stages:
        one.settle(points.bandwidth, farthest)
    found: list[Tensor] = []
    best: tuple[Tensor, Tensor] | None = None
    first, device = 0, stages[0].x.device
    squares = points.squares.to(device)
    for part in points.data.detach().split(points.block):
        rows = part.to(device, non_blocking=True)
        here = slice(first, first + len(rows))
        block = Block(rows, points.bandwidth, squares[here])
        total = rows.new_zeros(stages[0].functionals, stages[0].batch, len(rows))
        for law, one, rate in zip(laws.laws, stages, rates, strict=False):
            values = one.against(block)
            total = torch.add(total, values if rate is None else values * rate[here], alpha=law.share)
        if top_k is None:
            found.append(total)
        else:
            best = _merged(best, total, first, top_k)
        first = here.stop
    return best if best is not None else (torch.cat(found, -1), None)


def _merged(best: tuple[Tensor, Tensor] | None, values: Tensor, first: int, k: int) -> tuple[Tensor, Tensor]:
    indices = torch.arange(first, first + values.shape[-1], device=values.device).expand(values.shape)
    if best is not None:
        values, indices = torch.cat([best[0], values], -1), torch.cat([best[1], indices], -1)
    chosen = values.abs().topk(min(k, values.shape[-1]), -1).indices
    return values.gather(-1, chosen), indices.gather(-1, chosen)


def _stages(b: int, pairings: Sequence[Pairing]) -> Stages:
    return Stages(
        torch.stack([p.record.x for p in pairings]),
        torch.stack([p.record.sigma for p in pairings]),
        torch.stack([p.scores[b] for p in pairings]),
        torch.stack([_logs(p.record, b) for p in pairings]),
        torch.stack([p.cotangents for p in pairings], 1),
    )


def _logs(record: Record, b: int) -> Tensor:
    if record.logs is None:
        raise ValueError("the log density of the base law was not carried along the path; give an anchor.")
    return torch.where(record.running, record.logs[b], NOTHING)
