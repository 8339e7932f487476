"""Groups of an exactly trained network: what retraining without them gives, by a solve a level and Heun's method."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch

from oracles.features import FeatureDenoiser, FittedDenoiser
from sensitivity import Grid, UnrolledResponse, as_score
from studies.responses.exact import LevelNetwork, Solved


@dataclass(frozen=True)
class ExactGroups:
    """Forty points of three unequal clusters in the plane, with a network that is trained exactly on them.

    Attributes:
        count: of points.
        latents_count: of latents.
    """

    count: int = 40
    latents_count: int = 5
    seed: int = 0

    @cached_property
    def images(self) -> torch.Tensor:
        """The points (N, 2); the name is that of the record's own."""
        rng = np.random.default_rng([11, self.seed])
        centres = np.array([[-1.5, 0.2], [1.0, 0.8], [0.6, -1.4]])
        which = rng.choice(3, self.count, p=[0.5, 0.3, 0.2])
        spread = rng.standard_normal((self.count, 2)) @ np.array([[0.4, 0.1], [0.0, 0.2]])
        return torch.from_numpy(centres[which] + spread)

    @cached_property
    def grid(self) -> Grid:
        """The sampler's levels."""
        return Grid(8.0, 0.3, 10)

    @cached_property
    def fitted(self) -> FittedDenoiser:
        """The network on all points."""
        rng = np.random.default_rng([12, self.seed])
        frequencies = np.vstack([np.zeros((1, 2)), rng.standard_normal((23, 2)) / np.geomspace(0.8, 8.0, 23)[:, None]])
        phases = np.concatenate([np.zeros(1), rng.uniform(0, 2 * np.pi, 23)])
        return FeatureDenoiser(frequencies, phases, 1e-2).fit(self.images.numpy())

    @cached_property
    def network(self) -> LevelNetwork:
        """The same for the engine, at the sampler's levels."""
        return LevelNetwork(self.fitted, self.grid.levels.tolist()).eval()

    @cached_property
    def score(self):
        """Its score."""
        return as_score(self.network, "denoiser")

    @cached_property
    def response(self) -> UnrolledResponse:
        """The derivative of the solve."""
        return UnrolledResponse(Solved(self, self.network))

    @cached_property
    def latents(self) -> torch.Tensor:
        """States at σ_max."""
        rng = np.random.default_rng([13, self.seed])
        return torch.from_numpy(8.0 * rng.standard_normal((self.latents_count, 2)))

    def drawn(self, groups: int, size: int, seed: int = 0) -> dict[int, list[int]]:
        """Random groups of the points, exchangeable."""
        rng = np.random.default_rng([14, seed])
        return {k: rng.choice(self.count, size, replace=False).tolist() for k in range(groups)}

    def weights(self, members: list[int], multiplier: float = 0.0) -> np.ndarray:
        """Equal weights, those of the members multiplied."""
        weights = np.ones(self.count)
        weights[members] *= multiplier
        return weights / weights.sum()

    def retrained(self, weights: np.ndarray, points: np.ndarray | None = None) -> torch.Tensor:
        """Samples of the network trained on these weights, by Heun's method written out."""
        data = self.images.numpy() if points is None else points
        fitted = self.fitted.retrained(data, weights)
        x = self.latents.numpy().copy()
        for high, low in pairwise(self.grid.levels.tolist()):
            first = (x - fitted.denoiser(x, high)) / high
            middle = x + (low - high) * first
            second = (middle - fitted.denoiser(middle, low)) / low
            x = x + (low - high) * (first + second) / 2
        return torch.from_numpy(x)
