"""Sensitivity of samples: the tangent of the sampler.

With x_η(σ_max) fixed, δ = d x_η(σ_min)/dη at η = 0 solves dδ/dσ = −σ (∇s δ + ṡ), δ(σ_max) = 0, where ṡ is the change of
the score per unit mass moved and needs log p_σ(x), which is carried along the path (Scarvelis & Solomon 2025,
arXiv 2509.23092, section 3). The discrete sampler is differentiated, not the equation: δ is the exact derivative of the
computed sample in the mass, at the carried log density.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .grid import Grid
from .laws import Cost, Laws
from .outcome import Outcome, Outcomes, Watch
from .path import run
from .scores import Score
from .setup import Options, Run, prepare
from .step import Slope, State
from .tableau import Step

LOG_RATIO_ERROR_LIMIT = 1.0


@dataclass(frozen=True)
class SampleSensitivity:
    """Samples with their derivatives in the mass moved.

    Attributes:
        samples: x(σ_min), (batch, *shape).
        sensitivity: δ = dx/dη per unit mass, (batch, *shape); (K, batch, *shape) for a sequence of K perturbations.
        log_ratio: log r = log ν_σ − log p_σ in nats at the samples, (batch,) or (K, batch).
        log_density: log p_σ_min at the samples in nats, (batch,), or None where the perturbation needs none; under
            guidance one row a branch.
        log_density_error: its standard error from independent probe groups; 0 for an exact trace, NaN for one probe.
        standard_error: of `sensitivity`, elementwise, or None if not asked for.
        bias: jackknife estimate of the bias of `sensitivity` through exp of a noisy log-ratio, or None.
        outcome: how each sample ended.
        cost: network evaluations, Jacobian products and sources per sample.
    """

    samples: Tensor
    sensitivity: Tensor
    log_ratio: Tensor
    log_density: Tensor | None
    log_density_error: Tensor | None
    standard_error: Tensor | None
    bias: Tensor | None
    outcome: Outcomes
    cost: Cost


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
    solver: str = "heun",
    denoise: bool = False,
    standard_error: bool = False,
    chunk_size: int | None = None,
    products: str = "auto",
    differentiable: bool = False,
) -> SampleSensitivity:
    """Samples and their sensitivities dx/dη toward a perturbation of the data, for fixed latents.

    Args:
        score: s(x, σ) in variance-exploding coordinates, see `as_score`; or `guided(...)`.
        latents: states at σ_max (already scaled), (batch, *shape).
        perturbation: what changes, per unit mass, such as `Toward(Points(new))`; a sequence shares the network calls;
            under guidance `PerBranch`.
        grid: noise levels.
        anchor: log density at σ_max, such as `GaussianAnchor.from_data(data)`;
            needed if the perturbation needs a density.
        trace: how div s is taken, "exact", "hutchinson", "hutch++" or "auto" (exact in small dimension).
        probes: number of random probes per stage.
        generator, seed: source of the probes' noise.
        solver: "euler", "heun", "rk4", "dopri5", "exponential".
        denoise: return D(x(σ_min)) and its sensitivity.
        standard_error: estimate the error of the sensitivity by the jackknife over probe groups; costs K·groups more
            tangents in each network call. An exact trace has no error.
        chunk_size: latents computed at once.
        products: how Jacobian products are taken, see `Products`.
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
    options = Options(anchor, trace, probes, generator, seed, solver, denoise, products, differentiable)
    prepared = prepare(score, latents, perturbation, grid, options)
    parts = [_forward(chunk, grid, standard_error) for chunk in prepared.chunks(chunk_size)]
    return _joined(parts, prepared.single)


