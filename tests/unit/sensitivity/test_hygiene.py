"""No host synchronisation in a step; parts sum to the whole; nothing leaks into the global state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.engine import SIGMA_MAX, SIGMA_MIN, case

from sensitivity import SDE, Grid, Points, Toward, influence, resample, sample_sensitivity
from studies.bridge import engine_measure

READS = ("item", "__bool__", "__float__", "__int__", "__index__", "tolist", "cpu", "numpy", "nonzero")


def _reads(monkeypatch, call):
    """How often values are read from tensors while `call` runs."""
    call()  # what is made once and kept is not counted
    count = 0
    with monkeypatch.context() as patch:
        for name in READS:
            right = getattr(torch.Tensor, name)

            def counted(self, *args, right=right, **kwargs):
                nonlocal count
                count += 1
                return right(self, *args, **kwargs)

            patch.setattr(torch.Tensor, name, counted)
        call()
    return count


def _sensitivity(problem, grid, **options):
    result = engine_measure(problem.base)  # the oracle reads the values of its noise level
    shared = {"anchor": result, "trace": "hutchinson", "probes": 2, "seed": 0}
    return sample_sensitivity(result.score, problem.latents, problem.change, grid, **shared, **options)


@pytest.mark.parametrize("options", [{}, {"order": 2}, {"solver": SDE()}, {"standard_error": True}], ids=str)
def test_a_step_reads_no_value_from_the_device(options, monkeypatch):
    """Assert that the number of values read does not grow with the number of steps."""
    problem = case("d2_k3_s0", samples=2)
    few, many = (
        _reads(monkeypatch, lambda n=n: _sensitivity(problem, Grid(SIGMA_MAX, SIGMA_MIN, n), **options)) for n in (3, 6)
    )
    assert few == many > 0


def test_resampling_and_influence_read_no_value_in_a_step(monkeypatch):
    """Assert the same for the other two readings."""
    problem = case("d2_k3_s0", samples=2)
    result = engine_measure(problem.base)
    shared = {"anchor": result, "trace": "hutchinson", "probes": 2, "seed": 0}

    def finite(steps):
        return resample(result.score, problem.latents, problem.change, 0.3, Grid(SIGMA_MAX, SIGMA_MIN, steps), **shared)

    def pointwise(steps):
        grid = Grid(SIGMA_MAX, SIGMA_MIN, steps)
        return influence(result.score, problem.latents, lambda x: x[:, 0], problem.latents, grid, **shared)

    for call in (finite, pointwise):
        few, many = (_reads(monkeypatch, lambda n=n, call=call: call(n)) for n in (3, 6))
        assert few == many > 0


def test_influences_sum_to_the_derivative_toward_their_measure():
    """Assert Σ c_i values_i = ∇φ·δ for the weighted points, in one dimension more than the network's own."""
    problem = case("d3_k4_s0", samples=3)
    data = torch.from_numpy(np.asarray(problem.base.sample(6, 2)))
    weights = torch.tensor([0.05, 0.1, 0.15, 0.2, 0.2, 0.3], dtype=torch.float64)
    grid = Grid(SIGMA_MAX, SIGMA_MIN, 6)
    influences = influence(
        problem.score,
        problem.latents,
        lambda x: x.square().sum(1),
        Points(data, bandwidth=0.3),
        grid,
        anchor=problem.exact,
    )
    whole = sample_sensitivity(
        problem.score, problem.latents, Toward(Points(data, weights, bandwidth=0.3)), grid, anchor=problem.exact
    )
    assert_close(influences.values @ weights, (2 * whole.samples * whole.sensitivity).sum(1), rtol=1e-11, atol=1e-12)


def test_with_the_empirical_law_as_base_influences_of_its_points_sum_to_zero():
    """Assert Σ_i φ̇_i = 0 where score and density are those of the equally weighted training points themselves."""
    problem = case("d2_k3_s0", samples=3)
    data = torch.from_numpy(np.asarray(problem.base.sample(9, 2)))
    law = Points(data)
    influences = influence(
        law.score, problem.latents, lambda x: x[:, 0], law, Grid(SIGMA_MAX, 0.5, 40), anchor=law, solver="dopri5"
    )
    assert float(influences.values.abs().max()) > 0.05
    assert float(influences.values.mean(1).abs().max()) < 1e-4 * float(influences.values.abs().max())


def test_runs_leave_the_global_generator_and_the_gradient_mode_alone():
    """Assert that with a seed nothing global is drawn, and that gradients stay enabled."""
    problem = case("d2_k3_s0", samples=2)
    before = torch.get_rng_state()
    _sensitivity(problem, Grid(SIGMA_MAX, SIGMA_MIN, 3))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.is_grad_enabled()
    latents = problem.latents.clone().requires_grad_()
    result = sample_sensitivity(
        problem.score, latents, problem.change, Grid(SIGMA_MAX, SIGMA_MIN, 3), anchor=problem.exact
    )
    assert not result.samples.requires_grad
