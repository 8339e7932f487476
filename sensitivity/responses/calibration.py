"""Patch sizes by noise level, from the network's own denoiser, without any retraining.

At noised data x = y_i + σε the network's denoiser D^θ is compared with that of the patch machine for every size; the
size of least Σ|D^θ − D^p|² is that of the level. Where the states are training points themselves, the machine leaves
each state's own point out: the sampler's states have none, and a machine that has it returns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sensitivity.measures.points import Points
from sensitivity.responses.patches import Sizes, machine, upright
from sensitivity.scores.score import Score

WIDER = 1.35
"""Ratio of successive candidate sizes beyond 9 pixels, about."""


@dataclass(frozen=True)
class Calibration:
    """How well patches of each size stand for the network at each level.

    Attributes:
        levels: σ, descending.
        sizes: the sides that were tried, in pixels.
        distances: Σ|D^θ − D^p|²/Σ|D^θ − ȳ|² over the states, (levels, sizes); ȳ is the mean of the points.
    """

    levels: tuple[float, ...]
    sizes: tuple[int, ...]
    distances: Tensor

    @property
    def chosen(self) -> tuple[int, ...]:
        """The size of least distance at each level; the smaller of equals."""
        return tuple(self.sizes[k] for k in self.distances.argmin(1).tolist())

    @property
    def attained(self) -> Tensor:
        """The distance of the chosen size at each level, (levels,)."""
        return self.distances.amin(1)


def candidates(height: int, width: int) -> tuple[int, ...]:
    """Odd sides 1, 3, 5, 7, 9, then growing by a third, up to one that covers the image from every pixel."""
    whole, sides = 2 * max(height, width) - 1, [1]
    while sides[-1] < whole:
        nearest = sides[-1] + 2 if sides[-1] < 9 else 2 * round(WIDER * sides[-1] / 2) + 1
        sides.append(min(nearest, whole))
    return tuple(sides)


def calibrate(
    score: Score, points: Points, levels: Sequence[float], states: Tensor | None, count: int, seed: int
) -> Calibration:
    """Compare at `count` states for each level: held-out `states`, or evenly chosen points with their own left out."""
    clean, left = _clean(points, states, count)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64).to(clean)
    sides = candidates(*points.shape[1:])
    rows = [_distances(score, points, clean, noise, left, level, sides) for level in levels]
    return Calibration(tuple(levels), sides, torch.stack(rows).cpu())


def _clean(points: Points, states: Tensor | None, count: int) -> tuple[Tensor, Tensor | None]:
    data = points.data.detach()
    if states is not None:
        return states[:count], None
    left = torch.linspace(0, len(data) - 1, min(count, len(data)), dtype=torch.float64).round().long().to(data.device)
    return data[left], left


def _distances(
    score: Score,
    points: Points,
    clean: Tensor,
    noise: Tensor,
    left: Tensor | None,
    level: float,
    sides: Sequence[int],
) -> Tensor:
    sigma = torch.tensor(level, dtype=torch.float64).to(clean)
    x = clean + sigma * noise
    with torch.no_grad():
        network = x + sigma**2 * score(x, sigma)
    scale = (network - points.data.detach().mean(0)).square().sum()
    distances = []
    for side in sides:
        local = machine(Sizes(points.shape, [level], [side], x), points, sigma)
        mean = upright(local.denoised(points, x, left).mean)
        denoised = x + sigma**2 * (mean - x) / local.variance
        distances.append((network - denoised).square().sum() / scale)
    return torch.stack(distances)
