"""Samples under a finite change of the data, without retraining.

The sampler follows the exact perturbed score s^w of `gate`, with the base law's L = log p_σ carried along the perturbed
path (Scarvelis & Solomon 2025, arXiv 2509.23092, section 3; the same transport of a density along a foreign path as in
Skreta et al. 2024, arXiv 2412.17762).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from sensitivity._callables import outside_inference_mode
from sensitivity._checks import check_dense
from sensitivity.grid import Grid
from sensitivity.jacobians.trial import VALUES
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.measures.points import Points
from sensitivity.perturbations.existence import no_law
from sensitivity.perturbations.finite_score import Mass, gate, masses_of
from sensitivity.readings.chunks import Latents, joined
from sensitivity.readings.prepare import Options, Prepared, as_changes, prepare
from sensitivity.responses import POPULATION, Response, SourceResponse, chosen
from sensitivity.sampler.carried_network import at_stage
from sensitivity.sampler.local_maps import Cost, LocalMaps
from sensitivity.sampler.outcome import Outcome, Outcomes, Watch
from sensitivity.sampler.path import follow, logs_of, mark_log_error, observed
from sensitivity.sampler.step import Rate, Slope, State
from sensitivity.sampler.tableau import Step
from sensitivity.scores.per_branch import PerBranch
from sensitivity.scores.score import GuidedScore, Score


@dataclass(frozen=True)
class Resampled:
    """Samples of the changed law.

    Attributes:
        samples: (batch, *shape); a sample that did not finish keeps its last good state, see `outcome`.
        log_density: log p_σ_min of the base law at the samples in nats, (batch,), or None; one row a branch if guided.
        log_density_error: its standard error from independent probe groups; 0 for an exact trace, NaN for one probe.
        grid_error: the grid's error of `log_density` in nats (see `Estimate`); NaN along a stochastic path.
        outcome: how each sample ended.
        cost: network evaluations, Jacobian products and sources per sample.
    """

    samples: Annotated[Tensor, Latents()]
    log_density: Annotated[Tensor | None, Latents(1, "maps")]
    log_density_error: Annotated[Tensor | None, Latents(1, "maps")]
    grid_error: Annotated[Tensor | None, Latents(1, "maps")]
    outcome: Outcomes
    cost: Cost


@outside_inference_mode
def resample(
    score: Score,
    latents: Tensor,
    perturbation: Any,
    eta: Any,
    grid: Grid,
    *,
    anchor: Any = None,
    trace: str = "auto",
    probes: int | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    solver: Any = "heun",
    denoise: bool = False,
    chunk_size: int | None = None,
    products: str = "auto",
    progress: Any = False,
    control: GaussianAnchor | None = None,
    differentiable: bool = False,
    response: Response = POPULATION,
) -> Resampled:
    """Samples from the same latents after mass η has moved, no retraining and no linearisation in η.

    Args:
        score: s(x, σ) of the base law, see `as_score`; or `guided(...)`.
        latents: states at σ_max, (batch, *shape).
        perturbation: what changes, such as `Toward(measure)` or `Remove(points)`; a sequence applies several at once;
            under guidance `PerBranch`.
        eta: η, a number or (batch,); one for each of a sequence of perturbations. Negative η removes. Under guidance it
            is the mass that moves in the whole, of which the class gets its share by Bayes' rule (see `PerBranch`);
            `PerBranch` gives each branch a mass of its own. A law exists for 0 ≤ η ≤ 1, and for η < 0 down to
            −m/(N − m) where m of N points are removed; other masses are refused, or end in an outcome where only the
            densities can tell: `REMOVAL_CONTRADICTED` where a path meets a negative one, `NO_LAW` where one of an exact
            law (a score of `Mixture`, `Points` or `GaussianAnchor`) or of a `KernelRatio` is negative at a point of
            what is taken. Of a network N is not known, and paths avoid what is negative: take `perturbation.mass(N)`.
        grid, anchor: as for `sample_sensitivity`.
        response: as for `sample_sensitivity`; the finite form of `ParameterResponse` and `UnrolledResponse` has the
            parameters θ + ηθ̇, that of `LocalResponse` is exact in η.

    Other args:
        trace, probes, generator, seed, solver, denoise, chunk_size, products, progress, control, differentiable: as
            for `sample_sensitivity`.

    Raises:
        ValueError, TypeError: for arguments that do not fit, with the remedy.

    Example:
        >>> from sensitivity import Mixture, Toward
        >>> base = Mixture(torch.tensor([1.0]), torch.zeros(1, 1), torch.ones(1, 1, 1))
        >>> new = Mixture(torch.tensor([1.0]), torch.ones(1, 1), torch.ones(1, 1, 1))
        >>> latents, grid = torch.tensor([[3.0]]), Grid(10.0, 0.1, 20)
        >>> half = resample(base.score, latents, Toward(new), 0.5, grid, anchor=base).samples
        >>> all_new = resample(base.score, latents, Toward(new), 1.0, grid, anchor=base).samples
        >>> bool(half < all_new)
        True
    """
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
    )
    answer = chosen(response)
    if isinstance(answer, SourceResponse):
        return _answered(answer, score, latents, perturbation, eta, grid, options, chunk_size)
    prepared = prepare(score, latents, perturbation, grid, options, uses=VALUES)
    masses = _masses(prepared, eta)
    impossible = _impossible(score, masses, prepared)
    parts, first = [], 0
    for chunk in prepared.chunks(chunk_size):
        rows = slice(first, first + len(chunk.latents))
        moved = [[(w[rows], nu) for w, nu in local_map] for local_map in masses]
        parts.append(_resample(chunk, moved, impossible[rows]))
        first = rows.stop
    return joined(parts)


def _answered(
    response: SourceResponse,
    score: Score,
    latents: Tensor,
    perturbation: Any,
    eta: Any,
    grid: Grid,
    options: Options,
    chunk_size: int | None,
) -> Resampled:
    """Plain sampling from the score that the response has after the masses have moved."""
    changes, single = as_changes(perturbation)
    prepared = prepare(score, latents, perturbation, grid, replace(options, response=response), uses=VALUES)
    masses = [_per_latent(mass, latents) for mass in _etas(eta, single, len(changes))]
    moved = response.finite(score, changes, masses, prepared.grid)
    parts, first = [], 0
    for chunk in prepared.chunks(chunk_size):
        rows = slice(first, first + len(chunk.latents))
        chunk.maps.cost.away = response.evaluations
        parts.append(_resample(_with_score(chunk, moved(rows)), [[]]))
        first = rows.stop
    return joined(parts)


def _with_score(prepared: Prepared, score: Score) -> Prepared:
    """The run with another score, of which values alone are asked for."""
    (local_map,) = prepared.maps.each
    other = replace(local_map.products, score=score, method="reverse")
    return replace(prepared, maps=replace(prepared.maps, each=(replace(local_map, products=other),)))


def _etas(eta: Any, single: bool, count: int) -> Any:
    """One mass for each perturbation."""
    etas = [eta] if single else eta
    countable = isinstance(etas, Sequence) or (isinstance(etas, Tensor) and etas.ndim > 0)
    if not countable or len(etas) != count:
        raise ValueError(f"eta={eta!r} does not match {count} perturbations; give one mass for each.")
    return etas


def _masses(prepared: Prepared, eta: Any) -> list[list[Mass]]:
    """(w_j, ν_j) of every local map, w_j of shape (batch,)."""
    etas = _etas(eta, prepared.single, prepared.directions)
    explicit = [isinstance(mass, PerBranch) for mass in etas]
    if any(explicit) and not all(explicit):
        raise ValueError(f"eta={eta!r} mixes PerBranch and numbers; give one kind for all perturbations.")
    if any(explicit) and prepared.maps.samplers == 1:
        raise TypeError("PerBranch needs a guided score; give eta as a number, or one for each latent.")
    result = []
    for b, local_map in enumerate(prepared.maps.each):
        given = [
            (m.unconditional, m.conditional)[b] if isinstance(m, PerBranch) else m for m in etas if local_map.drives
        ]
        moved = [_per_latent(mass, prepared.latents) for mass in given]
        if local_map.growth and not any(explicit):
            moved = _within_class(moved, local_map.growth)
        of_map: list[Mass] = []
        for change, mass in zip(local_map.changes, moved, strict=False):
            if change is not None:
                of_map += masses_of(change, mass)
        _check_law(of_map, eta)
        result.append(of_map)
    return result


def _check_law(masses: Sequence[Mass], eta: Any) -> None:
    """Masses for which a law exists: what is left of the base law is no less than nothing, and of m points no more is
    taken than −m/(N − m) ≥ −m, N > m the number of all. Which part of it N allows, the densities say: see `Outcome`.
    """
    if not masses or not masses[0][0].numel():
        return
    moved = sum((w for w, _ in masses[1:]), masses[0][0])
    # Masses that a caller has added up to 1, or taken from counts, round.
    slack = 1e3 * torch.finfo(moved.dtype).eps
    if bool((moved > 1 + slack).any()):
        raise ValueError(
            f"eta={eta!r} moves the mass {float(moved.max()):.4g} of a law that has 1: no law is left; the limits "
            "are 0 ≤ eta ≤ 1 toward a measure, and −m/(N − m) ≤ eta < 0 for the removal of m of N points."
        )
    for w, measure in masses:
        count = len(measure) if isinstance(measure, Points) else None
        if len(masses) == 1 and count is not None and bool((w < -count * (1 + slack)).any()):
            raise ValueError(
                f"eta={eta!r} takes more than there is: the removal of m of N points is eta = −m/(N − m), here at "
                f"least −{count} as m = {count}; take perturbation.mass(N)."
            )


def _within_class(masses: Sequence[Tensor], growth: Sequence[float]) -> list[Tensor]:
    """η_k/(1 + Σ η_k T_k): masses moved in the whole as masses of the class, by Bayes' rule (see `per_branch`)."""
    left = 1 + torch.stack([mass * rate for mass, rate in zip(masses, growth, strict=True)]).sum(0)
    if not bool((left > 0).all()):
        raise ValueError("eta leaves no mass in the class; give a mass at which (1−η) π_c + η ν(c) > 0.")
    return [mass / left for mass in masses]


