"""Half precision, from autocast and from states: the network may have it, the package's own arithmetic never."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
import torch
from support.close import assert_close
from torch import Tensor, nn

from sensitivity import (
    SDE,
    GaussianAnchor,
    Grid,
    Mixture,
    Move,
    Points,
    Remove,
    Toward,
    as_score,
    influence,
    log_density,
    resample,
    sample_sensitivity,
    score_derivative,
)
from sensitivity.noise import Noise
from sensitivity.readings.point_kernels import Block, Stages
from sensitivity.scores.schedules import DiscreteDDPM

D = 12
HALVES = (torch.float16, torch.bfloat16)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def autocast() -> AbstractContextManager[None]:
    """Half precision in every matrix product that is not protected."""
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def data() -> Tensor:
    """Correlated points, so that anchors have axes of their own."""
    return draw(60, D) @ draw(D, D, seed=1) / D**0.5 + 0.5


def test_anchors_keep_their_digits_under_autocast(data: Tensor) -> None:
    """Assert equal bits of log densities, scores, products, divergences and draws of a full-covariance anchor."""
    q, x, sigma = GaussianAnchor.from_data(data), 80 * draw(8, D, seed=2), torch.tensor(80.0)
    noise = Noise.draw(4, seed=0)

    def all_of_it() -> list[Tensor]:
        return [
            q.log_density(x, sigma),
            q.score(x, sigma),
            q.score_product(x, sigma, x),
            q.divergence(sigma),
            q.sample(noise, sigma),
            GaussianAnchor.from_data(data).log_density(x, sigma),
            GaussianAnchor.from_score(q.score, data.mean(0), 80.0, rank=3, samples=4).eigenvalues,
        ]

    with autocast():
        cast = all_of_it()
    for one, other in zip(cast, all_of_it(), strict=True):
        assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("level", [3.0, 0.05])
def test_kernels_of_points_keep_their_digits_under_autocast(data: Tensor, level: float) -> None:
    """Assert equal bits of the pairing of points with stages, at high noise (expanded) and low (selected)."""
    x = data[:6] + level * draw(6, D, seed=3)

    def against() -> Tensor:
        stages = Stages(
            x[None], torch.tensor([level]), draw(1, 6, D, seed=4), draw(1, 6, seed=5), draw(2, 1, 6, D, seed=6)
        )
        stages.choose_ways(0.0, float(data.norm(dim=1).max()))
        return stages.against(Block(data, 0.0, data.double().square().sum(1)))

    with autocast():
        cast = against()
    assert_close(cast, against(), rtol=0, atol=0)


@pytest.mark.parametrize("trace", ["exact", "hutch++"])
def test_whole_runs_keep_their_digits_under_autocast(data: Tensor, trace: str) -> None:
    """Assert equal samples, sensitivities, log densities, influences and finite masses for an exact law."""
    law = Mixture(None, data[:5], 0.3)
    q, grid, latents = GaussianAnchor.from_data(data), Grid(20.0, 0.1, 8), 20 * draw(3, D, seed=7)
    points, options = Points(data[:9], bandwidth=0.3), {"trace": trace, "probes": 6, "seed": 0}

    def first(x: Tensor) -> Tensor:
        return x[:, 0]

    def all_of_it() -> list[Tensor]:
        run = sample_sensitivity(law.score, latents, Toward(points), grid, anchor=q, **options)
        moved = sample_sensitivity(law.score, latents, Move(points, 0.1 + 0 * data[:9]), grid, anchor=q, **options)
        influences = influence(law.score, latents, first, points, grid, anchor=q, **options)
        new = resample(law.score, latents, Remove(points), -0.05, grid, anchor=q, **options)
        sde = resample(law.score, latents, Toward(points), 0.1, grid, anchor=q, solver=SDE(correction=True), **options)
        density = log_density(law.score, latents / 20, 0.5, anchor=q, **options).value
        return [
            run.sensitivity,
            run.log_density,
            moved.sensitivity,
            influences.values,
            new.samples,
            sde.log_density,
            density,
        ]

    with autocast():
        cast = all_of_it()
    for one, other in zip(cast, all_of_it(), strict=True):
        assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_states_are_computed_in_single_precision(data: Tensor, dtype: torch.dtype) -> None:
    """Assert the results of the same states in float32, in float32, from every public entry."""
    law, grid = Mixture(None, data[:5], 0.3), Grid(20.0, 0.1, 8)
    half = (20 * draw(3, D, seed=7)).to(dtype)
    points = Points(data[:9], bandwidth=0.3)

    def all_of_it(x: Tensor, y: Tensor) -> list[Tensor]:
        return [
            sample_sensitivity(law.score, x, Toward(points), grid, anchor=law).sensitivity,
            influence(law.score, x, lambda z: z[:, 0], points, grid, anchor=law).values,
            resample(law.score, x, Toward(points), 0.1, grid, anchor=law).samples,
            score_derivative(law.score, y, 0.5, Toward(points), log_density=law),
            log_density(law.score, y, 0.5, anchor=law).value,
        ]

    small = (half / 20).to(dtype)
    for one, other in zip(all_of_it(half, small), all_of_it(half.float(), small.float()), strict=True):
        assert one.dtype == torch.float32
        assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_states_of_a_network_are_rounded_once(dtype: torch.dtype) -> None:
    """Assert the score of a float32 network at half-precision states: that of float32, rounded at the end."""
    torch.manual_seed(0)
    network = nn.Linear(D, D).eval().requires_grad_(False)
    table = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    score = as_score(lambda z, t: network(z) * (t / 1000)[:, None], "noise", DiscreteDDPM(table))
    x, sigma = draw(4, D).to(dtype), torch.tensor([0.05, 1.0, 20.0, 157.0])
    assert_close(score(x, sigma), score(x.float(), sigma).to(dtype), rtol=0, atol=0)


def test_a_float32_network_takes_float64_states_and_any_network_its_own_dtype() -> None:
    """Assert that `as_score` casts as adapters do, with times that keep their precision."""
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    class Timed(nn.Module):
        def __init__(self, dtype: torch.dtype) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(D, D).to(dtype)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            """W x/t."""
            seen.append((x.dtype, t.dtype))
            return self.layer(x) / t[:, None].to(x.dtype)

    x, sigma = draw(4, D).double(), torch.tensor(2.0, dtype=torch.float64)
    wanted = as_score(Timed(torch.float64).requires_grad_(False))(x, sigma)
    for dtype, error in ((torch.float32, 1e-5), (torch.bfloat16, 5e-2)):
        seen.clear()
        network = as_score(Timed(dtype).requires_grad_(False))(x, sigma)
        assert set(seen) == {(dtype, torch.float32)}
        assert network.dtype == torch.float64
        assert float((network - wanted).abs().max()) < error
    run = sample_sensitivity(
        as_score(Timed(torch.float32)), x, Toward(Points(x)), Grid(2.0, 1.0, 2), anchor=GaussianAnchor(x[0], 1.0)
    )
    assert run.sensitivity.dtype == torch.float64


def test_a_network_that_mixes_dtypes_is_named() -> None:
    """Assert a sentence where a half-precision network joins single-precision times to its states."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(D + 1, D).to(torch.bfloat16)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            """W [x, t]."""
            return self.layer(torch.cat([x, t[:, None]], 1))

    with pytest.raises(TypeError, match="cannot mix its dtypes"):
        as_score(Joined())(draw(2, D), 1.0)


def test_levels_may_require_gradients() -> None:
    """Assert that a level's bounds are read without a warning and that its derivative is kept."""
    table = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    score = as_score(lambda z, t: z, "noise", DiscreteDDPM(table))
    sigma = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(score(torch.ones(1, 3, dtype=torch.float64), sigma).sum(), sigma)
    # s = −x/(σ √(1 + σ²)), whose logarithmic derivative is −(1 + 2σ²)/(σ (1 + σ²)).
    assert_close(slope, torch.tensor(3 / (2 * 5**0.5) * 9 / 10, dtype=torch.float64), rtol=1e-9)
