"""True errors of sensitivities: the exact tangent flow of an exact law, its log density exact and not carried.

The reference shares no code with the sampler: fixed steps of a classical fourth-order rule in log σ on (x, δ), with
log p from the law itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sensitivity import DiscreteDDPM, Grid, Mixture, RectifiedFlow, SampleSensitivity, Toward, sample_sensitivity
from support.strategies import Images

DDPM = DiscreteDDPM((1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0))
GRIDS = {
    "karras 20": Grid(20.0, 0.05, 20),
    "karras 50": Grid(20.0, 0.05, 50),
    "to .002": Grid(80.0, 0.002, 40),
    "log 30": Grid(20.0, 0.02, 30, spacing="log"),
    "linear 30": Grid(5.0, 0.1, 30, spacing="linear"),
    "ddpm 50": DDPM.grid(50),
    "flow matching 50": RectifiedFlow().grid(50),
    "flow matching 20": RectifiedFlow().grid(20),
}
SOLVERS = ("euler", "heun", "exponential", "2m", "rk4")


class Case(NamedTuple):
    """An exact law, what it is moved toward, its latents from σ_max, and the trace that is exact for it."""

    law: Any
    change: Toward
    latents: Callable[[float], Tensor]
    trace: str


def case(law: Images, seed: int) -> Case:
    """Toward one of the law's own components, shifted by .9 of a standard deviation in a random direction."""
    rng = np.random.default_rng(seed)
    base = Mixture(*(torch.from_numpy(part) for part in law), covariance_type="diagonal")
    k = int(rng.integers(len(law.weights)))
    direction = rng.standard_normal(law.means.shape[1])
    mean = law.means[k] + 0.9 * np.sqrt(law.variances[k]) * direction / np.linalg.norm(direction)
    new = Mixture(
        None, torch.from_numpy(mean)[None], torch.from_numpy(law.variances[k : k + 1]), covariance_type="diagonal"
    )
    several = len(law.weights) > 1
    trace = "exact" if several or law.means.shape[1] <= 16 else "hutchinson"  # signs are exact for one component
    return Case(base, Toward(new), partial(latents, law, seed=seed), trace)


def latents(law: Images, sigma_max: float, seed: int, count: int = 2) -> Tensor:
    """States at σ_max drawn from the noised law itself, (count, d)."""
    rng = np.random.default_rng(seed)
    which = rng.choice(len(law.weights), count, p=law.weights)
    spread = np.sqrt(law.variances[which] + sigma_max**2)
    return torch.from_numpy(law.means[which] + spread * rng.standard_normal(spread.shape))


def exact(law: Any, change: Toward, x: Tensor, grid: Grid, steps: int = 400) -> tuple[Tensor, Tensor]:
    """x and δ at σ_min of the exact flow."""
    levels = torch.linspace(np.log(grid.sigma_max), np.log(grid.sigma_min), steps + 1, dtype=torch.float64)
    z = torch.stack([x, torch.zeros_like(x)])
    for a, b in pairwise(levels):
        k1 = _rate(law, change, z, a)
        k2 = _rate(law, change, z + (b - a) / 2 * k1, (a + b) / 2)
        k3 = _rate(law, change, z + (b - a) / 2 * k2, (a + b) / 2)
        k4 = _rate(law, change, z + (b - a) * k3, b)
        z = z + (b - a) / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return z[0], z[1]


def _rate(law: Any, change: Toward, z: Tensor, log_sigma: Tensor) -> Tensor:
    sigma = log_sigma.exp()
    logs, score = law.log_density_and_score(z[0], sigma)
    moved = law.score_product(z[0], sigma, z[1])
    source = change.source(z[0], sigma, score, logs)
    return -(sigma**2) * torch.stack([score, moved + source])


def stated_and_true(problem: Case, grid: Grid, solver: Any, **options: Any) -> tuple[SampleSensitivity, Tensor, Tensor]:
    """The result, the true error |δ − δ_exact| and the stated one, (batch,)."""
    law, change, x = problem.law, problem.change, problem.latents(grid.sigma_max)
    asked = {"anchor": law, "trace": problem.trace, "probes": 2, "seed": 0, "solver": solver, **options}
    sensitivities = sample_sensitivity(law.score, x, change, grid, **asked)
    true = (sensitivities.sensitivity - exact(law, change, x, grid)[1]).norm(dim=1)
    return sensitivities, true, sensitivities.sensitivity_error
