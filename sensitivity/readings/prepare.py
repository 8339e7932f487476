"""From public arguments to the local maps, steps and initial log densities of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import log, prod
from typing import Any, Protocol

import torch
from torch import Tensor

from sensitivity._callables import anchor_log_density, ready
from sensitivity._checks import at_least_single, check_count, check_finite, check_seed, check_states
from sensitivity.grid import Grid
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.traces import Trace
from sensitivity.jacobians.trial import TANGENTS, VALUES, Uses, choose
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.noise import Noise
from sensitivity.perturbations.perturbation import Perturbation
from sensitivity.progress import Progress
from sensitivity.readings.linking import link
from sensitivity.sampler.adaptive import Adaptive
from sensitivity.sampler.carried_density import Memory
from sensitivity.sampler.carried_network import LocalMap
from sensitivity.sampler.local_maps import LocalMaps
from sensitivity.sampler.sde import SDE, Stochastic
from sensitivity.sampler.step import Advance, State, advance
from sensitivity.sampler.tableau import DOPRI5, Step, Tableau, find, of_grid
from sensitivity.scores.per_branch import PerBranch
from sensitivity.scores.score import GuidedScore, Score, check_domain


class Anchor(Protocol):
    """What is known of the law at σ_max: its log density in nats, (batch,)."""

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Prepared:
    """Everything a reading needs.

    Attributes:
        latents: x(σ_max), (batch, *shape).
        maps: local maps.
        path: steps of the sampler down to σ_min.
        last: the step after them at σ_min: it denoises, and its stage input is the last node of the log density.
        denoise: whether the denoising step is taken.
        logs: log densities at the latents, (maps, groups, batch), or None.
        directions: K, the number of perturbations; `single` says that the caller gave one, not a sequence.
        grid: the levels of the path.
        progress: how far all chunks together are.
        advance: how a state takes a step.
    """

    latents: Tensor
    maps: LocalMaps
    path: Sequence[Step]
    last: Step
    denoise: bool
    logs: Tensor | None
    directions: int
    single: bool
    grid: Grid
    progress: Progress
    advance: Advance = advance

    @property
    def final(self) -> list[Step]:
        """The denoising step, or nothing."""
        return [self.last] if self.denoise else []

    def told(self, steps: Sequence[Step]) -> Iterator[Step]:
        """The steps, each of them reported for all latents once it was taken."""
        return self.progress.over(steps, len(self.latents))

    def start(self, tangent: Tensor | None = None, curvature: Tensor | None = None) -> State:
        """The state at σ_max, with the tangents that are carried (see `State`)."""
        logs, count = self.logs, 0 if curvature is None else len(curvature)
        if logs is None:
            return State(self.latents, tangent=tangent, curvature=curvature)
        if not isinstance(self.advance, Stochastic):
            return State(
                self.latents,
                tangent=tangent,
                curvature=curvature,
                memory=Memory.start(logs, self.maps.off_flow(logs), count),
            )
        log_tangent = torch.zeros_like(logs).expand(count, *logs.shape) if count else None
        return State(self.latents, logs, tangent, curvature, log_tangent)

    def chunks(self, size: int | None) -> list[Prepared]:
        """The run cut into chunks of latents."""
        batch = self.latents.shape[0]
        check_count(size, "chunk_size")
        if size is None or size >= batch:
            return [self]
        return [self._rows(slice(first, first + size)) for first in range(0, batch, size)]

    def _rows(self, rows: slice) -> Prepared:
        logs = None if self.logs is None else self.logs[:, :, rows]
        one_step = self.advance.rows(rows) if isinstance(self.advance, Stochastic) else self.advance
        return replace(self, latents=self.latents[rows], maps=self.maps.rows(rows), logs=logs, advance=one_step)


UNCHANGED: Any = PerBranch(None, None)
"""In place of a perturbation: nothing changes."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a run is computed; see `sample_sensitivity` for the meaning of each."""

    anchor: Any = None
    trace: str = "auto"
    probes: int | None = None
    generator: torch.Generator | None = None
    seed: int | None = None
    solver: Any = "heun"
    denoise: bool = False
    products: str = "auto"
    differentiable: bool = False
    control: GaussianAnchor | None = None
    response: Any = None
    progress: Any = False


