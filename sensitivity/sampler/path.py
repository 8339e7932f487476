"""Whole sampler paths: a reading repeated over the steps of a grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sensitivity.jacobians.traces import Trace
from sensitivity.noise import Noise
from sensitivity.progress import Progress
from sensitivity.sampler.carried_density import Memory, Sums
from sensitivity.sampler.carried_network import LocalMap
from sensitivity.sampler.local_maps import Carriage, Cost, LocalMaps
from sensitivity.sampler.outcome import Outcome, Watch
from sensitivity.sampler.step import Advance, Rate, Slope, State, advance, finite, required
from sensitivity.sampler.tableau import Step, Tableau, find, steps

LOG_RATIO_ERROR_LIMIT = 1.0
"""Error of log p in nats, of probes and grid together, above which a sample is marked: its source is uncertain by a
factor e."""


COARSE = 1.0
"""Distance of a step from Euler's, in units of the noise left after it, above which a sample is marked."""


def follow(
    state: State,
    path: Iterable[Step],
    slope: Slope,
    watch: Watch | None = None,
    *,
    advance: Advance = advance,
    kept: list[State] | None = None,
) -> State:
    """Carry `state` through all steps, watched if asked for; `kept` collects the states after them."""
    for step in path:
        state = advance(step, state, slope) if watch is None else take(step, state, slope, watch, advance)
        if kept is not None:
            kept.append(state)
    return state


def take(step: Step, state: State, slope: Slope, watch: Watch, advance: Advance = advance) -> State:
    """One watched step: a sample that turns non-finite keeps its last good state; it and coarse steps are marked."""
    first: list[Tensor] = []

    def seen(step: Step, stage: int, entry: State) -> Rate:
        rate = slope(step, stage, entry)
        if stage == 0:
            first.append(rate.x)
        return rate

    after = advance(step, state, seen)
    # Nothing is read back from the device here: outcomes are marked in tensors, and what a halted sample would have
    # become is replaced by what it was, so that one bad sample costs the batch nothing.
    watch.mark(~finite(after.x), Outcome.NONFINITE_SCORE, step.start)
    watch.mark(~after.finite(), Outcome.NONFINITE_DERIVATIVE, step.start)
    if len(step.table.levels) > 1 and step.end > 0:
        watch.mark(_coarse(step, state.x, after.x, first[0]), Outcome.STEP_TOO_COARSE, step.start)
    return after.where(watch.running, state)


def _coarse(step: Step, x: Tensor, after: Tensor, first: Tensor) -> Tensor:
    """(batch,) whether the step and Euler's are further apart than the noise that is left, σ′√d."""
    euler = torch.add(x, first, alpha=(step.start - step.end) * step.start)
    distance = (after - euler).flatten(1).square().mean(1)
    return distance > (COARSE * step.end) ** 2


def sampling(maps: LocalMaps) -> Slope:
    """Slope of plain sampling with the log densities carried along."""

    def slope(step: Step, stage: int, state: State) -> Rate:
        local = maps.values(state.x, None, step, stage)
        return maps.rate(local, local.drift, None, maps.carried(step, stage, state, local))

    return slope


def mark_log_error(watch: Watch, maps: LocalMaps, carried: Carriage, level: float) -> Tensor | None:
    """Mark samples one of whose log densities has too large an error, by its larger part: random probes or the grid.

    Returns the errors in nats, (maps, batch), at nodes, and None at inner stages.

    One group of probes has no standard error: its noise is judged by how little neighbouring divergences agree.
    """
    if carried.logs is None or not (carried.node or carried.memory is None):
        return None
    noise, grid = log_errors(maps, carried.logs, carried.memory)
    both = torch.hypot(noise, grid)
    large = both > LOG_RATIO_ERROR_LIMIT
    away = maps.along_noise(carried.logs) if carried.memory is None else carried.memory.now.away
    off = (grid < 2 * away) & (noise < away)
    watch.mark(((large & off) | (away > LOG_RATIO_ERROR_LIMIT)).any(0), Outcome.OFF_FLOW, level)
    watch.mark((large & (noise >= grid)).any(0), Outcome.LOG_RATIO_ERROR, level)
    watch.mark((large & (noise < grid)).any(0), Outcome.GRID_ERROR, level)
    return both


