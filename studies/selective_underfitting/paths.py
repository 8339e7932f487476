"""States of sampling paths at given levels, by the engine's own steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sensitivity import Grid, Score
from studies.sampling import sample

SIGMA_MAX, SIGMA_MIN = 10.0, 0.05


def path(score: Score, start: Tensor, levels: Sequence[float], substeps: int) -> list[Tensor]:
    """States at `levels` (descending) of the probability flow that starts at levels[0] in `start`; log-spaced Heun.

    Example:
        >>> end = path(lambda x, sigma: -x / (1 + sigma**2), torch.tensor([[2.0]]), (1.0, 0.1), 16)[-1]
        >>> bool((end - 2 * (1.01 / 2) ** 0.5).abs() < 1e-3)
        True
    """
    states = [start]
    for high, low in pairwise(levels):
        states.append(sample(score, states[-1], Grid(high, low, substeps, spacing="log")))
    return states


def latents(train: Tensor, count: int, seed: int = 0) -> Tensor:
    """States at σ_max: the data's mean plus noise, (count, *shape)."""
    noise = torch.randn(count, *train.shape[1:], generator=torch.Generator().manual_seed(seed))
    return train.mean(0) + SIGMA_MAX * noise


def noised(clean: Tensor, sigma: float, seed: int = 0) -> Tensor:
    """x + σ ε with noise that depends on the seed and the level alone."""
    generator = torch.Generator().manual_seed(1000 * seed + round(1000 * sigma))
    return clean + sigma * torch.randn(clean.shape, generator=generator)


def sampled(denoiser: Score, score: Score, train: Tensor, levels: Sequence[float], count: int, substeps: int) -> Paths:
    """Sampling paths through `levels`, from σ_max to σ_min, and their ends denoised once."""
    whole = (SIGMA_MAX, *levels, SIGMA_MIN)
    states = path(score, latents(train, count), whole, substeps)
    with torch.no_grad():
        end = denoiser(states[-1], torch.tensor(SIGMA_MIN))
    return Paths(dict(zip(whole, states, strict=True)), end)


class Paths:
    """`at[σ]`: states (batch, *shape) at σ_max, every level and σ_min; `samples`: the ends, denoised."""

    def __init__(self, at: dict[float, Tensor], samples: Tensor) -> None:
        self.at, self.samples = at, samples