def prepare(
    score: Score,
    latents: Tensor,
    perturbation: Any,
    grid: Grid,
    options: Options,
    *,
    uses: Uses = TANGENTS,
    density: bool = False,
    passes: int = 1,
) -> Prepared:
    """Check the arguments and build the run.

    Args:
        score, latents, grid: as for `sample_sensitivity`.
        perturbation: what changes, one or several; `UNCHANGED` where nothing does.
        options: how it is computed.
        uses: which Jacobian products it will take beside those of a divergence.
        density: whether log densities are carried even where no perturbation needs them.
        passes: how often the path is followed.

    Raises:
        ValueError: for wrong shapes, non-finite latents, a missing anchor, an unknown solver or trace.
        TypeError: for arguments of the wrong kind.
    """
    check_states(latents, "latents")
    check_finite(latents, "latents")
    check_seed(options.generator, options.seed)
    if not isinstance(grid, Grid):
        raise TypeError(f"grid is a {type(grid).__name__}; give a Grid(sigma_max, sigma_min, steps).")
    # A wrong word is refused before anything long begins.
    progress = Progress.of(0, options.progress)
    changes, single = as_changes(perturbation)
    if perturbation is UNCHANGED and not isinstance(score, GuidedScore):
        changes = [None]
    for branch in (score.unconditional, score.conditional) if isinstance(score, GuidedScore) else (score,):
        check_domain(branch, grid.sigma_min, grid.sigma_max)
    # Forward mode asks for strides that it knows; a layout of channels last is not one of them.
    x = at_least_single(latents if options.differentiable else latents.detach()).contiguous()
    sigma = torch.tensor(grid.sigma_max, dtype=torch.float64).to(x)
    chosen = _chooser(options, x, sigma, uses, grid.sigma_min)
    if perturbation is UNCHANGED and uses == VALUES and not density:
        chosen = partial(_values_only, options)  # no product is taken, and so none is tried
    maps, anchors = maps_of(score, changes, options.anchor, chosen)
    if options.response is not None:
        maps = options.response.bound(maps, x, grid, uses.tangents)
    maps, anchors = link(maps, anchors, chosen)
    solver, grid = solver_of(options.solver, score, x, grid)
    needed = any(c is not None and c.needs_density for local_map in maps for c in local_map.changes)
    carried = needed or density
    shared = _with_density(maps, x, options, solver, carried)
    shared.cost.away = 0 if options.response is None else options.response.evaluations
    logs = initial_logs(anchors, x, sigma, shared.trace) if carried else None
    path = of_grid(grid, solver, x, None if isinstance(solver, SDE) else shared.trace)
    one_step: Advance = advance
    if isinstance(solver, SDE) and shared.noise is not None:
        levels = grid.refined(solver.refinement).levels.tolist()
        one_step = Stochastic(solver, maps, anchors, shared.noise, levels)
        # A law's score does about so many nats of work along noise: d for every e-fold.
        shared = replace(shared, noisy=prod(x.shape[1:]) * log(grid.sigma_max / grid.sigma_min))
    progress.total = passes * len(x) * (len(path) - (not options.denoise))
    return Prepared(
        latents=x,
        maps=shared,
        path=path[:-1],
        last=path[-1],
        denoise=options.denoise,
        logs=logs,
        directions=len(changes),
        single=single,
        grid=grid,
        progress=progress,
        advance=one_step,
    )


def solver_of(solver: Any, score: Score, x: Tensor, grid: Grid) -> tuple[Tableau, Grid]:
    """The step and the grid it takes; an adaptive solver chooses its grid here."""
    if isinstance(solver, str):
        solver = {"sde": SDE(), "adaptive": Adaptive()}.get(solver) or find(solver)
    if isinstance(solver, Adaptive):
        return DOPRI5, solver.accepted(score, x, grid)
    if not callable(getattr(solver, "weights", None)):
        raise TypeError(f"solver is a {type(solver).__name__}; give a name such as 'heun', SDE(...) or Adaptive(...).")
    return solver, grid


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
        for part in (change.unconditional, change.conditional) if isinstance(change, PerBranch) else ():
            if part is not None and not isinstance(part, Perturbation):
                raise TypeError(
                    f"perturbation=PerBranch holds a {type(part).__name__}; give each branch a perturbation such as "
                    "Toward(measure), or None where it stays."
                )
    return list(changes), single


