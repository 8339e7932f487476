"""The data of one geometry: disjoint sets, fresh data, the law where it is known, and its normal directions.

Example:
    >>> problem = Problem.of("spiral", count=5, replicates=2)
    >>> problem.set_of(0, "A", 3).shape, problem.fresh(0, 4).shape, problem.pool.shape[1]
    (torch.Size([3, 2]), torch.Size([4, 2]), 2)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from oracles import GaussianMixture, geometries
from studies import data
from studies.low_noise.config import GEOMETRIES, IMAGES

FRESH = 512  # fresh data of a replicate, never trained on


def _product() -> GaussianMixture:
    factors = [
        GaussianMixture([0.3, 0.7], [[-2.0], [1.0]], [[[0.3]], [[0.05]]]),
        GaussianMixture([0.6, 0.4], [[-1.0], [1.5]], [[[0.1]], [[0.4]]]),
        GaussianMixture([1.0], [[0.5]], [[[0.02]]]),
    ]
    return geometries.rotated_product(factors, seed=0)[0]


LAWS: dict[str, Callable[[], GaussianMixture]] = {
    "uniform": lambda: geometries.uniform(5, 5, seed=0),
    "sharp1": lambda: geometries.sharp(5, 5, 1.0, seed=0),
    "sharp3": lambda: geometries.sharp(5, 5, 3.0, seed=0),
    "spiral": lambda: geometries.spiral(10, seed=0),
    "thin": lambda: geometries.thin_manifold(100, 2, 10, 0.01, seed=0),
    "product": _product,
}


@dataclass(frozen=True)
class Problem:
    """One geometry.

    Attributes:
        law: ρ, or None for images.
        pool: all data (n, d), float64.
        rows: for each replicate the indices in the pool of sets A and B and of fresh data.
    """

    law: GaussianMixture | None
    pool: Tensor
    rows: tuple[dict[str, Tensor], ...]

    @classmethod
    def of(cls, geometry: str, count: int, replicates: int) -> Problem:
        """The geometry with sets of `count` data.

        Raises:
            ValueError: unknown geometry, or more data than an image set has.
        """
        if geometry in LAWS:
            law, each = LAWS[geometry](), 2 * count + FRESH
            pool = torch.cat([torch.as_tensor(np.asarray(law.sample(each, 1000 + r))) for r in range(replicates)])
            orders = [torch.arange(r * each, (r + 1) * each) for r in range(replicates)]
            return cls(law, pool, tuple(_split(order, count) for order in orders))
        if geometry not in IMAGES:
            raise ValueError(f"geometry={geometry!r} is not known: choose one of {', '.join((*GEOMETRIES, *IMAGES))}.")
        pool = data.load(geometry).images.flatten(1).double()
        if 2 * count >= len(pool):
            raise ValueError(f"count={count}: {geometry} has {len(pool)} images, too few for two sets and fresh ones.")
        orders = [torch.randperm(len(pool), generator=torch.Generator().manual_seed(r)) for r in range(replicates)]
        return cls(None, pool, tuple(_split(order, count) for order in orders))

    @property
    def scale(self) -> float:
        """τ: the standard deviation of the pool per coordinate."""
        return float((self.pool - self.pool.mean(0)).square().mean().sqrt())

    def set_of(self, replicate: int, name: str, count: int) -> Tensor:
        """The first `count` data of set A or B of a replicate."""
        return self.pool[self.rows[replicate][name][:count]]

    def weights(self, replicate: int, name: str, count: int) -> Tensor:
        """Weights on the pool that are the uniform law on that set."""
        weights = torch.zeros(len(self.pool), dtype=torch.float64)
        weights[self.rows[replicate][name][:count]] = 1 / count
        return weights

    def fresh(self, replicate: int, count: int) -> Tensor:
        """`count` data that no network of the replicate has seen (repeated where there are fewer)."""
        rows = self.rows[replicate]["fresh"]
        return self.pool[rows[torch.arange(count) % len(rows)]]

    def normal(self, x: Tensor) -> Tensor:
        """Unit vectors along the least direction of the likeliest component's covariance (of all data: images)."""
        if self.law is None:
            centred = self.pool - self.pool.mean(0)
            return torch.linalg.eigh(centred.T @ centred)[1][:, 0].expand_as(x)
        least = np.linalg.eigh(np.asarray(self.law.covariances))[1][:, :, 0]
        likeliest = np.asarray(self.law.noised(1e-3).responsibilities(x.numpy())).argmax(-1)
        return torch.as_tensor(least[likeliest])


def _split(order: Tensor, count: int) -> dict[str, Tensor]:
    return {"A": order[:count], "B": order[count : 2 * count], "fresh": order[2 * count :]}
