"""score_derivative against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.close import assert_close
from support.engine import case

from sensitivity import Points, Toward, score_derivative


@pytest.mark.parametrize("name", ["d1_k3_s0", "d2_k3_s0", "d3_k4_s0", "d5_k2_s0", "d10_k3_s0"])
@settings(max_examples=10)
@given(level=st.floats(-2.0, 3.0), spread=st.floats(0.5, 2.5))
def test_it_equals_the_oracle_with_the_exact_log_density(name, level, spread):
    """Assert 1e-9 relative agreement per state, at all levels and far out."""
    problem = case(name, samples=4)
    sigma = float(np.exp(level))
    x = torch.from_numpy(spread * np.random.default_rng(3).standard_normal(problem.latents.shape))
    derivative = score_derivative(problem.score, x, sigma, problem.change, log_density=problem.exact)
    wanted = np.asarray(problem.truth.score_derivative(x.numpy(), sigma))
    scale = np.abs(wanted).max(axis=1, keepdims=True)
    # r = exp(log r) carries the rounding of log r, which is relative to the log densities themselves.
    logs = np.abs(np.asarray(problem.base.noised(sigma).log_density(x.numpy())))[:, None]
    assert np.all(np.abs(derivative.numpy() - wanted) <= (1e-9 + 1e-14 * logs) * scale)


def test_log_densities_come_in_every_form():
    """Assert that a tensor, an object with .value and a law give the same."""
    problem = case("d2_k3_s0")
    x = problem.latents / 10
    value = problem.exact.log_density(x, 0.7)

    class Estimate:
        pass

    estimate = Estimate()
    estimate.value = value
    runs = [
        score_derivative(problem.score, x, 0.7, problem.change, log_density=given)
        for given in (value, estimate, problem.exact)
    ]
    assert_close(runs[1], runs[0])
    assert_close(runs[2], runs[0])


def test_a_level_for_each_state_is_what_each_gives_alone():
    """Assert that sigma of shape (batch,) is taken row by row."""
    problem = case("d2_k3_s0", samples=3)
    x, levels = problem.latents / 10, torch.tensor([0.3, 1.0, 5.0], dtype=torch.float64)
    whole = score_derivative(problem.score, x, levels, problem.change, log_density=problem.exact)
    for k in range(3):
        alone = score_derivative(
            problem.score, x[k : k + 1], float(levels[k]), problem.change, log_density=problem.exact
        )
        assert_close(whole[k : k + 1], alone, rtol=1e-10)


def test_the_graph_is_kept_only_when_asked():
    """Assert that differentiable=True passes gradients to the state."""
    problem = case("d2_k3_s0", samples=2)
    x = (problem.latents / 10).requires_grad_()
    args = (problem.score, x, 0.7, problem.change)
    assert not score_derivative(*args, log_density=problem.exact).requires_grad
    kept = score_derivative(*args, log_density=problem.exact, differentiable=True)
    tangent = torch.ones_like(x)
    slope = torch.autograd.grad((kept * tangent).sum(), x)[0]
    h = 1e-6
    ends = [score_derivative(problem.score, x + s * h, 0.7, problem.change, log_density=problem.exact) for s in (1, -1)]
    assert_close((slope * tangent).sum(), ((ends[0] - ends[1]) * tangent).sum() / (2 * h), rtol=1e-6)


def test_bad_arguments_are_refused():
    """Assert that each error quotes its argument."""
    problem = case("d2_k3_s0", samples=2)
    x, change = problem.latents, problem.change
    bad = [
        (x, 0.7, change, None, ValueError, "log_density is missing"),
        (x, -1.0, change, problem.exact, ValueError, "sigma"),
        (x, 0.7, problem.measure, problem.exact, TypeError, "perturbation is a Mixture"),
        (x * float("inf"), 0.7, change, problem.exact, ValueError, "x is not finite"),
        (x[0], 0.7, change, problem.exact, ValueError, "x has shape"),
        (x, torch.tensor([0.0, 1.0], dtype=torch.float64), change, problem.exact, ValueError, "sigma has entries"),
        (x, 0.7, Toward(Points(x.float())), problem.exact, TypeError, "dtype"),
    ]
    for states, sigma, given_change, logs, kind, words in bad:
        with pytest.raises(kind, match=words):
            score_derivative(problem.score, states, sigma, given_change, log_density=logs)
