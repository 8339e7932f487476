"""From public arguments to the laws, steps and initial log densities of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ._checks import check_finite, check_states
from .branches import PerBranch
from .grid import Grid
from .laws import Law, Laws
from .noise import Noise
from .perturbations import Perturbation
from .products import Products
from .scores import GuidedScore, Score
from .tableau import Step, find, of_grid
from .traces import Trace


class Anchor(Protocol):
    """What is known of the law at σ_max: its log density in nats, (batch,)."""

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Run:
    """Everything a reading needs.

    Attributes:
        latents: x(σ_max), (batch, *shape).
        laws: local maps.
        path: steps of the sampler down to σ_min.
        final: the denoising step after them, or nothing.
        logs: log densities at the latents, (laws, groups, batch), or None.
        directions: K, the number of perturbations; `single` says that the caller gave one, not a sequence.
    """

    latents: Tensor
    laws: Laws
    path: Sequence[Step]
    final: Sequence[Step]
    logs: Tensor | None
    directions: int
    single: bool

    def chunks(self, size: int | None) -> list[Run]:
        """The run cut into chunks of latents."""
        batch = self.latents.shape[0]
        if size is None or size >= batch:
            return [self]
        if size < 1:
            raise ValueError(f"chunk_size={size} latents cannot be computed; give at least 1, or None.")
        return [self._rows(slice(first, first + size)) for first in range(0, batch, size)]

    def _rows(self, rows: slice) -> Run:
        logs = None if self.logs is None else self.logs[:, :, rows]
        return replace(self, latents=self.latents[rows], laws=self.laws.rows(rows), logs=logs)


@dataclass(frozen=True)
class Options:
    """How a run is computed; see `sample_sensitivity` for the meaning of each."""

    anchor: Any = None
    trace: str = "auto"
    probes: int | None = None
    generator: torch.Generator | None = None
    seed: int | None = None
    solver: str = "heun"
    denoise: bool = False
    products: str = "auto"
    differentiable: bool = False


def prepare(score: Score, latents: Tensor, perturbation: Any, grid: Grid, options: Options) -> Run:
    """Check the arguments and build the run.

    Raises:
        ValueError: for wrong shapes, non-finite latents, a missing anchor, an unknown solver or trace.
        TypeError: for arguments of the wrong kind.
    """
    check_states(latents, "latents")
    check_finite(latents, "latents")
    if not isinstance(grid, Grid):
        raise TypeError(f"grid is a {type(grid).__name__}; give a Grid(sigma_max, sigma_min, steps).")
    changes, single = as_changes(perturbation)
    x = latents if options.differentiable else latents.detach()
    sigma = torch.tensor(grid.sigma_max, dtype=torch.float64).to(x)
    laws, anchors = laws_of(score, changes, options, x, sigma)
    carried = any(c is not None and c.needs_density for law in laws for c in law.changes)
    shared = _with_density(laws, x, options) if carried else Laws(laws)
    logs = initial_logs(anchors, x, sigma, shared.trace) if carried else None
    path = of_grid(grid, find(options.solver), x, denoise=options.denoise)
    return Run(x, shared, path[: grid.steps], path[grid.steps :], logs, len(changes), single)


def as_changes(perturbation: Any) -> tuple[list[Any], bool]:
    """The perturbations as a list, and whether one alone was given."""
    single = isinstance(perturbation, Perturbation | PerBranch)
    changes = [perturbation] if single else perturbation
    if isinstance(changes, Tensor) or not isinstance(changes, Sequence) or not changes:
        raise TypeError(
            f"perturbation is a {type(perturbation).__name__}; give a perturbation such as Toward(measure), or several "
            "in a list."
        )
    for change in changes:
        if not isinstance(change, Perturbation | PerBranch):
            raise TypeError(
                f"perturbation holds a {type(change).__name__}; give perturbations such as Toward(measure)."
            )
    return list(changes), single


def laws_of(
    score: Score, changes: Sequence[Any], options: Options, x: Tensor, sigma: Tensor
) -> tuple[tuple[Law, ...], tuple[Any, ...]]:
    """The laws that a score is made of, with their perturbations, and their anchors."""
    if not callable(score):
        raise TypeError(f"score is a {type(score).__name__}; give a function score(x, sigma), see as_score.")
    if isinstance(score, GuidedScore):
        return _guided_laws(score, changes, options, x, sigma)
    if any(isinstance(value, PerBranch) for value in [*changes, options.anchor]):
        raise TypeError("PerBranch needs a guided score; give guided(conditional, unconditional, weight) as score.")
    return (Law(_products(score, options, x, sigma), 1.0, tuple(changes)),), (options.anchor,)


def _guided_laws(
    score: GuidedScore, changes: Sequence[Any], options: Options, x: Tensor, sigma: Tensor
) -> tuple[tuple[Law, ...], tuple[Any, ...]]:
    if not all(isinstance(change, PerBranch) for change in changes):
        raise TypeError("a guided score has two laws; give perturbation=PerBranch(unconditional, conditional).")
    free, bound = score.unconditional, score.conditional
    laws = (
        Law(_products(free, options, x, sigma), 1 - score.weight, tuple(c.unconditional for c in changes)),
        Law(_products(bound, options, x, sigma), score.weight, tuple(c.conditional for c in changes)),
    )
    anchor = options.anchor
    if anchor is None:
        return laws, (None, None)
    if not isinstance(anchor, PerBranch):
        raise TypeError("a guided score has two laws; give anchor=PerBranch(unconditional, conditional).")
    return laws, (anchor.unconditional, anchor.conditional)


def _products(score: Score, options: Options, x: Tensor, sigma: Tensor) -> Products:
    products = Products(score, options.products, options.differentiable)
    return products.choose(x, sigma)


def _with_density(laws: tuple[Law, ...], x: Tensor, options: Options) -> Laws:
    trace = Trace.resolve(options.trace, options.probes, x[0].numel())
    noise = None
    if trace.name != "exact":
        noise = Noise.draw(x.shape[0], generator=options.generator, seed=options.seed, device=x.device)
    return Laws(laws, trace, noise)


def initial_logs(anchors: Sequence[Any], x: Tensor, sigma: Tensor, trace: Trace | None) -> Tensor:
    """log p_b at the latents, (laws, groups, batch)."""
    values = []
    for anchor in anchors:
        if not callable(getattr(anchor, "log_density", None)):
            raise ValueError(
                f"anchor={anchor!r} has no log_density; the log-ratio needs log p at sigma_max, give "
                "GaussianAnchor.from_data(data) or the exact law."
            )
        values.append(anchor.log_density(x, sigma).to(x.dtype))
    groups = 1 if trace is None else trace.groups
    return torch.stack(values)[:, None].expand(-1, groups, -1)
