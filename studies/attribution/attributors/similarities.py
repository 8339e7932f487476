"""Attributors by similarity of point and sample, times what the point's pull does to the output; and by chance."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from studies.attribution.attributors.parameter_gradients import Problem, unit
from studies.attribution.attributors.pulls import pulls

LEVEL, SIDE = (
    1.0,
    0.4,
)  # of the patches, in data deviations and sides of an image; chosen by `studies.attribution.tuning`


def cosine(problem: Problem) -> Tensor:
    """The cosine of raw pixels of point and sample, times what the pull of that point does to the output."""
    points, samples = problem.data.flatten(1), problem.samples.flatten(1).to(problem.data)
    return unit(samples) @ unit(points).T * pulls(problem)


def nearest(problem: Problem) -> Tensor:
    """`exp(−|x − y_i|²/2h²)`, h the median distance to the nearest point, times what the pull does to the output."""
    distances = torch.cdist(problem.samples.flatten(1).to(problem.data), problem.data.flatten(1))
    width = distances.min(1).values.median()
    return torch.softmax(-distances.square() / (2 * width**2), 1) * pulls(problem)


def patches(problem: Problem, level: float = LEVEL, side: float = SIDE) -> Tensor:
    """Posterior weights of the points' patches, any place, for every patch of the noised sample, summed over both.

    After the nonparametric attribution of Zhao et al. 2025 (arXiv 2510.14269), one scale and one level; its sum is
    multiplied by the pull. Pixels beyond the border are told from those of the image.
    """
    data = problem.data.double()
    sigma = level * float((data - data.mean(0)).square().mean().sqrt())
    size = max(3, 2 * round(side * data.shape[-1] / 2) + 1)
    noise = torch.randn(problem.samples.shape, generator=torch.Generator().manual_seed(17), dtype=torch.float64)
    noised = problem.samples.double() + sigma * noise
    points = _windows(data, size).float()  # (N, places, k)
    queries = _windows(noised, size).float()
    squares, rows = points.square().sum(-1).flatten(), []
    for windows in queries:
        products = windows @ points.flatten(0, 1).T
        shares = torch.softmax((products - squares / 2) / sigma**2, 1)
        rows.append(shares.sum(0).unflatten(0, points.shape[:2]).sum(1))
    return torch.stack(rows).double() * pulls(problem)


def _windows(images: Tensor, size: int) -> Tensor:
    """All windows (n, places, 2 size²) about every pixel, with a mark of what lies beyond the border."""
    beyond = torch.nn.functional.pad(torch.zeros_like(images), [size // 2] * 4, value=10.0)
    padded = torch.cat([torch.nn.functional.pad(images, [size // 2] * 4), beyond], 1)
    return torch.nn.functional.unfold(padded, size).transpose(1, 2)


def random(problem: Problem) -> np.ndarray:
    """Standard normal numbers."""
    return np.random.default_rng(problem.seed).standard_normal((len(problem.latents), len(problem.data)))
