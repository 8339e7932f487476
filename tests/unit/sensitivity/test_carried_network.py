"""A second network as the new law, carried along the path; Gaussian controls of the probes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.engine import SIGMA_MAX, SIGMA_MIN, case

from sensitivity import (
    GaussianAnchor,
    Grid,
    NetworkMeasure,
    PerBranch,
    Points,
    Toward,
    guided,
    resample,
    sample_sensitivity,
)
from studies.bridge import ExactLaw

FINE = Grid(SIGMA_MAX, SIGMA_MIN, 64, spacing="log")
COARSE = Grid(SIGMA_MAX, SIGMA_MIN, 8)


def _network(problem):
    """The new law, known by its score and its density at σ_max only."""

    class Top:
        def log_density(self, x, sigma):
            if abs(float(sigma) - SIGMA_MAX) > 1e-9:
                raise AssertionError("the anchor was asked below σ_max, so the density was not carried")
            return ExactLaw(problem.toward).log_density(x, sigma)

    return NetworkMeasure(ExactLaw(problem.toward).score, Top())


def test_a_carried_network_is_the_measure_it_stands_for():
    """Assert that sensitivity, log ratio and finite mass equal those of the exact new law."""
    problem = case("d2_k3_s0", samples=3)
    change = Toward(_network(problem))
    options = {"anchor": problem.exact, "solver": "rk4"}
    exact, value = (
        sample_sensitivity(problem.score, problem.latents, new, FINE, **options) for new in (problem.change, change)
    )
    assert_close(value.sensitivity, exact.sensitivity, rtol=1e-4, atol=1e-4)
    assert_close(value.log_ratio, exact.log_ratio, rtol=0, atol=1e-3)
    exact, value = (
        resample(problem.score, problem.latents, new, 0.3, FINE, **options) for new in (problem.change, change)
    )
    assert_close(value.samples, exact.samples, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_its_second_order_is_that_of_the_measure_it_stands_for():
    """Assert that first and second order equal those of the exact new law."""
    problem = case("d2_k3_s0", samples=3)
    options = {"anchor": problem.exact, "solver": "dopri5", "order": 2}
    exact, value = (
        sample_sensitivity(problem.score, problem.latents, new, FINE, **options)
        for new in (problem.change, Toward(_network(problem)))
    )
    assert_close(value.sensitivity, exact.sensitivity, rtol=1e-4, atol=1e-4)
    assert_close(value.curvature, exact.curvature, rtol=1e-3, atol=1e-3)


def test_its_second_order_is_that_of_the_discrete_sampler():
    """Assert agreement with second differences of `resample`, where both log densities depend on the mass."""
    problem = case("d2_k3_s0", samples=3)
    data = Points(problem.latents / SIGMA_MAX, bandwidth=0.7)
    change = Toward(_network(problem)) + 0.5 * Toward(data)
    options = {"anchor": problem.exact, "trace": "hutchinson", "probes": 2, "seed": 1}
    ends = [
        resample(problem.score, problem.latents, change, eta, COARSE, **options).samples for eta in (3e-4, 0.0, -3e-4)
    ]
    result = sample_sensitivity(problem.score, problem.latents, change, COARSE, order=2, **options)
    assert_close(result.sensitivity, (ends[0] - ends[2]) / 6e-4, rtol=1e-3, atol=1e-4)
    assert_close(result.curvature, (ends[0] - 2 * ends[1] + ends[2]) / 9e-8, rtol=1e-3, atol=1e-3)


def test_its_standard_error_leaves_groups_out_of_both_densities():
    """Assert that the jackknife of a carried network has the size of the spread over 300 runs."""
    problem = case("d3_k4_s0", samples=1)
    latents = problem.latents.expand(300, -1).contiguous()
    options = {"trace": "hutchinson", "probes": 16, "seed": 3, "standard_error": True}
    runs = sample_sensitivity(
        problem.score,
        latents,
        Toward(_network(problem)),
        Grid(SIGMA_MAX, SIGMA_MIN, 14),
        anchor=problem.exact,
        **options,
    )
    assert 0.7 < float(runs.standard_error.square().mean() / runs.sensitivity.var(0).mean()) < 1.4


@pytest.mark.slow
def test_a_network_serves_one_branch_of_a_guided_score():
    """Assert that carried laws come after the branches and take no share in the drift."""
    problem = case("d2_k3_s0", samples=2)
    narrow = ExactLaw(problem.base.noised(0.6))
    score = guided(narrow.score, problem.score, 1.5)
    anchor = PerBranch(problem.exact, narrow)
    exact, value = (
        sample_sensitivity(score, problem.latents, PerBranch(None, new), FINE, anchor=anchor, solver="dopri5")
        for new in (problem.change, Toward(_network(problem)))
    )
    assert_close(value.samples, exact.samples)
    assert_close(value.sensitivity, exact.sensitivity, rtol=1e-4, atol=1e-4)


def test_a_gaussian_control_lowers_the_noise_and_keeps_the_mean():
    """Assert at least a third less variance of the log density, first and second order unbiased by the control."""
    problem = case("d10_k3_s0", samples=1)
    latents = problem.latents.expand(200, -1).contiguous()
    control = GaussianAnchor.from_data(torch.from_numpy(np.asarray(problem.base.sample(5000, 2))))
    grid = Grid(SIGMA_MAX, 2.0, 5)
    options = {"anchor": problem.exact, "trace": "hutchinson", "probes": 2, "seed": 3}
    plain, lowered = (
        sample_sensitivity(problem.score, latents, problem.change, grid, control=q, **options) for q in (None, control)
    )
    assert float(lowered.log_density.var()) < 0.67 * float(plain.log_density.var())
    exact = sample_sensitivity(problem.score, latents[:1], problem.change, grid, anchor=problem.exact).log_density
    error = float(lowered.log_density.std()) / 200**0.5
    assert abs(float(lowered.log_density.mean() - exact)) < 4 * error


def test_a_control_does_not_disturb_the_second_order():
    """Assert agreement with second differences under the same control."""
    problem = case("d3_k4_s0", samples=2)
    control = GaussianAnchor.from_data(torch.from_numpy(np.asarray(problem.base.sample(5000, 2))))
    options = {"anchor": problem.exact, "trace": "hutchinson", "probes": 2, "seed": 1, "control": control}
    ends = [
        resample(problem.score, problem.latents, problem.change, eta, COARSE, **options).samples
        for eta in (5e-5, 0.0, -5e-5)
    ]
    result = sample_sensitivity(problem.score, problem.latents, problem.change, COARSE, order=2, **options)
    assert_close(result.curvature, (ends[0] - 2 * ends[1] + ends[2]) / 25e-10, rtol=2e-3, atol=1e-3)
