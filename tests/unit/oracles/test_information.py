"""Entropy and divergence by quadrature, against formulas, SciPy's quadrature and draws."""

from __future__ import annotations

from itertools import pairwise

import mpmath as mp
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


# Offsets from a component's centre, in its standard deviations, at which the reference integral is cut.
CUTS = np.array([0.5, 1, 2, 3, 4.5, 6, 8, 11, 15, 25, 60, 200, 1e3, 1e4])


def _pieces(weights, means, scales, k, others=()):
    """Ends of the pieces of component k's integral, in its whitened coordinate."""
    ends = [-12.0, 12.0]
    for m, s in [*zip(means, scales, strict=True), *others]:
        centre = (m - means[k]) / scales[k]
        ends += [centre, *(centre + CUTS * s / scales[k]), *(centre - CUTS * s / scales[k])]
    return sorted({e for e in ends if -12 <= e <= 12})


def _log_mixture(z, weights, means, scales, mean, scale):
    """log p at mean + scale z, offsets of the means first."""
    white = ((mean - means) + scale * z) / scales
    terms = np.log(weights) - 0.5 * white**2 - np.log(scales) - 0.5 * np.log(2 * np.pi)
    return float(np.logaddexp.reduce(terms))


def _reference(p, q=None):
    """−E_p log p, or E_p log p/q, by SciPy's quadrature between many cuts."""
    weights, means, scales = p
    total = 0.0
    for k, weight in enumerate(weights):
        place = means[k], scales[k]

        def integrand(z, place=place):
            value = _log_mixture(z, *p, *place)
            value = -value if q is None else value - _log_mixture(z, *q, *place)
            return np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi) * value

        ends = _pieces(*p, k, () if q is None else zip(q[1], q[2], strict=True))
        total += weight * sum(
            quad(integrand, a, b, epsabs=1e-13, epsrel=1e-11, limit=200)[0] for a, b in pairwise(ends)
        )
    return total


def _law(p):
    return GaussianMixture(p[0], p[1][:, None], (p[2] ** 2)[:, None, None])


def _drawn(rng, size):
    """A mixture on the line with standard deviations from 1e-8 to 1e2."""
    weights = rng.dirichlet(np.ones(size))
    return weights, rng.normal(size=size) * 10.0 ** rng.integers(-2, 2), 10.0 ** rng.uniform(-8, 2, size)


@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")  # SciPy stops at rounding
@pytest.mark.parametrize("seed", range(25))
def test_stated_errors_cover_at_any_scales(seed):
    """Assert that entropies and divergences of mixtures of scales 1e-8 … 1e2 lie within the stated error of SciPy's."""
    rng = np.random.default_rng(seed)
    p, q = _drawn(rng, 1 + seed % 4), _drawn(rng, 1 + seed % 3)
    truth, (value, error) = _reference(p), entropy(_law(p))
    assert abs(value - truth) <= error + 2e-11 * (1 + abs(truth))
    assert error <= 1e-8
    wide = (q[0], q[1], np.maximum(q[2], 1e-3 * p[2].max()))  # a divergence that numbers can hold
    truth, (value, error) = _reference(p, wide), kl(_law(p), _law(wide))
    assert abs(value - truth) <= error + 1e-10 * (1 + abs(truth))


@pytest.mark.parametrize(
    ("weights", "means", "variances"),
    [
        ([0.1, 0.9], [2.3, 0.0], [1e-8, 1.0]),
        ([0.5, 0.5], [0.0, 5.0], [1e-4, 1.0]),
        ([0.4, 0.6], [0.1, 0.0], [1e-14, 1.0]),
    ],
)
def test_narrow_components_within_wide_ones_match_thirty_digits(weights, means, variances):
    """Assert mpmath's quadrature of −p log p, cut at both components' scales, within the stated error."""
    with mp.workdps(30):
        scales = [mp.sqrt(mp.mpf(v)) for v in variances]
        cuts = {
            m + sign * float(c) * s for m, s in zip(means, scales, strict=True) for c in (0, *CUTS) for sign in (1, -1)
        }

        def density(x):
            return sum(
                w * mp.exp(-(((x - m) / s) ** 2) / 2) / s / mp.sqrt(2 * mp.pi)
                for w, m, s in zip(weights, means, scales, strict=True)
            )

        ends = sorted(c for c in cuts if -15 < c < 20)
        truth = float(mp.quad(lambda x: -density(x) * mp.log(density(x)), [-15, *ends, 20]))
    law = GaussianMixture(weights, np.array(means)[:, None], np.array(variances)[:, None, None])
    value, error = entropy(law)
    assert abs(value - truth) <= error
    assert error <= 1e-9


@pytest.mark.parametrize("turn", [0.0, 0.7])
@pytest.mark.parametrize("scales", [(1e-2, 1.0, 0.3, 2.0), (1e-5, 1.0, 1e-3, 1.0), (1e-3, 10.0, 1.0, 1e-4)])
def test_in_the_plane_products_have_the_sum_of_both_entropies(scales, turn):
    """Assert h(p₁ ⊗ p₂) = h(p₁) + h(p₂), also turned, where thin components cross, within the stated error."""
    parts = [
        (np.array([0.3, 0.7]), np.array([0.4, -0.3]), np.array(scales[:2])),
        (np.array([0.6, 0.4]), np.array([-0.2, 0.5]), np.array(scales[2:])),
    ]
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    pairs = [(i, j) for i in range(2) for j in range(2)]
    weights = [parts[0][0][i] * parts[1][0][j] for i, j in pairs]
    means = np.array([turned @ [parts[0][1][i], parts[1][1][j]] for i, j in pairs])
    roots = np.array([turned @ np.diag([parts[0][2][i], parts[1][2][j]]) for i, j in pairs])
    truth = _reference(parts[0]) + _reference(parts[1])
    # Turned covariances lose digits of their small eigenvalues in float64, whatever is made of them.
    loss = 0.0 if turn == 0 else 1e-15 * (max(scales) / min(scales)) ** 2
    value, error = entropy(GaussianMixture(weights, means, roots @ np.swapaxes(roots, 1, 2)))
    assert abs(value - truth) <= error + 1e-10 + loss
    assert error <= 1e-7
