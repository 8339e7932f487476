"""Second derivatives in the mass: against the flow oracle, and as the exact derivative of the discrete resampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.engine import SIGMA_MAX, SIGMA_MIN, case

from oracles.transport import QuantileOracle
from sensitivity import (
    SDE,
    GaussianAnchor,
    Grid,
    PerBranch,
    Points,
    Toward,
    as_score,
    guided,
    resample,
    sample_sensitivity,
)
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.second import along

GRID = Grid(SIGMA_MAX, SIGMA_MIN, 10)


def _curvature(problem, steps):
    """ζ on a fine grid, whose error is far below the tolerances here."""
    grid = Grid(SIGMA_MAX, SIGMA_MIN, steps, spacing="log")
    options = {"anchor": problem.exact, "solver": "dopri5", "order": 2, "products": "double-vjp"}
    return sample_sensitivity(problem.score, problem.latents, problem.change, grid, **options).curvature


def test_one_dimension_equals_the_quantile_oracle():
    """Assert 1e-6 relative agreement of d²x/dη² with the solver-free truth."""
    problem = case("d1_k3_s0", samples=3)
    oracle = QuantileOracle(problem.base, problem.toward)
    _, second = oracle.sensitivity(problem.latents.numpy(), SIGMA_MAX, SIGMA_MIN, order=2)
    assert_close(_curvature(problem, 96), np.asarray(second), rtol=1e-6, atol=1e-6)


def test_two_dimensions_equal_the_flow_oracle():
    """Assert 1e-5 agreement where the third derivatives of the log density do not commute into one number."""
    problem = case("d2_k3_s0", samples=3)
    _, second = problem.truth.sample_sensitivity(problem.latents.numpy(), SIGMA_MAX, SIGMA_MIN, 2)
    assert_close(_curvature(problem, 48), np.asarray(second), rtol=1e-5, atol=1e-5)


def _against_differences(score, latents, change, options, step=3e-4):
    """Largest relative error of ζ against the second difference of `resample`, which shares every discrete choice."""
    near, here, far = (
        resample(score, latents, change, eta, GRID, **options).samples
        + resample(score, latents, change, -eta, GRID, **options).samples
        for eta in (step, 0.0, 2 * step)
    )
    exact = sample_sensitivity(score, latents, change, GRID, order=2, **options)
    assert_close(exact.samples, here / 2, rtol=1e-12, atol=1e-12)
    # The fourth-order difference: with noise in log p the fourth derivative is large.
    error = (16 * near - 15 * here - far) / (12 * step**2) - exact.curvature
    return float((error.flatten(1).norm(dim=1) / exact.curvature.flatten(1).norm(dim=1)).max())


@pytest.mark.parametrize("solver", ["euler", "heun", "rk4", "exponential", "2m", SDE(), SDE(kappa=0.5)], ids=str)
def test_it_is_the_second_derivative_of_the_discrete_sampler(solver):
    """Assert agreement with second differences, random probes included, to the error of the differences."""
    problem = case("d2_k3_s0", samples=3)
    options = {"anchor": problem.exact, "solver": solver, "trace": "hutchinson", "probes": 2, "seed": 3}
    assert _against_differences(problem.score, problem.latents, problem.change, options) < 1e-4


def test_it_holds_with_a_gaussian_control_variate_and_with_denoising():
    """Assert the same where Itô's formula carries log(p/q) and where the sample is denoised."""
    problem = case("d2_k3_s0", samples=3)
    anchor = GaussianAnchor.from_data(torch.from_numpy(np.asarray(problem.base.sample(2000, 1))))
    options = {"anchor": anchor, "solver": "sde", "seed": 3, "denoise": True}
    assert _against_differences(problem.score, problem.latents, problem.change, options) < 1e-4


def test_it_holds_under_guidance():
    """Assert the same for two laws with an anchor and a perturbation each."""
    free, bound = case("d2_k3_s0", samples=3), case("d2_k3_s0", seed=1)
    narrow = type(free)(bound.base.noised(0.6), bound.toward, free.latents)
    score = guided(narrow.score, free.score, 1.5)
    change = PerBranch(free.change, 0.7 * Toward(Points(free.latents / SIGMA_MAX, bandwidth=0.8)))
    options = {"anchor": PerBranch(free.exact, narrow.exact), "solver": "heun"}
    assert _against_differences(score, free.latents, change, options) < 1e-4


def test_finite_difference_products_reach_second_order_roughly():
    """Assert that products by differences give ζ to 1e-3."""
    problem = case("d2_k3_s0", samples=3)
    runs = [
        sample_sensitivity(
            problem.score, problem.latents, problem.change, GRID, anchor=problem.exact, order=2, products=products
        ).curvature
        for products in ("forward", "finite")
    ]
    assert_close(runs[1], runs[0], rtol=1e-3, atol=1e-3)


def test_the_prediction_error_is_of_third_order_and_the_trust_radius_is_where_the_share_is_met():
    """Assert that halving η divides the error of x + ηδ + ½η²ζ by about 8, and |½η²ζ| = share·|ηδ| at the radius."""
    problem = case("d2_k3_s0", samples=4)
    options = {"anchor": problem.exact}
    exact = sample_sensitivity(problem.score, problem.latents, problem.change, GRID, order=2, **options)
    errors = []
    for eta in (4e-3, 2e-3):
        true = resample(problem.score, problem.latents, problem.change, eta, GRID, **options).samples
        errors.append((true - exact.predict(eta)).norm(dim=1))
    assert bool(((errors[0] / errors[1] > 6.5) & (errors[0] / errors[1] < 9.5)).all())
    radius = exact.trust_radius(0.2)
    assert_close(0.5 * radius * exact.curvature.norm(dim=1), 0.2 * exact.sensitivity.norm(dim=1), rtol=1e-12)


def test_a_first_order_result_has_no_trust_radius():
    """Assert that the error says how to get one."""
    problem = case("d1_k3_s0", samples=1)
    result = sample_sensitivity(problem.score, problem.latents, problem.change, GRID, anchor=problem.exact)
    with pytest.raises(ValueError, match="order=2"):
        result.trust_radius()
    assert_close(result.predict(0.1), result.samples + 0.1 * result.sensitivity)


@pytest.mark.parametrize("method", ["forward", "double-vjp"])
def test_networks_without_a_second_forward_derivative_take_the_reverse_route(method: str) -> None:
    """Assert D²s[v, t] of a SiLU network, whose derivative has no forward mode, against differences of its products."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.SiLU(), torch.nn.Linear(8, 3)).double()
    score = as_score(lambda x, sigma: network(x), "score")
    x, t, v = (torch.randn(n, 3, dtype=torch.float64) for n in (4, 4, 8))
    sigma, v = torch.tensor(1.0, dtype=torch.float64), v.reshape(2, 4, 3)
    products = Products(score, method)
    with torch.no_grad():
        value, moved, second = along(products, x, sigma, v, t)
        ahead, behind = (products.jvp(x + h * t, sigma, v)[1] for h in (1e-5, -1e-5))
    assert_close(value, score(x, sigma).detach(), rtol=1e-12)
    assert_close(moved, products.jvp(x, sigma, v)[1].detach(), rtol=1e-12)
    assert not any(each.requires_grad for each in (value, moved, second))
    assert_close(second, ((ahead - behind) / 2e-5).detach(), rtol=1e-7, atol=1e-9)
