"""Stochastic samplers: common noise, tangents, and Itô's log density."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.engine import SIGMA_MAX, SIGMA_MIN, assert_order, case

from oracles import flow
from sensitivity import SDE, GaussianAnchor, Grid, ito_step_bias, resample, sample_sensitivity


def _log_error(problem, steps, solver, anchor=None):
    """Errors of the carried log density at the samples of η = 0."""
    grid = Grid(SIGMA_MAX, 0.05, steps, spacing="log")
    anchor = problem.exact if anchor is None else anchor
    result = resample(problem.score, problem.latents, problem.change, 0.0, grid, anchor=anchor, solver=solver, seed=1)
    return result.log_density - problem.exact.log_density(result.samples, 0.05)


def _rms(error):
    return float(error.square().mean().sqrt())


def test_itos_log_density_converges_with_order_one_half_and_with_its_correction_one():
    """Assert both rates, and that at κ = 1 no divergence is taken."""
    problem = case("d2_k3_s0", samples=100)
    plain = [_rms(_log_error(problem, n, SDE())) for n in (50, 400)]
    assert 0.45 < np.log2(plain[0] / plain[1]) / 3 < 0.8
    corrected = [_rms(_log_error(problem, n, SDE(correction=True))) for n in (25, 50, 100, 200)]
    assert_order(corrected, 1, within=0.2)
    assert corrected[-1] < plain[1]
    free = resample(
        problem.score,
        problem.latents[:1],
        problem.change,
        0.0,
        Grid(SIGMA_MAX, 0.05, 5),
        anchor=problem.exact,
        solver="sde",
        seed=0,
    )
    assert free.cost.products == 0


def test_other_noise_levels_need_the_divergence_and_take_it():
    """Assert that κ = .5 converges too, and that its log density used products."""
    problem = case("d2_k3_s0", samples=100)
    errors = [_rms(_log_error(problem, n, SDE(kappa=0.5))) for n in (50, 200)]
    assert errors[1] < 0.6 * errors[0]


def test_a_gaussian_anchor_is_a_control_variate():
    """Assert that carrying log(p/q) divides the rms error of the log density by at least two."""
    problem = case("d2_k3_s0", samples=150)
    anchor = GaussianAnchor.from_data(torch.from_numpy(np.asarray(problem.base.sample(20000, 1))))
    assert _rms(_log_error(problem, 100, SDE(), anchor)) < 0.5 * _rms(_log_error(problem, 100, SDE()))


@pytest.mark.parametrize("kappa", [pytest.param(0.5, marks=pytest.mark.slow), 1.0])
def test_the_correction_keeps_order_one_with_a_gaussian_anchor(kappa):
    """Assert order one, and errors no larger than those with the exact anchor, which has no control variate."""
    problem = case("d2_k3_s0", samples=100)
    anchor = GaussianAnchor.from_data(torch.from_numpy(np.asarray(problem.base.sample(20000, 1))))
    solver = SDE(kappa=kappa, correction=True)
    errors = [_rms(_log_error(problem, n, solver, anchor)) for n in (50, 100, 200, 400)]
    assert 0.85 < np.log2(errors[0] / errors[-1]) / 3 < 1.4
    assert errors[2] < 1.1 * _rms(_log_error(problem, 200, solver))


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
def test_the_tangent_is_the_derivative_with_common_noise(kappa):
    """Assert agreement with central differences of `resample` under the same noise."""
    problem = case("d2_k3_s0", samples=4)
    grid = Grid(SIGMA_MAX, SIGMA_MIN, 12)
    options = {"anchor": problem.exact, "solver": SDE(kappa=kappa), "seed": 2}
    ahead, behind = (
        resample(problem.score, problem.latents, problem.change, eta, grid, **options).samples for eta in (1e-5, -1e-5)
    )
    exact = sample_sensitivity(problem.score, problem.latents, problem.change, grid, **options)
    assert_close((ahead - behind) / 2e-5, exact.sensitivity, rtol=1e-5, atol=1e-6)


def test_without_noise_it_is_the_flow():
    """Assert that κ = 0 converges to the samples of the probability flow with order one."""
    problem = case("d2_k3_s0", samples=3)
    truth = flow.sample(problem.base, problem.latents.numpy(), SIGMA_MAX, SIGMA_MIN)
    errors = []
    for steps in (40, 160):
        grid = Grid(SIGMA_MAX, SIGMA_MIN, steps, spacing="log")
        result = resample(
            problem.score,
            problem.latents,
            problem.change,
            0.0,
            grid,
            anchor=problem.exact,
            solver=SDE(kappa=0.0),
            seed=0,
        )
        errors.append(float(np.abs(result.samples.numpy() - truth).max()))
    assert 0.8 < np.log2(errors[0] / errors[1]) / 2 < 1.3


def test_samples_follow_the_law_and_solve_the_flux_identity():
    """Assert E[∇φ·δ] + E[(r(x_T) − 1) φ] = E_ν φ − E_ρ φ within four standard errors, φ = x₁ and φ = |x|²."""
    problem = case("d1_k2_s1", samples=3000)
    grid = Grid(SIGMA_MAX, SIGMA_MIN, 60, spacing="log")
    result = sample_sensitivity(
        problem.score, problem.latents, problem.change, grid, anchor=problem.exact, solver="sde", seed=4
    )
    start = problem.measure.log_density(problem.latents, SIGMA_MAX) - problem.exact.log_density(
        problem.latents, SIGMA_MAX
    )
    laws = [law.noised(SIGMA_MIN) for law in (problem.base, problem.toward)]
    means = [float(np.asarray(law.mean)[0]) for law in laws]
    squares = [float(np.asarray(law.covariance)[0, 0]) + m**2 for law, m in zip(laws, means, strict=True)]
    x, tangent = result.samples[:, 0], result.sensitivity[:, 0]
    for value, slope, moments in ((x, torch.ones_like(x), means), (x**2, 2 * x, squares)):
        terms = slope * tangent + (start.exp() - 1) * value
        error = float(terms.std()) / len(terms) ** 0.5
        assert abs(float(terms.mean()) - (moments[1] - moments[0])) < 4 * error + 0.05 * abs(moments[1] - moments[0])


def test_a_refined_brownian_path_is_shared_between_grids():
    """Assert that a coarse run on refined noise stays near the fine run, and far from one with noise of its own."""
    problem = case("d2_k3_s0", samples=30)
    grid = Grid(SIGMA_MAX, SIGMA_MIN, 60, spacing="log")

    def run(levels, solver):
        return resample(
            problem.score, problem.latents, problem.change, 0.0, levels, anchor=problem.exact, solver=solver, seed=3
        ).samples

    fine = run(grid.refined(2), SDE())
    shared, value = run(grid, SDE(refinement=2)), run(grid, SDE())
    assert float((shared - fine).norm()) < 0.3 * float((value - fine).norm())


def test_bad_settings_are_refused():
    """Assert that each error quotes its argument."""
    with pytest.raises(ValueError, match="kappa=-1"):
        SDE(kappa=-1.0)
    with pytest.raises(ValueError, match="refinement=0"):
        SDE(refinement=0)
    problem = case("d1_k3_s0", samples=1)
    with pytest.raises(ValueError, match="correction=True"):
        sample_sensitivity(
            problem.score,
            problem.latents,
            problem.change,
            Grid(SIGMA_MAX, SIGMA_MIN, 3),
            anchor=problem.exact,
            solver=SDE(correction=True),
            order=2,
        )


def test_halving_measures_the_step_bias():
    """Assert that the estimate is the known mean error within a factor two and falls with the step."""
    problem = case("d2_k3_s0", samples=300)
    bias = {}
    for steps in (50, 200):
        grid = Grid(SIGMA_MAX, 0.05, steps, spacing="log")
        bias[steps] = ito_step_bias(problem.score, problem.latents, grid, anchor=problem.exact, seed=1)
        known = float(_log_error(problem, steps, SDE()).mean())
        assert 0.5 * known < float(bias[steps].value) < 2 * known
        assert float(bias[steps].standard_error) < 0.5 * known
    assert float(bias[200].value) < 0.5 * float(bias[50].value)
    with pytest.raises(ValueError, match="at least two latents"):
        ito_step_bias(problem.score, problem.latents[:1], grid, anchor=problem.exact)
    with pytest.raises(ValueError, match="generator and seed"):
        ito_step_bias(problem.score, problem.latents, grid, anchor=problem.exact, seed=1, generator=torch.Generator())
