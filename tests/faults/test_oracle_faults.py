"""Planted faults in the oracles: each must break an identity or a comparison that the suite makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.exact import Exact

from oracles import AdditivePerturbation, GaussianMixture, _arrays
from oracles._mixture import local
from oracles.empirical import EmpiricalLaw

WEIGHTS, MEANS = np.array([0.3, 0.7]), np.array([[0.2, -0.4, 1.0], [-0.7, 0.5, 0.1]])
COVARIANCES = np.stack([np.diag([0.5, 0.2, 1.0]), 0.3 * np.eye(3)])


def test_uncentred_jacobian_is_caught(monkeypatch):
    """Assert that Σ γ (g gᵀ − C⁻¹) − s sᵀ fails the sixty-digit comparison far from the points of an empirical law."""

    def uncentred(at):
        moments = local.total(
            local.second_moment(w, g) - piece.whitening.average(w) for piece, w, g in at.component_scores()
        )
        return moments - at.score[:, :, None] * at.score[:, None, :]

    sigma, x = 3e-4, MEANS[0] + np.array([0.6, -0.5, 0.4])
    law, truth = (
        GaussianMixture.empirical(MEANS, WEIGHTS).noised(sigma),
        Exact(WEIGHTS, MEANS, np.zeros((2, 3, 3)), sigma),
    )
    expected = truth.score_jacobian(x)
    assert_close(law.score_jacobian(x), expected, rtol=1e-11, atol=1e-11 / sigma**2)
    monkeypatch.setattr(local, "jacobian", uncentred)
    with pytest.raises(AssertionError):
        assert_close(law.score_jacobian(x), expected, rtol=1e-11, atol=1e-11 / sigma**2)


def test_exponentials_without_a_maximum_are_caught(monkeypatch):
    """Assert that log Σ exp without its maximum gives −∞ far out."""
    law, x = GaussianMixture(WEIGHTS, MEANS, COVARIANCES), np.array([200.0, 0.0, 0.0])
    truth = Exact(WEIGHTS, MEANS, COVARIANCES).log_density(x)
    assert_close(law.log_density(x), truth, rtol=1e-12)
    monkeypatch.setattr(_arrays, "log_sum_exp", lambda terms: np.log(np.sum(np.exp(terms), axis=0) + 1e-300))
    with pytest.raises(AssertionError):
        assert_close(law.log_density(x), truth, rtol=1e-12)


def test_distances_by_products_alone_are_caught(monkeypatch):
    """Assert that |x|² − 2xy + |y|² in float32 misses the log density by nats at σ = .002 of the data scale."""
    rng = np.random.default_rng(0)
    points = rng.random((400, 784)).astype(np.float32)
    points[1::2] = points[::2] + (1e-4 * rng.standard_normal((200, 784))).astype(np.float32)
    sigma = float(np.float32(0.002 * points.std()))
    x = (points[:6] + sigma * rng.standard_normal((6, 784))).astype(np.float32)
    truth = GaussianMixture.empirical(points.astype(float)).noised(sigma).log_density(x.astype(float))
    law = EmpiricalLaw(points).noised(sigma)
    assert np.abs(law.log_density(x) - truth).max() <= 1e-2
    monkeypatch.setattr("oracles._empirical_sums.TOLERANCE", np.inf)
    assert np.abs(law.log_density(x) - truth).max() > 1.0


def test_a_wrong_sign_of_the_source_is_caught(monkeypatch):
    """Assert that s − s^ν in place of s^ν − s fails against differences of the exact mixture."""
    perturbation = AdditivePerturbation(
        GaussianMixture(WEIGHTS, MEANS, COVARIANCES), GaussianMixture.isotropic([1.0], [[1.0, 0.0, 0.5]], 0.2)
    )
    x, step = MEANS + 0.3, 1e-6
    moved = perturbation.at(step).noised(0.5).score(x) - perturbation.at(0.0).noised(0.5).score(x)
    assert_close(perturbation.score_derivative(x, 0.5), moved / step, rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError):
        assert_close(-perturbation.score_derivative(x, 0.5), moved / step, rtol=1e-4, atol=1e-5)


def test_autograd_through_eigenvectors_would_be_wrong(monkeypatch):
    """Assert that without the zero-valued residual the derivative in Σ at repeated eigenvalues is lost, and is seen."""
    direction = torch.tensor([[0.2, 0.5, 0.0], [0.5, -0.4, 0.3], [0.0, 0.3, 0.6]], dtype=torch.float64)

    def value(eta: torch.Tensor) -> torch.Tensor:
        moved = 0.3 * torch.eye(3, dtype=torch.float64) + eta * direction
        return (
            GaussianMixture([1.0], torch.tensor(MEANS[:1]), moved[None])
            .noised(0.2)
            .log_density(torch.zeros(3).double())
        )

    zero = torch.tensor(0.0, dtype=torch.float64)
    slope = (value(zero + 1e-5) - value(zero - 1e-5)) / 2e-5
    assert_close(float(torch.func.grad(value)(zero)), float(slope), rtol=1e-7)
    monkeypatch.setattr("oracles._mixture.covariance.tracked", lambda array: False)
    with pytest.raises(AssertionError):
        assert_close(float(torch.func.grad(value)(zero)), float(slope), rtol=1e-7)


@pytest.mark.parametrize("excess", [3e-3, -3e-3, 1e-4])
def test_single_precision_weights_that_do_not_sum_to_one_are_refused(excess: float) -> None:
    """Assert that float32 takes rounding for rounding only: 60 000 normalised weights pass, an excess does not."""
    weights = np.full(4, (1 + excess) / 4, dtype=np.float32)
    with pytest.raises(ValueError, match=r"weights sum to .*divide them by their sum"):
        GaussianMixture.isotropic(weights, np.zeros((4, 2), dtype=np.float32), np.float32(1.0))
    many = np.random.default_rng(0).random(60_000).astype(np.float32)
    many /= many.sum(dtype=np.float32)
    GaussianMixture.isotropic(many, np.zeros((60_000, 1), dtype=np.float32), np.float32(1.0))
