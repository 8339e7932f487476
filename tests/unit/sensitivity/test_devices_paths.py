"""Device hygiene of sampler paths: sensitivities, influences and finite changes on the pretend device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.pretend_device import AVAILABLE, NAME, pretend_device
from support.problems import PROBLEMS
from torch import Tensor

from oracles import GaussianMixture
from sensitivity import (
    SDE,
    GaussianAnchor,
    Grid,
    Mixture,
    Move,
    Points,
    Remove,
    Reweight,
    Toward,
    influence,
    resample,
    sample_sensitivity,
    score_derivative,
)

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this torch has no PrivateUse1 Python backend")

LAW = GaussianMixture(*PROBLEMS["d3_k4_s0"].base)
PARTS = tuple(torch.from_numpy(np.array(part)) for part in (LAW.weights, LAW.means, LAW.covariances))
MOMENTS = torch.from_numpy(LAW.mean), torch.from_numpy(LAW.covariance)
DATA = torch.from_numpy(LAW.sample(6, 2))
LATENTS = torch.from_numpy(LAW.sample(3, 1) + 10 * np.random.default_rng(0).standard_normal((3, 3)))
GRID = Grid(10.0, 0.5, 3)


def forward(order: int = 1, **options: Any) -> Any:
    def run(law: Mixture, anchor: Any, x: Tensor, data: Tensor) -> list[Tensor]:
        result = sample_sensitivity(
            law.score, x, Toward(Points(data)), GRID, anchor=anchor, seed=1, order=order, **options
        )
        return [result.samples, result.sensitivity, result.log_ratio]

    return run


def changed(perturbation: Any) -> Any:
    def run(law: Mixture, anchor: Any, x: Tensor, data: Tensor) -> list[Tensor]:
        result = sample_sensitivity(law.score, x, perturbation(Points(data), data), GRID, anchor=anchor, seed=1)
        return [result.samples, result.sensitivity]

    return run


def influences(law: Mixture, anchor: Any, x: Tensor, data: Tensor) -> list[Tensor]:
    result = influence(law.score, x, lambda samples: samples.square().sum(1), Points(data), GRID, anchor=anchor, seed=1)
    return [result.values, result.samples]


def finite(law: Mixture, anchor: Any, x: Tensor, data: Tensor) -> list[Tensor]:
    return [resample(law.score, x, Toward(Points(data)), 0.1, GRID, anchor=anchor, seed=1).samples]


def derivative(law: Mixture, anchor: Any, x: Tensor, data: Tensor) -> list[Tensor]:
    return [score_derivative(law.score, x, 0.5, Toward(Points(data)), log_density=anchor.log_density(x, 0.5))]


RUNS = {
    "forward": forward(),
    "probes": forward(trace="hutchinson", probes=2),
    "jackknife": forward(trace="hutchinson", probes=3, standard_error=True),
    "second order": forward(order=2),
    "denoised": forward(denoise=True),
    "rk4": forward(solver="rk4"),
    "exponential": forward(solver="exponential"),
    "two-step": forward(solver="2m"),
    "stochastic": forward(solver=SDE()),
    "remove": changed(lambda points, data: Remove(points)),
    "reweight": changed(lambda points, data: Reweight(points, data[:, 0])),
    "move": changed(lambda points, data: Move(points, 0.1 * data)),
    "influence": influences,
    "resample": finite,
    "derivative": derivative,
}


SLOW = {"jackknife", "denoised", "rk4", "exponential", "reweight", "move"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in RUNS])
def test_path_runs_on_the_device(name: str) -> None:
    """Assert that the whole run stays on the device and gives the CPU's values."""
    run = RUNS[name]
    expected = run(Mixture(*PARTS), GaussianAnchor(*MOMENTS), LATENTS, DATA)
    with pretend_device() as move:
        law, anchor = Mixture(*PARTS).to(NAME), GaussianAnchor(move(MOMENTS[0]), move(MOMENTS[1]))
        for value, wanted in zip(run(law, anchor, move(LATENTS), move(DATA)), expected, strict=True):
            assert value.device.type == NAME
            assert_close(value.cpu(), wanted, rtol=1e-8, atol=1e-10)


def test_points_may_stay_in_host_memory() -> None:
    """Assert that influences of points on the CPU for states on the device are the CPU's, all and the largest."""
    weights, points = torch.linspace(-1.0, 1.0, 3, dtype=torch.float64), Points(DATA, block=2)
    for top_k in (None, 2):
        options = {"anchor": GaussianAnchor(*MOMENTS), "seed": 1, "top_k": top_k}
        expected = influence(Mixture(*PARTS).score, LATENTS, lambda x: x @ weights, points, GRID, **options)
        with pretend_device() as move:
            there = move(weights)
            law, anchor = Mixture(*PARTS).to(NAME), GaussianAnchor(move(MOMENTS[0]), move(MOMENTS[1]))
            result = influence(
                law.score, move(LATENTS), lambda x, w=there: x @ w, points, GRID, anchor=anchor, seed=1, top_k=top_k
            )
            assert result.values.device.type == NAME
            assert_close(result.values.cpu(), expected.values, rtol=1e-8, atol=1e-10)
