"""Identities that every exact law satisfies, for every representation and array library."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.close import assert_close
from support.libraries import converter
from support.strategies import Parameters, mixture_pairs, mixtures, sigmas

from oracles import AdditivePerturbation, GaussianMixture
from oracles.empirical import EmpiricalLaw
from oracles.information import expectation

SEEDS = st.integers(0, 2**32 - 1)
EAGER = st.sampled_from(["numpy", "torch", "strict"])


def _isotropic(c: Any, law: Parameters) -> GaussianMixture:
    variances = np.trace(law.covariances, axis1=1, axis2=2) / law.dimension
    return GaussianMixture.isotropic(c(law.weights), c(law.means), c(variances))


def _diagonal(c: Any, law: Parameters) -> GaussianMixture:
    variances = np.diagonal(law.covariances, axis1=1, axis2=2)
    return GaussianMixture.diagonal(c(law.weights), c(law.means), c(variances))


def _low_rank(c: Any, law: Parameters) -> GaussianMixture:
    factors = law.covariances[:, :, : max(1, law.dimension // 2)]
    return GaussianMixture.low_rank(c(law.weights), c(law.means), c(factors), 0.05)


REPRESENTATIONS: dict[str, Any] = {
    "full": lambda c, law: GaussianMixture(*map(c, law)),
    "diagonal": _diagonal,
    "isotropic": _isotropic,
    "low_rank": _low_rank,
    "empirical": lambda c, law: GaussianMixture.empirical(c(law.means), c(law.weights)),
    "streamed": lambda c, law: EmpiricalLaw(c(law.means), c(law.weights)),
}
KINDS = st.sampled_from(sorted(REPRESENTATIONS))
MIXTURES = st.sampled_from(sorted(set(REPRESENTATIONS) - {"streamed"}))


def around(law: Parameters, sigma: float, seed: int, n: int = 5) -> np.ndarray:
    """States near the law, from well inside to two noise levels outside."""
    rng = np.random.default_rng(seed)
    spread = np.sqrt(np.trace(law.covariances, axis1=1, axis2=2).max() / law.dimension + sigma**2)
    return law.means[rng.integers(len(law.weights), size=n)] + 1.5 * spread * rng.standard_normal((n, law.dimension))


def check_tweedie(law: Any, x: np.ndarray, sigma: float, convert: Any) -> None:
    """D = x + σ² s, and Cov = σ² (I + σ² ∇s) symmetric and positive semi-definite."""
    noised, states = law.noised(sigma), convert(x)
    mean, spread = (np.asarray(a) for a in law.posterior(states, sigma))
    size = np.abs(mean).max() + np.abs(x).max() + sigma
    assert_close(x + sigma**2 * np.asarray(noised.score(states)), mean, rtol=1e-9, atol=1e-11 * size)
    jacobian = np.asarray(noised.score_jacobian(states))
    assert_close(sigma**2 * (np.eye(x.shape[1]) + sigma**2 * jacobian), spread, rtol=1e-8, atol=1e-11 * sigma**2)
    assert_close(spread, np.swapaxes(spread, 1, 2), rtol=1e-10, atol=1e-12 * np.abs(spread).max() + 1e-300)
    values = np.linalg.eigvalsh(spread)
    assert values.min() >= -1e-12 * max(values.max(), sigma**2)


@given(mixtures(), KINDS, EAGER, sigmas(), SEEDS)
def test_tweedie(parameters, kind, library, sigma, seed):
    """Assert posterior mean and covariance from score and Jacobian."""
    convert = converter(library)
    check_tweedie(REPRESENTATIONS[kind](convert, parameters), around(parameters, sigma, seed), sigma, convert)


@settings(max_examples=2)
@given(mixtures(dimensions=(2,), components=1), sigmas(), SEEDS)
def test_tweedie_in_jax(parameters, sigma, seed):
    """Assert the same in JAX, few times: it compiles every shape."""
    convert = converter("jax")
    check_tweedie(REPRESENTATIONS["isotropic"](convert, parameters), around(parameters, sigma, seed), sigma, convert)


@given(mixtures(), KINDS, sigmas(), SEEDS)
def test_heat_equation(parameters, kind, sigma, seed):
    """Assert ∂ log p/∂σ² = (div s + |s|²)/2, the left side by torch autograd in σ."""
    law = REPRESENTATIONS[kind](torch.tensor, parameters)
    x = torch.tensor(around(parameters, sigma, seed))
    level = torch.tensor(sigma, dtype=torch.float64, requires_grad=True)
    slopes = torch.stack(
        [torch.autograd.grad(v, level, retain_graph=True)[0] for v in law.noised(level).log_density(x)]
    )
    noised = law.noised(sigma)
    square = noised.score(x).square().sum(-1)
    truth = sigma * (noised.score_divergence(x) + square)
    scale = float(sigma * (square + x.shape[1] / sigma**2).max())
    assert_close(slopes, truth.numpy(), rtol=1e-8, atol=1e-10 * scale)


@settings(max_examples=15)
@given(mixtures(dimensions=(1, 2), components=3), MIXTURES, st.floats(0.3, 3.0), SEEDS)
def test_score_has_mean_zero_and_fisher_information_minus_the_mean_jacobian(parameters, kind, sigma, seed):
    """Assert E[s] = 0 and E[s sᵀ] = −E[∇s] along a random direction, by quadrature."""
    law = REPRESENTATIONS[kind](np.asarray, parameters).noised(sigma)
    direction = np.random.default_rng(seed).standard_normal(parameters.dimension)
    mean = expectation(law, lambda x: law.score(x) @ direction, 1e-9)
    assert abs(mean.value) <= 1e-7 * np.linalg.norm(direction) / sigma + mean.error

    def balance(x: np.ndarray) -> np.ndarray:
        product = law.score_jacobian_product(x, np.broadcast_to(direction, x.shape))
        return (law.score(x) @ direction) ** 2 + product @ direction

    total = expectation(law, balance, 1e-9)
    assert abs(total.value) <= 1e-7 * (direction @ direction) / sigma**2 + total.error


@given(mixtures(components=4), MIXTURES, EAGER, sigmas(), SEEDS)
def test_order_splitting_and_empty_components_change_nothing(parameters, kind, library, sigma, seed):
    """Assert invariance under permuting components, splitting one in two and adding one of weight zero."""
    convert, rng = converter(library), np.random.default_rng(seed)
    x = convert(around(parameters, sigma, seed))
    order = rng.permutation(len(parameters.weights))
    doubled = np.concatenate([order, order[:1], order[:1]])
    weights = np.concatenate([parameters.weights[order], [0.3 * parameters.weights[order[0]], 0.0]])
    weights[0] *= 0.7
    means = parameters.means[doubled]
    means[-1] += 1.0
    other = Parameters(weights, means, parameters.covariances[doubled])
    first, second = (REPRESENTATIONS[kind](convert, law).noised(sigma) for law in (parameters, other))
    for one, two in zip(quantities(first, x), quantities(second, x), strict=True):
        assert_close(two, one, rtol=1e-9, atol=1e-10 * np.abs(one).max() + 1e-30)


def quantities(law: Any, x: Any) -> list[np.ndarray]:
    """Density, score, Jacobian and third derivative along x."""
    values = [law.log_density(x), law.score(x), law.score_jacobian(x), law.third_order(x, x, x)]
    return [np.asarray(value) for value in values]


@given(mixtures(), EAGER, sigmas(), SEEDS)
def test_rotations_and_translations_carry_the_law_along(parameters, library, sigma, seed):
    """Assert s(Q x + t) of the moved law = Q s(x), and ∇s = Q ∇s Qᵀ."""
    convert, rng = converter(library), np.random.default_rng(seed)
    d = parameters.dimension
    q, t = np.linalg.qr(rng.standard_normal((d, d)))[0], rng.standard_normal(d)
    spread = q @ parameters.covariances @ q.T
    spread = 0.5 * (spread + np.swapaxes(spread, 1, 2))
    moved = Parameters(parameters.weights, parameters.means @ q.T + t, spread)
    x = around(parameters, sigma, seed)
    first, second = (GaussianMixture(*map(convert, law)).noised(sigma) for law in (parameters, moved))
    score, jacobian = (np.asarray(v) for v in (first.score(convert(x)), first.score_jacobian(convert(x))))
    y = convert(x @ q.T + t)
    # A rotation rounds singular covariances by ε, which noise of size σ sees as ε/σ².
    slack = 1e-9 + 1e-14 / sigma**2
    assert_close(second.score(y), score @ q.T, rtol=0, atol=slack * np.abs(score).max() + slack / sigma)
    expected = q @ jacobian @ q.T
    assert_close(second.score_jacobian(y), expected, rtol=0, atol=slack * np.abs(expected).max())


@given(mixtures(), KINDS, EAGER, sigmas(), st.floats(0.01, 100.0), SEEDS)
def test_scaling_divides_the_score(parameters, kind, library, sigma, scale, seed):
    """Assert s → s/c under x → c x, σ → c σ, and log p → log p − d log c."""
    if kind == "low_rank":  # whose strategy adds a fixed variance
        kind = "full"
    convert = converter(library)
    x = around(parameters, sigma, seed)
    bigger = Parameters(parameters.weights, scale * parameters.means, scale**2 * parameters.covariances)
    first = REPRESENTATIONS[kind](convert, parameters).noised(sigma)
    second = REPRESENTATIONS[kind](convert, bigger).noised(scale * sigma)
    score = np.asarray(first.score(convert(x))) / scale
    slack = 1e-9 + 1e-14 / sigma**2
    assert_close(second.score(convert(scale * x)), score, rtol=slack, atol=slack * np.abs(score).max())
    density = np.asarray(first.log_density(convert(x))) - parameters.dimension * np.log(scale)
    assert_close(second.log_density(convert(scale * x)), density, rtol=slack, atol=slack)


@settings(max_examples=15)
@given(mixture_pairs(dimensions=(1, 2), components=2), st.floats(0.3, 3.0))
def test_the_direction_of_contamination_has_no_mass(pair, sigma):
    """Assert ∫ (ν_σ − p_σ) = 0, as the expectation of 2 tanh(½ log r) under the mixture of both in equal parts."""
    perturbation = AdditivePerturbation(*(GaussianMixture(*law) for law in pair))
    half = perturbation.at(0.5).noised(sigma)
    total = expectation(half, lambda x: 2 * np.tanh(0.5 * perturbation.log_ratio(x, sigma)), 1e-9)
    assert abs(total.value) <= 1e-7 + total.error


@given(mixture_pairs(), EAGER, sigmas(0.1, 10.0), st.floats(0.0, 1.0), SEEDS)
def test_the_gate_is_exact_at_every_mass(pair, library, sigma, eta, seed):
    """Assert s + g (s^ν − s) = score of the mixture (1 − η) ρ + η ν."""
    convert = converter(library)
    perturbation = AdditivePerturbation(*(GaussianMixture(*map(convert, law)) for law in pair))
    x = convert(around(pair[0], sigma, seed))
    truth = np.asarray(perturbation.at(eta).noised(sigma).score(x))
    assert_close(perturbation.score(x, sigma, eta), truth, rtol=1e-9, atol=1e-9 * np.abs(truth).max())


@given(mixtures(), KINDS, EAGER, sigmas(1e-6, 1e4), SEEDS)
def test_far_tails_are_finite(parameters, kind, library, sigma, seed):
    """Assert finite results a thousand standard deviations out, at any noise level."""
    convert = converter(library)
    law = REPRESENTATIONS[kind](convert, parameters).noised(sigma)
    x = convert(1e3 * (1 + sigma) * around(parameters, sigma, seed) / (sigma + 1e-3))
    for value in quantities(law, x)[:3]:
        assert np.all(np.isfinite(value))