def _per_latent(eta: Any, x: Tensor) -> Tensor:
    if isinstance(eta, str | bool) or (isinstance(eta, Tensor) and eta.is_complex()):
        raise TypeError(f"eta={eta!r} is a {type(eta).__name__}; give a number, or one for each latent, such as 0.1.")
    if isinstance(eta, Tensor):
        check_dense(eta, "eta")
    try:
        value = torch.as_tensor(eta, dtype=x.dtype, device=x.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"eta={eta!r} is a {type(eta).__name__}; give a number, or one for each latent.") from error
    if value.ndim > 1 or (value.ndim == 1 and value.shape[0] != x.shape[0]):
        raise ValueError(f"eta has shape {tuple(value.shape)}; give a number, or one for each of {x.shape[0]} latents.")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"eta={eta!r} is not finite; give the mass to move, such as 0.1.")
    return value.expand(x.shape[0])


def _impossible(score: Score, masses: list[list[Mass]], prepared: Prepared) -> Tensor:
    """Of which latents it is certain that their masses leave no law, (batch,)."""
    impossible = torch.zeros(len(prepared.latents), dtype=torch.bool, device=prepared.latents.device)
    sigma = torch.tensor(prepared.grid.sigma_min, dtype=torch.float64).to(prepared.latents)
    laws = (score.unconditional, score.conditional) if isinstance(score, GuidedScore) else (score,)
    for law, moved in zip(laws, masses, strict=False):
        without = no_law(law, moved, sigma)
        impossible = impossible if without is None else impossible | without
    return impossible


