"""How far Itô's log density is off, measured by halving the step.

Along the reverse SDE the carried log density L has a mean error that falls in proportion to the step (`sde`). Two runs
on one Brownian path, with steps h and h/2, see it: E[L_h] − E[L_{h/2}] is half the error of the coarse run, plus half
the change of E[log p] through the samples themselves, which is of the same order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sensitivity.densities.estimate import Estimate
from sensitivity.grid import Grid
from sensitivity.jacobians.trial import VALUES
from sensitivity.readings.prepare import UNCHANGED, Options, prepare
from sensitivity.sampler.path import follow, sampling
from sensitivity.sampler.sde import SDE
from sensitivity.sampler.step import required
from sensitivity.scores.score import Score


def ito_step_bias(
    score: Score,
    latents: Tensor,
    grid: Grid,
    *,
    anchor: Any,
    solver: SDE | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    trace: str = "auto",
    probes: int | None = None,
) -> Estimate:
    """Mean error of Itô's log density on a grid, in nats: 2 (E[L_h] − E[L_{h/2}]) over the latents.

    Args:
        score: s(x, σ).
        latents: states at σ_max, (batch, *shape), at least two.
        grid: the levels of the run that is judged; it is compared with `grid.refined(2)`.
        anchor: log density at σ_max.
        solver: `SDE(...)` with the settings of the run.
        generator, seed, trace, probes: as for `sample_sensitivity`.

    Returns:
        the estimate and its standard error over latents, 0-d.

    Raises:
        ValueError: for fewer than two latents, or as `sample_sensitivity`.

    Example:
        >>> from sensitivity import GaussianAnchor, Mixture
        >>> law = Mixture(torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), torch.full((2, 1, 1), 0.1))
        >>> latents = 10 * torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
        >>> bias = ito_step_bias(law.score, latents, Grid(10.0, 0.1, 10), anchor=law, seed=0)
        >>> bool(bias.value > 3 * bias.standard_error)
        True
    """
    if latents.shape[0] < 2:
        raise ValueError(f"latents has shape {tuple(latents.shape)}; a standard error needs at least two latents.")
    judged = solver or SDE()
    if generator is not None and seed is not None:
        raise ValueError("generator and seed both fix the noise; give one of them.")
    if seed is None:
        # One number for both runs, so that they share their Brownian path.
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device if generator else None))
    twice = replace(judged, refinement=2 * judged.refinement)
    options = Options(anchor=anchor, trace=trace, probes=probes, seed=seed, solver=twice)
    coarse = _log_density(score, latents, grid, options)
    fine = _log_density(score, latents, grid.refined(2), replace(options, solver=judged))
    gap = 2 * (coarse - fine)
    return Estimate(gap.mean(), gap.std() / len(gap) ** 0.5, degrees=len(gap) - 1)


def _log_density(score: Score, latents: Tensor, grid: Grid, options: Options) -> Tensor:
    prepared = prepare(score, latents, UNCHANGED, grid, options, uses=VALUES, density=options.anchor is not None)
    end = follow(prepared.start(), prepared.path, sampling(prepared.maps), advance=prepared.advance)
    return required(end.logs)[0].mean(0)
