"""Device hygiene without a GPU: everything runs on a device that refuses mixing, and gives the CPU's values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.pretend_device import AVAILABLE, NAME, pretend_device
from support.problems import PROBLEMS
from torch import Tensor, nn

from oracles import GaussianMixture
from sensitivity import Formula, GaussianAnchor, Grid, Mixture, Points, log_density, log_density_ratio
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.traces import Trace
from sensitivity.jacobians.trial import choose
from sensitivity.noise import Noise

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this torch has no PrivateUse1 Python backend")

LAW = GaussianMixture(*PROBLEMS["d3_k4_s0"].base)
PARTS = tuple(torch.from_numpy(np.array(part)) for part in (LAW.weights, LAW.means, LAW.covariances))
MOMENTS = torch.from_numpy(LAW.mean), torch.from_numpy(LAW.covariance)
STATES = torch.from_numpy(LAW.sample(4, 1))
GRID = Grid(20.0, 0.3, 4)


def back(value: Tensor) -> Tensor:
    assert value.device.type == NAME
    return value.cpu()


def test_the_device_refuses_what_a_gpu_refuses() -> None:
    """Assert that mixing, CPU generators and NumPy conversion fail on the pretend device, and 0-d tensors pass."""
    with pretend_device() as move:
        x = move(STATES)
        assert_close(back(x * torch.tensor(2.0)), 2 * STATES, rtol=0.0)
        with pytest.raises(RuntimeError, match="same device"):
            x + STATES
        with pytest.raises(RuntimeError, match="generator"):
            torch.randn(3, device=NAME, generator=torch.Generator())
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()


def test_a_planted_mix_up_is_caught() -> None:
    """Assert that a score which makes its zeros on the default device is refused."""
    with pretend_device() as move:
        x = move(STATES)
        with pytest.raises(RuntimeError, match="same device"):
            Products(lambda y, sigma: -y + torch.zeros(3, dtype=y.dtype), "forward").value(
                x, torch.tensor(1.0).double()
            )


def test_noise_is_the_same_on_the_device() -> None:
    """Assert equal bits, signs, uniforms and normals on both devices, keys from a CPU generator included."""
    here = Noise.draw(3, generator=torch.Generator().manual_seed(1))
    with pretend_device():
        there = Noise.draw(3, generator=torch.Generator().manual_seed(1), device=NAME)
        for kind in ("rademacher", "uniform", "gaussian"):
            expected = getattr(here, kind)((2, 4), step=3, probes=2)
            assert_close(back(getattr(there, kind)((2, 4), step=3, probes=2)), expected, rtol=1e-15)


@pytest.mark.parametrize("method", ["forward", "double-vjp", "finite", "auto"])
def test_products_run_on_the_device(method: str) -> None:
    """Assert that every product method of a network makes no CPU tensor on the way and gives the CPU's values."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    parameters = {name: value.detach() for name, value in network.named_parameters()}
    tangents = torch.stack([STATES.flip(0), STATES.flip(1)])

    def products(values: dict[str, Tensor], x: Tensor, t: Tensor) -> tuple[Any, ...]:
        def score(y: Tensor, sigma: Tensor) -> Tensor:
            hidden = torch.tanh(y @ values["0.weight"].T + values["0.bias"])
            return hidden @ values["2.weight"].T + values["2.bias"] - y / (1 + sigma**2)

        sigma = torch.full((), 0.5, dtype=x.dtype, device=x.device)
        chosen = choose(Products(score, method), x, sigma)
        return (*chosen.jvp(x, sigma, t), chosen.vjp(x, sigma, t)[1], *chosen.second(x, sigma, t[0]))

    expected = products(parameters, STATES, tangents)
    with pretend_device() as move:
        for value, wanted in zip(products(move(parameters), move(STATES), move(tangents)), expected, strict=True):
            assert_close(back(value), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["exact", "hutchinson", "hutchinson-gaussian", "hutch++"])
def test_traces_run_on_the_device(name: str) -> None:
    """Assert every trace on the device."""
    trace, noise = Trace.resolve(name, 6, 3), Noise.draw(4, seed=2)
    sigma = torch.tensor(0.5).double()
    expected = trace.divergence(Products(Mixture(*PARTS).score, "forward"), STATES, sigma, noise)
    with pretend_device() as move:
        law = Mixture(*PARTS).to(NAME)
        got = trace.divergence(Products(law.score, "forward"), move(STATES), move(sigma), noise.to(NAME))
        for value, wanted in zip(got, expected, strict=True):
            assert_close(back(value), wanted, rtol=1e-11)


