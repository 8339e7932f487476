"""Public implementations of sampling and of the log density along a probability flow.

All of them integrate an equation in a time t from 0 (noise) to 1 (data), which here is linear in the noise level,
`σ(t) = σ_max + t (σ_min − σ_max)`: a Runge–Kutta step in t is then the same step in σ, and packages and engine take
the same steps through the same states. The field is `dx/dt = σ̇ (x − D(x, σ))/σ`, on flat states, which is what the
packages' exact traces and zuko ask for. Each takes its own code path:

- flow_matching: `ODESolver.sample`, `ODESolver.compute_likelihood` (torchdiffeq below, one Rademacher probe a path);
- torchdiffeq: the recipe of FFJORD (Grathwohl et al. 2018, arXiv 1810.01367) and of Song et al. 2021 (arXiv
  2011.13456, `likelihood.py`), one Rademacher probe a path and one backward pass a stage, without a second graph;
- zuko: `FreeFormJacobianTransform` (one Gaussian probe a path); its solver is adaptive, so the path is cut into pieces
  with a tolerance at which it takes each in one step of seven evaluations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from sensitivity import Grid

__all__ = ["FLOW_MATCHING", "LIKELIHOODS", "SAMPLERS", "TORCHDIFFEQ", "ZUKO", "Path"]

FLOW_MATCHING, TORCHDIFFEQ, ZUKO = "flow_matching", "torchdiffeq (FFJORD recipe)", "zuko"
STAGES = 7  # evaluations of one step of zuko's solver


@dataclass
class Path:
    """A denoiser's flow between two levels, as the packages see it.

    Attributes:
        network: the denoiser D(x, σ).
        shape: of one sample.
        grid: noise levels; Heun's method takes two evaluations an interval.
        log_density: log p at σ_max of states (batch, *shape), in nats.
    """

    network: Callable[[Tensor, Tensor], Tensor]
    shape: tuple[int, ...]
    grid: Grid
    log_density: Callable[[Tensor], Tensor]

    @property
    def slope(self) -> float:
        """σ̇ = σ_min − σ_max."""
        return self.grid.sigma_min - self.grid.sigma_max

    def times(self, device: torch.device) -> Tensor:
        """t of the grid's levels, from 0 to 1, in double precision."""
        times = (self.grid.levels - self.grid.sigma_max) / self.slope
        times[0], times[-1] = 0.0, 1.0
        return times.to(device)

    def field(self, t: Tensor, x: Tensor) -> Tensor:
        """dx/dt at flat states."""
        sigma = (self.grid.sigma_max + t * self.slope).to(x)
        state = x.unflatten(1, self.shape)
        levels = sigma.expand(len(x))  # networks take a level for each sample, as the engine gives them
        return (self.slope / sigma) * (state - self.network(state, levels)).flatten(1)

    def source(self, x: Tensor) -> Tensor:
        """log p at σ_max of flat states."""
        return self.log_density(x.unflatten(1, self.shape))


class _Velocity(nn.Module):
    """The field as flow_matching calls it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.path.field(t, x)


def flow_matching_sample(path: Path, latents: Tensor) -> Tensor:
    from flow_matching.solver import ODESolver

    times = path.times(latents.device)
    solver = ODESolver(_Velocity(path))
    end = solver.sample(x_init=latents.flatten(1), step_size=None, method="heun2", time_grid=times)
    return cast(Tensor, end).unflatten(1, path.shape)


def flow_matching_likelihood(path: Path, x: Tensor, exact: bool) -> Tensor:
    from flow_matching.solver import ODESolver

    times = path.times(x.device).flip(0)
    solver = ODESolver(_Velocity(path))
    flat = x.flatten(1).clone()  # the package marks the states that it is given
    return solver.compute_likelihood(
        x_1=flat, log_p0=path.source, step_size=None, method="heun2", time_grid=times, exact_divergence=exact
    )[1]


def torchdiffeq_sample(path: Path, latents: Tensor) -> Tensor:
    from torchdiffeq import odeint

    with torch.no_grad():
        end = odeint(path.field, latents.flatten(1), path.times(latents.device), method="heun2")[-1]
    return end.unflatten(1, path.shape)


def torchdiffeq_likelihood(path: Path, x: Tensor, exact: bool) -> Tensor:
    from torchdiffeq import odeint

    flat = x.flatten(1)
    probe = torch.randint_like(flat, 2) * 2 - 1

    def joint(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            rate = path.field(t, y)
            if exact:
                count = y.shape[1]
                rows = [torch.autograd.grad(rate[:, i].sum(), y, retain_graph=i + 1 < count)[0] for i in range(count)]
                divergence = sum((row[:, i] for i, row in enumerate(rows)), torch.zeros_like(state[1]))
            else:
                divergence = (torch.autograd.grad(rate, y, probe)[0] * probe).sum(1)
        return rate.detach(), divergence

    with torch.no_grad():
        start = (flat, flat.new_zeros(len(flat)))
        states, changes = odeint(joint, start, path.times(x.device).flip(0), method="heun2")
        return path.source(states[-1]) + changes[-1]


def zuko_pieces(path: Path) -> int:
    """Pieces that zuko's solver gets: with seven evaluations each as many in all as Heun's method on the grid."""
    return max(1, round(2 * path.grid.steps / STAGES))


def zuko_likelihood(path: Path, x: Tensor, exact: bool) -> Tensor:
    from zuko.transforms import FreeFormJacobianTransform

    levels = torch.linspace(0, path.grid.steps, zuko_pieces(path) + 1).round().long()
    times = path.times(x.device).flip(0)[levels].tolist()
    flat, total = x.flatten(1), x.new_zeros(len(x))
    with torch.no_grad():
        for first, last in pairwise(times):
            piece = FreeFormJacobianTransform(path.field, t0=first, t1=last, atol=1e12, rtol=1e12, exact=exact)
            flat, change = piece.call_and_ladj(flat)
            total = total + change
        return path.source(flat) + total


LIKELIHOODS = {
    FLOW_MATCHING: flow_matching_likelihood,
    TORCHDIFFEQ: torchdiffeq_likelihood,
    ZUKO: zuko_likelihood,
}
SAMPLERS = {FLOW_MATCHING: flow_matching_sample, TORCHDIFFEQ: torchdiffeq_sample}
