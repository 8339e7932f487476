"""Samples at finite mass without retraining, against the truth of the changed law."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.engine import SIGMA_MAX, SIGMA_MIN, case

from oracles import AdditivePerturbation, flow
from sensitivity import GaussianAnchor, Grid, Outcome, Points, Remove, Toward, resample, sample_sensitivity
from studies.bridge import ExactLaw, engine_measure

FINE = Grid(SIGMA_MAX, SIGMA_MIN, 48, spacing="log")
COARSE = Grid(SIGMA_MAX, SIGMA_MIN, 8)


@pytest.mark.parametrize("name", ["d1_k3_s0", "d2_k3_s0"])
def test_resampling_is_sampling_from_the_true_mixture(name):
    """Assert 1e-6 agreement at η = .5, .1, .01, one mass for each latent."""
    problem = case(name, samples=3)
    etas = torch.tensor([0.5, 0.1, 0.01], dtype=torch.float64)
    result = resample(problem.score, problem.latents, problem.change, etas, FINE, anchor=problem.exact, solver="dopri5")
    for k, eta in enumerate(etas.tolist()):
        truth = problem.truth.sample(problem.latents[k : k + 1].numpy(), eta, SIGMA_MAX, SIGMA_MIN)
        assert_close(result.samples[k : k + 1], np.asarray(truth), rtol=0, atol=1e-6)
    assert result.outcome.sentence == "3 of 3 samples finished."


def test_removing_a_part_gives_the_flow_of_what_is_left():
    """Assert that from a law with mass η of ν in it, removing ν gives the samples of the law without it."""
    problem = case("d2_k3_s0", samples=3)
    eta = 0.2
    whole = ExactLaw(problem.truth.at(eta))
    result = resample(
        whole.score,
        problem.latents,
        Remove(engine_measure(problem.toward)),
        -eta / (1 - eta),
        FINE,
        anchor=whole,
        solver="dopri5",
    )
    left = flow.sample(problem.base, problem.latents.numpy(), SIGMA_MAX, SIGMA_MIN)
    assert_close(result.samples, left, rtol=0, atol=1e-6)


def test_two_changes_at_once_equal_one_after_the_other():
    """Assert that a sequence of perturbations with a sequence of masses is sampling from the law with both."""
    problem = case("d2_k3_s0", samples=2)
    second = case("d2_k3_s0", seed=3).base.noised(0.5)
    first = AdditivePerturbation(problem.base, problem.toward).at(0.25)
    truth = AdditivePerturbation(first, second).sample(problem.latents.numpy(), 0.2, SIGMA_MAX, SIGMA_MIN)
    changes = [problem.change, Toward(engine_measure(second))]
    result = resample(
        problem.score, problem.latents, changes, [0.25 * 0.8, 0.2], FINE, anchor=problem.exact, solver="dopri5"
    )
    assert_close(result.samples, np.asarray(truth), rtol=0, atol=1e-6)


def test_small_masses_move_samples_by_their_sensitivity():
    """Assert that the discrete sensitivity is the derivative of the discrete resample, for every solver."""
    problem = case("d2_k3_s0", samples=3)
    for solver in ("euler", "heun", "exponential", "2m", "sde"):
        options = {"anchor": problem.exact, "solver": solver, "trace": "hutchinson", "probes": 2, "seed": 5}
        near, far = (
            resample(problem.score, problem.latents, problem.change, eta, COARSE, **options).samples
            - resample(problem.score, problem.latents, problem.change, -eta, COARSE, **options).samples
            for eta in (1e-5, 2e-5)
        )
        exact = sample_sensitivity(problem.score, problem.latents, problem.change, COARSE, **options).sensitivity
        fourth_order = (8 * near - far) / 12e-5  # noisy densities make third derivatives that a plain difference shows
        assert_close(fourth_order, exact, rtol=1e-6, atol=1e-7)


def test_an_impossible_removal_is_an_outcome_and_not_a_number():
    """Assert that samples that meet a non-positive density stop there with finite states, and say so."""
    problem = case("d2_k3_s0", samples=8)
    result = resample(problem.score, problem.latents, problem.change, -50.0, COARSE, anchor=problem.exact)
    stopped = [result.outcome[i] for i in range(8)]
    assert Outcome.REMOVAL_CONTRADICTED in stopped
    assert bool(result.samples.isfinite().all())
    assert "the estimated density contradicts the removal, first at σ = " in result.outcome.sentence


def test_chunks_change_nothing():
    """Assert that masses and noise follow their latents into the chunks."""
    problem = case("d3_k4_s0")
    etas = torch.linspace(0.0, 0.5, 5, dtype=torch.float64)
    options = {"anchor": problem.exact, "trace": "hutchinson", "probes": 2, "seed": 1}
    whole, cut = (
        resample(problem.score, problem.latents, problem.change, etas, COARSE, chunk_size=size, **options)
        for size in (None, 2)
    )
    assert_close(cut.samples, whole.samples, rtol=1e-11, atol=1e-12)
    assert_close(cut.log_density, whole.log_density, rtol=1e-11, atol=1e-12)


def test_the_carried_density_is_that_of_the_base_law_at_the_new_samples():
    """Assert that along the foreign path L stays log p_σ, not the density of the changed law."""
    problem = case("d3_k4_s0", samples=2)
    result = resample(problem.score, problem.latents, problem.change, 0.5, FINE, anchor=problem.exact, solver="dopri5")
    assert_close(result.log_density, problem.exact.log_density(result.samples, SIGMA_MIN), rtol=0, atol=1e-4)


def test_bad_masses_are_refused():
    """Assert that each error quotes the mass."""
    problem = case("d2_k3_s0", samples=2)
    points = Points(torch.zeros(1, 2, dtype=torch.float64))
    bad = [
        (problem.change, float("nan"), "is not finite"),
        (problem.change, torch.zeros(3), "eta has shape"),
        ([problem.change, Remove(points)], [0.1], "does not match 2 perturbations"),
    ]
    for change, eta, words in bad:
        with pytest.raises(ValueError, match=words):
            resample(problem.score, problem.latents, change, eta, COARSE, anchor=problem.exact)


def test_gradients_pass_through_a_finite_change_when_asked():
    """Assert that differentiable=True gives the derivative of the samples in the latents, and the default none."""
    problem = case("d2_k3_s0", samples=2)
    latents = problem.latents.clone().requires_grad_()
    options = {"anchor": problem.exact}
    assert not resample(problem.score, latents, problem.change, 0.3, COARSE, **options).samples.requires_grad
    kept = resample(problem.score, latents, problem.change, 0.3, COARSE, differentiable=True, **options).samples
    slope = torch.autograd.grad(kept.sum(), latents)[0]
    ends = [
        resample(problem.score, problem.latents + h, problem.change, 0.3, COARSE, **options).samples.sum(1)
        for h in (1e-5, -1e-5)
    ]
    assert_close(slope.sum(1), (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-8)


def test_the_derivative_in_the_mass_at_zero_is_the_sensitivity():
    """Assert that both modes of torch, at η = 0, give exactly what `sample_sensitivity` gives."""
    problem = case("d2_k3_s0", samples=2)
    latents, change, anchor = problem.latents, problem.change, {"anchor": problem.exact}
    expected = sample_sensitivity(problem.score, latents, change, COARSE, **anchor).sensitivity

    def samples(eta):
        return resample(problem.score, latents, change, eta, COARSE, differentiable=True, **anchor).samples

    zero = torch.zeros((), dtype=torch.float64)
    assert_close(torch.func.jvp(samples, (zero,), (zero + 1,))[1], expected, rtol=1e-9)
    assert_close(torch.autograd.functional.jacobian(samples, zero), expected, rtol=1e-9)


def test_a_ratio_beyond_the_floating_range_does_no_harm_where_no_mass_moves():
    """Assert that η = 0 returns the samples, although the ratio of a point on the path overflows float32."""
    law, latents = GaussianAnchor(torch.zeros(64), 1.0), 10 * torch.ones(1, 64)
    grid, options = Grid(10.0, 0.01, 8), {"anchor": law, "probes": 2, "seed": 0}
    away = Toward(Points(100 * torch.ones(1, 64)))
    plain = resample(law.score, latents, away, 0.0, grid, **options).samples
    here = Points(plain)
    assert float(here.log_density(plain, 0.01) - law.log_density(plain, 0.01)) > 89
    assert_close(resample(law.score, latents, Toward(here), 0.0, grid, **options).samples, plain, rtol=0, atol=0)
