"""Tableaux: order conditions, the exponential step against its own formula, denoising."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.close import assert_close

from sensitivity import Grid
from sensitivity.sampler.tableau import DOPRI5, EULER, EXPONENTIAL, HEUN, RK4, TWO_STEP, find, of_grid

RUNGE_KUTTA = [EULER, HEUN, RK4, DOPRI5]


def _conditions(method):
    """Butcher's order conditions up to order 5 for quadrature and for tall trees."""
    b, c = method.final, method.nodes
    a = [list(row) + [0.0] * (len(b) - len(row)) for row in method.stages]
    yield from ((k, sum(w * x ** (k - 1) for w, x in zip(b, c, strict=True)), 1 / k) for k in range(1, 6))
    tall = list(c)
    for order in range(3, 6):
        tall = [sum(w * x for w, x in zip(row, tall, strict=True)) for row in a]
        yield order, sum(w * x for w, x in zip(b, tall, strict=True)), 1 / math.factorial(order)


@pytest.mark.parametrize("method", RUNGE_KUTTA, ids=lambda method: method.name)
def test_weights_satisfy_the_order_conditions_up_to_their_order(method):
    """Assert that the quadrature and tall-tree conditions hold, and that each node is the sum of its row."""
    for order, value, wanted in _conditions(method):
        if order <= method.order:
            assert_close(value, wanted, rtol=1e-13)
    for node, row in zip(method.nodes, method.stages, strict=True):
        assert_close(sum(row), node, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("method", RUNGE_KUTTA[:3], ids=lambda method: method.name)
def test_no_method_is_better_than_it_says(method):
    """Assert that some condition of the next order is violated, so that the stated order is the true one."""
    assert any(abs(value - wanted) > 1e-3 for order, value, wanted in _conditions(method) if order == method.order + 1)


@given(st.floats(1e-3, 50.0), st.floats(0.1, 0.99))
def test_exponential_weights_are_dpm_solver_in_the_denoiser(start, ratio):
    """Assert that A and B reproduce x₁ = (σ₁/σ)x + (1 − σ₁/σ)D₀ and x⁺ = (σ′/σ)x + (1 − σ′/σ)D₁ for any scores."""
    end = start * ratio
    table = EXPONENTIAL.weights(start, end)
    middle = table.levels[1]
    x, scores = 0.7, (-1.3, 0.4)
    first = middle / start * x + (1 - middle / start) * (x + start**2 * scores[0])
    last = end / start * x + (1 - end / start) * (first + middle**2 * scores[1])
    assert_close(x + table.stages[1][0] * scores[0], first, rtol=1e-9, atol=1e-9)
    assert_close(x + sum(b * s for b, s in zip(table.final, scores, strict=True)), last, rtol=1e-9, atol=1e-9)


@given(st.floats(1e-3, 50.0), st.floats(0.1, 0.99), st.floats(0.1, 0.99))
def test_two_step_weights_are_dpm_solver_in_the_denoiser(start, ratio, earlier):
    """Assert x⁺ = (σ′/σ)x + (1 − σ′/σ)(D + (D − D_before)/(2r)) for any score and denoiser before."""
    end, before = start * ratio, start / earlier
    table = TWO_STEP.continued(before, start, end)
    x, score, denoised_before = 0.7, -1.3, 0.2
    denoised = x + start**2 * score
    r = math.log(earlier) / math.log(ratio)
    wanted = ratio * x + (1 - ratio) * (denoised + (denoised - denoised_before) / (2 * r))
    got = x + table.final[0] * score + table.history * (denoised - denoised_before)
    assert_close(got, wanted, rtol=1e-9, atol=1e-9 * max(1.0, start**2))
    assert TWO_STEP.weights(start, end).history == 0.0


@pytest.mark.parametrize("method", [*RUNGE_KUTTA, EXPONENTIAL], ids=lambda method: method.name)
def test_every_step_moves_white_noise_towards_its_exact_place(method):
    """Assert that for p = N(0, I) the sample x√((1+σ′²)/(1+σ²)) is met within the error of one small step."""
    start, end = 1.0, 0.9
    table = method.weights(start, end)
    stages = []
    for row, level in zip(table.stages, table.levels, strict=True):
        entry = 1.0 + sum(a * s for a, s in zip(row, stages, strict=False))
        stages.append(-entry / (1 + level**2))
    moved = 1.0 + sum(b * s for b, s in zip(table.final, stages, strict=True))
    assert abs(moved - math.sqrt((1 + end**2) / (1 + start**2))) < 10.0 * 0.1 ** (method.order + 2)


def test_the_denoising_step_returns_the_denoiser():
    """Assert that x⁺ = x + σ² s at the last level."""
    like = torch.zeros(1, 1)
    final = of_grid(Grid(2.0, 0.5, 3), HEUN, like)[-1]
    assert (final.table.levels, final.table.final) == ((0.5,), (0.25,))
    assert (final.start, final.end, final.index) == (0.5, 0.0, 3)


def test_stage_levels_follow_the_samples():
    """Assert that levels take the dtype of the samples while weights stay Python numbers."""
    step = of_grid(Grid(2.0, 0.5, 3), RK4, torch.zeros(1, 1, dtype=torch.float32))[0]
    assert step.sigmas.dtype == torch.float32
    assert step.sigmas.shape == (4,)
    assert all(isinstance(weight, float) for weight in step.table.final)


def test_an_unknown_solver_is_refused_with_the_choices():
    """Assert that the error lists what there is."""
    with pytest.raises(ValueError, match=r"solver='midpoint' is unknown; choose one of euler"):
        find("midpoint")