def test_anchors_run_on_the_device() -> None:
    """Assert anchors from moments, data and a model on the device."""

    def values(mean: Tensor, covariance: Tensor, x: Tensor) -> list[Tensor]:
        anchor = GaussianAnchor(mean, covariance, rank=2)
        fitted = GaussianAnchor.from_data(x, rank=2)
        learned = GaussianAnchor.from_score(anchor.score, mean, 20.0)
        items = [anchor.log_density(x, 0.5), anchor.score(x, 0.5), fitted.log_density(x, 0.5)]
        return [*items, learned.log_density(x, 20.0), torch.as_tensor(anchor.error(fitted.score, 20.0, samples=8))]

    expected = values(*MOMENTS, STATES)
    with pretend_device() as move:
        got = values(move(MOMENTS[0]), move(MOMENTS[1]), move(STATES))
        for value, wanted in zip(got, expected, strict=True):
            assert_close(value.cpu(), wanted, rtol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {"trace": "exact"},
        {"trace": "hutchinson", "probes": 2},
        {"trace": "hutch++", "probes": 6},
        {"method": "formula", "evaluations": 200},
        {"method": "formula", "evaluations": 400, "tolerance": 0.1},
        {"method": "formula", "evaluations": 200, "formula": Formula(None, times="stratified")},
        {"method": "kernel"},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values() if isinstance(value, str | float)),
)
def test_log_density_runs_on_the_device(options: dict[str, Any]) -> None:
    """Assert every route to a log density, with levels for each state, on the device."""
    levels = torch.tensor([0.3, 0.5, 0.3, 0.5], dtype=torch.float64)

    def estimate(law: Mixture, anchor: GaussianAnchor, x: Tensor, sigma: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
        value, error = log_density(law.score, x, sigma, anchor=anchor, grid=GRID, seed=1, data=data, **options)
        return value, error

    expected = estimate(Mixture(*PARTS), GaussianAnchor(*MOMENTS), STATES, levels, PARTS[1])
    with pretend_device() as move:
        law, anchor = Mixture(*PARTS).to(NAME), GaussianAnchor(move(MOMENTS[0]), move(MOMENTS[1]))
        got = estimate(law, anchor, move(STATES), move(levels), move(PARTS[1]))
        for value, wanted in zip(got, expected, strict=True):
            assert_close(back(value), wanted, rtol=1e-8, atol=1e-10)


def test_ratio_runs_on_the_device() -> None:
    """Assert the ratio of two models on the device."""

    def ratio(law: Mixture, anchor: GaussianAnchor, x: Tensor, method: str) -> Tensor:
        return log_density_ratio(
            law.score, anchor.score, x, 0.5, new_anchor=law, anchor=anchor, grid=GRID, seed=1, method=method
        ).value

    for method in ("flow", "formula"):
        expected = ratio(Mixture(*PARTS), GaussianAnchor(*MOMENTS), STATES, method)
        with pretend_device() as move:
            law, anchor = Mixture(*PARTS).to(NAME), GaussianAnchor(move(MOMENTS[0]), move(MOMENTS[1]))
            assert_close(back(ratio(law, anchor, move(STATES), method)), expected, rtol=1e-8)


def test_points_run_on_the_device() -> None:
    """Assert that streamed points stay on their device."""
    expected = Points(PARTS[1]).log_density_and_score(STATES, 0.5)
    with pretend_device() as move:
        for value, wanted in zip(
            Points(move(PARTS[1])).log_density_and_score(move(STATES), 0.5), expected, strict=True
        ):
            assert_close(back(value), wanted, rtol=1e-10)


@pytest.mark.cuda
@pytest.mark.parametrize("method", ["flow", "formula"])
def test_log_density_on_cuda_is_that_of_the_cpu(method: str, device: torch.device) -> None:
    """Assert equal densities, with equal noise, on a real GPU (--device cuda)."""
    options: dict[str, Any] = {"method": method, "trace": "hutchinson", "probes": 4, "seed": 1, "grid": GRID}
    expected, _ = log_density(Mixture(*PARTS).score, STATES, 0.3, anchor=GaussianAnchor(*MOMENTS), **options)
    law, anchor = Mixture(*PARTS).to(device), GaussianAnchor(*(part.to(device) for part in MOMENTS))
    value, _ = log_density(law.score, STATES.to(device), 0.3, anchor=anchor, **options)
    assert_close(value.cpu(), expected, rtol=1e-8)


@pytest.mark.cuda
def test_noise_on_cuda_is_that_of_the_cpu(device: torch.device) -> None:
    """Assert the noise of a real GPU (--device cuda): bits equal, normals to rounding."""
    here, there = Noise.draw(64, seed=3), Noise.draw(64, seed=3, device=device)
    assert torch.equal(there.bits((33,), step=1, probes=2).cpu(), here.bits((33,), step=1, probes=2))
    assert_close(there.gaussian((33,), step=1).cpu(), here.gaussian((33,), step=1), rtol=1e-12)
