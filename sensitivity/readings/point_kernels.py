"""How a block of points meets the stages of a path: Σ_j r_i (s_i − s)·μ_j for every point i, three ways.

log r_i = −|x − y_i|²/2τ² + offset, offset = −(d/2) log 2πτ² − L. Formed from |x|² − 2x·y + |y|², the exponent loses
ε (|x|² + |y|²)/2τ² nats, ε the unit roundoff. Each stage takes the cheapest way that is accurate:

- *expanded*: where that loss is below 1e4 ε, two products of the block, in the states' own precision. High noise.
- *selected*: in single precision below that, one product finds the few points whose kernel does not underflow, and
  those are evaluated directly in double precision. Low noise.
- *direct*: otherwise (double precision, or many such points), `Points.pairing`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from sensitivity._checks import full_precision
from sensitivity.measures.distances import kernel_, wide
from sensitivity.measures.points import Points

# Rows (stages × batch) handled at once: with a block of points they make matrix products that stay near the cache.
ROWS = 2048
# (|x|² + |y|²)/2τ² up to which the expanded form is taken: kernels are then wrong by 1e-13 of themselves in double, and
# by 6e-4 in single precision, which is less than is known of a log density there.
EXPANDED = {torch.float64: 1e3}
EXPANDED_SINGLE = 1e4
# Kernels below e^{−104} are zero in single precision.
UNDERFLOW = -104.0
# Share of selected points above which selecting does not pay.
SELECTED = 0.02


class Block:
    """Some of the points, with what a block needs once: `squares` are |y|², (rows,)."""

    def __init__(self, rows: Tensor, bandwidth: float, squares: Tensor) -> None:
        self.data, self.bandwidth = rows, bandwidth
        self.flat = rows.flatten(1)
        self.squares = squares.to(rows.dtype)
        self._points: Points | None = None

    def __len__(self) -> int:
        return len(self.flat)

    @property
    def points(self) -> Points:
        """The block as a measure, for the direct way."""
        if self._points is None:
            self._points = Points(self.data, bandwidth=self.bandwidth, block=len(self.data))
        return self._points


def squared_lengths(values: Tensor, rate: Tensor | None, like: Tensor) -> Tensor:
    """Σ_i (rate_i v_i)² over the last axis, the points, as `like`, whose precision squares of small values need."""
    weighed = values if rate is None else values * rate
    return torch.linalg.vector_norm(weighed, dim=-1).to(like).square()


@dataclass
class Stages:
    """All stages of one local map.

    Attributes:
        x: (stages, batch, *shape).
        sigma: (stages,).
        score: s, like x.
        logs: L, (stages, batch).
        cotangents: μ, (F, stages, batch, *shape).
        expanded: which stages take the expanded way; decided by `choose_ways`.
    """

    x: Tensor
    sigma: Tensor
    score: Tensor
    logs: Tensor
    cotangents: Tensor
    expanded: list[bool] = field(default_factory=list)
    groups: list[RowGroup] = field(default_factory=list)

    @property
    def functionals(self) -> int:
        """F."""
        return self.cotangents.shape[0]

    @property
    def batch(self) -> int:
        """Number of latents."""
        return self.x.shape[1]

    @full_precision
    def choose_ways(self, bandwidth: float, farthest: float, rows: int = ROWS) -> None:
        """Choose the way of every stage (one synchronisation) and cut the stages into groups of about `rows` rows."""
        variance = self.sigma.double() ** 2 + bandwidth**2
        reach = self.x.flatten(2).square().sum(2).amax(1).double() + farthest**2
        limit = EXPANDED.get(self.x.dtype, EXPANDED_SINGLE)
        self.expanded = (reach / (2 * variance) <= limit).cpu().tolist()
        size = max(1, rows // self.batch)
        for way in (True, False):
            chosen = [k for k, flag in enumerate(self.expanded) if flag is way]
            for first in range(0, len(chosen), size):
                self.groups.append(RowGroup.of(self, chosen[first : first + size], variance, way))

    @full_precision
    def against(self, block: Block, squares: Tensor | None = None, rate: Tensor | None = None) -> Tensor:
        """Σ over stages of μ·ṡ_i, (F, batch, points of the block).

        What each stage adds is squared and summed over points into `squares`, (F, stages, batch), times the points'
        `rate`, (points,), which the values leave out.
        """
        total = self.x.new_zeros(self.functionals, self.batch, len(block))
        for group in self.groups:
            total += group.against(block, squares, rate)
        return total


@dataclass(frozen=True)
class RowGroup:
    """Rows = some stages × batch, flattened; everything a way needs but the points.

    Attributes:
        x: (rows, d).
        sigma, variance: σ and τ², (rows,) and (rows, 1).
        offset: −(d/2) log 2πτ² − L in double precision, (rows, 1).
        score: (rows, d).
        logs: (rows,).
        cotangents: (F, rows, d).
        fixed: (s + x/τ²)·μ, (F, rows, 1).
        expanded: the way.
        shape: (batch, *shape) of a stage.
        stages: which stages these are, in order.
    """

    x: Tensor
    sigma: Tensor
    variance: Tensor
    offset: Tensor
    score: Tensor
    logs: Tensor
    cotangents: Tensor
    fixed: Tensor
    expanded: bool
    shape: torch.Size
    stages: tuple[int, ...]

    @classmethod
    def of(cls, stages: Stages, chosen: list[int], variance: Tensor, expanded: bool) -> RowGroup:
        x = stages.x[chosen].flatten(0, 1).flatten(1)
        score = stages.score[chosen].flatten(0, 1).flatten(1)
        logs = stages.logs[chosen].flatten()
        cotangents = stages.cotangents[:, chosen].flatten(1, 2).flatten(2)
        tau2 = variance[chosen].repeat_interleave(stages.batch)[:, None]
        offset = -0.5 * x.shape[1] * (2 * math.pi * tau2).log() - logs.to(tau2)[:, None]
        sigma = stages.sigma[chosen].repeat_interleave(stages.batch)
        single, shape = tau2.to(x), stages.x.shape[1:]
        fixed = ((score + x / single) * cotangents).sum(2, keepdim=True)
        return cls(
            x=x,
            sigma=sigma,
            variance=single,
            offset=offset,
            score=score,
            logs=logs,
            cotangents=cotangents,
            fixed=fixed,
            expanded=expanded,
            shape=shape,
            stages=tuple(chosen),
        )

    @full_precision
    def against(self, block: Block, squares: Tensor | None = None, rate: Tensor | None = None) -> Tensor:
        """Σ over this group's stages of μ·ṡ_i, (F, batch, points); see `Stages.against`."""
        parts = self.rows(block).reshape(len(self.cotangents), -1, self.shape[0], len(block))
        if squares is not None:
            squares[:, list(self.stages)] += squared_lengths(parts, rate, squares)
        return parts.sum(1)

    def rows(self, block: Block) -> Tensor:
        """μ·ṡ_i of every row, (F, rows, points)."""
        if self.expanded:
            return self._expanded(block)
        return self._direct(block) if self.x.dtype == torch.float64 else self._selected(block)

    def only(self, kept: Tensor) -> RowGroup:
        """The group of some of its rows; only `rows` makes sense of it, since a stage may be incomplete."""
        parts = {name: getattr(self, name)[kept] for name in ("x", "sigma", "variance", "offset", "score", "logs")}
        return replace(self, **parts, cotangents=self.cotangents[:, kept], fixed=self.fixed[:, kept])

    def _exponents(self, block: Block) -> Tensor:
        """log r_i in the expanded form, (rows, points)."""
        offsets, x = self._scaled
        lengths = torch.addcmul(offsets, 1 / self.variance, block.squares, value=-0.5)
        return lengths.addmm_(x, block.flat.T)

    @cached_property
    def _lengths(self) -> Tensor:
        """|x|², (rows, 1)."""
        return self.x.square().sum(1, keepdim=True)

    @cached_property
    def _scaled(self) -> tuple[Tensor, Tensor]:
        """What an exponent owes to the row alone, (rows, 1), and x/τ²: once for all blocks."""
        offsets = (self.offset - 0.5 * self._lengths / self.variance).to(self.x)
        return offsets, self.x / self.variance

    @cached_property
    def _slopes(self) -> tuple[Tensor, Tensor]:
        """−(s + x/τ²)·μ and μ/τ², functionals and rows flattened."""
        return -self.fixed.flatten(0, 1), (self.cotangents / self.variance).flatten(0, 1)

    def _along(self, block: Block) -> Tensor:
        """(s_i − s)·μ, (F, rows, points)."""
        fixed, scaled = self._slopes
        return torch.addmm(fixed, scaled, block.flat.T).reshape(len(self.cotangents), -1, len(block))

    def _expanded(self, block: Block) -> Tensor:
        return self._along(block).mul_(kernel_(self._exponents(block)))

    def _direct(self, block: Block) -> Tensor:
        shape = (-1, *self.shape[1:])
        x, score = self.x.reshape(shape), self.score.reshape(shape)
        parts = [block.points.pairing(x, self.sigma, score, self.logs, mu.reshape(shape)) for mu in self.cotangents]
        return torch.stack(parts)

    def _selected(self, block: Block) -> Tensor:
        exponents = self._exponents(block)
        # Rounding may hide a kernel that does not underflow: the limit is lowered by the largest error of the exponent,
        # ε (|x|² + |y|²)/2τ² with a margin for the sums' own rounding.
        loss = 8 * torch.finfo(self.x.dtype).eps * (self._lengths + block.squares.max())
        seen = exponents > UNDERFLOW - loss / self.variance
        # Mostly there are none, which one look at all tells sooner than a list of places.
        chosen = seen.nonzero() if bool(seen.any()) else seen.new_empty(0, 2, dtype=torch.int64)
        if len(chosen) > SELECTED * exponents.numel():
            return self._direct(block)
        values = self.x.new_zeros(len(self.cotangents), *exponents.shape)
        if len(chosen):
            row, point = chosen.unbind(1)
            values[:, row, point] = self._pairs(row, point, block)
        return values

    def _pairs(self, row: Tensor, point: Tensor, block: Block) -> Tensor:
        """r_i (s_i − s)·μ for the given pairs of rows and points, (F, pairs), in double precision."""
        precise = wide(self.x)
        # Differences first, in double precision: |x|² − 2x·y + |y|² would lose what is small here.
        gap = block.flat[point].to(precise) - self.x[row].to(precise)
        variance = self.variance[row].to(precise)
        kernel = (self.offset[row] - 0.5 * gap.square().sum(1, keepdim=True) / variance).exp()
        slope = (gap / variance - self.score[row]) * kernel
        return torch.stack([(slope * mu[row]).sum(1) for mu in self.cotangents]).to(self.x.dtype)
