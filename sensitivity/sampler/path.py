"""Whole sampler paths: a reading repeated over the steps of a grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sensitivity.jacobians.products import Products
from sensitivity.jacobians.traces import Trace
from sensitivity.noise import Noise
from sensitivity.sampler.carried_network import Law
from sensitivity.sampler.local_maps import Laws
from sensitivity.sampler.outcome import Outcome, Watch
from sensitivity.sampler.step import Advance, Rate, Slope, State, advance, finite, required
from sensitivity.sampler.tableau import Step, Tableau, find, steps

LOG_RATIO_ERROR_LIMIT = 1.0
"""Standard error of log p in nats above which a sample is marked: its source is uncertain by a factor e."""


COARSE = 1.0
"""Distance of a step from Euler's, in units of the noise left after it, above which a sample is marked."""


def run(
    state: State,
    path: Sequence[Step],
    slope: Slope,
    watch: Watch | None = None,
    *,
    move: Advance = advance,
    kept: list[State] | None = None,
) -> State:
    """Carry `state` through all steps, watched if asked for; `kept` collects the states after them."""
    for step in path:
        state = move(step, state, slope) if watch is None else take(step, state, slope, watch, move)
        if kept is not None:
            kept.append(state)
    return state


def take(step: Step, state: State, slope: Slope, watch: Watch, move: Advance = advance) -> State:
    """One watched step: a sample that turns non-finite keeps its last good state; it and coarse steps are marked."""
    first: list[Tensor] = []

    def seen(step: Step, stage: int, entry: State) -> Rate:
        rate = slope(step, stage, entry)
        if stage == 0:
            first.append(rate.x)
        return rate

    after = move(step, state, seen)
    watch.mark(~finite(after.x), Outcome.NONFINITE_SCORE, step.start)
    watch.mark(~after.finite(), Outcome.NONFINITE_DERIVATIVE, step.start)
    if len(step.table.levels) > 1 and step.end > 0:
        watch.mark(_coarse(step, state.x, after.x, first[0]), Outcome.STEP_TOO_COARSE, step.start)
    return after.where(watch.running, state)


def _coarse(step: Step, x: Tensor, after: Tensor, first: Tensor) -> Tensor:
    """(batch,) whether the step and Euler's are further apart than the noise that is left, σ′√d."""
    euler = torch.add(x, first, alpha=(step.start - step.end) * step.start)
    apart = (after - euler).flatten(1).square().mean(1)
    return apart > (COARSE * step.end) ** 2


def sampling(laws: Laws) -> Slope:
    """Slope of plain sampling with the log densities carried along."""

    def slope(step: Step, stage: int, state: State) -> Rate:
        local = laws.values(state.x, step.sigmas[stage], None, step=step.index, stage=stage)
        return laws.rate(local, local.drift)

    return slope


def mark_log_error(watch: Watch, laws: Laws, logs: Tensor | None, level: float) -> None:
    """Mark samples one of whose log densities has too large a standard error; one group has none to judge by."""
    if logs is not None and logs.shape[1] > 1:
        error = required(laws.summary(logs)[1])
        watch.mark((error > LOG_RATIO_ERROR_LIMIT).any(0), Outcome.LOG_RATIO_ERROR, level)


def integrate_density(
    products: Products,
    x: Tensor,
    levels: Tensor,
    trace: Trace,
    noise: Noise | None,
    tableau: Tableau | str = "heun",
) -> tuple[Tensor, Tensor]:
    """Follow the probability flow from (x, σ) through ascending levels up to σ_max.

    Args:
        products: the score with its Jacobian products.
        x: states at the first level, (batch, *shape).
        levels: ascending levels, such as `Grid.reversed_from(sigma)`.
        trace: how div s is estimated.
        noise: noise of the probes, None for the exact trace.
        tableau: the solver or its name.

    Returns:
        the state x_max at σ_max and the increment ∫ σ div s dσ, (groups, batch), one row per independent probe group:
        log p_σ(x) = log p_σmax(x_max) − increment.
    """
    method = find(tableau) if isinstance(tableau, str) else tableau
    laws = Laws((Law(products, 1.0),), trace, noise)
    start = State(x, torch.zeros(1, trace.groups, x.shape[0], dtype=x.dtype, device=x.device))
    end = run(start, steps(levels, method, x), sampling(laws))
    if end.logs is None:
        raise ValueError("the path carried no log density; pass a trace.")
    return end.x, end.logs[0]
