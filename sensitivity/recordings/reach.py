"""Which points cannot matter to which stages: a certified bound on what a block of points adds to any value.

A point y adds r_y (s_y − s)·μ with r_y = e^{offset} e^{−|x−y|²/2τ²} and |(s_y − s)·μ| ≤ |μ| (|x−y|/τ² + |s|). Where
the distance t from x to the points lies in [D, E], that is at most |μ| e^{offset} (max_t t e^{−t²/2τ²}/τ² + |s|
e^{−D²/2τ²}), and t e^{−t²/2τ²} has its only maximum at t = τ.

D comes from a map to few numbers that lengthens no distance: with orthonormal axes P and Q = 1 − PPᵀ,
u(y) = (Pᵀy, |Qy|) has |u(x) − u(y)| ≤ |x − y| by the triangle inequality in the rest. In many dimensions most of the
noise of x lies in |Qx|, and is kept; a ball of points in the whole space, whose bound |x − c| − R allows points in the
very direction of the noise, left out a quarter of what this does at σ = .05 and nothing above σ = .3 (28×28 digits).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sensitivity.readings.point_kernels import Block, RowGroup, Stages, squared_lengths

AXES = 128
# Below this part of a group's rows, copying the others costs more than leaving these out saves.
WORTH = 0.25
# Products in single precision leave squares this uncertain, relative to |x|² and |y|².
SLACK = 1e-5


@dataclass(frozen=True)
class Reduced:
    """Points or states as u = (Pᵀy, |Qy|).

    Attributes:
        u: (rows, k + 1).
        squares: |y|², (rows,), in double precision.
        error: how far the last entry of u may be off, (rows,).
    """

    u: Tensor
    squares: Tensor
    error: Tensor

    @classmethod
    def of(cls, flat: Tensor, squares: Tensor, axes: Tensor) -> Reduced:
        """Rows (rows, d) with their |y|²."""
        inside = flat @ axes.to(flat)
        rest = (squares - inside.double().square().sum(1)).clamp(min=0).sqrt()
        loose = SLACK * squares
        # √a is off by δa/√a, and by no more than √δa where a itself is no larger.
        return cls(torch.cat([inside, rest.to(inside)[:, None]], 1), squares, loose / torch.maximum(rest, loose.sqrt()))

    def __getitem__(self, rows: slice | Tensor) -> Reduced:
        return Reduced(self.u[rows], self.squares[rows], self.error[rows])

    def nearest(self, points: Reduced) -> Tensor:
        """D: no point is nearer to a row than this, (rows,), in double precision."""
        lengths = points.u.square().sum(1)
        gaps = torch.addmm(lengths, self.u, points.u.T, alpha=-2.0).amin(1).double()
        largest = points.squares.max()
        squares = gaps + self.u.double().square().sum(1) - SLACK * (self.squares + largest)
        return (squares.clamp(min=0).sqrt() - self.error - points.error.max()).clamp(min=0)


@dataclass
class Rows:
    """What a group of rows needs to bound any block.

    Attributes:
        group: the rows.
        reduced: u(x).
        score, cotangents: |s|, (rows,), and |μ|, (F, rows).
        tried: whether it still pays to look; a block that needed every row says that the next ones will.
    """

    group: RowGroup
    reduced: Reduced
    score: Tensor
    cotangents: Tensor
    tried: bool = True

    @classmethod
    def of(cls, group: RowGroup, axes: Tensor) -> Rows:
        """The lengths of a group, once for all blocks."""
        lengths = [v.double().square().sum(-1) for v in (group.x, group.score, group.cotangents)]
        return cls(group, Reduced.of(group.x, lengths[0], axes), lengths[1].sqrt(), lengths[2].sqrt())

    def bounds(self, points: Reduced) -> Tensor:
        """The most that any of the points adds through each row, (F, rows)."""
        variance, offset = self.group.variance[:, 0].double(), self.group.offset[:, 0]
        near = self.reduced.nearest(points)
        far = self.reduced.squares.sqrt() + points.squares.max().sqrt()
        # Where t e^{−t²/2τ²} is largest within [D, E]: at τ, or at the end that is nearest to it.
        peak = torch.minimum(torch.maximum(variance.sqrt(), near), far)
        slope = peak / variance * (offset - 0.5 * peak.square() / variance).exp()
        slope = slope + self.score * (offset - 0.5 * near.square() / variance).exp()
        return self.cotangents * slope


def axes_of(points: Tensor, count: int = AXES) -> Tensor:
    """Leading principal axes of some points, (d, k), orthonormal; any axes are valid, these are sharp."""
    flat = points.flatten(1)[:2048].double()
    _, vectors = torch.linalg.eigh(flat.T @ flat)
    return vectors[:, -count:].contiguous()


def pruned(
    stages: Stages,
    rows: list[Rows],
    block: Block,
    points: Reduced,
    limit: float,
    squares: Tensor,
    rate: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Values without the rows that add at most `limit` each, and what they might have added.

    `squares`, (F, stages, batch), gets what each stage adds as in `Stages.against`, of rows left out the most that they
    might have added.

    Returns:
        values (F, batch, points); bound (F, batch), on each of the values; skipped (stages,), samples left out of each.
    """
    values = stages.x.new_zeros(stages.functionals, stages.batch, len(block))
    bound = torch.zeros(stages.functionals, stages.batch, dtype=torch.float64, device=values.device)
    skipped = torch.zeros(len(stages.sigma), dtype=torch.float64)
    for one in rows:
        if not one.tried:
            values += one.group.against(block, squares, rate)
            continue
        bounds = one.bounds(points)
        sample = torch.arange(bounds.shape[1], device=values.device) % stages.batch
        skip = bounds.amax(0) <= limit
        if float(skip.double().mean()) < WORTH:
            one.tried = False
            values += one.group.against(block, squares, rate)
            continue
        bound.index_add_(1, sample[skip], bounds[:, skip])
        lengths = bounds.square() * (len(block) if rate is None else rate.double().square().sum())
        skipped[list(one.group.stages)] += skip.reshape(-1, stages.batch).sum(1).cpu().double()
        if not bool(skip.all()):
            kept = (~skip).nonzero()[:, 0]
            seen = one.group.only(kept).rows(block)
            values.index_add_(1, sample[kept], seen)
            lengths[:, kept] = squared_lengths(seen, rate, lengths)
        squares[:, list(one.group.stages)] += lengths.reshape(len(lengths), -1, stages.batch)
    return values, bound, skipped
