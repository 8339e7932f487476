"""The data of the study: training points, held-out points, and the population where it is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from oracles import GaussianMixture, geometries
from studies import data
from studies.bridge import ExactLaw

DIMENSION = 20


@dataclass(frozen=True)
class Problem:
    """Training points, held-out points, their labels, and the population's law or None.

    Attributes:
        train, held_out: (N, *shape), (M, *shape), float32. labels, held_out_labels: integers, or None for mixtures.
    """

    name: str
    train: Tensor
    held_out: Tensor
    labels: Tensor | None
    held_out_labels: Tensor | None
    population: ExactLaw | None


@lru_cache(maxsize=8)
def problem(name: str, size: int) -> Problem:
    """The problem of that name with `size` training points and at most as many held out, or 256."""
    if name.endswith("20"):
        return _toy(name, size)
    images = data.load(name)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, other = images.subset(order[:size]), images.subset(order[size : size + max(size, 256)])
    return Problem(name, train.images, other.images, train.labels, other.labels, None)


def _toy(name: str, size: int) -> Problem:
    if name == "gaussian20":
        law = GaussianMixture.isotropic([1.0], [[0.0] * DIMENSION], 1.0)
    else:
        law = geometries.anisotropic(DIMENSION, 3, seed=0)
    draws = torch.as_tensor(law.sample(size + max(size, 256), seed=1)).float()
    return Problem(name, draws[:size], draws[size:], None, None, ExactLaw(law))
