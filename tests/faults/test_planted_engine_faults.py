"""Faults planted in the sampler must make the checks against the oracles fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.engine import SIGMA_MAX, SIGMA_MIN, case, check_line

from sensitivity import Grid, Points, Toward, influence, resample, sample_sensitivity
from sensitivity.jacobians.traces import Trace
from sensitivity.readings.second_order import _carried
from sensitivity.sampler.local_maps import LocalMaps
from sensitivity.sampler.tableau import RungeKutta, Table

PROBES = {"trace": "hutchinson", "probes": 2, "seed": 0}


def _drop_sigma(patch):
    """dx/dσ = −s instead of −σ s."""

    def weights(self, start, end):
        width = end - start
        levels = tuple(start + node * width for node in self.nodes)
        stages = tuple(tuple(-width * a for a in row) for row in self.stages)
        final = tuple(-width * b for b in self.final)
        return Table(levels, stages, final)

    patch.setattr(RungeKutta, "weights", weights)


def _wrong_sign(patch):
    """−ṡ instead of ṡ."""
    right = LocalMaps.sources
    patch.setattr(LocalMaps, "sources", lambda self, *args: -right(self, *args))


def _doubled_divergence(patch):
    """2 div s instead of div s."""
    right = Trace.combine
    patch.setattr(Trace, "combine", lambda self, *args: 2 * right(self, *args))


def _missing_mean(patch):
    """The sum over probes instead of their mean."""

    patch.setattr(LocalMaps, "means", lambda self, logs: None if logs is None else logs.sum(1))


@pytest.mark.parametrize("plant", [_drop_sigma, _wrong_sign, _doubled_divergence, _missing_mean])
def test_the_quantile_oracle_catches_it(plant, monkeypatch):
    """Assert that the comparison in one dimension fails under each planted fault."""
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check_line(**PROBES)


def _check_resample():
    problem = case("d2_k3_s0", samples=2)
    grid = Grid(SIGMA_MAX, SIGMA_MIN, 48, spacing="log")
    truth = problem.truth.sample(problem.latents.numpy(), 0.5, SIGMA_MAX, SIGMA_MIN)
    resampled = resample(
        problem.score, problem.latents, problem.change, 0.5, grid, anchor=problem.exact, solver="dopri5"
    )
    assert_close(resampled.samples, np.asarray(truth), rtol=0, atol=1e-3)


def test_a_density_that_ignores_the_foreign_path_is_caught(monkeypatch):
    """Assert that leaving out what the path does beyond the law's own flow makes resampling miss the true mixture."""
    _check_resample()

    def nothing(window, nodes, b):
        return nodes[0].x.new_zeros(len(window.rates), len(nodes[0].x))

    monkeypatch.setattr("sensitivity.sampler.carried_density._path", nothing)
    with pytest.raises(AssertionError):
        _check_resample()


def _check_transpose():
    """The identity for a score whose Jacobian is not symmetric, so that Jδ cannot pass for Jᵀδ."""
    problem = case("d3_k4_s0", samples=2)
    turn = torch.tensor([[0.0, 0.3, 0.0], [-0.3, 0.0, 0.1], [0.0, 0.0, 0.0]], dtype=torch.float64)

    def score(x, sigma):
        return problem.score(x, sigma) + torch.tanh(x) @ turn / (1 + sigma**2)

    data = torch.from_numpy(np.asarray(problem.base.sample(3, 3)))
    options = {"grid": Grid(SIGMA_MAX, SIGMA_MIN, 4), "anchor": problem.exact, "products": "forward"}
    influences = influence(score, problem.latents, lambda x: x[:, 0], Points(data, bandwidth=0.5), **options)
    changes = [Toward(Points(row[None], bandwidth=0.5)) for row in data]
    forward = sample_sensitivity(score, problem.latents, changes, **options)
    assert_close(influences.values, forward.sensitivity[..., 0].T, rtol=1e-11, atol=1e-13)


def test_a_cotangent_that_is_not_transposed_is_caught(monkeypatch):
    """Assert that J in place of Jᵀ breaks the inner-product identity."""
    _check_transpose()

    def straight(self, x, sigma, cotangents, graphs=()):
        parts = [law.products.jvp(x, sigma, cotangents) for law in self.each]
        return tuple(score for score, _ in parts), self.shared([moved for _, moved in parts])

    monkeypatch.setattr(LocalMaps, "cotangents", straight)
    with pytest.raises(AssertionError):
        _check_transpose()


def _check_second():
    problem = case("d2_k3_s0", samples=2)
    grid, options = Grid(SIGMA_MAX, SIGMA_MIN, 6), {"anchor": problem.exact}
    exact = sample_sensitivity(problem.score, problem.latents, problem.change, grid, order=2, **options)
    ends = [
        resample(problem.score, problem.latents, problem.change, eta, grid, **options).samples
        for eta in (3e-4, 0.0, -3e-4)
    ]
    assert_close(exact.curvature, (ends[0] - 2 * ends[1] + ends[2]) / 9e-8, rtol=1e-3, atol=1e-3)


def test_a_log_density_that_is_not_differentiated_is_caught(monkeypatch):
    """Assert that dropping L̇ from the second order breaks its agreement with second differences."""
    _check_second()

    known = _carried

    def frozen(*args):
        carried, log_tangents = known(*args)
        return carried, torch.zeros_like(log_tangents)

    monkeypatch.setattr("sensitivity.readings.second_order._carried", frozen)
    with pytest.raises(AssertionError):
        _check_second()
