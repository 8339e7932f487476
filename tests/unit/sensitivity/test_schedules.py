"""Schedules: inverses, rates, grids, and what their samplers start from."""

from __future__ import annotations

import math

import pytest
import torch
from support.close import assert_close

from sensitivity.adapters.azula import AzulaTime
from sensitivity.adapters.diffusers import ScaledTime
from sensitivity.adapters.flow_matching import DataLast
from sensitivity.scores.schedules import EDM, VE, DiscreteDDPM, RectifiedFlow, Schedule, VPCosine, VPLinear

BETA = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
DDPM = DiscreteDDPM((1 - BETA).cumprod(0))
SMOOTH: dict[str, Schedule] = {
    "vp-linear": VPLinear(),
    "vp-cosine": VPCosine(),
    "ve": VE(),
    "edm": EDM(),
    "rectified": RectifiedFlow(),
    "scaled": ScaledTime(1000.0),
    "data-last": DataLast(),
    "data-last, path noise": DataLast(0.1),
}


def azula(name: str) -> AzulaTime:
    """One of azula's schedules."""
    noise = pytest.importorskip("azula.noise")
    return AzulaTime(getattr(noise, name)())


ALL = {**SMOOTH, "ddpm": DDPM, **{n: n for n in ("VESchedule", "VPSchedule", "CosineSchedule", "RectifiedSchedule")}}


def find(name: str) -> Schedule:
    """A schedule by name."""
    value = ALL[name]
    return azula(value) if isinstance(value, str) else value


def levels(schedule: Schedule) -> torch.Tensor:
    """Levels over the whole range of a schedule."""
    return torch.logspace(math.log10(schedule.sigma_min * 1.001), math.log10(schedule.sigma_max * 0.999), 41).double()


@pytest.mark.parametrize("name", list(ALL))
def test_time_and_level_are_inverse(name: str) -> None:
    """Assert that the level at the time of σ is σ, and that the coefficients have the ratio σ."""
    schedule = find(name)
    sigma = levels(schedule)
    assert_close(schedule.level(schedule.time(sigma)), sigma, rtol=1e-9)
    _, alpha, noise = schedule.process(sigma)
    assert_close(noise / alpha, sigma, rtol=1e-9)


@pytest.mark.parametrize("name", list(ALL))
def test_process_is_time_and_coefficients(name: str) -> None:
    """Assert that coefficients taken from σ equal those at its time."""
    schedule = find(name)
    t, alpha, noise = schedule.process(levels(schedule))
    for got, wanted in zip((alpha, noise), schedule.coefficients(t), strict=True):
        assert_close(got, wanted, rtol=1e-8)


@pytest.mark.parametrize("name", list(SMOOTH))
def test_rates_are_derivatives_of_the_coefficients(name: str) -> None:
    """Assert that rates equal forward-mode derivatives in t (per unit of σ′ for scaled time)."""
    schedule = SMOOTH[name]
    t = schedule.time(levels(schedule))
    slopes = torch.func.jvp(schedule.coefficients, (t,), (torch.ones_like(t),))[1]
    unit = 1000.0 if name == "scaled" else 1.0
    for got, wanted in zip(schedule.rates(t), slopes, strict=True):
        assert_close(got, unit * wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", list(ALL))
def test_grids_run_from_the_noisiest_level_in_equal_times(name: str) -> None:
    """Assert that a grid starts at σ_max, stops at σ_min and has equal intervals of time."""
    schedule = find(name)
    grid = schedule.grid(9, "time")
    assert grid.steps == 9
    assert grid.sigma_max == pytest.approx(schedule.sigma_max, rel=1e-9)
    assert grid.sigma_min == pytest.approx(schedule.sigma_min, rel=1e-9)
    times = schedule.time(grid.levels)
    assert float(times.diff().std()) < 1e-6 * abs(schedule.start - schedule.stop)
    assert schedule.grid(5, "log").steps == 5


@pytest.mark.parametrize("name", list(ALL))
def test_latents_are_states_over_alpha(name: str) -> None:
    """Assert that states of the process at its start and latents carry over and back."""
    schedule, z = find(name), torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = schedule.to_latents(z)
    assert_close(schedule.to_process(x, schedule.sigma_max), z, rtol=1e-8)


@pytest.mark.parametrize("schedule", [VPLinear(), VPCosine(), DDPM], ids=["linear", "cosine", "ddpm"])
def test_variance_is_preserved(schedule: Schedule) -> None:
    """Assert that `α² + σ′² = 1`."""
    alpha, noise = schedule.coefficients(schedule.time(levels(schedule)))
    assert_close(alpha**2 + noise**2, torch.ones_like(alpha), rtol=1e-12)


def test_cosine_follows_its_definition() -> None:
    """Assert that `ᾱ = cos²((t + s)/(1 + s) π/2)/cos²(s/(1 + s) π/2)`."""
    t = torch.linspace(0.001, 0.99, 7, dtype=torch.float64)
    f = ((t + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    assert_close(VPCosine().coefficients(t)[0] ** 2, f / math.cos(0.008 / 1.008 * math.pi / 2) ** 2, rtol=1e-12)


def test_linear_is_the_integral_of_beta() -> None:
    """Assert that `−2 log α = ∫ β` for a rate that is linear in time."""
    t = torch.linspace(0, 1, 20001, dtype=torch.float64)
    area = torch.cumulative_trapezoid(0.1 + 19.9 * t, t)
    assert_close(-2 * VPLinear().coefficients(t[1:])[0].log(), area, rtol=1e-8)


def test_ddpm_levels_are_those_of_the_table() -> None:
    """Assert that integer times have exactly the table's coefficients, and grids take integer times only."""
    t = torch.arange(0, 1000, 111, dtype=torch.float64)
    alpha, noise = DDPM.coefficients(t)
    table = (1 - BETA).cumprod(0)[t.long()]
    assert_close(alpha, table.sqrt(), rtol=1e-12)
    assert_close(noise, (1 - table).sqrt(), rtol=1e-12)
    times = DDPM.time(DDPM.grid(10).levels)
    assert_close(times, times.round(), atol=1e-9)


def test_zero_terminal_snr_starts_at_the_last_finite_level() -> None:
    """Assert that times with ᾱ = 0 are left out."""
    schedule = DiscreteDDPM([0.9, 0.5, 0.1, 0.0])
    assert schedule.start == 2.0
    assert schedule.sigma_max == pytest.approx(3.0)


def test_integer_times_are_rounded_only_for_the_network() -> None:
    """Assert that rounded times leave the coefficients those of σ itself."""
    schedule = DiscreteDDPM((1 - BETA).cumprod(0), integer_times=True)
    sigma = torch.tensor([0.5, 3.0], dtype=torch.float64)
    t, alpha, noise = schedule.process(sigma)
    assert_close(t, t.round(), rtol=0, atol=0)
    assert_close(noise / alpha, sigma, rtol=1e-12)


def test_time_works_inside_transforms_and_leaves_nothing_behind() -> None:
    """Assert that a first call under `vmap` and `jvp` does not poison later ones."""
    schedule = DiscreteDDPM((1 - BETA).cumprod(0))
    sigma = torch.tensor([0.5, 3.0], dtype=torch.float64)
    inside = torch.func.vmap(schedule.time)(sigma)
    torch.func.jvp(schedule.time, (sigma,), (sigma,))
    assert_close(schedule.time(sigma), inside, rtol=1e-12)
