"""Planted faults in the exactly trained network and in conditioning: each breaks a comparison that the suite makes."""

from __future__ import annotations

import numpy as np
import pytest
from support.close import assert_close

from oracles import GaussianMixture
from oracles._mixture import conditioning
from oracles.features import FeatureDenoiser, _influence, _moments

OMEGA, PHASES = np.array([[1.3], [-0.7], [2.1]]), np.array([0.4, 1.5, -0.3])
POINTS, SIGMA = np.array([[-0.8], [0.3], [1.4]]), 0.5
STATES = np.array([[0.2], [-1.0]])


def by_quadrature() -> np.ndarray:
    """The score at the states with G and B by Gauss–Hermite quadrature."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(60)
    x = (POINTS + SIGMA * nodes)[:, :, None]
    waves = np.cos(x @ OMEGA.T + PHASES)
    share = np.broadcast_to(mass / mass.sum() / 3, x.shape[:2])
    skip = 1 / (1 + SIGMA**2)
    gram = np.einsum("ie,iej,iek->jk", share, waves, waves)
    target = np.einsum("ie,ied,iek->dk", share, POINTS[:, None, :] - skip * x, waves)
    coefficients = np.linalg.solve(gram + 0.01 * np.eye(3), target.T).T
    return ((skip - 1) * STATES + np.cos(STATES @ OMEGA.T + PHASES) @ coefficients.T) / SIGMA**2


def fitted():
    return FeatureDenoiser(OMEGA, PHASES, 0.01, lambda s: 1 / (1 + s * s)).fit(POINTS)


def swapped(even, odd, data):
    """The two signs exchanged: E₊ where E₋ belongs."""
    return even * data.cosines - odd * data.sines


def without_noise_term(bands, damping, sigma, skip, gap, data):
    """B without the σ² ω sin term."""
    return gap * data.products * damping[None, :]


def with_wrong_sign(bands, damping, sigma, skip, gap, data):
    """B with −σ² ω sin."""
    return TARGET(bands, damping, sigma, -skip, gap, data)


TARGET = _moments.target


@pytest.mark.parametrize(
    ("name", "fault"),
    [("gram", swapped), ("target", without_noise_term), ("target", with_wrong_sign)],
    ids=["signs exchanged", "noise term missing", "noise term negative"],
)
def test_wrong_expectations_over_noise_are_caught(monkeypatch, name, fault):
    """Assert that each fault fails against quadrature."""
    assert_close(fitted().score(STATES, SIGMA), by_quadrature(), rtol=1e-10)
    monkeypatch.setattr(_moments, name, fault)
    with pytest.raises(AssertionError):
        assert_close(fitted().score(STATES, SIGMA), by_quadrature(), rtol=1e-10)


def test_second_derivatives_without_the_binomial_are_caught(monkeypatch):
    """Assert that `Ẅ = −ẆĠ(G + λ)⁻¹`, half of it, fails against differences of retraining."""
    network, toward, step = fitted(), np.array([[2.0]]), 1e-3

    def bend():
        return network.score_derivative(STATES, SIGMA, toward, order=2, eta=0.2)

    at = [network.at(0.2 + k * step, toward).score(STATES, SIGMA) for k in (-1, 0, 1)]
    truth = (at[0] - 2 * at[1] + at[2]) / step**2
    assert_close(bend(), truth, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr("oracles.features._level.math.comb", lambda n, k: 1)
    with pytest.raises(AssertionError):
        assert_close(bend(), truth, rtol=1e-4, atol=1e-4)


def test_an_adjoint_without_the_points_own_mean_is_caught(monkeypatch):
    """Assert that influence toward δ_i instead of δ_i − ρ fails: its mean over the points is not zero."""
    latents = np.array([[3.0], [-2.0]])
    assert np.abs(fitted().influence(latents, np.cos, 3.0, 0.3).mean(axis=1)).max() < 1e-12
    real = _influence.functional
    zero_base = iter([0.0, 1.0])
    monkeypatch.setattr(_influence, "functional", lambda *args: next(zero_base) * real(*args))
    assert np.abs(fitted().influence(latents, np.cos, 3.0, 0.3).mean(axis=1)).max() > 1e-3


A, Y, R = np.array([[1.0, 0.5, 0.0], [0.0, -1.0, 2.0]]), np.array([0.4, -1.0]), np.array([0.3, 0.1])
LAW = GaussianMixture.low_rank(
    [0.3, 0.7], [[0.2, -0.4, 1.0], [-0.7, 0.5, 0.1]], [[[1.0], [0.2], [-0.5]], [[0.1], [0.9], [0.3]]], 0.2
)


def joint() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and covariances by block formulas of the joint Gaussian."""
    seen = A @ LAW.covariances @ A.T + np.diag(R)
    gain, residuals = LAW.covariances @ A.T @ np.linalg.inv(seen), Y - LAW.means @ A.T
    logs = -0.5 * np.einsum("ki,kij,kj->k", residuals, np.linalg.inv(seen), residuals)
    logs += np.log(LAW.weights) - 0.5 * np.linalg.slogdet(seen)[1]
    weights = np.exp(logs - np.logaddexp.reduce(logs))
    return weights, LAW.means + np.einsum("kij,kj->ki", gain, residuals), LAW.covariances - gain @ A @ LAW.covariances


@pytest.mark.parametrize("fault", ["evidence", "residual", "noise"])
def test_wrong_conditioning_is_caught(monkeypatch, fault):
    """Assert that a missing log det, a residual of the wrong sign and doubled noise fail against block formulas."""

    def agrees() -> None:
        posterior = LAW.conditioned(A, Y, R)
        values = (posterior.weights, posterior.means, posterior.covariances)
        for value, truth in zip(values, joint(), strict=True):
            assert_close(value, truth, rtol=1e-11, atol=1e-12)

    agrees()
    real = getattr(
        conditioning, {"evidence": "_log_normal", "residual": "_residuals", "noise": "_noise_spectrum"}[fault]
    )
    faults = {
        "evidence": ("_log_normal", lambda white, growth: real(white, np.ones_like(growth))),
        "residual": ("_residuals", lambda *args: -real(*args)),
        "noise": ("_noise_spectrum", lambda noise, size: real(2 * noise, size)),
    }
    monkeypatch.setattr(conditioning, *faults[fault])
    with pytest.raises(AssertionError):
        agrees()
