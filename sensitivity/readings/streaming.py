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
from typing import NamedTuple

import torch
from torch import Tensor

from sensitivity.measures.distances import wide
from sensitivity.measures.points import Points
from sensitivity.readings.adjoint import Pairing, errors_of
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
        errors: stated error of each log density in nats, (maps, stages, batch); None where it is not known.
    """

    x: Tensor
    sigma: Tensor
    running: Tensor
    logs: Tensor
    scores: Tensor
    cotangents: Tensor
    shares: tuple[float, ...]
    errors: Tensor | None = None

    @classmethod
    def of(cls, maps: LocalMaps, pairings: Sequence[Pairing], end: Tensor | None = None) -> Recorded:
        """The stages of a backward pass, in its order; `end` is the stated error of log p at σ_min, (maps, batch).

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
            None if end is None else errors_of(pairings, end)[:count],
        )

    def stages(self) -> list[Stages]:
        """The stages as each local map of the drift sees them, before `choose_ways`."""
        logs = torch.where(self.running, self.logs, NOTHING)
        parts = zip(self.scores, logs, strict=True)
        return [Stages(self.x, self.sigma, score, log, self.cotangents) for score, log in parts]


class Paired(NamedTuple):
    """What points say to stages.

    Attributes:
        values: (F, batch, N), or the k largest.
        indices: which points these are, like values; None where all are kept.
        lengths: how long the values are, and what each stage of each law adds to them.
    """

    values: Tensor
    indices: Tensor | None
    lengths: Lengths


@dataclass(frozen=True)
class Lengths:
    """Squared lengths, over points, of values and of what the stages add to them, in double precision.

    Attributes:
        whole: of the values, (F, batch); rates and shares are in them.
        stages: of each stage's part for each local map of the drift, (maps, F, stages, batch); rates are in them.
    """

    whole: Tensor
    stages: Tensor

    @classmethod
    def of(cls, recorded: Recorded) -> Lengths:
        """Those of no points yet."""
        maps, stages, batch = recorded.logs.shape
        none = recorded.x.new_zeros(maps, len(recorded.cotangents), stages, batch, dtype=wide(recorded.x))
        return cls(torch.zeros_like(none[0, :, 0]), none)

    @classmethod
    def side_by_side(cls, parts: Sequence[Lengths]) -> Lengths:
        """Those of several chunks of latents as one."""
        return cls(torch.cat([part.whole for part in parts], -1), torch.cat([part.stages for part in parts], -1))

    def __add__(self, other: Lengths) -> Lengths:
        """Those of more points."""
        return Lengths(self.whole + other.whole, self.stages + other.stages)

    def split(self, sizes: Sequence[int]) -> list[Lengths]:
        """Those of chunks of latents."""
        pairs = zip(self.whole.split(list(sizes), -1), self.stages.split(list(sizes), -1), strict=True)
        return [Lengths(whole, stages) for whole, stages in pairs]

    def to(self, device: torch.device) -> Lengths:
        """Those on another device."""
        return Lengths(self.whole.to(device), self.stages.to(device))

    def add(self, values: Tensor) -> None:
        """Count the values of further points, (F, batch, points)."""
        self.whole.add_(torch.linalg.vector_norm(values, dim=-1).to(self.whole).square())

    def relative_error(self, recorded: Recorded, end: Tensor) -> Tensor:
        """Σ_j (e^{E_j} − 1) |v_j| / |Σ_j v_j| for the parts v_j of the stages, the largest over functionals, (batch,).

        By the triangle inequality the values are off by no more than this share of their length, where log densities
        are off by no more than E_j. `end` is returned where that is not known, or where all values are zero.
        """
        if recorded.errors is None:
            return end
        lost = torch.zeros_like(self.whole)
        for share, squares, errors in zip(recorded.shares, self.stages, recorded.errors, strict=True):
            parts = torch.expm1(errors.to(squares)) * squares.sqrt()
            # A halted sample may have any error, and receives nothing.
            lost += abs(share) * torch.where(squares > 0, parts, 0.0).sum(1)
        relative = torch.where(self.whole > 0, lost / self.whole.sqrt(), end).amax(0)
        return torch.where(torch.isnan(end), end, relative.to(end))


def paired(recorded: Recorded, points: Points, rates: Sequence[Tensor | None], top_k: int | None) -> Paired:
    """The influence of every point, and how long its parts are."""
    stages, lengths = recorded.stages(), Lengths.of(recorded)
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
        for share, one, rate, added in zip(recorded.shares, stages, rates, lengths.stages, strict=False):
            speed = None if rate is None else rate[here]
            values = one.against(block, added, speed)
            total = torch.add(total, values if speed is None else values * speed, alpha=share)
        lengths.add(total)
        # The k largest of a union are among the k largest of its parts: a block leaves no more than k points behind.
        if top_k is None:
            blocks.append(total)
        else:
            best = largest(best, total, first, top_k)
        first = here.stop
    values, indices = best if best is not None else (torch.cat(blocks, -1), None)
    return Paired(values, indices, lengths)


def matched(stages: Recorded, points: Tensor, extra: float) -> Tensor:
    """Σ over stages of r (s_y − s)·μ with one point a sample, (F, batch), in double precision; `extra` = b²."""
    total = stages.cotangents.new_zeros(stages.cotangents.shape[0], len(points), dtype=torch.float64)
    y, dimension = points.flatten(1).double(), points[0].numel()
    for j, sigma in enumerate(stages.sigma.double()):
        tau2 = sigma**2 + extra
        gap = y - stages.x[j].flatten(1).double()
        log_ratio = -0.5 * gap.square().sum(1) / tau2 - 0.5 * dimension * (2 * torch.pi * tau2).log()
        ratio = torch.where(stages.running[j], (log_ratio - stages.logs[0, j]).exp(), 0.0)
        slope = (gap / tau2 - stages.scores[0, j].flatten(1)) * ratio[:, None]
        total += (slope * stages.cotangents[:, j].flatten(2)).sum(-1)
    return total.to(points)


def largest(best: tuple[Tensor, Tensor] | None, values: Tensor, first: int, k: int) -> tuple[Tensor, Tensor]:
    """The k largest |value| with their indices, of those so far and of values that begin at point `first`."""
    indices = torch.arange(first, first + values.shape[-1], device=values.device).expand(values.shape)
    if best is not None:
        values, indices = torch.cat([best[0], values], -1), torch.cat([best[1], indices], -1)
    chosen = values.abs().topk(min(k, values.shape[-1]), -1).indices
    return values.gather(-1, chosen), indices.gather(-1, chosen)
