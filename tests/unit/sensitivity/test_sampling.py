"""Plain sampling: the samples and log densities of a sensitivity's run, without derivatives where none is asked for."""

from __future__ import annotations

import pytest
import torch
from support.engine import SIGMA_MAX, SIGMA_MIN, case

from sensitivity import SDE, Adaptive, Grid, Outcome, PerBranch, guided, sample, sample_sensitivity

GRID = Grid(SIGMA_MAX, SIGMA_MIN, 12)
SOLVERS = ["euler", "heun", "exponential", "2m", "rk4", "dopri5", SDE(), SDE(kappa=0.5), Adaptive(1e-3, 1e-3)]


def _curved(x, sigma):
    """A score that bends, with a graph."""
    return -torch.tanh(x) / (0.3 + sigma.reshape(-1, 1) ** 2)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_it_gives_the_samples_and_log_densities_of_a_sensitivity(solver):
    """Assert equality with `sample_sensitivity` from the same noise, probes included."""
    problem = case("d2_k3_s0", samples=3)
    options = {"anchor": problem.exact, "solver": solver, "trace": "hutchinson", "probes": 2, "seed": 3}
    result = sample(problem.score, problem.latents, GRID, log_density=True, **options)
    wanted = sample_sensitivity(problem.score, problem.latents, problem.change, GRID, **options)
    for name in ("samples", "log_density", "log_density_error", "grid_error"):
        torch.testing.assert_close(getattr(result, name), getattr(wanted, name), rtol=1e-10, atol=1e-10, equal_nan=True)
    assert torch.equal(result.outcome.codes, wanted.outcome.codes)
    assert torch.equal(result.grid.levels, wanted.grid.levels)


def test_without_a_log_density_no_derivative_is_taken():
    """Assert it of a score that refuses any graph, and that no anchor is asked for; one call a step with 2m."""
    calls = []

    def score(x, sigma):
        calls.append(torch.is_grad_enabled())
        return (-x / (1 + sigma.reshape(-1, 1) ** 2)).detach()

    result = sample(score, torch.ones(2, 3).double(), GRID, solver="2m")
    assert result.log_density is None
    assert result.grid_error is None
    assert len(calls) == result.cost.evaluations == GRID.steps
    assert result.cost.products == 0
    assert not any(calls)


def test_chunks_denoising_and_guidance():
    """Assert equal bits over chunks, D(x) with `denoise`, and a row of log densities for each branch."""
    free, bound = case("d2_k3_s0", samples=3), case("d2_k3_s0", seed=1)
    options = {"anchor": free.exact, "seed": 2, "log_density": True}
    whole = sample(free.score, free.latents, GRID, **options)
    parts = sample(free.score, free.latents, GRID, chunk_size=2, **options)
    assert torch.equal(whole.samples, parts.samples)
    assert torch.equal(whole.log_density, parts.log_density)
    clean, noisy = (sample(_curved, free.latents, GRID, denoise=denoise).samples for denoise in (True, False))
    level = torch.full((3,), SIGMA_MIN, dtype=torch.float64)
    torch.testing.assert_close(clean, noisy + SIGMA_MIN**2 * _curved(noisy, level), rtol=1e-12, atol=1e-12)
    score = guided(bound.score, free.score, 1.5)
    both = sample(score, free.latents, GRID, log_density=True, anchor=PerBranch(free.exact, bound.exact))
    assert both.log_density.shape == (2, 3)


def test_the_graph_is_kept_where_it_is_asked_for():
    """Assert a derivative in the latents, against differences."""
    latents = torch.tensor([[0.4, -2.0], [7.0, 3.0]]).double()
    x = latents.clone().requires_grad_()
    total = sample(_curved, x, GRID, differentiable=True, solver="2m").samples.sum()
    slope = torch.autograd.grad(total, x)[0]
    up, down = (sample(_curved, latents + h, GRID, solver="2m").samples.sum() for h in (1e-5, -1e-5))
    torch.testing.assert_close(slope.sum(), (up - down) / 2e-5, rtol=1e-6, atol=1e-8)
    assert not sample(_curved, x, GRID).samples.requires_grad


def test_bad_input_is_refused_in_a_sentence():
    """Assert that the missing anchor, a log density that is no bool, and a grid of another kind are named."""
    problem = case("d2_k3_s0", samples=2)
    with pytest.raises(ValueError, match="log_density=True needs anchor"):
        sample(problem.score, problem.latents, GRID, log_density=True)
    with pytest.raises(TypeError, match="log_density=1"):
        sample(problem.score, problem.latents, GRID, log_density=1)
    with pytest.raises(TypeError, match="grid is a list"):
        sample(problem.score, problem.latents, [1.0, 0.5])
    with pytest.raises(TypeError, match="score is a str"):
        sample("score", problem.latents, GRID)


def test_a_score_that_fails_halts_its_sample_and_says_so():
    """Assert that a NaN below σ = 1 leaves the last good state and an outcome."""

    def score(x, sigma):
        value = -x / (1 + sigma.reshape(-1, 1) ** 2)
        return torch.where((sigma.reshape(-1, 1) < 1) & (x[:, :1] > 0), float("nan"), value)

    result = sample(score, torch.tensor([[1.0], [-1.0]]).double(), GRID)
    assert result.outcome[0] is Outcome.NONFINITE_SCORE
    assert result.outcome[1] is Outcome.FINISHED
    assert bool(torch.isfinite(result.samples).all())
