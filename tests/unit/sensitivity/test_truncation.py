"""The stated error of a sensitivity against exact sensitivities, from one to 3072 dimensions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.sensitivity_errors import GRIDS, SOLVERS, Case, case, stated_and_true
from support.strategies import image_law, images

from sensitivity import SDE, Grid, Mixture, Toward, sample_sensitivity
from sensitivity.readings import first_order
from sensitivity.sampler import truncation
from sensitivity.sampler.quadrature import inverse_weights
from sensitivity.sampler.tableau import HEUN

QUICK = (Phase.explicit, Phase.generate)


def check(law, name, solver, seed):
    """Raise where a finished sample's δ errs by more than three times the stated error."""
    value, true, stated = stated_and_true(case(law, seed), GRIDS[name], solver)
    bad = value.outcome.finished & ~(true <= 3 * stated + 1e-9)
    if bool(bad.any()):
        raise AssertionError(f"finished with an error of {true[bad].tolist()}, stated {stated[bad].tolist()}")


@settings(max_examples=4, phases=QUICK, suppress_health_check=list(HealthCheck), deadline=None)
@given(images((1, 2, 16)), st.sampled_from(sorted(GRIDS)), st.sampled_from(SOLVERS), st.integers(0, 2**31))
def test_no_finished_sensitivity_errs_by_more_than_three_times_its_stated_error(law, name, solver, seed):
    """Assert it for mixtures with several components, from Euler's method to the fourth order."""
    check(law, name, solver, seed)


@pytest.mark.slow
@settings(max_examples=500, phases=QUICK, suppress_health_check=list(HealthCheck), deadline=None)
@given(images(), st.sampled_from(sorted(GRIDS)), st.sampled_from(SOLVERS), st.integers(0, 2**31))
def test_no_finished_sensitivity_of_five_hundred_errs_by_more_than_stated(law, name, solver, seed):
    """Assert the same up to 3072 dimensions."""
    check(law, name, solver, seed)


def _gaussian(d=3, **options):
    """A Gaussian toward a shifted one of the same variance: δ in closed form is not needed, its error is."""
    base = Mixture(None, torch.zeros(1, d).double(), torch.full((1, d), 0.25).double(), covariance_type="diagonal")
    new = Mixture(None, torch.full((1, d), 0.2).double(), torch.full((1, d), 0.25).double(), covariance_type="diagonal")
    latents = 20 * torch.randn(2, d, generator=torch.Generator().manual_seed(1)).double()
    grid = options.pop("grid", Grid(20.0, 0.05, 20))
    return sample_sensitivity(base.score, latents, Toward(new), grid, anchor=base, **options)


def test_the_stated_error_falls_at_the_order_of_the_solver():
    """Assert that twice the steps leave a half (Euler) and a quarter (Heun) of it."""
    for solver, order in (("euler", 1), ("heun", 2)):
        coarse, fine = (_gaussian(solver=solver, grid=Grid(20.0, 0.05, n)).sensitivity_error for n in (40, 80))
        assert torch.all((coarse / fine).log2() > order - 0.3)


def test_every_direction_and_chunk_has_its_own_stated_error():
    """Assert shapes, equal bits over chunks, and that several perturbations agree with one."""
    alone = _gaussian()
    assert alone.sensitivity_error.shape == (2,)
    assert torch.equal(_gaussian(chunk_size=1).sensitivity_error, alone.sensitivity_error)
    assert torch.all(alone.sensitivity_error > 0)


def test_with_the_jackknife_and_with_second_order_it_is_stated_too():
    """Assert that versions of the jackknife change nothing and that second order states a similar error."""
    alone = _gaussian()
    many = _gaussian(standard_error=True)
    torch.testing.assert_close(many.sensitivity_error, alone.sensitivity_error, rtol=1e-9, atol=0)
    second = _gaussian(order=2).sensitivity_error
    assert torch.all((second / alone.sensitivity_error - 1).abs() < 0.5)


def test_a_denoised_sensitivity_states_its_error():
    """Assert that it is that of the tangent before, grown, plus what the log density adds."""
    assert torch.all(_gaussian(denoise=True).sensitivity_error < 3 * _gaussian().sensitivity_error)


def test_a_stochastic_path_states_none():
    """Assert NaN."""
    assert bool(_gaussian(solver=SDE(), seed=0).sensitivity_error.isnan().all())


def test_inverse_weights_integrate_cubics():
    """Assert ∫ σ³ d(1/σ) = (σ_a² − σ_b²)/2 in σ, exact for cubics."""
    levels = (4.0, 2.5, 1.5, 1.0)
    values = inverse_weights(levels, 2.5, 1.5)[1] @ np.array(levels) ** 3
    np.testing.assert_allclose(values, (2.5**2 - 1.5**2) / 2, rtol=1e-12)


def test_a_solver_that_is_wrong_shows_in_the_stated_error():
    """Assert that Heun's weights .4 and .6, still consistent, raise the stated error by more than nine tenths."""
    wrong = replace(HEUN, final=(0.4, 0.6))
    right = _gaussian(grid=Grid(20.0, 0.05, 50))
    result = _gaussian(solver=wrong, grid=Grid(20.0, 0.05, 50))
    assert torch.all(result.sensitivity_error > 1.9 * right.sensitivity_error)


def test_without_defects_coverage_fails(monkeypatch):
    """Plant: defects of zero; assert that Euler's true error is no longer covered."""
    monkeypatch.setattr(
        truncation.Truncation, "_defect", lambda self, here, level, tangent: torch.zeros_like(here.source)
    )
    with pytest.raises(AssertionError, match="finished with an error"):
        check(image_law(2, 3, 2, 0.3, 0.5, 4), "karras 50", "euler", 0)


def test_an_error_of_the_log_density_enters_the_stated_error(monkeypatch):
    """Assert that the stated error follows e^E − 1 when the log densities' stated error is planted as .2 nat."""
    plain = _gaussian(grid=Grid(20.0, 0.05, 80))
    monkeypatch.setattr(first_order, "source_errors", lambda laws, memory: torch.full_like(memory.now.error[:1], 0.2))
    result = _gaussian(grid=Grid(20.0, 0.05, 80))
    size = plain.sensitivity.norm(dim=1)
    assert torch.all(result.sensitivity_error >= 0.2 * size)


@pytest.mark.parametrize("d", [784, 3072])
def test_it_covers_in_image_size(d):
    """Assert it for an isotropic Gaussian whose mean is shifted by .01 in every pixel."""
    law = Mixture(None, torch.zeros(1, d).double(), torch.tensor(0.25).double())
    new = Toward(Mixture(None, torch.full((1, d), 0.01).double(), torch.tensor(0.25).double()))
    white = torch.randn(2, d, generator=torch.Generator().manual_seed(0)).double()
    problem = Case(law, new, lambda sigma: sigma * white, "hutchinson")
    value, true, stated = stated_and_true(problem, Grid(20.0, 0.05, 50), "heun")
    assert bool(value.outcome.finished.all())
    assert bool((true <= 3 * stated).all())
    assert bool((stated < 0.5 * value.sensitivity.norm(dim=1)).all())
