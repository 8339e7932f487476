"""Log ratio of the densities of two models, with noise common to both.

Both densities are followed along the probability flow of the base model with the same probes: with base score `s`
and new score `s′`,

    d log p_σ = σ div s dσ,        d log p′_σ = σ [div s′ + s′·(s′ − s)] dσ,

so that probe noise cancels where the two Jacobians agree, at high noise above all. By the density formula, the base
model is the reference and only the difference of the scores is integrated.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from sensitivity._callables import anchor_log_density, as_anchor, evaluate, outside_inference_mode
from sensitivity._checks import (
    at_least_single,
    check_choice,
    check_count,
    check_finite,
    check_levels,
    check_real_number,
    check_seed,
    check_sigma,
    check_states,
)
from sensitivity.densities.estimate import Estimate
from sensitivity.densities.formula import formula_log_ratio
from sensitivity.grid import Grid
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.traces import Trace
from sensitivity.jacobians.trial import VALUES, choose
from sensitivity.noise import Noise
from sensitivity.progress import Progress
from sensitivity.sampler.carried_network import LocalMap
from sensitivity.sampler.path import integrate_density
from sensitivity.scores.score import check_domain

__all__ = ["log_density_ratio"]

Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class _Model:
    """A score with its anchor, as a reference of the density formula."""

    score: Score
    anchor: Any

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        return anchor_log_density(self.anchor, x, sigma)


@outside_inference_mode
def log_density_ratio(
    new: Score,
    base: Score,
    x: Tensor,
    sigma: float,
    *,
    new_anchor: Any,
    anchor: Any,
    method: str = "flow",
    grid: Grid | None = None,
    trace: str = "auto",
    probes: int | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    solver: str = "heun",
    products: str = "auto",
    progress: Any = False,
    evaluations: int = 2048,
    differentiable: bool = False,
) -> Estimate:
    """`log p′_σ(x) − log p_σ(x)` in nats of a new and a base model, both known by their scores.

    Args:
        new, base: scores `score(x, sigma)` of the two models.
        x: states `(batch, *shape)`.
        sigma: noise level, one number.
        new_anchor, anchor: their log densities at `σ_max`.
        method: "flow" or "formula".

    Other args:
        grid, trace, probes, generator, seed, solver, products, progress, evaluations, differentiable: as in
            `log_density`; `evaluations` counts calls of each of the two networks.

    Raises:
        ValueError: as `log_density`.

    Source: the rate of a log density along another law's flow is that of Skreta et al. 2024, arXiv 2412.17762.

    Example:
        >>> from sensitivity import GaussianAnchor
        >>> one, two = (GaussianAnchor(torch.zeros(1).double(), v) for v in (1.0, 3.0))
        >>> x = torch.zeros(1, 1, dtype=torch.float64)
        >>> ratio = log_density_ratio(two.score, one.score, x, 1.0, new_anchor=two, anchor=one)
        >>> print(f"{float(ratio.value):.4f}")  # −½ log(4/2)
        -0.3466
    """
    check_choice(method, ("flow", "formula"), "method")
    check_states(x)
    check_finite(x, "x")
    check_seed(generator, seed)
    check_count(evaluations, "evaluations")
    for name, score in (("new", new), ("base", base)):
        if not callable(score):
            raise TypeError(f"{name} is a {type(score).__name__}; give a function score(x, sigma), see as_score.")
    if grid is not None and not isinstance(grid, Grid):
        raise TypeError(f"grid is a {type(grid).__name__}; give a Grid(sigma_max, sigma_min, steps).")
    new_anchor, anchor = as_anchor(new_anchor, "new_anchor"), as_anchor(anchor)
    x = at_least_single(x)
    level = check_sigma(check_real_number(sigma, "sigma"), x)
    if x.shape[0] == 0:
        return Estimate(x.new_zeros(0), x.new_zeros(0))
    check_levels(level)
    told = Progress.of(0, progress)
    grid = grid or Grid(80.0, min(float(sigma), 40.0), 80)
    for model in (base, new):
        check_domain(model, level, grid.sigma_max)
    draw = partial(Noise.draw, x.shape[0], generator=generator, seed=seed, device=x.device)
    with nullcontext() if differentiable else torch.no_grad():
        if method == "formula":
            return formula_log_ratio(
                partial(evaluate, new), _Model(partial(evaluate, base), anchor), x, level, anchor=new_anchor,
                sigma_max=grid.sigma_max, noise=draw(), evaluations=evaluations, progress=told,
            )  # fmt: skip
        pair = tuple(
            choose(Products(score, products, differentiable), x, level, uses=VALUES, until=grid.sigma_max)
            for score in (base, new)
        )
        way = Trace.resolve(trace, probes, prod(x.shape[1:]))
        noise = None if way.exact else draw()  # no key is drawn where nothing is random
        return _along_base(pair, x, grid.reversed_from(float(sigma)), (anchor, new_anchor), way, noise, solver, told)


def _along_base(
    pair: tuple[Products, ...],
    x: Tensor,
    levels: Tensor,
    anchors: tuple[Any, Any],
    trace: Trace,
    noise: Noise | None,
    solver: str,
    progress: Progress,
) -> Estimate:
    progress.total = len(x) * (len(levels) - 1)
    maps = [LocalMap(pair[0], 1.0), LocalMap(pair[1], 0.0, drives=False)]
    flow = integrate_density(maps, x, levels, trace, noise, solver, progress)
    base, new = (anchor_log_density(anchor, flow.x, levels[-1].to(x)) for anchor in anchors)
    groups = (new - base).to(x.dtype) - (flow.increments[1] - flow.increments[0])
    cost = flow.cost.evaluations + flow.cost.products
    return Estimate.of_groups(groups, exact=trace.exact, evaluations=cost, grid_error=flow.error.sum(0))
