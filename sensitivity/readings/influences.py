"""Influence of every training point on functionals of the samples, by one backward pass.

dφ/dη toward point i is ∇φ·δ_i, δ_i the sensitivity toward that point alone; the transposed sampler gives all N of them
at the price of one adjoint solve (influence curve: Hampel 1974; score derivative: Scarvelis & Solomon 2025,
arXiv 2509.23092).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sensitivity.grid import Grid
from sensitivity.jacobians.products import DIFFERENCES
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.measures.points import Points
from sensitivity.perturbations.contamination import Toward
from sensitivity.readings.adjoint import pull_back, record_path
from sensitivity.readings.prepare import Options, Run, prepare
from sensitivity.readings.streaming import paired
from sensitivity.sampler.local_maps import Cost
from sensitivity.sampler.outcome import Outcomes, Watch
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
    """

    values: Tensor
    indices: Tensor | None
    samples: Tensor
    functional: Tensor
    log_density: Tensor | None
    log_density_error: Tensor | None
    grid_error: Tensor | None
    outcome: Outcomes
    cost: Cost


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
    control: GaussianAnchor | None = None,
) -> Influence:
    """The derivative of functionals of the samples toward each of N points, by one backward pass.

    Positive means that the functional rises when the point gets more mass. Every value is exactly what `Toward` that
    point alone gives in `sample_sensitivity` with the same noise.

    Args:
        score: s(x, σ), see `as_score`; or `guided(...)`.
        latents: states at σ_max, (batch, *shape).
        functional: φ: samples (batch, *shape) -> (batch,), each value from its own sample; or pooled -> a 0-d tensor,
            and then values[b, i] is the part that passes through sample b; or a sequence of such functionals.
        points: the N points, a `Points` (its bandwidth counts, its weights do not) or a tensor (N, *shape).
        rates: how fast each point moves mass, (N,), 1 where not given. Under guidance `PerBranch`: for the conditional
            branch of class c the rate of point i is [label_i = c]/π_c.
        top_k: keep only the k points of largest |value| per sample, without forming the full matrix.
        grid, anchor, trace, probes, generator, seed, solver, denoise, chunk_size, products, control: as for
            `sample_sensitivity`.

    Raises:
        ValueError, TypeError: for arguments that do not fit, with the remedy.

    Example:
        >>> from sensitivity import Mixture
        >>> base = Mixture(torch.tensor([1.0]), torch.zeros(1, 1), torch.ones(1, 1, 1))
        >>> right_of = lambda x: x[:, 0]
        >>> points = torch.tensor([[-1.0], [1.0]])
        >>> result = influence(base.score, torch.zeros(1, 1), right_of, points, Grid(10.0, 0.1, 20), anchor=base)
        >>> bool(result.values[0, 0] < 0 < result.values[0, 1])
        True
    """
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
        raise ValueError(f"top_k={top_k!r} counts the points to keep; give an integer of at least 1, or None for all.")
    if products in DIFFERENCES:
        raise ValueError(
            f"products={products!r} are differences without a transpose, and influence is exact; use products='auto'."
        )
    data = points if isinstance(points, Points) else Points(points)
    functionals = list(functional) if isinstance(functional, Sequence) else [functional]
    change: Any = Toward(data)
    if isinstance(score, GuidedScore):
        change = PerBranch(change, change)
    options = Options(anchor, trace, probes, generator, seed, solver, denoise, products, control=control)
    work = prepare(score, latents, change, grid, options, tangents=False)
    speeds = _rates(rates, work, len(data))
    parts = _parts(work, functionals, data, speeds, top_k, chunk_size)
    return _joined(parts, isinstance(functional, Sequence))


def _gradients(functionals: Sequence[Functional], samples: Tensor) -> tuple[list[Tensor], Tensor]:
    values, rows = [], []
    for k, function in enumerate(functionals):
        x = samples.detach().requires_grad_()
        with torch.enable_grad():
            value = function(x)
            if not isinstance(value, Tensor) or value.shape not in (x.shape[:1], ()):
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"functional {k} returns {shape}; it must map samples to ({x.shape[0]},) or to one number."
                )
            if not value.requires_grad:
                raise ValueError(
                    f"functional {k} does not depend on the samples; compute it with torch, without detach."
                )
            rows.append(torch.autograd.grad(value.sum(), x)[0])
        values.append(value.detach())
    return values, torch.stack(rows)


def _parts(
    work: Run,
    functionals: Sequence[Functional],
    data: Points,
    rates: list[Tensor | None],
    top_k: int | None,
    chunk_size: int | None,
) -> list[Influence]:
    chunks = work.chunks(chunk_size)
    watches = [Watch(len(c.latents), c.latents.device) for c in chunks]
    forward = [record_path(c, w) for c, w in zip(chunks, watches, strict=True)]
    sizes = [len(c.latents) for c in chunks]
    values, gradients = _gradients(functionals, torch.cat([x for x, _, _ in forward]))
    parts = []
    for chunk, watch, (x, records, logs), cotangents, rows in zip(
        chunks, watches, forward, gradients.split(sizes, 1), _row_slices(sizes), strict=True
    ):
        pairings = list(pull_back(chunk.laws, [*chunk.path, *chunk.final], records, cotangents))
        found, indices = paired(chunk.laws, pairings, data, rates, top_k)
        own = torch.stack([v[rows] if v.ndim else v.expand(rows.stop - rows.start) for v in values])
        parts.append(Influence(found, indices, x, own, *logs, watch.read(), chunk.laws.cost))
    return parts


def _row_slices(sizes: Sequence[int]) -> list[slice]:
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _rates(rates: Any, work: Run, count: int) -> list[Tensor | None]:
    guided = work.laws.samplers > 1
    if isinstance(rates, PerBranch) != guided and rates is not None:
        raise TypeError("rates must be PerBranch(unconditional, conditional) exactly when the score is guided.")
    if guided and rates is None:
        raise ValueError(
            "rates is missing; under guidance give PerBranch(None, rates) with [label_i = c]/π_c for the class c."
        )
    values = [rates.unconditional, rates.conditional] if isinstance(rates, PerBranch) else [rates]
    for value in values:
        if value is not None and tuple(value.shape) != (count,):
            raise ValueError(f"rates has shape {tuple(value.shape)}; give one number for each of the {count} points.")
    return [None if value is None else value.to(work.latents) for value in values]


def _joined(parts: Sequence[Influence], several: bool) -> Influence:
    def join(name: str, squeeze: bool) -> Any:
        values = [getattr(part, name) for part in parts]
        if values[0] is None:
            return None
        joined = torch.cat(values, 1)
        return joined[0] if squeeze else joined

    density = parts[0].log_density
    alone = density is not None and len(density) == 1
    return replace(
        parts[0],
        values=join("values", not several),
        indices=join("indices", not several),
        samples=torch.cat([part.samples for part in parts]),
        functional=join("functional", not several),
        log_density=join("log_density", alone),
        log_density_error=join("log_density_error", alone),
        grid_error=join("grid_error", alone),
        outcome=Outcomes.join([part.outcome for part in parts]),
    )
