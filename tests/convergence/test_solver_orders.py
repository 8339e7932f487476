"""Observed orders of every tableau for samples, log densities and sensitivities, against the quantile oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.engine import assert_order, case, local_orders

from oracles.transport import QuantileOracle
from sensitivity import Grid, sample_sensitivity
from sensitivity.sampler.tableau import EULER, EXPONENTIAL, HEUN, RK4, Table

TOP, BOTTOM = 5.0, 0.8
STEPS = {
    "euler": (24, 48, 96, 192),
    "heun": (8, 16, 32, 64),
    "exponential": (16, 32, 64, 128),
    "rk4": (12, 24, 48, 96),
}


def _errors(solver, steps):
    """Largest errors of sample, log density and sensitivity over the latents, for each number of steps."""
    problem = case("d1_k3_s0", samples=3, sigma_max=TOP)
    oracle = QuantileOracle(problem.base, problem.toward)
    samples, slope = (
        torch.from_numpy(np.asarray(part)) for part in oracle.sensitivity(problem.latents.numpy(), TOP, BOTTOM)
    )
    logs = problem.exact.log_density(samples, BOTTOM)
    rows = []
    for count in steps:
        result = sample_sensitivity(
            problem.score,
            problem.latents,
            problem.change,
            Grid(TOP, BOTTOM, count),
            anchor=problem.exact,
            solver=solver,
            products="double-vjp",
        )
        parts = ((result.samples, samples), (result.log_density, logs), (result.sensitivity, slope))
        rows.append([float((a - b).abs().max()) for a, b in parts])
    return list(map(list, zip(*rows, strict=True)))


@pytest.mark.parametrize("solver", [EULER, HEUN, EXPONENTIAL, RK4], ids=lambda solver: solver.name)
def test_sample_density_and_sensitivity_converge_at_the_order_of_the_solver(solver):
    """Assert that the last three local slopes are within 0.1 of the theoretical order."""
    for errors in _errors(solver, STEPS[solver.name]):
        assert_order(errors, solver.order)


def test_a_wrong_coefficient_loses_the_order():
    """Assert that Heun's method with weights .45, .55 (still consistent) fails the order check."""
    wrong = replace(HEUN, final=(0.45, 0.55))
    for errors in _errors(wrong, STEPS["heun"]):
        with pytest.raises(AssertionError, match="local slopes"):
            assert_order(errors, HEUN.order)


class _WrongLog:
    """The exponential step with its log density moved by the first stage."""

    name, order = "wrong", 2

    def weights(self, start, end):
        table = EXPONENTIAL.weights(start, end)
        return Table(table.levels, table.stages, table.final, table.stages_log, (table.final_log[1], 0.0))


def test_a_wrong_log_weight_loses_the_order_of_density_and_sensitivity_only():
    """Assert that samples keep order 2 while log density and sensitivity lose it."""
    samples, logs, slopes = _errors(_WrongLog(), STEPS["exponential"])
    assert_order(samples, 2)
    for errors in (logs, slopes):
        with pytest.raises(AssertionError, match="local slopes"):
            assert_order(errors, 2)


def test_errors_at_the_rounding_floor_are_refused():
    """Assert that a slope through rounding errors is not reported."""
    with pytest.raises(AssertionError, match="floor"):
        local_orders([1e-9, 1e-13])
