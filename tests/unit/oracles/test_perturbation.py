"""Contamination: every order in η at every η, against autograd of the mixture itself and exact transports."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch
from support.close import assert_close
from support.libraries import LIBRARIES, converter, kind
from support.problems import PROBLEMS, Problem

from oracles import AdditivePerturbation, GaussianMixture
from oracles.perturbation import gate_derivative
from oracles.transport import QuantileOracle

SIGMA = 0.6


def perturbation(problem: Problem, convert: Any = np.asarray) -> AdditivePerturbation:
    """The oracle's view of a named problem."""
    return AdditivePerturbation(*(GaussianMixture(*map(convert, law)) for law in (problem.base, problem.toward)))


def states(problem: Problem, n: int = 5) -> np.ndarray:
    rng = np.random.default_rng(1)
    return problem.base.means.mean(axis=0) + 1.5 * rng.standard_normal((n, problem.base.dimension))


def contaminated_log_density(problem: Problem, eta: Any, x: torch.Tensor) -> torch.Tensor:
    """log p_σ^η by `torch.distributions`, differentiable in η and x."""
    parts = []
    for share, law in ((1 - eta, problem.base), (eta, problem.toward)):
        weights, means, covariances = map(torch.tensor, law)
        noisy = covariances + SIGMA**2 * torch.eye(law.dimension, dtype=torch.float64)
        components = torch.distributions.MultivariateNormal(means, noisy, validate_args=False)
        parts.append(share * (components.log_prob(x[..., None, :]).exp() @ weights))
    return torch.log(parts[0] + parts[1])


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_order_matches_autograd_in_the_mass(name, eta):
    """Assert ∂ⁿs/∂ηⁿ, n = 1 … 4, against nested autograd of the contaminated mixture's log density."""
    problem = PROBLEMS[name]
    x, truth = torch.tensor(states(problem)), perturbation(problem)

    def score(mass: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda y: contaminated_log_density(problem, mass, y).sum())(x)

    function, point = score, torch.tensor(eta, dtype=torch.float64)
    for order in (1, 2, 3, 4):
        function = torch.func.jacfwd(function)
        expected = function(point).numpy()
        scale = np.abs(expected).max()
        assert_close(truth.score_derivative(x.numpy(), SIGMA, order, eta), expected, rtol=1e-9, atol=1e-10 * scale)


@pytest.mark.parametrize("eta", [0.0, 1e-6, 0.4, 1.0])
def test_gated_score_is_the_score_of_the_mixture(eta):
    """Assert s + g (s^ν − s) = score of ρ_η, with no linearisation."""
    problem = PROBLEMS["d3_k4_s0"]
    truth, x = perturbation(problem), states(problem)
    assert_close(truth.score(x, SIGMA, eta), truth.at(eta).noised(SIGMA).score(x))


def test_orders_at_zero_follow_the_first():
    """Assert ∂ⁿs = n! (1 − r)^{n−1} ṡ at η = 0."""
    problem = PROBLEMS["d2_k3_s0"]
    truth, x = perturbation(problem), states(problem)
    first, ratio = truth.score_derivative(x, SIGMA), np.exp(truth.log_ratio(x, SIGMA))[:, None]
    for order in (2, 3, 5):
        expected = math.factorial(order) * (1 - ratio) ** (order - 1) * first
        assert_close(truth.score_derivative(x, SIGMA, order), expected)


