"""Every measure keeps the contract of measures, held against the oracle law."""

from __future__ import annotations

import numpy as np
import torch
from support.contracts import MeasureContract
from support.problems import PROBLEMS

from oracles.mixture import GaussianMixture
from sensitivity.measures.mixture import Mixture
from sensitivity.measures.points import Points

RNG = np.random.default_rng(5)
DATA = RNG.normal(size=(23, 6)) * np.array([0.2, 0.5, 1.0, 1.5, 2.0, 3.0])
WEIGHTS = RNG.uniform(0.2, 1.0, 23)
WEIGHTS /= WEIGHTS.sum()


class TestPoints(MeasureContract):
    """Weighted points, streamed in uneven blocks."""

    shape = (6,)

    def measure(self, dtype: torch.dtype = torch.float64) -> Points:
        """Points in blocks of five."""
        return Points(torch.from_numpy(DATA), torch.from_numpy(WEIGHTS), block=5).to(dtype)

    def law(self) -> GaussianMixture:
        """The empirical law."""
        return GaussianMixture.empirical(DATA, WEIGHTS)


class TestPointsWithBandwidth(MeasureContract):
    """Points with a Gaussian on each, shaped as images."""

    shape = (2, 3)

    def measure(self, dtype: torch.dtype = torch.float64) -> Points:
        """A bandwidth of 0.4."""
        return Points(torch.from_numpy(DATA).reshape(-1, 2, 3), bandwidth=0.4).to(dtype)

    def law(self) -> GaussianMixture:
        """The smoothed empirical law."""
        return GaussianMixture.isotropic(np.full(23, 1 / 23), DATA, 0.4**2)


class TestFullMixture(MeasureContract):
    """Full covariances, shaped as `(1, 5)`."""

    shape = (1, 5)
    problem = PROBLEMS["d5_k2_s0"].base

    def measure(self, dtype: torch.dtype = torch.float64) -> Mixture:
        """The engine's mixture."""
        weights, means, covariances = (torch.from_numpy(v.copy()) for v in self.problem)
        return Mixture(weights, means.reshape(-1, 1, 5), covariances).to(dtype)

    def law(self) -> GaussianMixture:
        """The oracle's mixture."""
        return GaussianMixture(*self.problem)


class TestDiagonalMixture(MeasureContract):
    """Diagonal covariances, some entries zero."""

    shape = (3,)
    weights = np.array([0.2, 0.8])
    means = np.array([[0.0, 1.0, -1.0], [1.5, 0.0, 0.4]])
    variances = np.array([[0.1, 0.0, 2.0], [0.7, 0.3, 0.0]])

    def measure(self, dtype: torch.dtype = torch.float64) -> Mixture:
        """The engine's mixture."""
        return Mixture(*(torch.from_numpy(v) for v in (self.weights, self.means, self.variances))).to(dtype)

    def law(self) -> GaussianMixture:
        """The oracle's mixture."""
        return GaussianMixture.diagonal(self.weights, self.means, self.variances)


class TestIsotropicMixture(MeasureContract):
    """One variance for each component."""

    shape = (3,)

    def measure(self, dtype: torch.dtype = torch.float64) -> Mixture:
        """The engine's mixture."""
        means = torch.from_numpy(TestDiagonalMixture.means)
        return Mixture(None, means, torch.tensor([0.3, 0.0], dtype=torch.float64)).to(dtype)

    def law(self) -> GaussianMixture:
        """The oracle's mixture."""
        return GaussianMixture.isotropic(np.array([0.5, 0.5]), TestDiagonalMixture.means, np.array([0.3, 0.0]))


class TestSingularMixture(MeasureContract):
    """A rank-one covariance in three dimensions."""

    shape = (3,)
    factor = np.array([[1.0], [2.0], [-1.0]])

    def measure(self, dtype: torch.dtype = torch.float64) -> Mixture:
        """The engine's mixture."""
        covariance = torch.from_numpy(self.factor @ self.factor.T)
        return Mixture(None, torch.zeros(1, 3, dtype=torch.float64), covariance[None]).to(dtype)

    def law(self) -> GaussianMixture:
        """The oracle's mixture, in its low-rank representation."""
        return GaussianMixture.low_rank(np.ones(1), np.zeros((1, 3)), self.factor[None])
