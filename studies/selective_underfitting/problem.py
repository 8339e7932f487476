"""The data of the study: training points, held-out points, and the population where it is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from oracles import GaussianMixture, geometries
from studies import data
from studies.bridge import ExactLaw

DIMENSION = 20
WIDE, RANK, SCALE, ACROSS = 256, 24, 0.5, 1e-5  # d, the rank of the data, τ, and the variance across their planes


@dataclass(frozen=True)
class Problem:
    """Training points, held-out points, labels, and the population's law or None.

    Attributes:
        train, held_out: (N, *shape), (M, *shape), float32.
        labels: of the training points, integers, or None for mixtures.
    """

    name: str
    train: Tensor
    held_out: Tensor
    labels: Tensor | None
    population: ExactLaw | None


@lru_cache(maxsize=8)
def problem(name: str, size: int) -> Problem:
    """The problem of that name with `size` training points and at most as many held out, or 256."""
    if name in LAWS:
        return _toy(name, size)
    images = data.load(name)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, other = images.subset(order[:size]), images.subset(order[size : size + max(size, 256)])
    return Problem(name, train.images, other.images, train.labels, None)


def low_rank() -> GaussianMixture:
    """Three components of rank 24 in R^256, each with a plane of its own, standard deviation ½ per coordinate."""
    rng = np.random.default_rng(0)
    spreads = np.geomspace(1.0, 0.4, RANK)  # along the directions of a component's plane
    planes = [np.linalg.qr(rng.standard_normal((WIDE, RANK)))[0] for _ in range(3)]
    means = np.stack([plane @ (0.5 * rng.standard_normal(RANK)) for plane in planes])
    unit = SCALE / np.sqrt(((spreads**2).sum() + 0.25 * RANK) / WIDE)
    factors = np.stack([unit * plane * spreads for plane in planes])
    return GaussianMixture.low_rank(np.array([0.5, 0.3, 0.2]), unit * means, factors, ACROSS)


LAWS: dict[str, Callable[[], GaussianMixture]] = {
    "gaussian20": lambda: GaussianMixture.isotropic([1.0], [[0.0] * DIMENSION], 1.0),
    "mixture20": lambda: geometries.anisotropic(DIMENSION, 3, seed=0),
    "lowrank256": low_rank,
}


def _toy(name: str, size: int) -> Problem:
    law = LAWS[name]()
    draws = torch.as_tensor(law.sample(size + max(size, 256), seed=1)).float()
    return Problem(name, draws[:size], draws[size:], None, ExactLaw(law))