def _resample(prepared: Prepared, masses: list[list[Mass]], impossible: Tensor | None = None) -> Resampled:
    watch = Watch(prepared.latents.shape[0], prepared.latents.device)
    if impossible is not None:
        watch.mark(impossible, Outcome.NO_LAW, prepared.grid.sigma_min)
    slope = finite_slope(prepared.maps, masses, watch)
    at_min = follow(prepared.start(), prepared.told(prepared.path), slope, watch, advance=prepared.advance)
    end = follow(at_min, prepared.told(prepared.final), slope, watch)
    seen = end if prepared.denoise else observed(prepared.maps, at_min, prepared.last, watch)
    return Resampled(end.x, *logs_of(prepared.maps, seen), watch.read(), prepared.maps.cost)


def finite_slope(maps: LocalMaps, masses: Sequence[Sequence[Mass]], watch: Watch) -> Slope:
    """Slope s^w; a non-positive perturbed density is marked."""

    def slope(step: Step, stage: int, state: State) -> Rate:
        sigma, level = step.sigmas[stage], step.table.levels[stage]
        local = maps.values(state.x, None, step, stage)
        carried = maps.carried(step, stage, state, local)
        mean = maps.means(carried.logs)
        mark_log_error(watch, maps, carried, level)
        drift = torch.zeros_like(state.x)
        for b, local_map in enumerate(maps.each):
            moved = local.scores[b]
            if masses[b]:
                maps.cost.sources += len(masses[b])
                here = [(w, at_stage(measure, local.scores, mean)) for w, measure in masses[b]]
                moved, excess = gate(state.x, sigma, moved, None if mean is None else mean[b], here)
                watch.mark(excess >= 0, Outcome.REMOVAL_CONTRADICTED, level)
            drift = torch.add(drift, moved, alpha=local_map.share)
        return maps.rate(local, drift, None, carried)

    return slope
