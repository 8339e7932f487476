"""Influence of every training point on functionals of the samples, by one backward pass.

dφ/dη toward point i is ∇φ·δ_i, δ_i the sensitivity toward that point alone; the transposed sampler gives all N of them
at the price of one adjoint solve (influence curve: Hampel 1974; score derivative: Scarvelis & Solomon 2025,
arXiv 2509.23092).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from sensitivity._callables import functional_values, outside_inference_mode
from sensitivity._checks import at_least_single, check_finite, check_same_home, check_states, check_values, per_sample
from sensitivity.grid import Grid
from sensitivity.jacobians.kept import Graphs
from sensitivity.jacobians.products import DIFFERENCES
from sensitivity.jacobians.trial import COTANGENTS
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.measures.points import Points
from sensitivity.perturbations.contamination import Toward
from sensitivity.readings.adjoint import Pairing, pull_back, record_path
from sensitivity.readings.chunks import Latents, joined
from sensitivity.readings.prepare import UNCHANGED, Options, Prepared, prepare
from sensitivity.readings.streaming import Recorded, paired
from sensitivity.responses import POPULATION, Condensed, Response, SourceResponse, Stage, chosen, note
from sensitivity.sampler.local_maps import Cost
from sensitivity.sampler.outcome import Outcome, Outcomes, Watch
from sensitivity.sampler.path import Logs
from sensitivity.scores.per_branch import PerBranch
from sensitivity.scores.score import GuidedScore, Score

Functional = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Influence:
    """Derivatives of functionals in the mass of single points.

    Attributes:
        values: values[b, i] = dφ(x_b)/dη toward point i, (batch, N); (F, batch, N) for F functionals; the last axis has
            length k where `top_k` was asked for.
        indices: which points the last axis of `values` are, (batch, k) or (F, batch, k), largest |value| first; None
            without `top_k`.
        samples: x(σ_min), (batch, *shape).
        functional: φ(x_b), (batch,) or (F, batch); one number for a pooled functional.
        log_density: log p_σ_min at the samples in nats, (batch,).
        log_density_error: its standard error from independent probe groups.
        grid_error: the grid's error of `log_density` in nats (see `Estimate`); NaN along a stochastic path.
        outcome: how each sample ended.
        cost: network evaluations, Jacobian products and sources per sample.
        relative_error: of each sample's values through the stated errors of its log densities, (batch,). The values are
            a sum of terms v_j, one for each stage of the path, that are proportional to e^{−L_j} and known up to the
            factor e^{±E_j}, E_j the stated error of L_j there: as a vector over all points they are off by no more than
            the share Σ_j (e^{E_j} − 1) |v_j| / |Σ_j v_j| of their length, the largest over functionals. Far points
            speak at high noise, where E_j is small, so that this may be a few hundredths where log p at the path's end
            is uncertain by many nats; a single small value may be off by more. Of terms that pruning leaves out, the
            most that they might be counts. The sampler's truncation is not in it: see
            `SampleSensitivity.sensitivity_error`. 0 where no density is needed, NaN along a stochastic path.
        bound: what pruning may have taken from any single value, (batch,) or (F, batch), always ≥ the true loss; None
            where nothing was pruned.
        groups: Σ over the points of each group, (batch, G) or (F, batch, G); None without `groups=`.
        group_bound: what pruning may have taken from each of these sums, like `groups`.
        group_names: the groups' names, in the order of the last axis of `groups`.
        provenance: what the values were made from, where they come from a `Recording`: recording, data, versions,
            bytes read, shards that failed, how much was pruned at each level.
    """

    values: Annotated[Tensor, Latents(1, "functionals")]
    indices: Annotated[Tensor | None, Latents(1, "functionals")]
    samples: Annotated[Tensor, Latents()]
    functional: Annotated[Tensor, Latents(1, "functionals")]
    log_density: Annotated[Tensor | None, Latents(1, "maps")]
    log_density_error: Annotated[Tensor | None, Latents(1, "maps")]
    grid_error: Annotated[Tensor | None, Latents(1, "maps")]
    outcome: Outcomes
    cost: Cost
    relative_error: Annotated[Tensor, Latents()]
    bound: Tensor | None = None
    groups: Tensor | None = None
    group_bound: Tensor | None = None
    group_names: tuple[Any, ...] = ()
    provenance: Mapping[str, Any] | None = None


@outside_inference_mode
def influence(
    score: Score,
    latents: Tensor,
    functional: Functional | Sequence[Functional],
    points: Any,
    grid: Grid,
    *,
    anchor: Any = None,
    rates: Any = None,
    top_k: int | None = None,
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
    response: Response = POPULATION,
) -> Influence:
    """The derivative of functionals of the samples toward each of N points, by one backward pass.

    Positive means that the functional rises when the point gets more mass. Every value is exactly what `Toward` that
    point alone gives in `sample_sensitivity` with the same noise.

    Args:
        score: s(x, σ), see `as_score`; or `guided(...)`.
        latents: states at σ_max, (batch, *shape).
        functional: φ: samples (batch, *shape) -> (batch,), each value from its own sample; or pooled -> a 0-d tensor,
            and then values[b, i] is the part that passes through sample b; or a sequence of such functionals.
        points: the N points, a `Points` (its bandwidth counts, its weights do not) or a tensor (N, *shape), of the
            latents' shape. They may stay in host memory, best pinned, while the latents are on a GPU. Where all of them
            are too far from a sample's path to matter, its outcome says so.
        rates: how fast each point moves mass, (N,) or a list of N numbers, 1 where not given. Under guidance
            `PerBranch`: for the conditional branch of class c the rate of point i is [label_i = c]/π_c.
        top_k: keep only the k points of largest |value| per sample, without forming the full matrix.
        grid, anchor: as for `sample_sensitivity`.

    Other args:
        trace, probes, generator, seed, solver, denoise, chunk_size, products, progress, control: as for
            `sample_sensitivity`; the way down and the way back are counted, not the points.
        response: as for `sample_sensitivity`. All but the population's form the full matrix before `top_k` is taken.

    Raises:
        ValueError, TypeError: for arguments that do not fit, with the remedy; for a score without a graph from its
            states to its values (`no_grad`, `detach`, NumPy, rounding), since the backward pass would be zeros.

    Example:
        >>> from sensitivity import Mixture
        >>> base = Mixture(torch.tensor([1.0]), torch.zeros(1, 1), torch.ones(1, 1, 1))
        >>> right_of = lambda x: x[:, 0]
        >>> points = torch.tensor([[-1.0], [1.0]])
        >>> result = influence(base.score, torch.zeros(1, 1), right_of, points, Grid(10.0, 0.1, 20), anchor=base)
        >>> bool(result.values[0, 0] < 0 < result.values[0, 1])
        True
    """
    check_top(top_k)
    check_products(products)
    functionals = listed(functional)
    check_states(latents, "latents")
    check_values(latents, "latents")
    data = points if isinstance(points, Points) else Points(_tensor(points, "points"))
    if data.shape != tuple(latents.shape[1:]):
        raise ValueError(
            f"points have shape {data.shape}, but latents are samples of shape {tuple(latents.shape[1:])}: give points "
            "of that shape (channels first where the latents have them first)."
        )
    home = at_least_single(latents[:0])
    # Points in host memory are streamed to the latents' device by blocks.
    check_same_home(data.data, home.cpu() if data.data.device.type == "cpu" else home, "points", "latents")
    answer = chosen(response)
    source_response = answer if isinstance(answer, SourceResponse) else None
    options = Options(
        anchor=anchor,
        trace=trace,
        probes=probes,
        generator=generator,
        seed=seed,
        solver=solver,
        denoise=denoise,
        products=products,
        control=control,
        progress=progress,
        response=source_response,
    )
    # The points are met on the way back; a response other than the population's may refuse them before.
    untouched = source_response is None or isinstance(score, GuidedScore)
    change = UNCHANGED if untouched else Toward(data)
    carried = source_response is None
    prepared = prepare(score, latents, change, grid, options, uses=COTANGENTS, density=carried, passes=2)
    speeds = rates_of(rates, prepared.maps.samplers > 1, len(data), prepared.latents)
    down = passages(prepared, functionals, chunk_size)
    if source_response is None or not len(latents):
        parts = [_met(passage, data, speeds, top_k) for passage in down]
    else:
        both = [(passage, condensed(source_response, passage)) for passage in down]
        values, indices = answered(source_response, [kept for _, kept in both], data, speeds[0], top_k)
        pairs = by_chunks([len(passage.samples) for passage, _ in both], values, indices)
        parts = [_part(passage, *pair) for (passage, _), pair in zip(both, pairs, strict=True)]
        # What it asked of the network is known at the end.
        parts[0].cost.away = source_response.evaluations
    result = joined(parts, functionals=not isinstance(functional, Sequence))
    if source_response is not None:
        return replace(result, outcome=replace(result.outcome, note=""))
    return replace(result, outcome=noted(result, note(score)))


def noted(result: Influence, words: str) -> Outcomes:
    """The outcomes with a note, and with what uncertain log densities leave of the values."""
    codes, relative = result.outcome.codes, result.relative_error.detach().cpu()
    of_log_density = (Outcome.LOG_RATIO_ERROR, Outcome.GRID_ERROR, Outcome.OFF_FLOW)
    uncertain = torch.isin(codes, codes.new_tensor([outcome.value for outcome in of_log_density]))
    if bool(uncertain.any()):
        share = f"{float(relative[uncertain].max()):.2g} of their length"
        words = f"Through log p the values of these samples are stated to err by at most {share}. {words}".strip()
    return replace(result.outcome, note=words)


def check_top(top_k: int | None) -> None:
    """`top_k` counts points, or is None."""
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
        raise ValueError(f"top_k={top_k!r} counts the points to keep; give an integer of at least 1, or None for all.")


def check_products(products: str) -> None:
    """`products` have a transpose."""
    if products in DIFFERENCES:
        raise ValueError(
            f"products={products!r} are differences without a transpose, and influence is exact; use products='auto'."
        )


def listed(functional: Functional | Sequence[Functional]) -> list[Functional]:
    """One functional or several as a list of callables."""
    if isinstance(functional, str) or (isinstance(functional, Sequence) and not functional):
        raise TypeError(
            f"functional={functional!r} is no function: pass one of the samples, such as functionals.patch(0)."
        )
    functionals = list(functional) if isinstance(functional, Sequence) else [functional]
    for k, function in enumerate(functionals):
        if not callable(function):
            raise TypeError(f"functional {k} is a {type(function).__name__}, not callable: pass a function of samples.")
    return functionals


def _gradients(functionals: Sequence[Functional], samples: Tensor) -> tuple[list[Tensor], Tensor]:
    values, rows = [], []
    for k, function in enumerate(functionals):
        x = samples.detach().requires_grad_()
        with torch.enable_grad():
            value = functional_values(function, x, f"functional {k}")
            if not value.requires_grad:
                raise ValueError(
                    f"functional {k} does not depend on the samples; compute it with torch, without detach."
                )
            rows.append(torch.autograd.grad(value.sum(), x)[0])
        values.append(value.detach())
    return values, torch.stack(rows)


@dataclass(frozen=True)
class Passage:
    """A chunk of latents that went down to its samples and is ready to go back.

    Attributes:
        work: its run.
        watch: how its samples fared so far.
        samples: x(σ_min), (batch, *shape).
        functional: φ(x_b), (F, batch).
        logs: log p_σ_min at the samples with its two errors.
        pairings: every stage with its cotangents, made as they are asked for.
    """

    prepared: Prepared
    watch: Watch
    samples: Tensor
    functional: Tensor
    logs: Logs
    pairings: Iterator[Pairing]


def passages(prepared: Prepared, functionals: Sequence[Functional], chunk_size: int | None) -> Iterator[Passage]:
    """Sample all chunks, take ∇φ of all samples at once, then hand over the chunks one by one."""
    chunks = prepared.chunks(chunk_size)
    watches = [Watch(len(c.latents), c.latents.device) for c in chunks]
    graphs = Graphs()
    forward = [record_path(c, w, graphs) for c, w in zip(chunks, watches, strict=True)]
    sizes = [len(c.latents) for c in chunks]
    # A functional may be one number of all samples together: no chunk goes back before the last has come down.
    values, gradients = _gradients(functionals, torch.cat([x for x, _, _ in forward]))
    for chunk, watch, (x, records, logs), cotangents, rows in zip(
        chunks, watches, forward, gradients.split(sizes, 1), _row_slices(sizes), strict=True
    ):
        at_samples = torch.stack([v[rows] if v.ndim else v.expand(rows.stop - rows.start) for v in values])
        pairings = pull_back(chunk, records, cotangents)
        yield Passage(chunk, watch, x, at_samples, logs, pairings)


def _met(passage: Passage, data: Points, rates: list[Tensor | None], top_k: int | None) -> Influence:
    """The population's answer."""
    x, pairings, logs = passage.samples, list(passage.pairings), passage.logs
    if not len(x):
        values = x.new_zeros(len(passage.functional), 0, min(top_k or len(data), len(data)))
        return _part(passage, values, None if top_k is None else torch.zeros_like(values, dtype=torch.int64))
    recorded = Recorded.of(passage.prepared.maps, pairings, total_error(logs.error, logs.grid))
    values, indices, lengths = paired(recorded, data, rates, top_k)
    part = _part(passage, values, indices)
    return replace(part, relative_error=lengths.relative_error(recorded, part.relative_error))


