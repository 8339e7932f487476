"""What any exact law must satisfy: inherit `LawContract`, supply `law` and `dense`, and get every test here.

The truth is `torch.distributions` with autograd in float64 on the dense noised parameters: another library, another
formula (Cholesky factors), other derivatives.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from .close import assert_close
from .libraries import converter, kind
from .strategies import Parameters

SIGMA = 0.7
# Libraries and dtypes; JAX compiles every operation for every shape, so it has the fewest classes.
EAGER = (("numpy", "float64"), ("numpy", "float32"), ("torch", "float64"), ("torch", "float32"), ("strict", "float64"))
JAX = (("jax", "float64"),)
TOLERANCE = {"float64": {"rtol": 1e-10, "atol": 1e-11}, "float32": {"rtol": 2e-4, "atol": 2e-4}}


def torch_log_density(parameters: Parameters, sigma: float, alpha: float = 1.0) -> Any:
    """x ↦ log p(x) of the noised mixture, by `torch.distributions`."""
    weights, means, covariances = (torch.tensor(np.asarray(a)) for a in parameters)
    noisy = alpha**2 * covariances + sigma**2 * torch.eye(means.shape[1], dtype=torch.float64)
    components = torch.distributions.MultivariateNormal(alpha * means, noisy)
    return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), components).log_prob


class LawContract:
    """The contract of a law; subclasses define `law(convert)` and `dense()`, and may choose `CASES`."""

    CASES: ClassVar[tuple[tuple[str, str], ...]] = EAGER

    def law(self, convert: Any) -> Any:
        """The law with parameters made by `convert` from NumPy arrays."""
        raise NotImplementedError

    def dense(self) -> Parameters:
        """The same law's weights, means and dense covariances in NumPy float64."""
        raise NotImplementedError

    @pytest.fixture
    def precision(self, case: tuple[str, str]) -> str:
        return case[1]

    @pytest.fixture
    def convert(self, case: tuple[str, str]) -> Any:
        return converter(*case)

    @pytest.fixture
    def noised(self, convert: Any) -> Any:
        return self.law(convert).noised(SIGMA)

    @pytest.fixture
    def states(self) -> np.ndarray:
        rng = np.random.default_rng(7)
        return self.dense().means.mean(axis=0) + 1.7 * rng.standard_normal((6, self.dense().dimension))

    @pytest.fixture
    def tangents(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(8)
        return rng.standard_normal(states.shape), rng.standard_normal(states.shape)

    @pytest.fixture
    def jacobians(self, states: np.ndarray) -> np.ndarray:
        """∇s at the states by two passes of autograd."""
        log_density = torch_log_density(self.dense(), SIGMA)
        return np.stack([torch.autograd.functional.hessian(log_density, x).numpy() for x in torch.tensor(states)])

    def close(self, actual: Any, expected: np.ndarray, precision: str) -> None:
        assert_close(np.asarray(actual), np.asarray(expected).astype(precision), **TOLERANCE[precision])

    def test_log_density_matches_torch_distributions(self, noised, states, convert, precision):
        """Assert that log p is that of `torch.distributions` with dense covariances."""
        truth = torch_log_density(self.dense(), SIGMA)(torch.tensor(states))
        self.close(noised.log_density(convert(states)), truth.numpy(), precision)

    def test_score_matches_autograd_of_log_density(self, noised, states, convert, precision):
        """Assert that s is the gradient of the independent log density."""
        x = torch.tensor(states, requires_grad=True)
        (truth,) = torch.autograd.grad(torch_log_density(self.dense(), SIGMA)(x).sum(), x)
        self.close(noised.score(convert(states)), truth.numpy(), precision)

    def test_log_density_and_score_are_those_of_the_single_methods(self, noised, states, convert, precision):
        """Assert that the joint method returns what the two methods return."""
        log_density, score = noised.log_density_and_score(convert(states))
        self.close(log_density, np.asarray(noised.log_density(convert(states))), precision)
        self.close(score, np.asarray(noised.score(convert(states))), precision)

    def test_jacobian_matches_autograd(self, noised, states, jacobians, convert, precision):
        """Assert that ∇s is the Hessian of the independent log density."""
        self.close(noised.score_jacobian(convert(states)), jacobians, precision)

    def test_jacobian_product_is_the_matrix_product(self, noised, states, tangents, jacobians, convert, precision):
        """Assert that ∇s v is the independent matrix times v."""
        truth = np.einsum("nij,nj->ni", jacobians, tangents[0])
        self.close(noised.score_jacobian_product(convert(states), convert(tangents[0])), truth, precision)

    def test_divergence_is_the_trace(self, noised, states, jacobians, convert, precision):
        """Assert that div s is the trace of the independent matrix."""
        self.close(noised.score_divergence(convert(states)), np.trace(jacobians, axis1=1, axis2=2), precision)

    def test_third_order_matches_autograd(self, noised, states, tangents, convert, precision):
        """Assert that D²s[u, v] is the derivative of the independent ∇s u along v."""
        log_density, (u, v) = torch_log_density(self.dense(), SIGMA), (torch.tensor(t) for t in tangents)

        def product(x: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
            return torch.autograd.functional.hvp(log_density, x, along, create_graph=True)[1]

        truth = [
            torch.autograd.functional.jvp(lambda y, a=a: product(y, a), x, b)[1].numpy()
            for x, a, b in zip(torch.tensor(states), u, v, strict=True)
        ]
        self.close(noised.third_order(*map(convert, (states, *tangents))), np.stack(truth), precision)

    def test_third_order_is_symmetric(self, noised, states, tangents, convert, precision):
        """Assert that D²s[u, v] = D²s[v, u]."""
        x, u, v = map(convert, (states, *tangents))
        self.close(noised.third_order(x, u, v), np.asarray(noised.third_order(x, v, u)), precision)

    def test_responsibilities_are_bayes_rule(self, noised, states, convert, precision):
        """Assert that γ_k is the share of component k in the density."""
        weights, means, covariances = self.dense()
        parts = [
            np.log(w) + torch_log_density(Parameters(np.ones(1), m[None], c[None]), SIGMA)(torch.tensor(states)).numpy()
            for w, m, c in zip(weights, means, covariances, strict=True)
        ]
        share = np.exp(parts - np.logaddexp.reduce(parts)).T
        self.close(noised.responsibilities(convert(states)), share, precision)

    def test_posterior_is_tweedie(self, convert, states, precision):
        """Assert that the posterior mean is x + σ² s and its covariance σ² (I + σ² ∇s), symmetric."""
        law, x = self.law(convert), convert(states)
        mean, covariance = (np.asarray(a) for a in law.posterior(x, SIGMA))
        noised = law.noised(SIGMA)
        self.close(mean, states + SIGMA**2 * np.asarray(noised.score(x)), precision)
        self.close(np.asarray(law.denoiser(x, SIGMA)), mean, precision)
        jacobian = np.asarray(noised.score_jacobian(x))
        self.close(covariance, SIGMA**2 * (np.eye(states.shape[1]) + SIGMA**2 * jacobian), precision)
        self.close(covariance, np.swapaxes(covariance, 1, 2), precision)

    def test_noise_levels_add_in_squares(self, convert, states, precision):
        """Assert that noising twice is noising once to √(σ₁² + σ₂²)."""
        law, x = self.law(convert), convert(states)
        once, twice = law.noised(np.hypot(0.4, 0.6)), law.noised(0.4).noised(0.6)
        self.close(twice.score(x), np.asarray(once.score(x)), precision)

    def test_scaling_of_data_is_a_change_of_variables(self, convert, states, precision):
        """Assert that α X + σ ε has the density of the dense mixture with scaled parameters."""
        truth = torch_log_density(self.dense(), SIGMA, alpha=0.3)(torch.tensor(states))
        self.close(self.law(convert).noised(SIGMA, alpha=0.3).log_density(convert(states)), truth.numpy(), precision)

    def test_moments_are_those_of_the_parameters(self, convert, precision):
        """Assert that mean and covariance follow the law of total variance."""
        law, (weights, means, covariances) = self.law(convert), self.dense()
        mean = weights @ means
        spread = np.einsum("k,ki,kj->ij", weights, means - mean, means - mean)
        self.close(law.mean, mean, precision)
        self.close(law.covariance, np.einsum("k,kij->ij", weights, covariances) + spread, precision)

    def test_draws_have_the_moments_of_the_law(self, convert):
        """Assert that the moments of 20 000 draws lie within 5 standard errors, and that a seed repeats its draws."""
        law, (weights, means, covariances) = self.law(convert), self.dense()
        draws = np.asarray(law.sample(20_000, seed=3)).astype(float)
        assert_close(np.asarray(law.sample(20_000, seed=3)).astype(float), draws, rtol=0, atol=0)
        mean = weights @ means
        second = np.einsum("k,kij->ij", weights, covariances + means[:, :, None] * means[:, None, :])
        for value, truth in ((draws, mean), (draws[:, :, None] * draws[:, None, :], second)):
            error = value.std(axis=0) / np.sqrt(len(draws)) + 1e-6
            assert np.all(np.abs(value.mean(axis=0) - truth) <= 5 * error)

    def test_shapes_follow_the_states(self, noised, states, tangents, convert, precision):
        """Assert that (d,), (n, d), (a, b, d) and empty states give results of matching shape with equal elements."""
        d, x, v = states.shape[1], convert(states), convert(tangents[0])
        flat = np.asarray(noised.score_jacobian_product(x, v))
        stacked = noised.score_jacobian_product(convert(states.reshape(2, 3, d)), convert(tangents[0].reshape(2, 3, d)))
        self.close(np.asarray(stacked).reshape(6, d), flat, precision)
        self.close(noised.score_jacobian_product(x[0, ...], v[0, ...]), flat[0], precision)
        assert noised.log_density(convert(np.zeros((0, d)))).shape == (0,)
        assert noised.score_jacobian(x[0, ...]).shape == (d, d)
        assert noised.log_density(x[0, ...]).shape == ()

    def test_results_have_the_kind_of_the_input(self, noised, states, tangents, convert):
        """Assert that library and dtype of every result are those of the law."""
        x, v = convert(states), convert(tangents[0])
        results = [noised.log_density(x), noised.score(x), noised.score_jacobian(x), noised.score_divergence(x)]
        results += [noised.score_jacobian_product(x, v), noised.third_order(x, v, v), noised.responsibilities(x)]
        results += [
            *self.law(convert).posterior(x, 0.5),
            noised.sample(3, 0),
            noised.mean,
            noised.covariance,
            noised.weights,
        ]
        assert {kind(result) for result in results} == {kind(x)}

    def test_states_of_the_wrong_dimension_are_refused(self, noised, states, convert):
        """Assert that the message quotes the shape."""
        with pytest.raises(ValueError, match=r"x has shape .* last axis"):
            noised.score(convert(np.zeros((2, states.shape[1] + 1))))

    @pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
    def test_noise_levels_that_are_not_positive_are_refused(self, convert, sigma):
        """Assert that σ must be positive and finite."""
        with pytest.raises(ValueError, match=r"sigma = .* must be positive"):
            self.law(convert).noised(sigma)
