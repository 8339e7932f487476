"""Log density of a model's noised law at any level, with a standard error.

Three routes to `log p_σ(x)`:

- "flow": along the probability flow from `(x, σ)` up to `σ_max`, where it ends in `x_max`,
  `log p_σ(x) = log p_{σ_max}(x_max) − ∫ σ div s dσ` (Song et al., arXiv 2011.13456, section 4.3), the divergence
  exact or by random probes that are fresh at every stage;
- "formula": the density formula of Li and Yan (arXiv 2408.16765), Monte Carlo over noise, no divergence (module
  `sensitivity.densities.formula`);
- "kernel": the density of the noised empirical law of `data`; a baseline that uses no network.

The anchor gives `log p_{σ_max}`; its error is in no stated one. The flow states its grid's error beside the standard
error of random probes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from math import pi, prod, sqrt
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
    check_seed,
    check_sigma,
    check_states,
)
from sensitivity.densities.estimate import Estimate
from sensitivity.densities.formula import Formula, formula_log_density
from sensitivity.grid import Grid
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.traces import Trace
from sensitivity.jacobians.trial import VALUES, choose
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.measures.points import Points
from sensitivity.noise import Noise
from sensitivity.progress import Progress
from sensitivity.sampler.carried_network import LocalMap
from sensitivity.sampler.path import integrate_density
from sensitivity.scores.score import check_domain

__all__ = ["log_density"]

Score = Callable[[Tensor, Tensor], Tensor]
METHODS = ("flow", "formula", "kernel")


@outside_inference_mode
def log_density(
    score: Score,
    x: Tensor,
    sigma: Tensor | float,
    *,
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
    control: GaussianAnchor | None = None,
    formula: Formula | None = None,
    evaluations: int = 2048,
    tolerance: float | None = None,
    data: Tensor | None = None,
    chunk_size: int | None = None,
    differentiable: bool = False,
) -> Estimate:
    """`log p_σ(x)` in nats.

    Args:
        score: `score(x, sigma)` in variance-exploding coordinates (see `as_score`); unused by "kernel".
        x: states `(batch, *shape)`.
        sigma: noise level, a number or one for each state, at most `σ_max`.
        anchor: `log p_{σ_max}`, anything with `log_density(x, sigma)`: `GaussianAnchor`, `Mixture`, an exact law;
            unused by "kernel".
        method: "flow", "formula" or "kernel".

    Other args:
        grid: levels of the flow; the formula takes its `σ_max` only. By default 80 steps from the lowest σ asked for
            up to `σ_max = 80` (Karras et al., arXiv 2206.00364, for data of scale ½).
        trace: "exact", "hutchinson", "hutchinson-gaussian", "hutch++", or "auto": exact up to dimension 16.
        probes: products with the Jacobian in one stage, for random traces (default 4; one gives no standard error).
        generator, seed: source of the noise; give one of them at most.
        solver: step of the flow: "euler", "heun", "rk4", "dopri5", "exponential", "2m". The log density is taken along
            the states that it computes, so that its error hangs on the number of nodes more than on the solver.
        products: how Jacobian products are taken (see `Products`); by default a probe costs one backward pass.
        progress: as for `sample_sensitivity`; the formula counts replicates in the place of steps.
        control: a Gaussian whose divergence is known; random probes then see only the difference from it.
        formula: options of the density formula.
        evaluations: network calls for each state that the formula may spend.
        tolerance: stop the formula, state by state, at this standard error in nats.
        data: points `(N, *shape)` of the kernel estimate.
        chunk_size: states followed at once by the flow, or in one network call of the formula.
        differentiable: keep the graph to the network's parameters and to `x` (not to `sigma` with "flow").

    Returns:
        value and standard error, both `(batch,)`, and the flow's `grid_error`. The standard error covers the random
        part: 0 for the exact trace, NaN for one probe. The grid's error is summed over intervals and rather too large.
        For "kernel" it is the sampling error of `data`, and grows where few points are near.

    Raises:
        ValueError: for an unknown method, trace or solver; wrong shapes; non-finite states; `σ ≤ 0` or
            `σ > σ_max`; an anchor without `log_density`; "kernel" without data.

    Source: Song et al. 2021, arXiv 2011.13456; Li & Yan 2024, arXiv 2408.16765.

    Example:
        >>> law = GaussianAnchor(torch.zeros(2).double(), 1.0)
        >>> x = torch.zeros(1, 2, dtype=torch.float64)
        >>> value, error = log_density(law.score, x, 1.0, anchor=law)  # N(0, 2I) at its mean: −log 4π = −2.5310
        >>> print(f"{float(value):.3f} ± {float(error):.0f}")
        -2.531 ± 0
    """
    check_choice(method, METHODS, "method")
    check_states(x)
    check_finite(x, "x")
    check_seed(generator, seed)
    check_count(chunk_size, "chunk_size")
    check_count(evaluations, "evaluations")
    x = at_least_single(x)
    level = check_sigma(sigma, x)
    check_levels(level)
    told = Progress.of(0, progress)
    if method == "kernel":
        return _kernel(x, level, data)
    anchor = as_anchor(anchor)
    if not callable(score):
        raise TypeError(f"score is a {type(score).__name__}; give a function score(x, sigma), see as_score.")
    if grid is not None and not isinstance(grid, Grid):
        raise TypeError(f"grid is a {type(grid).__name__}; give a Grid(sigma_max, sigma_min, steps).")
    if x.shape[0] == 0:
        return Estimate(x.new_zeros(0), x.new_zeros(0))
    x = x.contiguous()
    grid = grid or Grid(80.0, min(float(level.min()), 40.0), 80)
    # σ_max itself, rounded to the states' float32, may lie above the grid's double.
    if bool((level > grid.sigma_max * (1 + 1e-6)).any()):
        raise ValueError(
            f"sigma = {float(level.max()):g} lies above sigma_max = {grid.sigma_max:g}: take a grid that starts higher."
        )
    check_domain(score, level.min() if x.shape[0] else grid.sigma_min, grid.sigma_max)
    draw = partial(Noise.draw, x.shape[0], generator=generator, seed=seed, device=x.device)
    with nullcontext() if differentiable else torch.no_grad():
        if method == "formula":
            return formula_log_density(
                partial(evaluate, score), x, level, anchor=anchor, sigma_max=grid.sigma_max, noise=draw(),
                options=formula, evaluations=evaluations, tolerance=tolerance, chunk_size=chunk_size or 4096,
                progress=told,
            )  # fmt: skip
        chosen = choose(Products(score, products, differentiable), x, level.min(), uses=VALUES, until=grid.sigma_max)
        way = Trace.resolve(trace, probes, prod(x.shape[1:]), control=control)
        # A flow without chance draws no key, and leaves its caller's generator where it was.
        noise = None if way.exact else draw()
        return _flow(chosen, x, level, anchor, grid, way, noise, solver, chunk_size, progress=told)


def _flow(
    products: Products,
    x: Tensor,
    sigma: Tensor,
    anchor: Any,
    grid: Grid,
    trace: Trace,
    noise: Noise | None,
    solver: str,
    chunk_size: int | None,
    progress: Progress,
) -> Estimate:
    """Along the probability flow; states are grouped by level, since a path has one grid."""
    groups = torch.empty(trace.groups, x.shape[0], dtype=x.dtype, device=x.device)
    starts, error = sigma.expand(x.shape[0]), torch.empty(x.shape[0], dtype=x.dtype, device=x.device)
    calls = torch.zeros(x.shape[0], dtype=torch.int64)
    paths = {value: grid.reversed_from(min(value, grid.sigma_max)) for value in starts.unique().cpu().tolist()}
    rows_of = {value: torch.nonzero(starts == value).flatten() for value in paths}
    progress.total = sum(len(rows_of[value]) * (len(levels) - 1) for value, levels in paths.items())
    for value, levels in paths.items():
        rows = rows_of[value]
        for part in rows.split(chunk_size or len(rows)):
            keys = None if noise is None else noise[part]
            flow = integrate_density([LocalMap(products, 1.0)], x[part], levels, trace, keys, solver, progress)
            groups[:, part] = anchor_log_density(anchor, flow.x, levels[-1].to(x)) - flow.increments[0]
            error[part] = flow.error[0]
            calls[part.cpu()] = flow.cost.evaluations + flow.cost.products
    cost = int(calls[0]) if bool((calls == calls[0]).all()) else calls
    return Estimate.of_groups(groups, exact=trace.exact, evaluations=cost, grid_error=error)


def _kernel(x: Tensor, sigma: Tensor, data: Tensor | None) -> Estimate:
    """`log ν_σ` of the empirical law ν of N points, with the standard error over draws of the points.

    With `k_i = N(x; y_i, σ²I)` the delta method gives `(mean k²/(mean k)² − 1)/(N − 1)`, and `k²` is, up to
    `(4πσ²)^{−d/2}`, the kernel at `σ/√2`: the second moment is a density of the same points.
    """
    if data is None:
        raise ValueError('method="kernel" estimates from points: give data of shape (N, *shape).')
    points, count = Points(data), len(data)
    value = points.log_density(x, sigma)
    if count == 1:
        return Estimate(value, torch.full_like(value, float("nan")), 0)
    # k² = (4πσ²)^{−d/2} times the kernel at σ/√2.
    squares = points.log_density(x, sigma / sqrt(2)) - x[0].numel() / 2 * (4 * pi * sigma.square()).log()
    # By Cauchy and Schwarz not negative, but for rounding where one point is all.
    spread = ((squares - 2 * value).exp() - 1).clamp(min=0.0) / (count - 1)
    return Estimate(value, spread.sqrt(), count - 1)
