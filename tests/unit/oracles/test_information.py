"""Entropy and divergence by quadrature, against formulas, SciPy's quadrature and draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from support.close import assert_close
from support.problems import PROBLEMS

from oracles import GaussianMixture
from oracles.information import entropy, expectation, kl

SPREAD = np.array([[1.3, 0.4], [0.4, 0.2]])


def test_one_gaussian_has_the_known_entropy():
    """Assert ½ log det 2πe Σ in two dimensions."""
    value, error = entropy(GaussianMixture([1.0], [[0.3, -0.2]], [SPREAD]))
    assert_close(value, 0.5 * np.log(np.linalg.det(2 * np.pi * np.e * SPREAD)), rtol=1e-11)
    assert error <= 1e-9


def test_two_gaussians_have_the_known_divergence():
    """Assert KL = ½ [tr P₁Σ₀ + Δᵀ P₁ Δ − d + log det Σ₁/det Σ₀]."""
    means, other = np.array([[0.3, -0.2], [-0.5, 0.4]]), np.array([[0.7, -0.3], [-0.3, 0.9]])
    p, q = (GaussianMixture([1.0], m[None], c[None]) for m, c in zip(means, (SPREAD, other), strict=True))
    inverse, delta = np.linalg.inv(other), means[1] - means[0]
    truth = np.trace(inverse @ SPREAD) + delta @ inverse @ delta - 2
    truth += np.log(np.linalg.det(other) / np.linalg.det(SPREAD))
    assert_close(kl(p, q).value, 0.5 * truth, rtol=1e-10)
    assert abs(kl(p, p).value) <= 1e-12


def test_entropy_of_modes_of_different_size_matches_scipy():
    """Assert SciPy's adaptive quadrature for a mixture of standard deviations .01 and 1, within the stated error."""
    law = GaussianMixture.isotropic([0.2, 0.8], [[0.0], [3.0]], [1e-4, 1.0])

    def integrand(x: float) -> float:
        log_density = float(law.log_density([x]))
        return -np.exp(log_density) * log_density

    truth = sum(quad(integrand, a, b, limit=500, epsabs=1e-12)[0] for a, b in ((-12, -0.1), (-0.1, 0.1), (0.1, 15)))
    value, error = entropy(law)
    assert abs(value - truth) <= 1e-9
    assert error <= 1e-9


def test_divergence_of_mixtures_matches_draws():
    """Assert that the mean of log p/q over 40 000 draws lies within 4 standard errors."""
    problem = PROBLEMS["d2_k3_s0"]
    p, q = GaussianMixture(*problem.base), GaussianMixture(*problem.toward)
    x = p.sample(40_000, seed=0)
    logs = p.log_density(x) - q.log_density(x)
    assert abs(kl(p, q).value - logs.mean()) <= 4 * logs.std() / 200


def test_noise_raises_entropy_at_the_rate_of_de_bruijn():
    """Assert dh/dσ² = ½ E|s|² by differences of quadratures."""
    law = GaussianMixture(*PROBLEMS["d1_k3_s0"].base)
    variance, step = 0.3, 1e-4
    slope = (
        entropy(law.noised(np.sqrt(variance + step))).value - entropy(law.noised(np.sqrt(variance - step))).value
    ) / (2 * step)
    noised = law.noised(np.sqrt(variance))
    fisher = expectation(noised, lambda x: np.sum(noised.score(x) ** 2, axis=-1)).value
    assert_close(slope, fisher / 2, rtol=1e-6)


def test_quadrature_refuses_what_it_cannot_do():
    """Assert errors for three dimensions, singular laws and laws of different dimension."""
    law = GaussianMixture.isotropic([1.0], [[0.0, 0.0, 0.0]], 1.0)
    with pytest.raises(ValueError, match="dimension 1 or 2"):
        entropy(law)
    with pytest.raises(ValueError, match="singular"):
        entropy(GaussianMixture.empirical([[0.0]]))
    with pytest.raises(ValueError, match="must be equal"):
        kl(law, GaussianMixture.isotropic([1.0], [[0.0]], 1.0))