def test_removal_is_negative_contamination():
    """Assert that −h takes back the mass that was mixed in: from ρ_η the gate at −η/(1−η) leads to ρ."""
    problem, eta = PROBLEMS["d2_k3_s0"], 0.2
    truth, x = perturbation(problem), states(problem)
    back = AdditivePerturbation(truth.at(eta), truth.toward)
    assert_close(back.score(x, SIGMA, -eta / (1 - eta)), truth.base.noised(SIGMA).score(x), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("log_ratio", [-800.0, -30.0, -1e-9, 0.0, 1e-9, 30.0, 800.0])
@pytest.mark.parametrize("eta", [0.0, 1e-12, 0.5, 1 - 1e-12, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_gate_is_accurate_for_any_ratio(log_ratio, eta, order):
    """Assert 1e-12 relative to fifty digits for log r from −800 to 800, where float64 holds the result."""
    with mp.workdps(50):
        ratio, mass = mp.exp(mp.mpf(log_ratio)), mp.mpf(eta)
        total = 1 - mass + mass * ratio
        truth = mp.factorial(order) * (1 - ratio) ** (order - 1) * ratio / total ** (order + 1)
        expected = float(truth)
    with np.errstate(over="ignore", invalid="ignore"):
        value = gate_derivative(np.asarray(log_ratio), order, eta)
    if math.isfinite(expected):
        assert_close(value, expected, rtol=1e-12, atol=1e-290)


def test_gate_differentiates_where_the_two_densities_agree():
    """Assert d/d(log r) of 2 (1 − r) r at r = 1 by autograd: −2."""
    log_ratio = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(gate_derivative(log_ratio, 2), log_ratio)
    assert_close(float(slope), -2.0)


def test_removing_more_than_there_is_is_refused():
    """Assert the message where 1 − η + η r would be negative."""
    truth = perturbation(PROBLEMS["d2_k3_s0"])
    with pytest.raises(ValueError, match="removes more mass than the base law has"):
        truth.score(truth.toward.means, 0.05, -50.0)


@pytest.mark.parametrize("order", [0, -1, 1.5, "2"])
def test_orders_that_are_not_positive_integers_are_refused(order):
    """Assert the message that quotes the order."""
    with pytest.raises(ValueError, match=r"order = .* must be a positive integer"):
        perturbation(PROBLEMS["d2_k3_s0"]).score_derivative(np.zeros(2), SIGMA, order)


def test_masses_beyond_one_are_refused():
    """Assert that η > 1 is refused by the score derivative, and η outside [0, 1] by `at`."""
    truth = perturbation(PROBLEMS["d2_k3_s0"])
    with pytest.raises(ValueError, match=r"eta = 1\.1 exceeds 1"):
        truth.score_derivative(np.zeros(2), SIGMA, eta=1.1)
    with pytest.raises(ValueError, match=r"eta = -0\.1 leaves \[0, 1\]"):
        truth.at(-0.1)


def test_laws_that_cannot_be_mixed_are_refused():
    """Assert errors for other dimensions, libraries and types."""
    base = GaussianMixture.empirical(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="last axis"):
        AdditivePerturbation(base, GaussianMixture.empirical(np.zeros((1, 3))))
    with pytest.raises(TypeError, match="one library"):
        AdditivePerturbation(base, GaussianMixture.empirical(torch.zeros(1, 2, dtype=torch.float64)))
    with pytest.raises(TypeError, match="toward must be a GaussianMixture"):
        AdditivePerturbation(base, np.zeros((1, 2)))


@pytest.mark.parametrize("library", LIBRARIES)
def test_results_have_the_kind_of_the_laws(library):
    """Assert library and dtype of every result, and values equal to NumPy's."""
    problem, convert = PROBLEMS["d3_k4_s0"], converter(library)
    truth, plain, x = perturbation(problem, convert), perturbation(problem), states(problem)
    pairs = [
        (truth.score_derivative(convert(x), SIGMA, 3, 0.2), plain.score_derivative(x, SIGMA, 3, 0.2)),
        (truth.log_ratio(convert(x), SIGMA), plain.log_ratio(x, SIGMA)),
    ]
    if library != "jax":  # which compiles every operation it has not seen
        pairs += [
            (
                truth.score_derivative_product(convert(x), SIGMA, convert(x)),
                plain.score_derivative_product(x, SIGMA, x),
            ),
            (truth.score(convert(x), SIGMA, -1e-4), plain.score(x, SIGMA, -1e-4)),
        ]
    for value, expected in pairs:
        assert kind(value) == kind(convert(x))
        assert_close(np.asarray(value), expected, rtol=1e-10, atol=1e-12)


def test_product_is_the_jacobian_of_the_score_derivative():
    """Assert ∇ṡ v against forward mode through the closed form of ṡ."""
    problem = PROBLEMS["d5_k2_s0"]
    truth, x = perturbation(problem, torch.tensor), torch.tensor(states(problem))
    v = torch.tensor(np.random.default_rng(2).standard_normal(x.shape))
    moved = torch.func.jvp(lambda y: truth.score_derivative(y, SIGMA), (x,), (v,))[1]
    assert_close(truth.score_derivative_product(x, SIGMA, v), moved.numpy())


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_sample_sensitivity_matches_the_quantile_oracle_on_the_line(library):
    """Assert samples and first and second derivatives against the transport that needs no solver."""
    problem, convert = PROBLEMS["d1_k3_s0"], converter(library)
    truth, latents = perturbation(problem, convert), np.linspace(-8, 9, 6)[:, None]
    oracle = QuantileOracle(perturbation(problem).base, perturbation(problem).toward)
    for order in (1, 2):
        values = truth.sample_sensitivity(convert(latents), 10.0, 0.05, order=order)
        for value, expected in zip(values, oracle.sensitivity(latents, 10.0, 0.05, order=order), strict=True):
            assert kind(value) == kind(convert(latents))
            assert_close(value, expected, rtol=1e-7, atol=1e-8)
    assert_close(truth.sample(convert(latents), 0.3, 10.0, 0.05), oracle.sample(latents, 0.3, 10.0, 0.05), rtol=1e-9)
