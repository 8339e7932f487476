"""Adaptive steps: torchdiffeq's accepted levels as a grid, and its solution from our tableau."""

from __future__ import annotations

import pytest
import torch
from support.close import assert_close
from support.engine import SIGMA_MAX, SIGMA_MIN, case
from torchdiffeq import odeint

from sensitivity import Adaptive, Grid, sample_sensitivity

ENDS = Grid(SIGMA_MAX, SIGMA_MIN, 1)


def _torchdiffeq(problem, rtol):
    levels = torch.tensor([SIGMA_MAX, SIGMA_MIN], dtype=torch.float64)
    return odeint(
        lambda sigma, x: -sigma * problem.score(x, sigma),
        problem.latents,
        levels,
        rtol=rtol,
        atol=rtol,
        method="dopri5",
        options={"step_t": levels[1:]},
    )[1]


def test_the_tableau_on_the_accepted_steps_repeats_torchdiffeq():
    """Assert agreement to rounding with torchdiffeq's own run at the same tolerance."""
    problem = case("d2_k3_s0")
    result = sample_sensitivity(
        problem.score, problem.latents, problem.change, ENDS, anchor=problem.exact, solver="adaptive"
    )
    assert_close(result.samples, _torchdiffeq(problem, 1e-6), rtol=1e-11, atol=1e-11)
    assert (result.grid.sigma_max, result.grid.sigma_min) == (SIGMA_MAX, SIGMA_MIN)
    assert result.grid.steps > 5


def test_smaller_tolerances_take_more_steps_and_come_closer_to_the_truth():
    """Assert that the error against the flow oracle falls with the tolerance."""
    problem = case("d2_k3_s0", samples=3)
    _, slope = problem.truth.sample_sensitivity(problem.latents.numpy(), SIGMA_MAX, SIGMA_MIN)
    runs = [
        sample_sensitivity(
            problem.score,
            problem.latents,
            problem.change,
            ENDS,
            anchor=problem.exact,
            solver=Adaptive(rtol=tolerance, atol=tolerance),
        )
        for tolerance in (1e-4, 1e-8)
    ]
    errors = [float((run.sensitivity - torch.from_numpy(slope)).abs().max()) for run in runs]
    assert runs[1].grid.steps > 2 * runs[0].grid.steps
    assert errors[1] < 1e-5 < errors[0]


def test_chunks_use_the_grid_of_the_whole_batch():
    """Assert that adaptive results do not depend on chunks, though torchdiffeq couples its batch."""
    problem = case("d2_k3_s0")
    whole, cut = (
        sample_sensitivity(
            problem.score,
            problem.latents,
            problem.change,
            ENDS,
            anchor=problem.exact,
            solver="adaptive",
            chunk_size=size,
        )
        for size in (None, 2)
    )
    assert whole.grid == cut.grid
    assert_close(cut.sensitivity, whole.sensitivity, rtol=1e-11, atol=1e-12)


def test_single_precision_latents_keep_double_precision_levels():
    """Assert that the grid is not rounded to float32."""
    problem = case("d2_k3_s0", samples=2)
    chosen = Adaptive(1e-3, 1e-3).accepted(lambda x, sigma: -x / (1 + sigma**2), problem.latents.float(), ENDS)
    assert chosen.levels.dtype == torch.float64
    assert chosen.sigma_min == SIGMA_MIN


def test_a_score_that_fails_is_said_to_fail():
    """Assert that torchdiffeq's assertion becomes a sentence with a remedy."""
    with pytest.raises(ValueError, match="the adaptive solver stopped"):
        Adaptive().accepted(lambda x, sigma: x * float("nan"), torch.ones(1, 2), ENDS)
    with pytest.raises(ValueError, match="rtol=0"):
        Adaptive(rtol=0.0)
