"""Stochastic samplers with common noise, and the log density along them.

With v = σ², Δv = v_k − v_{k+1} > 0 and ξ ~ N(0, I) from the counter-based noise, the family is

    x_{k+1} = x_k + ((1+κ)/2) Δv s_k + √(κΔv) ξ_k;

κ = 0 follows the probability flow, κ = 1 is the reverse SDE (Song et al. 2021, arXiv 2011.13456, eq. 6). With the noise
held fixed the tangent of a step has no noise term: δ_{k+1} = δ_k + ((1+κ)/2) Δv (∇s_k δ_k + ṡ_k).

Itô's formula for log p along any such path, the score taken at the noisier end (cf. Karczewski et al. 2024,
arXiv 2411.01293):

    L_{k+1} = L_k + s_k·(x_{k+1} − x_k) − ½Δv |s_k|² − ½(1−κ) Δv div s_k,

free of divergences at κ = 1. Its error is of order ½ in the step (rms); `correction` adds ½κΔv (ξᵀ∇sξ − div s), which
makes it order 1 and costs one product and a divergence. With a Gaussian anchor q, log(p/q) is carried by the formula
and log q added exactly, a control variate without further network calls; the correction is subtracted for q too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sensitivity._checks import check_real_number
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.noise import Noise
from sensitivity.sampler.carried_network import LocalMap
from sensitivity.sampler.local_maps import dot
from sensitivity.sampler.step import Rate, Slope, State, advance, combine_optional, required
from sensitivity.sampler.tableau import Step, Table

_STREAM = 3  # noise stream of the Brownian path


@dataclass(frozen=True)
class SDE:
    """The solver "sde" with its settings.

    Attributes:
        kappa: κ ≥ 0; 0 is the flow (Euler in σ²), 1 the reverse SDE.
        correction: make Itô's log density of order 1 in the step.
        refinement: draw the Brownian path on the grid refined so many times and sum it, so that runs on a grid with
            refinement f and on `grid.refined(f)` share their noise.

    Example:
        >>> from sensitivity import GaussianAnchor, Grid, Points, Toward, sample_sensitivity
        >>> law, grid = GaussianAnchor(torch.zeros(2), 1.0), Grid(10.0, 0.1, 20)
        >>> new, latents = Toward(Points(torch.ones(1, 2))), torch.tensor([[3.0, -5.0]])
        >>> result = sample_sensitivity(law.score, latents, new, grid, anchor=law, solver=SDE(kappa=0.5), seed=0)
        >>> result.outcome.sentence
        '1 of 1 samples finished.'
    """

    kappa: float = 1.0
    correction: bool = False
    refinement: int = 1
    name: str = "sde"
    order: int = 1

    def __post_init__(self) -> None:
        if not 0 <= check_real_number(self.kappa, "kappa") < float("inf"):
            raise ValueError(
                f"kappa={self.kappa} is no amount of noise; give 0 (flow), 1 (reverse SDE) or another κ ≥ 0."
            )
        if isinstance(self.refinement, bool) or not isinstance(self.refinement, int) or self.refinement < 1:
            raise ValueError(f"refinement={self.refinement!r} counts parts of a step; give an integer of at least 1.")

    @property
    def needs_divergence(self) -> bool:
        """Whether its log density needs div s."""
        return self.kappa != 1.0 or self.correction

    def weights(self, start: float, end: float) -> Table:
        """One stage, B = ((1+κ)/2) Δv."""
        width = start**2 - end**2
        return Table((start,), ((),), ((1 + self.kappa) / 2 * width,))


@dataclass(frozen=True)
class Stochastic:
    """How a state takes a stochastic step.

    Attributes:
        solver: its settings.
        maps: the local maps, for the correction's products.
        controls: a Gaussian anchor for each local map, or None.
        noise: one key per sample.
        levels: those of the grid refined `solver.refinement` times; they fix the Brownian path.
    """

    solver: SDE
    maps: tuple[LocalMap, ...]
    controls: Sequence[Any]
    noise: Noise
    levels: Sequence[float]

    def rows(self, rows: slice) -> Stochastic:
        """The same for a chunk of the latents."""
        return replace(self, noise=self.noise[rows])

    def __call__(self, step: Step, state: State, slope: Slope) -> State:
        """One step; a denoising step to σ = 0 takes no noise."""
        if step.end == 0.0:
            return advance(step, state, slope)
        rate = slope(step, 0, state)
        after = self._drifted(step, state, rate)
        jump = self.jump(step, state.x)
        after = replace(after, x=after.x + jump)
        if state.logs is not None:
            extra = torch.stack([self._extra(b, step, state, rate, after, jump) for b in range(len(self.maps))])
            after = replace(after, logs=required(after.logs) + extra)
        if state.log_tangent is not None:
            tangents = [self._log_tangent(b, step, state, rate, after, jump) for b in range(len(self.maps))]
            after = replace(after, log_tangent=required(after.log_tangent) + torch.stack(tangents, 1)[:, :, None])
        return after

    def _drifted(self, step: Step, state: State, rate: Rate) -> State:
        """The step without its noise; of the log density it has −½(1−κ)Δv q."""
        weight = [-(1 - self.solver.kappa) / 2 * (step.start**2 - step.end**2)]
        return replace(
            state.plus(step.table.final, [rate]),
            logs=combine_optional(state.logs, weight, [rate.logs]),
            log_tangent=combine_optional(state.log_tangent, weight, [rate.log_tangent]),
        )

    def jump(self, step: Step, x: Tensor) -> Tensor:
        """√(κΔv) ξ of this step, like x: the sum over the parts of the refined step."""
        parts = self.solver.refinement
        # The refined levels fix the Brownian path: a run on half the steps takes the sums of the same increments, which
        # is what couples the two and lets their difference be an error of the step alone.
        total = torch.zeros_like(x)
        for index in range(parts * step.index, parts * (step.index + 1)):
            width = self.solver.kappa * (self.levels[index] ** 2 - self.levels[index + 1] ** 2)
            white = self.noise.gaussian(tuple(x.shape[1:]), step=index, dtype=x.dtype, stream=_STREAM)[0]
            total = torch.add(total, white, alpha=width**0.5)
        return total

    def _extra(self, b: int, step: Step, state: State, rate: Rate, after: State, jump: Tensor) -> Tensor:
        """What Itô's formula adds to −½(1−κ)Δv q_b, (groups or 1, batch)."""
        kappa, width = self.solver.kappa, step.start**2 - step.end**2
        score = rate.scores[b]
        # s·(x⁺ − x) − ½Δv|s|² with x⁺ − x = ((1+κ)/2) Δv d + jump, d the drift, less what −½(1−κ)Δv q has of it
        # already, q = div s + s·(s − d): the terms in s·d and |s|² are left with the factor κ.
        extra = dot(score, jump) + kappa * width * (dot(score, rate.x) - 0.5 * dot(score, score))
        extra = extra[None]
        if self.solver.correction:
            _, along = self.maps[b].products.quadratic(state.x, step.sigmas[0], jump[None])
            spread = dot(along[0], jump) - kappa * width * required(rate.divergences)[b]
            extra = extra + 0.5 * spread
        if isinstance(self.controls[b], GaussianAnchor):
            extra = extra + self._control(self.controls[b], step, state.x, after.x, jump)[None]
        return extra

    def _control(self, q: GaussianAnchor, step: Step, x: Tensor, after: Tensor, jump: Tensor) -> Tensor:
        """Exact change of log q minus what Itô's formula says of it, (batch,)."""
        start, end, width = step.sigmas[0], x.new_full((), step.end), step.start**2 - step.end**2
        score = q.score(x, start)
        predicted = dot(score, after - x) - 0.5 * width * dot(score, score)
        predicted = predicted - 0.5 * (1 - self.solver.kappa) * width * q.divergence(start)
        if self.solver.correction:
            # As for p: left at order ½, q's own noise would come back with the exact change of log q.
            quadratic = dot(q.score_product(x, start, jump), jump)
            predicted = predicted + 0.5 * (quadratic - self.solver.kappa * width * q.divergence(start))
        return q.log_density(after, end) - q.log_density(x, start) - predicted

    def _log_tangent(self, b: int, step: Step, state: State, rate: Rate, after: State, jump: Tensor) -> Tensor:
        """The tangent of `_extra`, (K, batch)."""
        kappa, width = self.solver.kappa, step.start**2 - step.end**2
        score, moved, tangent = rate.scores[b], rate.moved[b], required(rate.tangent)
        log_tangent = dot(moved, jump) + kappa * width * (dot(moved, rate.x) + dot(tangent, score) - dot(moved, score))
        q = self.controls[b]
        if isinstance(q, GaussianAnchor):
            log_tangent = log_tangent + self._control_tangent(q, step, state, after)
        return log_tangent

    def _control_tangent(self, q: GaussianAnchor, step: Step, state: State, after: State) -> Tensor:
        start, end, width = step.sigmas[0], state.x.new_full((), step.end), step.start**2 - step.end**2
        before, later = required(state.tangent), required(after.tangent)
        score, step_x = q.score(state.x, start), after.x - state.x
        products = torch.stack([q.score_product(state.x, start, tangent) for tangent in before])
        predicted = dot(products, step_x) + dot(later - before, score) - width * dot(products, score)
        return dot(later, q.score(after.x, end)) - dot(before, score) - predicted
