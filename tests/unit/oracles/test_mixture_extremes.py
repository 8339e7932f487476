"""Mixtures against sixty-digit arithmetic: noise from 1e-6 to 1e4, 100 standard deviations out, vanishing weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.close import assert_close
from support.exact import Exact
from support.libraries import converter
from support.strategies import covariance

from oracles import GaussianMixture

EPSILON = np.finfo(float).eps
RNG = np.random.default_rng(3)
MEANS = RNG.standard_normal((3, 3))
FULL = np.stack([covariance(RNG, 3, kind) for kind in ("full", "repeated", "singular")])
VARIANCES = np.array([[0.5, 0.0, 2.0], [1.0, 0.1, 3.0], [0.0, 0.0, 0.0]])
TINY, ZERO = np.array([0.3, 0.7, 1e-300]), np.array([0.3, 0.7, 0.0])
EYE = np.eye(3)

LAWS: dict[str, tuple[Any, np.ndarray, np.ndarray]] = {
    "full": (lambda c: GaussianMixture(c(TINY), c(MEANS), c(FULL)), TINY, FULL),
    "diagonal": (lambda c: GaussianMixture.diagonal(c(ZERO), c(MEANS), c(VARIANCES)), ZERO, VARIANCES[:, None] * EYE),
    "isotropic": (
        lambda c: GaussianMixture.isotropic(c(TINY), c(MEANS), c(VARIANCES[:, 0])),
        TINY,
        VARIANCES[:, :1, None] * EYE,
    ),
    "empirical": (lambda c: GaussianMixture.empirical(c(MEANS), c(ZERO)), ZERO, np.zeros((3, 3, 3))),
}
SIGMAS = [1e-6, 1e-3, 1.0, 1e4]
DISTANCES = [0.0, 1.0, 10.0, 100.0]


def state(sigma: float, distance: float, dense: np.ndarray) -> np.ndarray:
    """A state this many standard deviations from the first mean, in a direction that no axis favours."""
    spread = np.sqrt(np.trace(dense[0]) / 3 + sigma**2)
    return MEANS[0] + distance * spread * np.array([0.6, -0.64, 0.48])


def error(actual: Any, truth: np.ndarray) -> float:
    """The largest error relative to the largest entry."""
    assert np.shape(actual) == np.shape(truth)
    return float(np.max(np.abs(np.asarray(actual) - truth)) / np.max(np.abs(truth)))


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", LAWS)
def test_values_match_sixty_digits(name, sigma, distance, library):
    """Assert 1e-12 relative, or 4 ε cond(C) where the covariance itself is that badly conditioned."""
    make, weights, dense = LAWS[name]
    convert = converter(library)
    truth, law = Exact(weights, MEANS, dense, sigma), make(convert).noised(sigma)
    x = state(sigma, distance, dense)
    bound = max(1e-12, 4 * EPSILON * truth.condition())
    jacobian = truth.score_jacobian(x)
    assert error(law.log_density(convert(x)), truth.log_density(x)) <= bound
    assert error(law.score_jacobian(convert(x)), jacobian) <= bound
    assert error(law.score_divergence(convert(x)), np.trace(jacobian)) <= bound
    score = truth.score(x)
    # At a mean the score is a sum that cancels: its error is that of a displacement by ε.
    slack = EPSILON * np.linalg.norm(jacobian, 2) * np.linalg.norm(x)
    assert np.max(np.abs(np.asarray(law.score(convert(x))) - score)) <= bound * np.max(np.abs(score)) + slack


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", LAWS)
def test_third_order_matches_sixty_digits_within_its_condition(name, sigma, distance):
    """Assert 100 ε (cond(C) + distance²), the latter from γ, in units of the terms `γ (|a|³ + 3 ‖C⁻¹‖ |a|)`."""
    make, weights, dense = LAWS[name]
    # The uncentred truth cancels down to responsibilities of 1e-140: it needs many more digits than those.
    truth, law = Exact(weights, MEANS, dense, sigma, digits=400), make(np.asarray).noised(sigma)
    x, u, v = state(sigma, distance, dense), np.array([1.0, 0.5, -0.2]), np.array([-0.3, 0.7, 1.0])
    shares, scores = law.responsibilities(x), np.stack([law_of(law, k).score(x) for k in range(3)])
    centred = np.linalg.norm(scores - law.score(x), axis=1)
    inverses = np.array([1 / np.linalg.eigvalsh(c)[0] for c in dense + sigma**2 * EYE])
    size = float(shares @ (centred**3 + 3 * inverses * centred)) * np.linalg.norm(u) * np.linalg.norm(v)
    miss = np.max(np.abs(law.third_order(x, u, v) - truth.third_order(x, u, v)))
    assert miss <= 100 * EPSILON * (truth.condition() + distance**2) * size + 1e-300


def law_of(law: GaussianMixture, k: int) -> GaussianMixture:
    """Component k alone."""
    return GaussianMixture(np.ones(1), law.means[k : k + 1], law.covariances[k : k + 1])


def test_low_rank_keeps_the_accuracy_that_a_dense_matrix_loses():
    """Assert 1e-11 at σ = 1e-6 for a law on a line in space, whose dense covariance has condition 1e12."""
    factors, sigma = np.array([[[0.5], [0.25], [-1.0]], [[1.0], [1.0], [0.5]]]), 2.0**-20
    weights, means = np.array([0.4, 0.6]), MEANS[:2]
    square = factors @ np.swapaxes(factors, 1, 2)  # exact: few binary digits
    truth = Exact(weights, means, square, sigma)
    law = GaussianMixture.low_rank(weights, means, factors).noised(sigma)
    x = means[0] + 2 * factors[0, :, 0] + sigma * np.array([1.0, -2.0, 0.5])
    scale = np.linalg.norm(truth.score_jacobian(x), 2) * EPSILON * np.linalg.norm(x)
    assert np.max(np.abs(law.score(x) - truth.score(x))) <= 4 * scale
    assert error(law.score_jacobian(x), truth.score_jacobian(x)) <= 1e-11


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", LAWS)
def test_float32_stays_finite_and_close(name, sigma):
    """Assert that float32 results are finite everywhere, and within 1e-4 of float64 but for badly conditioned laws."""
    make, _, dense = LAWS[name]
    convert = converter("numpy", "float32")
    law, fine = make(convert).noised(sigma), make(np.asarray).noised(sigma)
    states = np.stack([state(sigma, distance, dense) for distance in DISTANCES])
    assert np.all(np.isfinite(law.score_jacobian(convert(states))))
    if sigma >= 1.0:
        score = fine.score(convert(states).astype(float))
        assert np.max(np.abs(law.score(convert(states)) - score)) <= 1e-4 * np.max(np.abs(score))


@pytest.mark.parametrize("sigma", [1e-6, 1e-2, 1.0, 1e4])
def test_far_tails_are_finite(sigma):
    """Assert finite values 1e6 standard deviations out."""
    law = GaussianMixture(TINY, MEANS, FULL).noised(sigma)
    x = 1e6 * max(1.0, sigma) * np.ones(3)
    for value in (law.log_density(x), law.score(x), law.score_jacobian(x), law.score_divergence(x)):
        assert np.all(np.isfinite(value))


def test_posterior_does_not_cancel_at_large_noise():
    """Assert that at σ = 1e4 the posterior is the law itself to 1e-4, where x + σ² s in floating point is not."""
    law = GaussianMixture(np.array([0.4, 0.6]), MEANS[:2], FULL[:2])
    mean, spread = law.posterior(np.array([3e3, -2e3, 1e3]), 1e4)
    assert_close(mean, law.mean, rtol=0, atol=1e-4)
    assert_close(spread, law.covariance, rtol=0, atol=2e-4)


def test_posterior_covariance_is_positive_semidefinite_at_small_noise():
    """Assert eigenvalues of the posterior covariance between 0 and σ² (1 + rounding) at σ = 1e-6, one component."""
    law = GaussianMixture(np.ones(1), MEANS[:1], FULL[2:])
    _, spread = law.posterior(MEANS[0] + 1e-6, 1e-6)
    values = np.linalg.eigvalsh(spread)
    assert values.min() >= -1e-12 * values.max()
    assert values.max() <= 1e-12 * (1 + 1e-9)
