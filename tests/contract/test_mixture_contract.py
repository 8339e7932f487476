"""The law contract for every covariance representation, for mixtures of representations and for streamed points."""

from __future__ import annotations

from typing import Any

import numpy as np
from support.law_contract import EAGER, JAX, LawContract
from support.strategies import Parameters, covariance

from oracles import AdditivePerturbation, GaussianMixture
from oracles.empirical import EmpiricalLaw

RNG = np.random.default_rng(11)
WEIGHTS = np.array([0.2, 0.5, 0.3])
MEANS = 1.5 * RNG.standard_normal((3, 4)) + 0.3
KINDS = ("full", "repeated", "singular")
COVARIANCES = np.stack([0.4 * covariance(RNG, 4, kind) for kind in KINDS])
VARIANCES = np.array([[0.3, 0.8, 0.05, 1.1], [0.0, 0.4, 0.4, 0.9], [0.6, 0.6, 0.6, 0.6]])
FACTORS = RNG.standard_normal((3, 4, 2))


class TestFull(LawContract):
    """Full covariances: generic, with repeated eigenvalues, and singular."""

    def law(self, convert: Any) -> GaussianMixture:
        return GaussianMixture(convert(WEIGHTS), convert(MEANS), convert(COVARIANCES))

    def dense(self) -> Parameters:
        return Parameters(WEIGHTS, MEANS, COVARIANCES)


class TestDiagonal(LawContract):
    """Diagonal covariances, one with a zero variance."""

    def law(self, convert: Any) -> GaussianMixture:
        return GaussianMixture.diagonal(convert(WEIGHTS), convert(MEANS), convert(VARIANCES))

    def dense(self) -> Parameters:
        return Parameters(WEIGHTS, MEANS, VARIANCES[:, :, None] * np.eye(4))


class TestIsotropic(LawContract):
    """Isotropic covariances of different sizes."""

    def law(self, convert: Any) -> GaussianMixture:
        return GaussianMixture.isotropic(convert(WEIGHTS), convert(MEANS), convert(VARIANCES[:, 0]))

    def dense(self) -> Parameters:
        return Parameters(WEIGHTS, MEANS, VARIANCES[:, :1, None] * np.eye(4))


class TestLowRank(LawContract):
    """Rank two plus isotropic, one component without the isotropic part."""

    def law(self, convert: Any) -> GaussianMixture:
        return GaussianMixture.low_rank(convert(WEIGHTS), convert(MEANS), convert(FACTORS), convert(VARIANCES[:, 0]))

    def dense(self) -> Parameters:
        square = FACTORS @ np.swapaxes(FACTORS, 1, 2)
        return Parameters(WEIGHTS, MEANS, square + VARIANCES[:, :1, None] * np.eye(4))


class TestEmpirical(LawContract):
    """Points with unequal weights."""

    def law(self, convert: Any) -> GaussianMixture:
        return GaussianMixture.empirical(convert(MEANS), convert(WEIGHTS))

    def dense(self) -> Parameters:
        return Parameters(WEIGHTS, MEANS, np.zeros((3, 4, 4)))


class TestStreamedEmpirical(LawContract):
    """The same points as a law that streams them."""

    def law(self, convert: Any) -> EmpiricalLaw:
        return EmpiricalLaw(convert(MEANS), convert(WEIGHTS))

    def dense(self) -> Parameters:
        return Parameters(WEIGHTS, MEANS, np.zeros((3, 4, 4)))


class TestContaminated(LawContract):
    """A full law contaminated by an empirical one: two representations in one law."""

    CASES = EAGER + JAX

    def law(self, convert: Any) -> GaussianMixture:
        base = GaussianMixture(convert(WEIGHTS), convert(MEANS), convert(COVARIANCES))
        return AdditivePerturbation(base, GaussianMixture.empirical(convert(MEANS[::-1] - 1.0), convert(WEIGHTS))).at(
            0.3
        )

    def dense(self) -> Parameters:
        weights = np.concatenate([0.7 * WEIGHTS, 0.3 * WEIGHTS])
        means = np.concatenate([MEANS, MEANS[::-1] - 1.0])
        return Parameters(weights, means, np.concatenate([COVARIANCES, np.zeros((3, 4, 4))]))


OPERATOR, OBSERVATION, NOISE = RNG.standard_normal((2, 4)), np.array([0.4, -1.0]), np.array([1.5, 0.8])


class TestPosterior(LawContract):
    """A contaminated low-rank law given a linear observation, against block formulas of the joint Gaussian."""

    def law(self, convert: Any) -> GaussianMixture:
        base = GaussianMixture.low_rank(convert(WEIGHTS), convert(MEANS), convert(FACTORS[:, :, :1]), 0.4)
        toward = GaussianMixture.empirical(convert(MEANS[::-1] - 1.0), convert(WEIGHTS))
        return AdditivePerturbation(base, toward).at(0.3).conditioned(*map(convert, (OPERATOR, OBSERVATION, NOISE)))

    def dense(self) -> Parameters:
        one = FACTORS[:, :, :1] @ np.swapaxes(FACTORS[:, :, :1], 1, 2) + 0.4 * np.eye(4)
        means, covariances = np.concatenate([MEANS, MEANS[::-1] - 1.0]), np.concatenate([one, np.zeros((3, 4, 4))])
        seen = OPERATOR @ covariances @ OPERATOR.T + np.diag(NOISE)
        gain, residuals = covariances @ OPERATOR.T @ np.linalg.inv(seen), OBSERVATION - means @ OPERATOR.T
        square = np.einsum("ki,kij,kj->k", residuals, np.linalg.inv(seen), residuals)
        shares = np.concatenate([0.7 * WEIGHTS, 0.3 * WEIGHTS]) * np.exp(-0.5 * square) / np.sqrt(np.linalg.det(seen))
        moved = means + np.einsum("kij,kj->ki", gain, residuals)
        return Parameters(shares / shares.sum(), moved, covariances - gain @ OPERATOR @ covariances)


class TestOnTheLine(LawContract):
    """d = 1."""

    def law(self, convert: Any) -> GaussianMixture:
        return GaussianMixture(convert(WEIGHTS), convert(MEANS[:, :1]), convert(VARIANCES[:, :1, None]))

    def dense(self) -> Parameters:
        return Parameters(WEIGHTS, MEANS[:, :1], VARIANCES[:, :1, None])