def _part(passage: Passage, values: Tensor, indices: Tensor | None) -> Influence:
    prepared, x = passage.prepared, passage.samples
    passage.watch.mark((values == 0).all(-1).all(0), Outcome.NO_POINT_NEAR, prepared.grid.sigma_min)
    outcome = passage.watch.read()
    relative = relative_of(x, passage.logs.error, passage.logs.grid, prepared.maps.samplers)
    return Influence(
        values=values,
        indices=indices,
        samples=x,
        functional=passage.functional,
        log_density=passage.logs.value,
        log_density_error=passage.logs.error,
        grid_error=passage.logs.grid,
        outcome=outcome,
        cost=prepared.maps.cost,
        relative_error=relative,
    )


def relative_of(x: Tensor, error: Tensor | None, grid: Tensor | None, samplers: int) -> Tensor:
    """e^E − 1 at the path's end for the local map of the largest E, (batch,); errors (maps, batch)."""
    both = total_error(error, grid)
    return x.new_zeros(len(x)) if both is None else torch.expm1(both[:samplers].amax(0))


def total_error(error: Tensor | None, grid: Tensor | None) -> Tensor | None:
    """Errors of log densities by random probes and by the grid together, in nats, (maps, batch)."""
    return None if error is None or grid is None else torch.hypot(torch.nan_to_num(error, nan=0.0), grid)


