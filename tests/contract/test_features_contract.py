"""The contract of an exactly trained network, in every array library: values, derivatives in x, kinds and shapes.

The truth is NumPy from the definitions, sums over points and both signs written out, with autograd of torch on it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.law_contract import EAGER, JAX, TOLERANCE
from support.libraries import converter, kind

from oracles.features import FeatureDenoiser, FittedDenoiser, moving, removal

RNG = np.random.default_rng(31)
SIGMA, RIDGE = 0.7, 0.05


def truth(omega: Any, phases: Any, points: Any, weights: Any, sigma: float, skip: float) -> Any:
    """x ↦ D(x) in torch float64."""
    omega, phases, points, weights = (torch.as_tensor(a) for a in (omega, phases, points, weights))
    gram = torch.zeros(len(phases), len(phases), dtype=torch.float64)
    target = torch.zeros(points.shape[1], len(phases), dtype=torch.float64)
    for w, y in zip(weights, points, strict=True):
        for sign in (1, -1):
            both, shift = omega[:, None] + sign * omega[None], phases[:, None] + sign * phases[None]
            gram += w / 2 * torch.exp(-(sigma**2) * (both**2).sum(-1) / 2) * torch.cos(both @ y + shift)
        damping, angle = torch.exp(-(sigma**2) * (omega**2).sum(1) / 2), omega @ y + phases
        target += w * (1 - skip) * y[:, None] * damping * torch.cos(angle)
        target += w * skip * sigma**2 * (omega * (damping * torch.sin(angle))[:, None]).T
    coefficients = target @ torch.linalg.inv(gram + RIDGE * torch.eye(len(phases), dtype=torch.float64))
    return lambda x: skip * x + torch.cos(x @ omega.T + phases) @ coefficients.T


class FeatureContract:
    """What every trained network must satisfy; subclasses define sizes, `fitted(convert)` and `denoiser()`."""

    CASES: ClassVar[tuple[tuple[str, str], ...]] = EAGER
    dimension = 3
    omega = RNG.standard_normal((6, 3))
    phases = RNG.uniform(0, 6, 6)
    points = RNG.standard_normal((5, 3))
    weights = np.array([0.1, 0.3, 0.2, 0.15, 0.25])

    def network(self, convert: Any) -> FeatureDenoiser:
        return FeatureDenoiser(convert(self.omega), convert(self.phases), RIDGE, lambda s: 1 / (1 + s * s))

    def fitted(self, convert: Any) -> FittedDenoiser:
        """The network under test."""
        return self.network(convert).fit(convert(self.points), convert(self.weights))

    def denoiser(self) -> Any:
        """x ↦ D(x) in torch."""
        return truth(self.omega, self.phases, self.points, self.weights, SIGMA, 1 / (1 + SIGMA**2))

    @pytest.fixture
    def convert(self, case: tuple[str, str]) -> Any:
        return converter(*case)

    @pytest.fixture
    def precision(self, case: tuple[str, str]) -> str:
        return case[1]

    @pytest.fixture
    def states(self) -> np.ndarray:
        return np.random.default_rng(5).standard_normal((4, self.dimension))

    def close(self, actual: Any, expected: Any, precision: str) -> None:
        assert_close(np.asarray(actual), np.asarray(expected).astype(precision), **TOLERANCE[precision])

    def score(self, x: torch.Tensor) -> torch.Tensor:
        """The independent score."""
        return (self.denoiser()(x) - x) / SIGMA**2

    def jacobians(self, states: np.ndarray) -> np.ndarray:
        return np.stack([torch.autograd.functional.jacobian(self.score, x).numpy() for x in torch.tensor(states)])

    def test_denoiser_and_score(self, convert, states, precision):
        """Assert D and s against the definitions."""
        fitted, x = self.fitted(convert), torch.tensor(states)
        self.close(fitted.denoiser(convert(states), SIGMA), self.denoiser()(x), precision)
        self.close(fitted.score(convert(states), SIGMA), self.score(x), precision)

    def test_jacobian_product_and_divergence(self, convert, states, precision):
        """Assert ∇s, ∇s v and div s against autograd of the definitions."""
        fitted, x, v = self.fitted(convert), convert(states), states[::-1]
        matrices, level = self.jacobians(states), fitted.noised(SIGMA)
        self.close(fitted.score_jacobian(x, SIGMA), matrices, precision)
        self.close(level.score_jacobian_product(x, convert(v)), np.einsum("nij,nj->ni", matrices, v), precision)
        self.close(level.score_divergence(x), np.trace(matrices, axis1=1, axis2=2), precision)

    def test_third_order(self, convert, states, precision):
        """Assert D²s[u, v] against two forward modes of torch on the definitions."""
        u, v = states[::-1].copy(), np.roll(states, 1, axis=0)

        def product(x: torch.Tensor) -> torch.Tensor:
            return torch.func.jvp(self.score, (x,), (torch.tensor(u),))[1]

        bend = torch.func.jvp(product, (torch.tensor(states),), (torch.tensor(v),))[1]
        value = self.fitted(convert).noised(SIGMA).third_order(*map(convert, (states, u, v)))
        self.close(value, bend, precision)

    def test_shapes_follow_the_states(self, convert, states, precision):
        """Assert (d,), (a, b, d) and empty states."""
        fitted, x = self.fitted(convert), convert(states)
        flat = np.asarray(fitted.score(x, SIGMA))
        stacked = fitted.score(convert(states.reshape(2, 2, self.dimension)), SIGMA)
        self.close(np.asarray(stacked).reshape(4, self.dimension), flat, precision)
        self.close(fitted.score(x[0, ...], SIGMA), flat[0], precision)
        assert fitted.score_jacobian(x[0, ...], SIGMA).shape == (self.dimension, self.dimension)
        assert fitted.score(convert(np.zeros((0, self.dimension))), SIGMA).shape == (0, self.dimension)

    def test_results_have_the_kind_of_the_input(self, convert, states):
        """Assert library and dtype of every result, of derivatives and samples too."""
        fitted, x = self.fitted(convert), convert(states)
        level, toward = fitted.noised(SIGMA), convert(states[:2])
        results = [fitted.denoiser(x, SIGMA), fitted.score(x, SIGMA), fitted.score_jacobian(x, SIGMA)]
        results += [level.score_divergence(x), level.score_jacobian_product(x, x), level.third_order(x, x, x)]
        results += [fitted.score_derivative(x, SIGMA, toward, order=2), fitted.at(0.1, toward).score(x, SIGMA)]
        results += [*fitted.sample_sensitivity(x, toward, 3.0, 1.0), fitted.influence(x, x, 3.0, 1.0)]
        assert {kind(result) for result in results} == {kind(x)}

    def test_derivatives_are_those_of_numpy(self, convert, states, precision):
        """Assert the derivative along each kind of path against NumPy float64, which has routes of its own."""
        here, there = self.fitted(convert), self.fitted(converter("numpy"))
        size = int(there.points.shape[0])
        speeds = np.random.default_rng(6).standard_normal((size, self.dimension))
        for order in (1, 2):
            value = here.score_derivative(convert(states), SIGMA, convert(states[:2]), order=order)
            self.close(value, there.score_derivative(states, SIGMA, states[:2], order=order), precision)
            value = moving(here, convert(speeds)).score_derivative(convert(states), SIGMA, order)
            self.close(value, moving(there, speeds).score_derivative(states, SIGMA, order), precision)
            value = removal(here, [1])[0].score_derivative(convert(states), SIGMA, order)
            self.close(value, removal(there, [1])[0].score_derivative(states, SIGMA, order), precision)


class TestFitted(FeatureContract):
    """Trained on weighted points."""

    CASES = EAGER + JAX


class TestRetrained(FeatureContract):
    """Retrained on a contaminated law."""

    def fitted(self, convert: Any) -> FittedDenoiser:
        return super().fitted(convert).at(0.3, convert(self.points[::-1] + 1.0))

    def denoiser(self) -> Any:
        points = np.concatenate([self.points, self.points[::-1] + 1.0])
        weights = np.concatenate([0.7 * self.weights, np.full(5, 0.06)])
        return truth(self.omega, self.phases, points, weights, SIGMA, 1 / (1 + SIGMA**2))


class TestOnTheLine(FeatureContract):
    """d = 1, with a constant feature and a repeated frequency."""

    dimension = 1
    omega = np.array([[0.0], [1.0], [1.0], [-2.5]])
    phases = np.array([0.0, 0.0, 1.2, 0.4])
    points = np.array([[-1.0], [0.2], [0.5], [2.0]])
    weights = np.array([0.4, 0.1, 0.2, 0.3])
