"""A machine that denoises every pixel by the patch around it, for patches of one size.

With y_i the points and w_i their weights, τ² = σ² + b² (b their bandwidth), S_u(x, y) = |x − y|² over the patch around
pixel u, all channels in it, and K_u = exp(−S_u/2τ²), pixel u is denoised to

    D_u(x) = Σ_i w_i K_u(x, y_i) y_i[u]/Z_u(x),    Z_u(x) = Σ_i w_i K_u(x, y_i).

Pixels outside the image are zero in x and in y and count nothing: a patch ends at the border (Kamb & Ganguli 2024,
arXiv 2412.20292, the local score machine; theirs also knows where it is by that border alone). A patch that covers the
whole image from every pixel gives the empirical denoiser back.

Sums over patches are two products with banded matrices of ones, one along each axis, of the squared differences
themselves: nothing cancels. Images are held with their axes exchanged between the two. Points are streamed in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sensitivity.measures.distances import kernel
from sensitivity.measures.points import Points

NUMBERS = 2**22
"""Numbers in one array of differences, states × points × pixels: it stays near the cache."""


class Sizes:
    """Sides of square patches by noise level, the nearest in log σ counts.

    Args:
        shape: (C, H, W) of an image.
        levels: the noise levels.
        sides: an odd number of pixels for each.
    """

    def __init__(self, shape: Sequence[int], levels: Sequence[float], sides: Sequence[int], like: Tensor):
        self.levels, self.sides = tuple(levels), tuple(sides)
        _, height, width = shape
        self._logs = torch.tensor(levels, dtype=torch.float64).log().to(like)
        self._rows = torch.stack([_band(height, side) for side in sides]).to(like)
        self._columns = torch.stack([_band(width, side) for side in sides]).to(like)

    def at(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Banded matrices of the rows and the columns for level σ, 0-d, chosen without reading values."""
        index = (self._logs - sigma.log()).abs().argmin().reshape(1)
        return self._rows.index_select(0, index)[0], self._columns.index_select(0, index)[0]


def _band(length: int, side: int) -> Tensor:
    place = torch.arange(length)
    return ((place[:, None] - place).abs() <= side // 2).double()


@dataclass(frozen=True)
class Denoised:
    """log Z, (batch, W, H), and D, (batch, C, W, H), at states; image axes exchanged."""

    log_sum: Tensor
    mean: Tensor


@dataclass(frozen=True)
class Machine:
    """The machine of given points at one level.

    Attributes:
        bands: banded matrices of rows and columns.
        variance: τ², 0-d.
    """

    bands: tuple[Tensor, Tensor]
    variance: Tensor

    def denoised(self, points: Points, x: Tensor, left: Tensor | None = None) -> Denoised:
        """log Z and D; `left` (batch,) names one point for each state that plays no part for it."""
        flipped = x.transpose(-1, -2)
        top = torch.full_like(flipped[:, 0], -torch.inf)
        total, sums = torch.zeros_like(top), torch.zeros_like(flipped)
        for first, rows, logs in self._blocks(points, x, weighted=True):
            if left is not None:
                logs = _without(logs, left, first)
            # Where no point has weight yet the maximum is −∞, and −∞ − (−∞) would be no number.
            highest = torch.maximum(top, logs.amax(1))
            anchor = torch.where(torch.isfinite(highest), highest, torch.zeros_like(highest))
            shrink, terms = (top - anchor).exp(), kernel(logs - anchor[:, None])
            total = total * shrink + terms.sum(1)
            new = torch.stack([(terms * channel).sum(1) for channel in rows.unbind(1)], 1)
            sums, top = sums * shrink[:, None] + new, highest
        return Denoised(top + total.log(), sums / total[:, None])

    def pairing(self, points: Points, x: Tensor, base: Denoised, cotangents: Tensor) -> Tensor:
        """Σ_u μ_u r_u,i (y_i[u] − D_u)/τ² toward each point, (F, batch, N), with r_u,i = K_u(x, y_i)/Z_u."""
        mu = cotangents.transpose(-1, -2).flatten(-2) / self.variance  # (F, batch, C, pixels)
        blocks = []
        for _, rows, logs in self._blocks(points, x, weighted=False):
            ratio = kernel(logs - base.log_sum[:, None])
            total = x.new_zeros(cotangents.shape[0], len(x), len(rows))
            # Channel by channel: all at once would be an array of states × points × channels × pixels.
            for c in range(x.shape[1]):
                weighted = ratio * (rows[None, :, c] - base.mean[:, None, c])
                total = total + (weighted.flatten(-2) @ mu[:, :, c].permute(1, 2, 0)).permute(2, 0, 1)
            blocks.append(total)
        return torch.cat(blocks, -1)

    def _blocks(self, points: Points, x: Tensor, weighted: bool) -> Iterator[tuple[int, Tensor, Tensor]]:
        """First number, points (rows, C, W, H) and −S/2τ² (+ log w), (batch, rows, W, H), of a block."""
        rows, columns = self.bands
        size, first = max(1, NUMBERS // max(1, x.numel())), 0
        for data, weights in zip(points.data.detach().split(size), points.weights.split(size), strict=True):
            squares = (x[:, None] - data).square_().sum(2) if x.shape[1] > 1 else (x - data[:, 0]).square_()
            patches = (squares @ columns).transpose(-1, -2) @ rows
            logs = patches.mul_(-0.5 / self.variance)
            yield first, data.transpose(-1, -2).contiguous(), logs + _logs(weights) if weighted else logs
            first += len(data)


def _logs(weights: Tensor) -> Tensor:
    return weights.log()[:, None, None]


def _without(logs: Tensor, left: Tensor, first: int) -> Tensor:
    """−∞ where a state meets the point that it leaves out."""
    numbers = torch.arange(first, first + logs.shape[1], device=logs.device)
    return logs.masked_fill((numbers == left[:, None])[:, :, None, None], -torch.inf)


def machine(sizes: Sizes, points: Points, sigma: Tensor) -> Machine:
    """The machine for points of this bandwidth at level σ."""
    return Machine(sizes.at(sigma), sigma**2 + points.bandwidth**2)


def upright(images: Tensor) -> Tensor:
    """Image axes in their own order again."""
    return images.transpose(-1, -2)


def ratio(new: Denoised, base: Denoised) -> Tensor:
    """r_u = Z^ν_u/Z^ρ_u, (batch, 1, W, H)."""
    return (new.log_sum - base.log_sum).exp()[:, None]