def condensed(response: SourceResponse, passage: Passage) -> Condensed:
    """What a response keeps of the stages of a chunk."""
    prepared, stages = passage.prepared, [_stage(pairing) for pairing in passage.pairings]
    prepared.maps.cost.sources += len(stages)
    return response.condensed(stages, prepared.maps.each[0].products.score, prepared.grid)


def answered(
    response: SourceResponse, kept: Sequence[Condensed], data: Points, rates: Tensor | None, top_k: int | None
) -> tuple[Tensor, Tensor | None]:
    """Values (F, batch, N) of another answer, or the k largest with their indices."""
    values = response.against(kept, data)
    values = values if rates is None else values * rates
    if top_k is None:
        return values, None
    indices = values.abs().topk(min(top_k, values.shape[-1]), -1).indices
    return values.gather(-1, indices), indices


def _stage(pairing: Pairing) -> Stage:
    running = per_sample(pairing.record.running, pairing.record.x)
    return Stage(pairing.record.x, pairing.record.sigma, torch.where(running, pairing.cotangents, 0.0))


def by_chunks(sizes: list[int], values: Tensor, indices: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    """Values and indices, (F, batch, ...), by chunks of latents."""
    places = [None] * len(sizes) if indices is None else indices.split(sizes, 1)
    return list(zip(values.split(sizes, 1), places, strict=True))


def _row_slices(sizes: Sequence[int]) -> list[slice]:
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def rates_of(rates: Any, guided: bool, count: int, like: Tensor) -> list[Tensor | None]:
    """One tensor of rates, or None, for each local map of the drift."""
    if isinstance(rates, PerBranch) != guided and rates is not None:
        raise TypeError("rates must be PerBranch(unconditional, conditional) exactly when the score is guided.")
    if guided and rates is None:
        raise ValueError(
            "rates is missing; under guidance give PerBranch(None, rates) with [label_i = c]/π_c for the class c."
        )
    values = [rates.unconditional, rates.conditional] if isinstance(rates, PerBranch) else [rates]
    return [None if value is None else _checked_rates(value, count, like) for value in values]


def _checked_rates(rates: Any, count: int, x: Tensor) -> Tensor:
    value = _tensor(rates, "rates")
    if value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"rates has dtype {value.dtype}; give real numbers.")
    if tuple(value.shape) != (count,):
        raise ValueError(f"rates has shape {tuple(value.shape)}; give one number for each of the {count} points.")
    check_finite(value, "rates")
    return value.detach().to(x)


def _tensor(value: Any, name: str) -> Tensor:
    """A tensor, or a list of numbers as one."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str) and name == "rates":
        try:
            return torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            pass
    raise TypeError(f"{name} is a {type(value).__name__}, not a tensor: pass torch.as_tensor({name}).")
