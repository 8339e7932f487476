"""Changes of parameters: weights, means and covariances, against autograd through another construction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.libraries import LIBRARIES, converter, kind

from oracles import AdditivePerturbation, GaussianMixture
from oracles.edits import Reweighting, moving, removal
from oracles.parameters import ParameterPerturbation

RNG = np.random.default_rng(0)
K, D, SIGMA = 3, 3, 0.6
WEIGHTS, MEANS = np.array([0.2, 0.5, 0.3]), RNG.standard_normal((K, D))
FACTORS = RNG.standard_normal((K, D, D))
COVARIANCES = FACTORS @ np.swapaxes(FACTORS, 1, 2) / D
COVARIANCES[0] = 0.3 * np.eye(D)  # repeated eigenvalues
STATES = RNG.standard_normal((6, D))
MASS, SHIFT = np.array([0.1, -0.3, 0.2]), RNG.standard_normal((K, D))
STRETCH = RNG.standard_normal((K, D, D))
STRETCH = STRETCH + np.swapaxes(STRETCH, 1, 2)

LAWS = {
    "full": lambda c: GaussianMixture(c(WEIGHTS), c(MEANS), c(COVARIANCES)),
    "isotropic": lambda c: GaussianMixture.isotropic(c(WEIGHTS), c(MEANS), c([0.5, 0.6, 0.7])),
    "diagonal": lambda c: GaussianMixture.diagonal(c(WEIGHTS), c(MEANS), c(MEANS**2 + 0.3)),
    "low_rank": lambda c: GaussianMixture.low_rank(c(WEIGHTS), c(MEANS), c(FACTORS[:, :, :2]), 0.4),
}
RATES = {"none": None, "multiples": STRETCH[:, 0, 0], "diagonals": STRETCH[:, 0], "matrices": STRETCH}


def matrices(rate: np.ndarray | None) -> np.ndarray:
    """A rate of covariances as matrices."""
    if rate is None:
        return np.zeros((K, D, D))
    return rate if rate.ndim == 3 else rate.reshape(K, -1, 1) * np.eye(D)


def independent(law: GaussianMixture, rate: np.ndarray | None) -> Any:
    """η ↦ s^η(x), by autograd of `torch.distributions` with dense parameters."""
    weights, means, spread, mass, shift, stretch, x = map(
        torch.tensor, (WEIGHTS, MEANS, law.covariances, MASS, SHIFT, matrices(rate), STATES)
    )

    def score(eta: torch.Tensor) -> torch.Tensor:
        noisy = spread + eta * stretch + SIGMA**2 * torch.eye(D, dtype=torch.float64)
        parts = torch.distributions.MultivariateNormal(means + eta * shift, noisy, validate_args=False)

        def log_density(y: torch.Tensor) -> torch.Tensor:
            return torch.logsumexp(parts.log_prob(y[..., None, :]) + torch.log(weights + eta * mass), -1).sum()

        return torch.func.grad(log_density)(x)

    return score


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", LAWS)
def test_joint_changes_match_autograd_to_second_order(name, rate):
    """Assert ṡ and s̈ along weights, means and covariances at once, for every representation, at η = 0."""
    law = LAWS[name](np.asarray)
    path = ParameterPerturbation(law, MASS, SHIFT, RATES[rate])
    function = independent(law, RATES[rate])
    for order in (1, 2):
        function = torch.func.jacfwd(function)
        expected = function(torch.tensor(0.0, dtype=torch.float64)).numpy()
        scale = np.abs(expected).max()
        assert_close(path.score_derivative(STATES, SIGMA, order), expected, rtol=1e-10, atol=1e-11 * scale)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", LAWS)
def test_products_are_jacobians_of_the_score_derivative(name, rate):
    """Assert ∇ṡ v against forward mode through the closed form of ṡ, for every representation."""
    convert = converter("torch")
    rates = [None if part is None else convert(part) for part in (MASS, SHIFT, RATES[rate])]
    path = ParameterPerturbation(LAWS[name](convert), *rates)
    x, v = convert(STATES), convert(SHIFT[[0, 1, 2, 0, 1, 2]])
    moved = torch.func.jvp(lambda y: path.score_derivative(y, SIGMA), (x,), (v,))[1]
    assert_close(path.score_derivative_product(x, SIGMA, v), moved.numpy())


@pytest.mark.parametrize("rate", RATES)
def test_changes_at_finite_eta_are_those_of_the_moved_law(rate):
    """Assert that at η = 0.001 the path has the moved law's parameters and the derivatives there."""
    law = LAWS["full"](np.asarray)
    path = ParameterPerturbation(law, MASS, SHIFT, RATES[rate])
    moved = path.at(0.001)
    assert_close(moved.weights, WEIGHTS + 0.001 * MASS)
    assert_close(moved.covariances, COVARIANCES + 0.001 * matrices(RATES[rate]), rtol=1e-10, atol=1e-12)
    step = 1e-5
    difference = (
        path.at(0.001 + step).noised(SIGMA).score(STATES) - path.at(0.001 - step).noised(SIGMA).score(STATES)
    ) / (2 * step)
    assert_close(path.score_derivative(STATES, SIGMA, eta=0.001), difference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("library", LIBRARIES)
def test_parameter_changes_work_in_every_library(library):
    """Assert kinds of results and NumPy's values."""
    convert = converter(library)
    # JAX compiles every operation it has not seen: less of it there.
    order, name = (1, "isotropic") if library == "jax" else (2, "low_rank")
    path = ParameterPerturbation(LAWS[name](convert), convert(MASS), convert(SHIFT), convert(STRETCH))
    plain = ParameterPerturbation(LAWS[name](np.asarray), MASS, SHIFT, STRETCH)
    value = path.score_derivative(convert(STATES), SIGMA, order)
    assert kind(value) == kind(convert(STATES))
    assert_close(np.asarray(value), plain.score_derivative(STATES, SIGMA, order))
    paths = [] if library == "jax" else [Reweighting(path.base, convert(MASS)), moving(path.base, convert(SHIFT))]
    for law in paths:
        assert kind(law.score_derivative(convert(STATES), SIGMA)) == kind(convert(STATES))


def test_mass_on_a_component_without_weight_is_seen():
    """Assert that the rate of a zero weight counts: it is contamination toward that component."""
    law = GaussianMixture(np.array([0.4, 0.6, 0.0]), MEANS, COVARIANCES)
    toward = GaussianMixture(np.ones(1), MEANS[2:], COVARIANCES[2:])
    path = Reweighting(law, np.array([-0.4, -0.6, 1.0]))
    for order in (1, 2, 3):
        truth = AdditivePerturbation(law, toward).score_derivative(STATES, SIGMA, order)
        assert_close(path.score_derivative(STATES, SIGMA, order), truth, rtol=1e-9, atol=1e-10)


POINTS = RNG.standard_normal((5, D))


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("eta", [0.0, 0.3, -0.3])
def test_reweighting_agrees_with_contamination(order, eta):
    """Assert that weights moved toward two points give the derivatives of the gate toward their law."""
    law = GaussianMixture.empirical(POINTS)
    path, removed = removal(law, [1, 3])
    assert_close(removed, -2 / 3)
    truth = AdditivePerturbation(law, GaussianMixture.empirical(POINTS[[1, 3]]))
    expected = truth.score_derivative(STATES, 1.0, order, eta)
    assert_close(
        path.score_derivative(STATES, 1.0, order, eta), expected, rtol=1e-9, atol=1e-10 * np.abs(expected).max()
    )


def test_removal_leaves_the_other_points():
    """Assert that the law at the removal's η is the empirical law of the rest, exactly zero on the removed."""
    path, eta = removal(GaussianMixture.empirical(POINTS), [0, 4])
    law = path.at(eta)
    assert_close(law.weights, np.array([0, 1, 1, 1, 0]) / 3)
    assert law.weights[0] == 0
    rest = GaussianMixture.empirical(POINTS[1:4]).noised(0.5)
    assert_close(law.noised(0.5).score(STATES), rest.score(STATES))


def test_removal_of_unequal_weights_leaves_the_conditional_law():
    """Assert weights in proportion to what they were."""
    path, eta = removal(GaussianMixture.empirical(POINTS[:3], np.array([0.2, 0.3, 0.5])), [1])
    assert_close(path.at(eta).weights, np.array([2 / 7, 0, 5 / 7]))


def test_moving_matches_the_dipole_formula():
    """Assert ṡ = (1/N) Σ r_i [v_i/σ² + a_i (s_i − s)] with a_i = (x − x_i)·v_i/σ², straight from its definition."""
    law, n, x, sigma = GaussianMixture.empirical(POINTS), len(POINTS), STATES[0], 0.8
    v = RNG.standard_normal(POINTS.shape)
    noised = law.noised(sigma)
    density = np.exp(-np.sum((x - POINTS) ** 2, 1) / (2 * sigma**2)) / (2 * np.pi * sigma**2) ** (D / 2)
    ratio = density / np.exp(noised.log_density(x))
    along = np.sum((x - POINTS) * v, 1) / sigma**2
    push = v / sigma**2 + along[:, None] * ((POINTS - x) / sigma**2 - noised.score(x))
    assert_close(moving(law, v).score_derivative(x, sigma), ratio @ push / n)


def test_moved_samples_follow_their_points():
    """Assert first and second derivatives of samples in the displacement against differences of exact flows."""
    law = GaussianMixture.empirical(POINTS)
    latents = 5.0 * RNG.standard_normal((3, D))
    path = moving(law, RNG.standard_normal(POINTS.shape))
    samples, sensitivity = path.sample_sensitivity(latents, 5.0, 0.3)
    second = path.sample_sensitivity(latents, 5.0, 0.3, order=2)[1]
    step = 1e-3
    above, below = (path.sample(latents, sign * step, 5.0, 0.3) for sign in (1, -1))
    assert_close(sensitivity, (above - below) / (2 * step), rtol=0, atol=1e-4 * np.abs(sensitivity).max())
    assert_close(second, (above + below - 2 * samples) / step**2, rtol=0, atol=1e-4 * np.abs(second).max())


BAD: list[tuple[Any, str]] = [
    (lambda law: ParameterPerturbation(law), "no rate is given"),
    (lambda law: ParameterPerturbation(law, weights=[1.0, 0.0, 0.0]), "rates of weights sum to"),
    (lambda law: ParameterPerturbation(law, means=[1.0]), "rate of means has shape"),
    (lambda law: ParameterPerturbation(law, covariances=FACTORS), "rate of covariances are not symmetric"),
    (lambda law: ParameterPerturbation(law, means=MEANS * np.nan), "rate of means contains values"),
    (lambda law: ParameterPerturbation(law, means=MEANS).score_derivative(STATES, 1.0, 3), "must be 1 or 2"),
    (lambda law: Reweighting(law, MASS).at(5.0), "weights contains a negative value"),
    (
        lambda law: ParameterPerturbation(law, covariances=[-1.0, 0.0, 0.0]).at(1.0),
        "variances must be zero or positive",
    ),
    (lambda law: removal(law, []), "at least one"),
    (lambda law: removal(law, [0.5]), "whole numbers"),
    (lambda law: removal(law, [0, 0]), "distinct"),
    (lambda law: removal(law, [3]), "between 0 and 2"),
    (lambda law: removal(law, [0, 1, 2]), "but not all"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_changes_are_refused(call, message):
    """Assert ValueError with a sentence that says what is wrong."""
    with pytest.raises(ValueError, match=message):
        call(LAWS["full"](np.asarray))
