"""Log density by the score-based density formula: no divergence and no differential equation.

For a law `p = p_{σ_0}` with scores `s = s_σ`, `v = σ²`, `τ² = σ² − σ_0²`, `y = x + τZ`, `Z ~ N(0, I)`, and
any reference `q` with known density and scores `s^q`,

    log p(x) = log q(x) + E[log p_{σ_max} − log q_{σ_max}](x + τ_max Z)
               − ½ ∫ E[(s − s^q)·(s + s^q + 2Z/τ)] dv,        v from σ_0² to σ_max².

This is the formula of Li and Yan (arXiv 2408.16765, theorem 1) in variance-exploding coordinates, where every schedule
gives the same integral, minus the same formula for `q` with the same noise; in the signal-to-noise ratio it is
the identity of Kong, Brekelmans and Ver Steeg (arXiv 2302.03792). With the flat reference (`s^q = 0`, `log q = 0`)
it is their formula with `E|Z|² = d` taken analytically, and `raw` keeps the random `|Z|²`.

Variance is lowered by a reference close to `p` (a moment-matched Gaussian, a mixture, another network), pairs
`±Z`, orthogonal frames of `Z`, a lattice in time and radius, and times placed between the finest and the coarsest
scale of the law. The standard error comes from independent replicates of the whole quadrature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sensitivity._callables import anchor_log_density
from sensitivity._checks import check_count
from sensitivity.densities.estimate import Estimate
from sensitivity.densities.formula_nodes import TIMES, Placement, coordinates, frames, uniforms, vectors
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.noise import Noise
from sensitivity.progress import Progress

Score = Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class Scored(Protocol):
    """What has a score at every level."""

    def score(self, x: Tensor, sigma: Tensor) -> Tensor: ...


class Reference(Scored, Protocol):
    """A law with known densities and scores at every level."""

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Formula:
    """How the density formula is evaluated.

    Attributes:
        reference: `q`; "anchor" takes the anchor, None the flat reference (a baseline; use stratified times with it).
        raw: keep the random `|Z|²` (the formula as published; flat reference only).
        antithetic: use `±Z`.
        times: "lattice", "stratified" or "independent" points in time.
        orthogonal: orthogonal frames of noise with antithetic, stratified radii, else independent noise.
        frame: directions in a frame; None takes all `d` where the budget has five nodes a replicate, else a few.
        replicates: independent repetitions, from which the standard error comes.
        scales: `(a, b)` of the placement in time (module `sensitivity.densities.formula_nodes`); None takes
            `a = σ_0` and for `b` the largest deviation of the anchor.

    Example:
        >>> from sensitivity import GaussianAnchor, log_density
        >>> law = GaussianAnchor(torch.zeros(2).double(), 1.0)
        >>> x, way = torch.zeros(1, 2, dtype=torch.float64), Formula(replicates=4)
        >>> estimate = log_density(law.score, x, 1.0, anchor=law, method="formula", formula=way, seed=0)
        >>> print(f"{float(estimate.value):.4f} ± {float(estimate.standard_error):.1g}")  # its own law is the reference
        -2.5310 ± 0
    """

    reference: Any = "anchor"
    raw: bool = False
    antithetic: bool = True
    times: str = "lattice"
    orthogonal: bool = True
    frame: int | None = None
    replicates: int = 8
    scales: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.times not in TIMES:
            raise ValueError(f"times={self.times!r} is unknown: choose one of {', '.join(TIMES)}.")
        check_count(self.replicates, "replicates", 0)
        check_count(self.frame, "frame")
        if self.replicates < 1:
            raise ValueError(f"replicates={self.replicates} gives no estimate: give at least 2, or 1 without an error.")
        if self.scales is not None and not 0 < self.scales[0] < self.scales[1]:
            raise ValueError(f"scales={self.scales} must be 0 < finest < coarsest: give two standard deviations.")
        if self.raw and self.reference is not None:
            raise ValueError("raw=True is the formula without a reference: give reference=None with it.")

    @property
    def sides(self) -> int:
        return 2 if self.antithetic else 1

    def cost(self, nodes: int, frame: int) -> int:
        """Network calls for each state."""
        return self.replicates * nodes * vectors(frame, self.orthogonal) * self.sides

    @classmethod
    def published(cls, replicates: int = 8) -> Formula:
        """The formula as in the paper: no reference, independent normal noise, independent times."""
        return cls(
            reference=None,
            raw=True,
            antithetic=False,
            times="independent",
            orthogonal=False,
            frame=1,
            replicates=replicates,
        )


@dataclass(frozen=True)
class _Problem:
    """One batch of states and what the integrand needs; `start` is `log q_{σ_0}(x)`, `progress` that of all batches."""

    score: Score
    x: Tensor
    sigma: Tensor
    anchor: Any
    reference: Any
    placement: Placement
    noise: Noise
    chunk_size: int
    options: Formula
    start: Tensor
    progress: Progress

    def rows(self, rows: Tensor) -> _Problem:
        x, sigma, start = self.x[rows], self.sigma[rows], self.start[rows]
        return replace(self, x=x, sigma=sigma, start=start, placement=self.placement[rows], noise=self.noise[rows])

    @property
    def dimension(self) -> int:
        return prod(self.x.shape[1:])

    def states(self, tau: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """`x + τ z` and their levels, flattened over frames, nodes and batch."""
        x, sigma = self.x.flatten(1), self.sigma.to(torch.float64)
        y = x + (tau[..., None] * z).to(x.dtype)
        levels = (sigma.square() + tau.square()).sqrt().to(x.dtype).expand(z.shape[:3])
        return y.reshape(-1, *self.x.shape[1:]), levels.flatten()

    def log_reference(self, y: Tensor, levels: Tensor) -> Tensor:
        return _log_density(self.reference, y, levels)

    def reference_score(self, y: Tensor, levels: Tensor) -> Tensor:
        return torch.zeros_like(y) if self.reference is None else self.reference.score(y, levels)


def _log_density(reference: Any, y: Tensor, levels: Tensor) -> Tensor:
    if reference is None:
        return torch.zeros(y.shape[0], dtype=torch.float64, device=y.device)
    return anchor_log_density(reference, y, levels, "reference").to(torch.float64)


# A whole frame removes the noise of directions and is worth having at down to five nodes; a part of one gains little.
_FEWEST, _NODES = 5, 16
_SAFETY = 1.5  # budget beyond the pilot's estimate, since its standard error has few degrees of freedom
_TERMINAL = 1 << 20  # replicate numbers of the terminal term, apart from those of the integral


def formula_log_density(
    score: Score,
    x: Tensor,
    sigma: Tensor,
    *,
    anchor: Any,
    sigma_max: float,
    noise: Noise,
    options: Formula | None = None,
    evaluations: int = 2048,
    tolerance: float | None = None,
    chunk_size: int = 4096,
    progress: Progress | None = None,
) -> Estimate:
    """`log p_σ(x)` in nats at a cost of about `evaluations` network calls for each state.

    With a `tolerance` in nats, a pilot with an eighth of `evaluations` sets the budget of each state, at most
    `evaluations` in all, at which the standard error should reach it.
    """
    options = options or Formula()
    problem = _problem(score, x, sigma, anchor, sigma_max, noise, options, chunk_size, progress)
    problem.progress.total *= 1 if tolerance is None else 2
    return _estimate(problem, evaluations) if tolerance is None else _to_tolerance(problem, evaluations, tolerance)


def formula_log_ratio(
    score: Score,
    reference: Reference,
    x: Tensor,
    sigma: Tensor,
    *,
    anchor: Any,
    sigma_max: float,
    noise: Noise,
    evaluations: int,
    chunk_size: int = 4096,
    progress: Progress | None = None,
) -> Estimate:
    """`log p_σ(x) − log q_σ(x)` of two networks with the same noise; `reference` has q's score and q's anchor."""
    options = Formula(reference)
    problem = _problem(score, x, sigma, anchor, sigma_max, noise, options, chunk_size, progress)
    return _estimate(replace(problem, start=torch.zeros_like(problem.start)), evaluations)


def _estimate(problem: _Problem, evaluations: int, first: int = 0) -> Estimate:
    """One estimate from replicates number `first` and up."""
    options = problem.options
    frame, nodes = _budget(options, problem.dimension, evaluations)
    block = max(1, problem.chunk_size // (vectors(frame, options.orthogonal) * options.sides))
    rows = torch.arange(problem.x.shape[0], device=problem.x.device).split(block)
    groups = torch.cat([_groups(problem.rows(part), nodes, frame, first) for part in rows], dim=1)
    return Estimate.of_groups(groups.to(problem.x.dtype), evaluations=options.cost(nodes, frame))


def _groups(problem: _Problem, nodes: int, frame: int, first: int) -> Tensor:
    """Independent estimates, `(replicates, batch)`."""
    numbers = problem.progress.over(range(first, first + problem.options.replicates), len(problem.x))
    parts = [_terminal(problem, nodes, frame, k) - _integral(problem, nodes, frame, k) for k in numbers]
    return problem.start + torch.stack(parts)


def _integral(problem: _Problem, nodes: int, frame: int, replicate: int) -> Tensor:
    """`½ ∫ E[(s − s^q)·(s + s^q + 2Z/τ)] dv` by one shifted set of nodes, `(batch,)`."""
    options, batch = problem.options, problem.x.shape[0]
    points = uniforms(problem.noise, options.times, nodes, coordinates(problem.dimension), replicate)
    total = torch.zeros(batch, dtype=torch.float64, device=problem.x.device)
    size = max(1, problem.chunk_size // (batch * vectors(frame, options.orthogonal) * options.sides))
    for first in range(0, nodes, size):
        part = points[first : first + size]
        tau, rate = problem.placement.times(part[..., 0])
        z = frames(problem.noise, part, problem.dimension, frame, replicate, options.orthogonal, first)
        # dv = 2τ dτ, and dτ = rate du for u uniform on (0, 1).
        total = total + (_integrand(problem, tau, z) * 2 * tau * rate).sum(0) / nodes
    return total


def _integrand(problem: _Problem, tau: Tensor, z: Tensor) -> Tensor:
    """Mean over the frame of `½ (s − s^q)·(s + s^q + 2Z/τ)`, `(nodes, batch)`, in float64."""
    z = torch.cat([z, -z]) if problem.options.antithetic else z
    y, levels = problem.states(tau, z)
    score = problem.score(y, levels).reshape(z.shape).to(torch.float64)
    reference = problem.reference_score(y, levels).reshape(z.shape).to(torch.float64)
    value = ((score - reference) * (score + reference + 2 * z / tau[..., None])).sum(-1) / 2
    if problem.options.raw:
        # What the formula without a reference has analytically, E|Z|² = d, is drawn here.
        value = value + (z.square().sum(-1) - problem.dimension) / (2 * tau.square())
    return value.mean(0)


def _terminal(problem: _Problem, nodes: int, frame: int, replicate: int) -> Tensor:
    """`E[log p_{σ_max} − log q_{σ_max}]` at `x + τ_max Z`, with the anchor for `p_{σ_max}`; needs no network."""
    if problem.reference is problem.anchor:
        return torch.zeros(problem.x.shape[0], dtype=torch.float64, device=problem.x.device)
    options, noise = problem.options, problem.noise
    points = uniforms(noise, options.times, nodes, coordinates(problem.dimension), _TERMINAL + replicate)
    z = frames(noise, points, problem.dimension, frame, _TERMINAL + replicate, options.orthogonal)
    z = torch.cat([z, -z]) if options.antithetic else z
    y, levels = problem.states(problem.placement.top.expand(nodes, -1), z)
    gap = anchor_log_density(problem.anchor, y, levels).to(torch.float64) - problem.log_reference(y, levels)
    return gap.reshape(z.shape[:3]).mean((0, 1))


def _problem(
    score: Score,
    x: Tensor,
    sigma: Tensor,
    anchor: Any,
    sigma_max: float,
    noise: Noise,
    options: Formula,
    chunk_size: int,
    progress: Progress | None,
) -> _Problem:
    reference = anchor if isinstance(options.reference, str) else options.reference
    if reference is not None and not isinstance(reference, Scored):
        raise ValueError(
            "the reference (the anchor, if none is given) has no score, so it cannot lower the variance: give one that "
            "has, or Formula(reference=None)."
        )
    level = sigma.to(torch.float64).expand(x.shape[0])
    # The placement needs τ_max > 0 and fine < coarse: at σ = σ_max nothing is left to integrate, and a law narrower
    # than the noise has one scale only.
    top = torch.maximum((sigma_max**2 - level.square()).clamp(min=0.0).sqrt(), 1e-9 * level)
    spread = torch.maximum((level.square() + _coarse_scale(anchor, sigma_max) ** 2).sqrt(), 2 * level)
    fine, coarse = options.scales or (level, spread)
    ends = [torch.as_tensor(v, dtype=torch.float64, device=x.device).expand(x.shape[0]) for v in (fine, coarse, top)]
    placement = Placement(ends[0], ends[1], ends[2], options.raw)
    sigma = sigma.expand(x.shape[0])
    start = _log_density(reference, x, sigma)
    told = Progress(0, None) if progress is None else progress
    told.total = len(x) * options.replicates
    return _Problem(
        score=score,
        x=x,
        sigma=sigma,
        anchor=anchor,
        reference=reference,
        placement=placement,
        noise=noise,
        chunk_size=chunk_size,
        options=options,
        start=start,
        progress=told,
    )


def _coarse_scale(anchor: Any, sigma_max: float) -> float:
    """The law's largest standard deviation where the anchor knows it, else the usual share of σ_max."""
    if isinstance(anchor, GaussianAnchor):
        return float(torch.cat([anchor.eigenvalues, anchor.tail.reshape(1)]).max().sqrt())
    return sigma_max / 40


