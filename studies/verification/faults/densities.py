"""Log densities along the probability flow, right by default and wrong by one option.

`dx/dσ = −σ s`, `d log p/dσ = σ div s`, integrated upward from σ to σ_max by Heun's method; there the anchor answers
(Song et al., arXiv 2011.13456, eq. 39).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from studies.verification.faults.base import planting, variant
from studies.verification.faults.products import along, at_level, generator, rademacher, trace
from studies.verification.problem import Problem

__all__ = ["CORRECT", "FAULTS", "STAGES", "fitting_order", "flow_density", "log_ratio", "probed_density"]

Rate = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
# Node of each stage, from which the state ahead is made with the slope before, and its weight in the step.
STAGES = {
    1: ((0.0, 1.0),),
    2: ((0.0, 0.5), (1.0, 0.5)),
    4: ((0.0, 1 / 6), (0.5, 1 / 3), (0.5, 1 / 3), (1.0, 1 / 6)),
}


def flow_density(
    problem: Problem,
    *,
    divergence: float = 1.0,
    prior: str = "anchor",
    coordinates: str = "x",
    euler_steps: int = 0,
) -> Tensor:
    """`log p_σ(x)` (n,) with the exact trace."""

    def rate(x: Tensor, sigma: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        field = at_level(problem.score, sigma)
        return -sigma * field(x), divergence * sigma * trace(field, x)

    if euler_steps:
        levels = torch.linspace(problem.sigma, problem.grid.sigma_max, euler_steps + 1, dtype=torch.float64)
        end, increment = upward(rate, problem.x, levels, order=1)
    else:
        end, increment = upward(rate, problem.x, problem.grid.levels.flip(0), fitting_order(problem.x.shape[1]))
    value = _prior(problem, end, prior) - increment
    if coordinates == "z":  # the density of z = x/√(1 + σ²), the state of a variance-preserving process
        value = value + 0.5 * problem.x.shape[1] * math.log1p(problem.sigma**2)
    return value


def _prior(problem: Problem, x: Tensor, kind: str) -> Tensor:
    if kind == "anchor":
        return problem.anchor.log_density(x, problem.grid.sigma_max)
    variance = problem.grid.sigma_max**2
    return -0.5 * x.square().sum(1) / variance - 0.5 * x.shape[1] * math.log(2 * math.pi * variance)


def upward(rate: Rate, x: Tensor, levels: Tensor, order: int = 2) -> tuple[Tensor, Tensor]:
    """State and increment after steps of order 1, 2 or 4 (Euler, Heun, Runge and Kutta) through ascending levels."""
    total: Tensor = torch.zeros((), dtype=x.dtype)
    for index, (low, high) in enumerate(pairwise(levels)):
        slopes: list[tuple[Tensor, Tensor]] = []
        for stage, (node, _) in enumerate(STAGES[order]):
            ahead = x + node * (high - low) * slopes[-1][0] if slopes else x
            slopes.append(rate(ahead, low + node * (high - low), len(STAGES[order]) * index + stage))
        moves = [(weight * dx, weight * dl) for (_, weight), (dx, dl) in zip(STAGES[order], slopes, strict=True)]
        x = x + (high - low) * sum(move[0] for move in moves)
        total = total + (high - low) * sum(move[1] for move in moves)
    return x, total


def fitting_order(d: int) -> int:
    """Heun's method in few dimensions; at image size its error in log p, which grows with d, would be nats."""
    return 2 if d <= 200 else 4


