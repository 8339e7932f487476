"""Sensitivity of samples: the tangent of the sampler.

With x_η(σ_max) fixed, δ = d x_η(σ_min)/dη at η = 0 solves dδ/dσ = −σ (∇s δ + ṡ), δ(σ_max) = 0, where ṡ is the change of
the score per unit mass moved and needs log p_σ(x), which is carried along the path (Scarvelis & Solomon 2025,
arXiv 2509.23092, section 3). The discrete sampler is differentiated, not the equation: δ is the exact derivative of the
computed sample in the mass, at the carried log density.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sensitivity._callables import outside_inference_mode
from sensitivity.grid import Grid
from sensitivity.jacobians.trial import Uses
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.readings.prepare import Options, Prepared, prepare
from sensitivity.readings.results import SampleSensitivity, Trajectory, of_chunks
from sensitivity.readings.second_order import curvature_slope
from sensitivity.responses import POPULATION, PopulationResponse, Response, chosen, note
from sensitivity.sampler.carried_density import Memory
from sensitivity.sampler.carried_network import CarriedContamination
from sensitivity.sampler.local_maps import LocalMaps
from sensitivity.sampler.outcome import Outcome, Watch
from sensitivity.sampler.path import follow, log_errors, logs_of, mark_log_error, observed
from sensitivity.sampler.sde import Stochastic
from sensitivity.sampler.step import Rate, Slope, State, required
from sensitivity.sampler.tableau import Step
from sensitivity.sampler.truncation import Truncation, tangent_node
from sensitivity.scores.score import Score

PRODUCT_ERROR_LIMIT = 0.1
"""Stated relative error of Jacobian products above which no sample is called finished."""


@outside_inference_mode
def sample_sensitivity(
    score: Score,
    latents: Tensor,
    perturbation: Any,
    grid: Grid,
    *,
    anchor: Any = None,
    trace: str = "auto",
    probes: int | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    solver: Any = "heun",
    order: int = 1,
    denoise: bool = False,
    standard_error: bool = False,
    trajectory: bool = False,
    chunk_size: int | None = None,
    products: str = "auto",
    progress: Any = False,
    control: GaussianAnchor | None = None,
    differentiable: bool = False,
    response: Response = POPULATION,
) -> SampleSensitivity:
    """Samples and their sensitivities dx/dη toward a perturbation of the data, for fixed latents.

    Args:
        score: s(x, σ) in variance-exploding coordinates, see `as_score`; or `guided(...)`.
        latents: states at σ_max (already scaled), (batch, *shape); halves are computed, and come back, in float32.
        perturbation: what changes, per unit mass, such as `Toward(Points(new))`; a sequence shares the network calls;
            under guidance `PerBranch`.
        grid: noise levels.
        anchor: log density at σ_max, such as `GaussianAnchor.from_data(data)`;
            needed if the perturbation needs a density.
        response: how the score answers the change: as the optimum, `PopulationResponse()`; through its parameters,
            `ParameterResponse(...)`; by the training run that made them, `UnrolledResponse(...)`; by local patches,
            `LocalResponse(...)`. The last three take no anchor, trace, probes or control, and give no log ratio (NaN).

    Other args:
        trace: how div s is taken, "exact", "hutchinson", "hutchinson-gaussian", "hutch++" or "auto" (exact in small
            dimension).
        probes: number of random probes per stage.
        generator, seed: source of the probes' noise.
        solver: "euler", "heun", "rk4", "dopri5", "exponential", "2m" (two-step exponential, one call a step),
            "adaptive" (its own levels between the grid's ends), "sde" (reverse SDE with common noise), or
            `Adaptive(...)`, `SDE(...)` with settings.
        order: 2 adds the second derivative ζ; costs one more derivative of every product.
        denoise: return D(x(σ_min)) and its sensitivity.
        standard_error: estimate the error of the sensitivity by the jackknife over probe groups; costs K·groups more
            tangents in each network call. An exact trace has no error.
        trajectory: keep states, sensitivities and log ratios of every level, for figures.
        chunk_size: latents computed at once.
        control: a Gaussian q; Hutchinson's probes then see only div (s − s^q), which has less noise at no network cost.
        products: how Jacobian products are taken, see `Products`.
        progress: True for a line on standard error, or a function of (steps done, total, rate a second, seconds
            left); see `sensitivity.progress`.
        differentiable: keep the graph for a derivative in the network's parameters or the latents.

    Raises:
        ValueError, TypeError: for arguments that do not fit, with the remedy.

    Example:
        >>> from sensitivity import Mixture, Toward
        >>> base = Mixture(torch.tensor([1.0]), torch.zeros(1, 1), torch.ones(1, 1, 1))
        >>> new = Mixture(torch.tensor([1.0]), torch.ones(1, 1), torch.ones(1, 1, 1))
        >>> latents, grid = torch.tensor([[3.0]]), Grid(10.0, 0.1, 20)
        >>> result = sample_sensitivity(base.score, latents, Toward(new), grid, anchor=base)
        >>> result.outcome.sentence
        '1 of 1 samples finished.'
    """
    source_response = None if isinstance(chosen(response), PopulationResponse) else response
    options = Options(
        anchor=anchor,
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
        response=source_response,
    )
    if source_response is not None and order != 1:
        raise ValueError(f"order={order!r} is known for PopulationResponse() only; use order=1 with other responses.")
    prepared = prepare(score, latents, perturbation, grid, options, uses=Uses(second=order == 2))
    _check_order(order, standard_error, prepared)
    parts = [_forward(chunk, order, standard_error, trajectory) for chunk in prepared.chunks(chunk_size)]
    result = of_chunks(parts, prepared.single)
    return replace(result, outcome=replace(result.outcome, note=note(score) if source_response is None else ""))


def _check_order(order: int, standard_error: bool, prepared: Prepared) -> None:
    if order not in (1, 2):
        raise ValueError(f"order={order!r} is not implemented; give 1 for the sensitivity or 2 for its derivative too.")
    if order == 1:
        return
    if standard_error:
        raise ValueError("standard_error is known for order=1 only; leave one of the two out.")
    if prepared.maps.trace is not None and prepared.maps.trace.name == "hutch++":
        raise ValueError("trace='hutch++' has no second order; use trace='exact' or 'hutchinson'.")
    if isinstance(prepared.advance, Stochastic) and prepared.advance.solver.correction:
        raise ValueError("SDE(correction=True) has no second order; use SDE(correction=False).")


def _forward(prepared: Prepared, order: int, standard_error: bool, trajectory: bool) -> SampleSensitivity:
    x, maps = prepared.latents, prepared.maps
    groups = maps.trace.groups if standard_error and maps.trace is not None else 1
    versions = 1 + (groups if groups > 1 else 0)
    watch = Watch(x.shape[0], x.device)
    if maps.product_error > PRODUCT_ERROR_LIMIT:
        watch.mark(watch.running, Outcome.INEXACT_PRODUCTS, prepared.grid.sigma_max)
    slope = curvature_slope(maps, watch) if order == 2 else tangent_slope(maps, versions, watch)
    judge = Truncation()
    slope = judged(slope, maps, judge, versions)
    kept = [_start(prepared, order, versions)]
    states = kept if trajectory else None
    at_min = follow(kept[0], prepared.told(prepared.path), slope, watch, advance=prepared.advance, kept=states)
    end = follow(at_min, prepared.told(prepared.final), slope, watch)
    seen = end if prepared.denoise else _seen(prepared, at_min, slope, order, watch)
    logs = logs_of(maps, seen)
    # A halted sample never reached σ_min, where the log ratio is taken.
    log_ratio = torch.where(
        watch.running, log_ratios(prepared, at_min.x, logs.value, prepared.grid.sigma_min), float("nan")
    )
    tangents = required(end.tangent).reshape(prepared.directions, versions, *x.shape)
    spread, bias = jackknife(tangents, maps) if standard_error else (None, None)
    path = _trajectory(prepared, kept, seen, versions) if trajectory else None
    error = torch.where(watch.running, _stated(prepared, judge, at_min, seen, tangents[:, 0], versions), float("nan"))
    return SampleSensitivity(
        samples=end.x,
        sensitivity=tangents[:, 0],
        log_ratio=log_ratio,
        log_density=logs.value,
        log_density_error=logs.error,
        grid_error=logs.grid,
        standard_error=spread,
        bias=bias,
        curvature=end.curvature,
        outcome=watch.read(),
        cost=maps.cost,
        grid=prepared.grid,
        trajectory=path,
        product_error=maps.product_error,
        sensitivity_error=error,
        products=maps.product_names,
    )


def _seen(prepared: Prepared, at_min: State, slope: Slope, order: int, watch: Watch) -> State:
    """The state at σ_min with its log densities; the same call shows the tangent's slope there, in first order."""
    if at_min.memory is None or order == 2:
        return observed(prepared.maps, at_min, prepared.last, watch)
    seen = replace(at_min, memory=slope(prepared.last, 0, at_min).memory)
    watch.mark(~seen.finite(), Outcome.NONFINITE_DERIVATIVE, prepared.last.start)
    return seen.where(watch.running, at_min)


def _stated(
    prepared: Prepared, judge: Truncation, at_min: State, seen: State, tangents: Tensor, versions: int
) -> Tensor:
    """The stated error of |δ|, (K, batch): NaN along a stochastic path."""
    if isinstance(prepared.advance, Stochastic):
        return tangents.new_full(tangents.shape[:2], float("nan"))
    memory = None if seen.memory is None else seen.memory
    error = None if memory is None else source_errors(prepared.maps, memory)
    first = required(at_min.tangent).detach().unflatten(0, (-1, versions))[:, 0]
    total = judge.end(prepared.grid.sigma_min, first, error)
    total = judge.denoised() if prepared.denoise else total
    return total + prepared.maps.product_error * tangents.detach().flatten(2).norm(dim=2)


def judged(slope: Slope, maps: LocalMaps, judge: Truncation, versions: int) -> Slope:
    """The same slope; `judge` sees the first version of every direction at the nodes."""

    def first(values: Tensor) -> Tensor:
        return values.unflatten(0, (-1, versions))[:, 0]

    def seen(step: Step, stage: int, state: State) -> Rate:
        rate = slope(step, stage, state)
        if stage == 0 and rate.answers is not None:
            tangent, moved, source = (first(each) for each in (required(state.tangent), *rate.answers))
            error = source.new_zeros(source.shape[:2]) if rate.memory is None else source_errors(maps, rate.memory)
            judge.arrive(tangent_node(step.start, tangent, moved, source, error))
        return rate

    return seen


def source_errors(maps: LocalMaps, memory: Memory) -> Tensor:
    """Stated error in nats of the log densities that each direction's source depends on, (K, batch)."""
    each = torch.hypot(*log_errors(maps, memory.now.logs, memory)).detach()
    # log r = log ν − log p: errors of a carried ν add to that of p; of branches, each with a p of its own, the largest
    # counts.
    both = each[: maps.samplers].amax(0) + each[maps.samplers :].sum(0)
    count = len(maps.each[0].changes)
    needed = [
        any(c is not None and c.needs_density for c in (local_map.changes[k] for local_map in maps.each))
        for k in range(count)
    ]
    return torch.stack([both if need else torch.zeros_like(both) for need in needed])


def _trajectory(prepared: Prepared, kept: Sequence[State], seen: State, versions: int) -> Trajectory:
    levels = prepared.grid.levels
    # The log density of a node is known once the step that starts there is taken.
    summaries = [logs_of(prepared.maps, state) for state in (kept if seen.memory is None else [*kept[1:], seen])]
    pairs = zip(kept, summaries, levels.tolist(), strict=True)
    ratios = [log_ratios(prepared, state.x, logs.value, sigma) for state, logs, sigma in pairs]
    means, errors, grids = ([value for value in column if value is not None] for column in zip(*summaries, strict=True))
    tangents = torch.stack([required(state.tangent) for state in kept])
    return Trajectory(
        levels,
        torch.stack([state.x for state in kept]),
        tangents.reshape(len(kept), prepared.directions, versions, *prepared.latents.shape)[:, :, 0],
        torch.stack(ratios),
        torch.stack(means) if means else None,
        torch.stack(errors) if errors else None,
        torch.stack(grids) if grids else None,
    )


def _start(prepared: Prepared, order: int, versions: int) -> State:
    zero = prepared.latents.new_zeros(prepared.directions * versions, *prepared.latents.shape)
    return prepared.start(tangent=zero) if order == 1 else prepared.start(tangent=zero, curvature=zero)


def tangent_slope(maps: LocalMaps, versions: int = 1, watch: Watch | None = None) -> Slope:
    """Slope (s, Jδ + ṡ); beyond one version, each direction has one more tangent per group left out of L."""

    def slope(step: Step, stage: int, state: State) -> Rate:
        sigma = step.sigmas[stage]
        local = maps.values(state.x, state.tangent, step, stage)
        carried = maps.carried(step, stage, state, local)
        mean = maps.means(carried.logs)
        if watch is not None:
            mark_log_error(watch, maps, carried, step.table.levels[stage])
        # δ depends on L through e^{−L}: noise in L biases it. The jackknife's versions of δ, one with all groups
        # of probes and one with each left out, are carried side by side through the same network calls.
        logs = None if mean is None else mean[None]
        if logs is not None and versions > 1:
            logs = torch.cat([logs, left_out(required(carried.logs)).movedim(1, 0)])
        source = maps.sources(state.x, sigma, local, logs)
        source = source.expand(-1, versions, *state.x.shape).flatten(0, 1)
        moved = required(local.moved)
        return replace(maps.rate(local, local.drift, moved + source, carried), answers=(moved, source))

    return slope


def left_out(logs: Tensor) -> Tensor:
    """Means over all groups but one, (maps, groups, batch)."""
    return (logs.sum(1, keepdim=True) - logs) / (logs.shape[1] - 1)


def jackknife(tangents: Tensor, maps: LocalMaps) -> tuple[Tensor, Tensor]:
    """Standard error and bias of the first tangent from the leave-one-out ones behind it, (K, batch, *shape) each."""
    whole, parts = tangents[:, 0], tangents[:, 1:]
    count = parts.shape[1]
    if count == 0:
        known = maps.trace is None or maps.trace.exact
        unknown = torch.full_like(whole, 0.0 if known else float("nan"))
        return unknown, unknown
    # Quenouille's bias, Tukey's variance: leaving one of G out moves the mean G − 1 times less than groups vary.
    centre = parts.mean(1, keepdim=True)
    error = ((parts - centre).square().sum(1) * (count - 1) / count).sqrt()
    return error, (count - 1) * (centre[:, 0] - whole)


def log_ratios(prepared: Prepared, x: Tensor, logs: Tensor | None, level: float) -> Tensor:
    """log r at states of a level for each direction, (K, batch); under guidance that of the branch of largest share."""
    maps = prepared.maps.each
    main = max(range(len(maps)), key=lambda b: abs(maps[b].share))
    sigma = torch.tensor(level, dtype=torch.float64).to(x)
    log_density = None if logs is None else logs[main]
    rows = []
    for change in maps[main].changes:
        if isinstance(change, CarriedContamination) and logs is not None:
            # States stand for the scores, of which a log ratio asks nothing.
            change = change.at([x] * len(maps), logs)
        unknown = x.new_full(x.shape[:1], float("nan"))
        rows.append(unknown if change is None else change.log_ratio(x, sigma, log_density))
    return torch.stack(rows)