def _budget(options: Formula, dimension: int, evaluations: int) -> tuple[int, int]:
    """Directions in a frame and nodes of one replicate."""
    least = options.cost(1, 1)
    if evaluations < least:
        raise ValueError(
            f"evaluations={evaluations} is too few for {options.replicates} replicates: give at least {least}."
        )
    pairs = evaluations // least
    if options.frame or not options.orthogonal:
        frame = min(options.frame or 1, pairs, dimension if options.orthogonal else pairs)
    else:
        frame = dimension if pairs >= _FEWEST * dimension else max(1, min(dimension, pairs // _NODES))
    return frame, pairs // frame


def _to_tolerance(problem: _Problem, evaluations: int, tolerance: float) -> Estimate:
    """Two stages (Stein, *Ann. Math. Stat.* 16, 1945): a pilot sets each state's budget, the second stage is reported.

    The reported stage is independent of the decision to stop, so that its intervals keep their coverage.
    """
    if not tolerance > 0 or problem.options.replicates == 1:
        raise ValueError(f"tolerance={tolerance} needs a positive number of nats and at least 2 replicates.")
    pilot = max(evaluations // 8, problem.options.cost(1, 1))
    first = _estimate(problem, pilot, 0)
    # At least the pilot's own budget, which also keeps log2 of an error of 0 finite.
    wanted = _SAFETY * (first.standard_error / tolerance).square().clamp(min=1 / _SAFETY)
    largest = max(evaluations - pilot, pilot)
    # Budgets in doublings of the pilot's: states of like budgets go together, in a few runs.
    doublings = wanted.log2().ceil().clamp(max=(-(-largest // pilot) - 1).bit_length()).to(torch.int64)
    value, error = torch.empty_like(first.value), torch.empty_like(first.value)
    cost = torch.empty_like(doublings)
    for number in doublings.unique().cpu().tolist():
        rows = torch.nonzero(doublings == number).flatten()
        part = _estimate(problem.rows(rows), min(pilot << number, largest), problem.options.replicates)
        value[rows], error[rows] = part.value, part.standard_error
        cost[rows] = part.evaluations + first.evaluations
    return Estimate(value, error, problem.options.replicates - 1, cost)
