"""Observed orders of samples, sensitivities (the tableau's) and log densities (fourth), against the quantile oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.engine import assert_order, case, local_orders

from oracles.transport import QuantileOracle
from sensitivity import Grid, sample_sensitivity
from sensitivity.sampler import carried_density, quadrature, windows
from sensitivity.sampler.tableau import EULER, EXPONENTIAL, HEUN, RK4, TWO_STEP

TOP, BOTTOM = 5.0, 0.8
STEPS = {
    "euler": (24, 48, 96, 192),
    "heun": (8, 16, 32, 64),
    "exponential": (32, 64, 128, 256),
    "rk4": (12, 24, 48, 96),
    "2m": (32, 64, 128, 256),
}


def _errors(solver, steps):
    """Largest errors of sample, log density and sensitivity over the latents, for each number of steps."""
    problem = case("d1_k3_s0", samples=3, sigma_max=TOP)
    oracle = QuantileOracle(problem.base, problem.toward)
    samples, slope = (
        torch.from_numpy(np.asarray(part)) for part in oracle.sensitivity(problem.latents.numpy(), TOP, BOTTOM)
    )
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
        logs = problem.exact.log_density(result.samples, BOTTOM)  # of the states that were computed
        parts = ((result.samples, samples), (result.log_density, logs), (result.sensitivity, slope))
        rows.append([float((a - b).abs().max()) for a, b in parts])
    return list(map(list, zip(*rows, strict=True)))


@pytest.mark.parametrize("solver", [EULER, HEUN, EXPONENTIAL, RK4, TWO_STEP], ids=lambda solver: solver.name)
def test_samples_and_sensitivities_converge_at_the_order_of_the_solver_and_log_densities_at_the_fourth(solver):
    """Assert the solver's order within 0.1 (RK4: at least 3.5) and order 3.5 of log densities over three doublings."""
    samples, logs, slopes = _errors(solver, STEPS[solver.name])
    assert_order(samples, solver.order)
    assert np.log2(logs[0] / logs[-1]) / 3 > 3.5
    if solver.order < 4:
        assert_order(slopes, solver.order)
    assert np.log2(slopes[0] / slopes[-1]) / 3 > min(solver.order - 0.1, 3.5)


def test_a_wrong_coefficient_loses_the_order():
    """Assert that Heun's method with weights .45, .55 (still consistent) fails the order check, but keeps that of L."""
    wrong = replace(HEUN, final=(0.45, 0.55))
    samples, logs, slopes = _errors(wrong, STEPS["heun"])
    for errors in (samples, slopes):
        with pytest.raises(AssertionError, match="local slopes"):
            assert_order(errors, HEUN.order)
    assert np.log2(logs[0] / logs[-1]) / 3 > 3.5


def _without_defects(patch):
    """e_l = 0: the log density as if the computed states lay on the exact flow."""

    def path(window, nodes, b):
        return nodes[0].x.new_zeros(len(window.rates), len(nodes[0].x))

    patch.setattr(carried_density, "_path", path)


def _shifted_weights(patch):
    """Weights of the interval before in place of an interval's own."""
    right = quadrature.form

    def form(levels, interval, *rest):
        return right(levels, max(interval - 1, 0), *rest)

    patch.setattr(windows, "form", form)


@pytest.mark.parametrize("plant", [_without_defects, _shifted_weights])
def test_a_wrong_rule_loses_the_order_of_the_log_density_only(plant, monkeypatch):
    """Assert that samples keep order 2 while the log density loses the fourth."""
    plant(monkeypatch)
    samples, logs, _ = _errors(HEUN, STEPS["heun"])
    assert_order(samples, 2)
    assert np.log2(logs[0] / logs[-1]) / 3 < 2.5


def test_errors_at_the_rounding_floor_are_refused():
    """Assert that a slope through rounding errors is not reported."""
    with pytest.raises(AssertionError, match="floor"):
        local_orders([1e-9, 1e-13])