def _forward(work: Run, grid: Grid, standard_error: bool) -> SampleSensitivity:
    x, laws = work.latents, work.laws
    groups = laws.trace.groups if standard_error and laws.trace is not None else 1
    versions = 1 + (groups if groups > 1 else 0)
    watch = Watch(x.shape[0], x.device)
    slope = tangent_slope(laws, versions, watch)
    end = run(State(x, work.logs, x.new_zeros(work.directions * versions, *x.shape)), work.path, slope, watch)
    mean, error = laws.summary(end.logs)
    log_ratio = log_ratios(work, end.x, grid.sigma_min, mean)
    end = run(end, work.final, slope, watch)
    tangents = required(end.tangent).reshape(work.directions, versions, *x.shape)
    spread, bias = jackknife(tangents, laws) if standard_error else (None, None)
    return SampleSensitivity(end.x, tangents[:, 0], log_ratio, mean, error, spread, bias, watch.read(), laws.cost)


def tangent_slope(laws: Laws, versions: int = 1, watch: Watch | None = None) -> Slope:
    """Slope (s, div s, Jδ + ṡ); beyond one version, each direction has one more tangent per group left out of L."""

    def slope(step: Step, stage: int, state: State) -> State:
        sigma = step.sigmas[stage]
        local = laws.values(state.x, sigma, state.tangent, step=step.index, stage=stage)
        mean, error = laws.summary(state.logs)
        if watch is not None and error is not None:
            watch.mark((error > LOG_RATIO_ERROR_LIMIT).any(0), Outcome.LOG_RATIO_ERROR, step.table.levels[stage])
        logs = None if mean is None else mean[None]
        if logs is not None and versions > 1:
            logs = torch.cat([logs, left_out(required(state.logs)).movedim(1, 0)])
        source = laws.sources(state.x, sigma, local, logs)
        source = source.expand(-1, versions, *state.x.shape).flatten(0, 1)
        return State(local.drift, laws.rates(local, local.drift), required(local.moved) + source)

    return slope


def left_out(logs: Tensor) -> Tensor:
    """Means over all groups but one, (laws, groups, batch)."""
    return (logs.sum(1, keepdim=True) - logs) / (logs.shape[1] - 1)


def jackknife(tangents: Tensor, laws: Laws) -> tuple[Tensor, Tensor]:
    """Standard error and bias of the first tangent from the leave-one-out ones behind it, (K, batch, *shape) each."""
    whole, parts = tangents[:, 0], tangents[:, 1:]
    count = parts.shape[1]
    if count == 0:
        known = laws.trace is None or laws.trace.exact
        unknown = torch.full_like(whole, 0.0 if known else float("nan"))
        return unknown, unknown
    centre = parts.mean(1, keepdim=True)
    error = ((parts - centre).square().sum(1) * (count - 1) / count).sqrt()
    return error, (count - 1) * (centre[:, 0] - whole)


def log_ratios(work: Run, x: Tensor, sigma_min: float, logs: Tensor | None) -> Tensor:
    """log r at the samples for each direction, (K, batch); under guidance that of the branch of largest share."""
    laws = work.laws.laws
    main = max(range(len(laws)), key=lambda b: abs(laws[b].share))
    sigma = torch.tensor(sigma_min, dtype=torch.float64).to(x)
    log_density = None if logs is None else logs[main]
    rows = []
    for change in laws[main].changes:
        rows.append(
            x.new_full(x.shape[:1], float("nan")) if change is None else change.log_ratio(x, sigma, log_density)
        )
    return torch.stack(rows)


def required(value: Tensor | None) -> Tensor:
    """A carried quantity, where this reading is known to carry it."""
    if value is None:
        raise ValueError("a quantity that this reading needs was not carried along the path.")
    return value


def _joined(parts: Sequence[SampleSensitivity], single: bool) -> SampleSensitivity:
    def join(name: str, squeeze: bool, axis: int = 1) -> Any:
        values = [getattr(part, name) for part in parts]
        if values[0] is None:
            return None
        joined = torch.cat(values, axis)
        return joined[0] if squeeze else joined

    density = parts[0].log_density
    alone = density is not None and len(density) == 1
    return SampleSensitivity(
        samples=join("samples", False, 0),
        sensitivity=join("sensitivity", single),
        log_ratio=join("log_ratio", single),
        log_density=join("log_density", alone),
        log_density_error=join("log_density_error", alone),
        standard_error=join("standard_error", single),
        bias=join("bias", single),
        outcome=Outcomes.join([part.outcome for part in parts]),
        cost=parts[0].cost,
    )
