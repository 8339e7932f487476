"""Plain samples of the probability flow or the reverse SDE, with their log densities where asked for."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from sensitivity._callables import outside_inference_mode
from sensitivity.grid import Grid
from sensitivity.jacobians.trial import VALUES
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.readings.chunks import Latents, joined
from sensitivity.readings.prepare import UNCHANGED, Options, Prepared, prepare
from sensitivity.sampler.local_maps import Cost, LocalMaps
from sensitivity.sampler.outcome import Outcomes, Watch
from sensitivity.sampler.path import follow, logs_of, mark_log_error, observed
from sensitivity.sampler.step import Rate, Slope, State
from sensitivity.sampler.tableau import Step
from sensitivity.scores.score import Score


@dataclass(frozen=True)
class Sampled:
    """Samples.

    Attributes:
        samples: x(σ_min), (batch, *shape), or D(x(σ_min)) with `denoise`; a halted sample keeps its last good state.
        log_density: log p_σ_min at x(σ_min) in nats, (batch,), or None if not asked for; one row a branch if guided.
        log_density_error: its standard error from independent probe groups; 0 for an exact trace, NaN for one probe.
        grid_error: the grid's error of `log_density` in nats (see `Estimate`); NaN along a stochastic path.
        outcome: how each sample ended.
        cost: network evaluations and Jacobian products per sample.
        grid: the noise levels; those that an adaptive solver accepted.
    """

    samples: Annotated[Tensor, Latents()]
    log_density: Annotated[Tensor | None, Latents(1, "maps")]
    log_density_error: Annotated[Tensor | None, Latents(1, "maps")]
    grid_error: Annotated[Tensor | None, Latents(1, "maps")]
    outcome: Outcomes
    cost: Cost
    grid: Grid


@outside_inference_mode
def sample(
    score: Score,
    latents: Tensor,
    grid: Grid,
    *,
    solver: Any = "heun",
    log_density: bool = False,
    anchor: Any = None,
    trace: str = "auto",
    probes: int | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    control: GaussianAnchor | None = None,
    denoise: bool = False,
    chunk_size: int | None = None,
    products: str = "auto",
    progress: Any = False,
    differentiable: bool = False,
) -> Sampled:
    """Samples from latents at σ_max; with `log_density`, log p_σ_min of each, taken along the states on the way.

    Without `log_density` no derivative of the network is taken, and `anchor`, `trace`, `probes`, `control` and
    `products` play no part.

    Args:
        score: s(x, σ) in variance-exploding coordinates, see `as_score`; or `guided(...)`.
        latents: states at σ_max (already scaled), (batch, *shape).
        grid: noise levels.
        solver: as for `sample_sensitivity`.
        log_density: whether log densities are carried along; needs an `anchor`.
        anchor: log density at σ_max, such as `GaussianAnchor.from_data(data)`; under guidance `PerBranch`.

    Other args:
        trace, probes, generator, seed, control, denoise, chunk_size, products, progress: as for `sample_sensitivity`.
        differentiable: keep the graph to the latents and the network's parameters.

    Raises:
        ValueError, TypeError: for arguments that do not fit, with the remedy.

    Source: Song et al. 2021, arXiv 2011.13456.

    Example:
        >>> law = GaussianAnchor(torch.zeros(2).double(), 1.0)
        >>> result = sample(law.score, torch.zeros(1, 2).double(), Grid(10.0, 0.1, 40), log_density=True, anchor=law)
        >>> print(f"{float(result.log_density):.3f}")  # N(0, 1.01 I) at its mean: −log(2.02π)
        -1.848
    """
    if not isinstance(log_density, bool):
        raise TypeError(f"log_density={log_density!r} says whether log densities are wanted; give True or False.")
    if log_density and anchor is None:
        raise ValueError("log_density=True needs anchor, the log density at sigma_max; GaussianAnchor.from_data(data).")
    options = Options(
        anchor=anchor if log_density else None,
        trace=trace,
        probes=probes,
        generator=generator,
        seed=seed,
        solver=solver,
        denoise=denoise,
        products=products,
        differentiable=differentiable,
        control=control,
        progress=progress,
    )
    with nullcontext() if differentiable else torch.no_grad():
        prepared = prepare(score, latents, UNCHANGED, grid, options, uses=VALUES, density=log_density)
        return joined([_sampled(chunk) for chunk in prepared.chunks(chunk_size)])


def _sampled(prepared: Prepared) -> Sampled:
    watch = Watch(prepared.latents.shape[0], prepared.latents.device)
    slope = watched(prepared.maps, watch)
    at_min = follow(prepared.start(), prepared.told(prepared.path), slope, watch, advance=prepared.advance)
    end = follow(at_min, prepared.told(prepared.final), slope, watch)
    seen = end if prepared.denoise else observed(prepared.maps, at_min, prepared.last, watch)
    return Sampled(end.x, *logs_of(prepared.maps, seen), watch.read(), prepared.maps.cost, prepared.grid)


def watched(maps: LocalMaps, watch: Watch) -> Slope:
    """Slope of plain sampling that marks log densities of too large an error."""

    def slope(step: Step, stage: int, state: State) -> Rate:
        local = maps.values(state.x, None, step, stage)
        carried = maps.carried(step, stage, state, local)
        mark_log_error(watch, maps, carried, step.table.levels[stage])
        return maps.rate(local, local.drift, None, carried)

    return slope
