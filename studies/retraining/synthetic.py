"""Digits whose law is known: a Gaussian for each class of the 8×8 digits, with the class's mean and covariance.

`ρ = Σ_c π_c N(m_c, C_c + τ² I)`, τ = .1. Networks are trained on as many draws as there are training digits; the
sensitivity of the population itself, exact score and exact density, is then a predictor too, and what it predicts
better or worse than a network's own sensitivity is the part of the network's departure from the population.
"""

from __future__ import annotations

from functools import cache

import torch

from sensitivity import Mixture
from studies.data import Images, load

NAME = "gaussian-digits"
WIDTH = 0.1
SHAPE = (1, 8, 8)


@cache
def components() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights (10,), means (10, 1, 8, 8) and covariances (10, 64, 64) of the classes, float64."""
    digits = load("digits")
    parts = [digits.images[digits.of_class(c)].flatten(1).double() for c in range(10)]
    weights = torch.tensor([len(part) / len(digits) for part in parts], dtype=torch.float64)
    noise = WIDTH**2 * torch.eye(64, dtype=torch.float64)
    means = torch.stack([part.mean(0).reshape(SHAPE) for part in parts])
    return weights, means, torch.stack([torch.cov(part.T) + noise for part in parts])


def law(classes: tuple[int, ...] = tuple(range(10))) -> Mixture:
    """The population, or that of some classes, float32 like the networks."""
    weights, means, covariances = (part[list(classes)] for part in components())
    return Mixture((weights / weights.sum()).float(), means.float(), covariances.float())


def draw(count: int, seed: int) -> Images:
    """Draws with their classes as labels.

    Example:
        >>> draw(5, seed=0).images.shape
        torch.Size([5, 1, 8, 8])
    """
    weights, means, covariances = components()
    generator = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(weights, count, replacement=True, generator=generator)
    noise = torch.randn((count, 64), dtype=torch.float64, generator=generator)
    roots = torch.linalg.cholesky(covariances)
    pixels = means.flatten(1)[labels] + torch.einsum("nij,nj->ni", roots[labels], noise)
    return Images(NAME, pixels.reshape(-1, *SHAPE).float(), labels)