def maps_of(
    score: Score, changes: Sequence[Any], anchor: Any, choose: Callable[[Score], Products]
) -> tuple[tuple[LocalMap, ...], tuple[Any, ...]]:
    """The local maps that a score is made of, with their perturbations, and their anchors."""
    if not callable(score):
        raise TypeError(f"score is a {type(score).__name__}; give a function score(x, sigma), see as_score.")
    if isinstance(score, GuidedScore):
        return _guided_maps(score, changes, anchor, choose)
    if any(isinstance(value, PerBranch) for value in [*changes, anchor]):
        raise TypeError("PerBranch needs a guided score; give guided(conditional, unconditional, weight) as score.")
    return (LocalMap(choose(score), 1.0, tuple(changes)),), (anchor,)


def _guided_maps(
    score: GuidedScore, changes: Sequence[Any], anchor: Any, choose: Callable[[Score], Products]
) -> tuple[tuple[LocalMap, ...], tuple[Any, ...]]:
    if not all(isinstance(change, PerBranch) for change in changes):
        raise TypeError("a guided score has two laws; give perturbation=PerBranch(unconditional, conditional).")
    free, bound = score.unconditional, score.conditional
    maps = (
        LocalMap(choose(free), 1 - score.weight, tuple(c.unconditional for c in changes)),
        LocalMap(
            choose(bound),
            score.weight,
            tuple(c.conditional for c in changes),
            growth=tuple(c.growth for c in changes),
        ),
    )
    if anchor is None:
        return maps, (None, None)
    if not isinstance(anchor, PerBranch):
        raise TypeError("a guided score has two laws; give anchor=PerBranch(unconditional, conditional).")
    return maps, (anchor.unconditional, anchor.conditional)


def _chooser(options: Options, x: Tensor, sigma: Tensor, uses: Uses, until: float) -> Callable[[Score], Products]:
    def chosen(score: Score) -> Products:
        products = Products(score, options.products, options.differentiable)
        return choose(products, x, sigma, uses=uses, until=until)

    return chosen


def _values_only(options: Options, score: Score) -> Products:
    ready(score)
    return Products(score, "reverse", options.differentiable)


def _with_density(maps: tuple[LocalMap, ...], x: Tensor, options: Options, solver: Tableau, carried: bool) -> LocalMaps:
    """The local maps with a trace where the log density needs one and noise where anything is random."""
    stochastic = isinstance(solver, SDE)
    trace = None
    if carried and not (isinstance(solver, SDE) and not solver.needs_divergence):
        trace = Trace.resolve(options.trace, options.probes, prod(x.shape[1:]), control=options.control)
    # A run without chance draws no key, and leaves its caller's generator where it was.
    if not stochastic and (trace is None or trace.exact):
        return LocalMaps(maps, trace)
    return LocalMaps(
        maps, trace, Noise.draw(x.shape[0], generator=options.generator, seed=options.seed, device=x.device)
    )


def initial_logs(anchors: Sequence[Any], x: Tensor, sigma: Tensor, trace: Trace | None) -> Tensor:
    """log p_b at the latents, (maps, groups, batch)."""
    values = []
    for anchor in anchors:
        value = anchor_log_density(anchor, x, sigma)
        if not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"anchor.log_density is not finite at sigma_max={float(sigma):g} for sample "
                f"{int((~torch.isfinite(value)).nonzero()[0])}: are the latents states at sigma_max, and does the "
                "anchor have their shape and scale?"
            )
        values.append(value)
    groups = 1 if trace is None else trace.groups
    return torch.stack(values)[:, None].expand(-1, groups, -1)