def log_errors(maps: LocalMaps, logs: Tensor, memory: Memory | None) -> tuple[Tensor, Tensor]:
    """Errors of log densities (maps, groups, batch) by random probes and by the grid in nats, (maps, batch) each."""
    noise = torch.nan_to_num(required(maps.summary(logs)[1]), nan=0.0)
    if memory is None:
        return noise, torch.zeros_like(noise)
    if logs.shape[1] == 1 and not (maps.trace is None or maps.trace.exact):
        noise = memory.now.noise.sqrt()
    return noise, memory.now.error + memory.within


def observed(maps: LocalMaps, state: State, last: Step, watch: Watch | None = None) -> State:
    """The state with its last node known: one call at the path's end, where a log density is carried."""
    if state.memory is None:
        return state
    state = replace(state, memory=replace(state.memory, tangents=()))
    local = maps.values(state.x, None, last, 0)
    carried = maps.carried(last, 0, state, local)
    seen = replace(state, memory=carried.memory)
    if watch is None:
        return seen
    mark_log_error(watch, maps, carried, last.start)
    watch.mark(~seen.finite(), Outcome.NONFINITE_DERIVATIVE, last.start)
    return seen.where(watch.running, state)


class Logs(NamedTuple):
    """Log densities of every local map with their errors in nats, (maps, batch); None where none is carried.

    `grid` is NaN along a stochastic path, where the grid's error is not estimated.
    """

    value: Tensor | None
    error: Tensor | None
    grid: Tensor | None


def logs_of(maps: LocalMaps, state: State) -> Logs:
    """The newest log densities of a state."""
    if state.memory is not None:
        return Logs(*maps.summary(state.memory.now.logs), state.memory.now.error)
    mean, error = maps.summary(state.logs)
    return Logs(mean, error, None if mean is None else torch.full_like(mean, float("nan")))


class Flow(NamedTuple):
    """The probability flow from (x, σ) to σ_max.

    Attributes:
        x: x_max at σ_max, (batch, *shape).
        increments: ∫ σ div s dσ for each local map, (maps, groups, batch): log p_σ(x) = log p_σmax(x_max) − increment.
        error: the grid's error of each in nats, (maps, batch).
        cost: what was asked of the networks, per sample.
    """

    x: Tensor
    increments: Tensor
    error: Tensor
    cost: Cost


def integrate_density(
    maps: Sequence[LocalMap],
    x: Tensor,
    levels: Tensor,
    trace: Trace,
    noise: Noise | None,
    tableau: Tableau | str = "heun",
    progress: Progress | None = None,
) -> Flow:
    """Follow the probability flow of the first local map from (x, σ) through ascending levels up to σ_max.

    Args:
        maps: those whose log densities are followed; shares say whose flow it is.
        x: states at the first level, (batch, *shape).
        levels: ascending levels, such as `Grid.reversed_from(sigma)`; at σ_max alone there is nothing to follow.
        trace: how div s is estimated.
        noise: noise of the probes, None for the exact trace.
        tableau: the solver or its name.
        progress: told of every step, for all states.
    """
    method: Any = tableau if callable(getattr(tableau, "weights", None)) else find(tableau)  # type: ignore[arg-type]
    carried = LocalMaps(tuple(maps), trace, noise)
    nothing = torch.zeros(len(maps), trace.groups, x.shape[0], dtype=x.dtype, device=x.device)
    start = Memory.start(nothing, carried.off_flow(nothing))
    *path, last = steps(levels, method, x, trace)
    told = path if progress is None else progress.over(path, len(x))
    end = follow(State(x, memory=start), told, sampling(carried))
    sums: Sums = required_memory(observed(carried, end, last)).now if path else start.now
    return Flow(end.x, sums.logs, sums.error, carried.cost)


def required_memory(state: State) -> Memory:
    """What a path remembers, where it is known to carry a log density."""
    if state.memory is None:
        raise ValueError("the path carried no log density; pass a trace.")
    return state.memory