def probed_density(problem: Problem, *, fresh: bool = True, bars: str = "honest") -> tuple[Tensor, Tensor]:
    """`log p_σ(x)` (n,) with random probes, fresh at every stage, and its standard error over them.

    Every probe carries its own integral; their mean is the estimate.
    """
    source, k = generator(problem), problem.probes
    kept = rademacher((k, *problem.x.shape), source)

    def rate(x: Tensor, sigma: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        probes = rademacher((k, *x.shape), source) if fresh else kept
        field = at_level(problem.score, sigma)
        per_probe = (along(field, x, probes) * probes).sum(2)
        return -sigma * field(x), sigma * per_probe

    end, increments = upward(rate, problem.x, problem.grid.levels.flip(0), fitting_order(problem.x.shape[1]))
    values = problem.anchor.log_density(end, problem.grid.sigma_max) - increments
    spread = values.std(0) / k**0.5
    return values.mean(0), (spread / k**0.5 if bars == "overconfident" else spread)


def one_probe_without_mean(problem: Problem) -> Tensor:
    """One probe, kept for the whole path: unbiased, and so noisy as to be useless."""
    probe = rademacher((1, *problem.x.shape), generator(problem))

    def rate(x: Tensor, sigma: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        field = at_level(problem.score, sigma)
        return -sigma * field(x), sigma * (along(field, x, probe) * probe).sum(2)[0]

    end, increment = upward(rate, problem.x, problem.grid.levels.flip(0), fitting_order(problem.x.shape[1]))
    return problem.anchor.log_density(end, problem.grid.sigma_max) - increment


def log_ratio(problem: Problem, *, sign: float = 1.0, noised: bool = True, normalised: bool = True) -> Tensor:
    """`log ν_σ(x) − log p_σ(x)` (n,)."""
    level = problem.sigma if noised else 1e-3 * problem.sigma
    other = problem.perturbation.measure.log_density(problem.x, level)
    if not normalised:
        other = other + 0.5 * problem.x.shape[1] * math.log(2 * math.pi)
    return sign * (other - flow_density(problem))


def probed_ratio(problem: Problem) -> tuple[Tensor, Tensor]:
    """The same with a probed density: the standard error is that of the density."""
    density, spread = probed_density(problem)
    return problem.perturbation.measure.log_density(problem.x, problem.sigma) - density, spread


def early_anchor(problem: Problem) -> Tensor:
    """Adds the anchor at the state asked about instead of at the path's end."""
    end_value = flow_density(problem)
    shift = problem.anchor.log_density(problem.x, problem.grid.sigma_max)
    return end_value + shift - _moved_anchor(problem)


def _moved_anchor(problem: Problem) -> Tensor:
    def rate(x: Tensor, sigma: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        return -sigma * problem.score(x, sigma), torch.zeros(len(x), dtype=x.dtype)

    end, _ = upward(rate, problem.x, problem.grid.levels.flip(0), fitting_order(problem.x.shape[1]))
    return problem.anchor.log_density(end, problem.grid.sigma_max)


of_flow_density = planting("log-density", flow_density)
of_log_ratio = planting("log-density-ratio", log_ratio)
FAULTS = (
    of_flow_density("density_with_doubled_divergence", "the divergence counts twice along the path.", divergence=2.0),
    of_flow_density("density_with_wrong_sign", "the integral is subtracted where it is to be added.", divergence=-1.0),
    of_flow_density("standard_prior", "the law at σ_max is taken as N(0, σ_max² I).", prior="normal"),
    of_flow_density(
        "density_of_z",
        "the density of z = αx is returned for that of x: d log α is missing.",
        where=lambda case: case.base.dimension * case.sigma**2 > 0.04,
        says="constant offset",
        coordinates="z",
    ),
    of_flow_density("too_few_steps", "twenty even Euler steps do not resolve low noise.", euler_steps=20),
    planting("log-density", early_anchor)(
        "anchor_at_the_start", "the anchor is evaluated at the state asked about, not at the end of its path."
    ),
    planting("log-density", one_probe_without_mean)(
        "kept_probe",
        "one random probe is kept for the whole path: its errors add up instead of averaging out.",
        checks=("noise",),
        where=lambda case: case.base.dimension > 3,
    ),
    planting("log-density", probed_density)(
        "overconfident_density",
        "the standard error of the density is divided by √K twice.",
        checks=("error bars",),
        where=lambda case: case.base.dimension > 1,
        bars="overconfident",
    ),
    of_log_ratio("ratio_inverted", "log p − log ν is returned.", says="the sign is reversed", sign=-1.0),
    of_log_ratio("unnoised_measure", "ν itself is compared with the noised ρ.", noised=False),
    of_log_ratio(
        "missing_normaliser", "the factor (2π)^(−d/2) of ν is dropped.", says="constant offset", normalised=False
    ),
)

CORRECT = {
    "log-density": {
        "flow_density": variant(flow_density, "flow_density"),
        "probed_density": variant(probed_density, "probed_density"),
    },
    "log-density-ratio": {
        "log_ratio": variant(log_ratio, "log_ratio"),
        "probed_ratio": variant(probed_ratio, "probed_ratio"),
    },
}
