"""Points streamed through the stages of a path: the transposed source.

Adding mass at a point y changes φ by the sum over stages of μ_j·ṡ_j[y], where μ_j is the cotangent of stage j and
ṡ[y] = r_y (s_y − s) with r_y = N(x; y, τ²I)/p_σ(x), s_y = (y − x)/τ². The points are the outer loop: each block of them
meets all stages in two matrix products, its values are final when it is left, and no array of size batch × N × d, nor
for the k largest one of size batch × N, is made. How a block meets a stage is the matter of `kernels`. Points may lie
in host memory while the states are on a GPU: blocks then go there one by one, beside the products if they are pinned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sensitivity.measures.points import Points
from sensitivity.readings.adjoint import Pairing
from sensitivity.readings.point_kernels import Block, Stages
from sensitivity.sampler.local_maps import LocalMaps

# Stands for log p = ∞: a halted sample receives nothing from any point.
NOTHING = 1e30


@dataclass(frozen=True)
class Recorded:
    """All stages of the adjoint of some latents: what the influence of a point depends on, and nothing else.

    Attributes:
        x: stage inputs, (stages, batch, *shape).
        sigma: their levels σ, (stages,).
        running: which samples took the step, (stages, batch).
        logs: log p_b,σ(x) in nats for each local map b of the drift, (maps, stages, batch).
        scores: s_b(x), (maps, stages, batch, *shape).
        cotangents: μ, (F, stages, batch, *shape).
        shares: c_b, the parts of the local maps in the drift.
    """

    x: Tensor
    sigma: Tensor
    running: Tensor
    logs: Tensor
    scores: Tensor
    cotangents: Tensor
    shares: tuple[float, ...]

    @classmethod
    def of(cls, maps: LocalMaps, pairings: Sequence[Pairing]) -> Recorded:
        """The stages of a backward pass, in its order.

        Raises:
            ValueError: where the log density of the base law was not carried along the path.
        """
        maps.cost.sources += len(pairings) * len(maps.each)
        records = [p.record for p in pairings]
        if any(record.logs is None for record in records):
            raise ValueError("the log density of the base law was not carried along the path; give an anchor.")
        count = maps.samplers
        logs = torch.stack([r.logs[:count] for r in records if r.logs is not None], 1)
        return cls(
            torch.stack([r.x for r in records]),
            torch.stack([r.sigma for r in records]),
            torch.stack([r.running for r in records]),
            logs,
            torch.stack([torch.stack(p.scores[:count]) for p in pairings], 1),
            torch.stack([p.cotangents for p in pairings], 1),
            tuple(local_map.share for local_map in maps.each[:count]),
        )

    def stages(self) -> list[Stages]:
        """The stages as each local map of the drift sees them, before `choose_ways`."""
        logs = torch.where(self.running, self.logs, NOTHING)
        parts = zip(self.scores, logs, strict=True)
        return [Stages(self.x, self.sigma, score, log, self.cotangents) for score, log in parts]


def paired(
    recorded: Recorded, points: Points, rates: Sequence[Tensor | None], top_k: int | None
) -> tuple[Tensor, Tensor | None]:
    """Values (F, batch, N), or the k largest with their indices."""
    stages = recorded.stages()
    farthest = float(points.squares.max()) ** 0.5
    for one in stages:
        one.choose_ways(points.bandwidth, farthest)
    blocks: list[Tensor] = []
    best: tuple[Tensor, Tensor] | None = None
    first, device = 0, stages[0].x.device
    squares = points.squares.to(device)
    for part in points.data.detach().split(points.block):
        rows = part.to(device, non_blocking=True)
        here = slice(first, first + len(rows))
        block = Block(rows, points.bandwidth, squares[here])
        total = rows.new_zeros(stages[0].functionals, stages[0].batch, len(rows))
        for share, one, rate in zip(recorded.shares, stages, rates, strict=False):
            values = one.against(block)
            total = torch.add(total, values if rate is None else values * rate[here], alpha=share)
        # The k largest of a union are among the k largest of its parts: a block leaves no more than k points behind.
        if top_k is None:
            blocks.append(total)
        else:
            best = largest(best, total, first, top_k)
        first = here.stop
    return best if best is not None else (torch.cat(blocks, -1), None)


def largest(best: tuple[Tensor, Tensor] | None, values: Tensor, first: int, k: int) -> tuple[Tensor, Tensor]:
    """The k largest |value| with their indices, of those so far and of values that begin at point `first`."""
    indices = torch.arange(first, first + values.shape[-1], device=values.device).expand(values.shape)
    if best is not None:
        values, indices = torch.cat([best[0], values], -1), torch.cat([best[1], indices], -1)
    chosen = values.abs().topk(min(k, values.shape[-1]), -1).indices
    return values.gather(-1, chosen), indices.gather(-1, chosen)
