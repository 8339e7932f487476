"""Every density estimator under one signature, at a budget of score evaluations for each state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import hypot
from time import process_time
from typing import Any

import torch
from torch import Tensor

from sensitivity import Estimate, Formula, Grid, log_density
from sensitivity.noise import Noise
from studies.density_formula.problems import SIGMA, SIGMA_MAX, Setup

Level = float | Tensor
Estimator = Callable[..., Estimate | None]  # (setup, x, budget, seed, sigma)
STAGES, MOST_STEPS, PATHS = 4, 64, 8
MOST_SKETCHED = 32  # products of Hutch++, which takes several times the time of plain probes
CONTROL = Formula(antithetic=False, times="independent", orthogonal=False, frame=1)
FINE = 8192  # evaluations from which probed flows take twice as many steps


def estimate(name: str, setup: Setup, x: Tensor, budget: int, seed: int, sigma: Level = SIGMA) -> Estimate | None:
    """`log p_σ` of states (count, *shape); None where the budget does not reach for two steps of a flow.

    The formula takes a level for each state, the others one level.
    """
    return ESTIMATORS[name](setup, x, budget, seed, sigma)


def timed(name: str, setup: Setup, x: Tensor, budget: int, seed: int) -> tuple[Estimate | None, float]:
    """The estimate and its processor seconds for each state (less disturbed by other work than the clock)."""
    start = process_time()
    result = estimate(name, setup, x, budget, seed)
    return result, (process_time() - start) / len(x)


def _formula(options: Formula, *, reference: str = "") -> Estimator:
    """The formula with options; `reference` names an attribute of the setup to take as the law q."""

    def run(setup: Setup, x: Tensor, budget: int, seed: int, sigma: Level = SIGMA) -> Estimate:
        chosen = replace(options, reference=getattr(setup, reference)) if reference else options
        chosen = chosen if setup.law is None else _with_exact_end(chosen, setup, float(sigma))
        least = chosen.cost(1, 1) // chosen.replicates
        chosen = replace(chosen, replicates=max(1, min(chosen.replicates, budget // least)))
        return log_density(
            setup.score, x, sigma, anchor=setup.end, method="formula", grid=setup.grid, formula=chosen,
            evaluations=budget, seed=seed, chunk_size=32768,
        )  # fmt: skip

    return run


def _with_exact_end(options: Formula, setup: Setup, sigma: float) -> Formula:
    """The matched Gaussian stays reference, and times stay where it puts them, when an exact law ends the integral."""
    reference = setup.anchor if isinstance(options.reference, str) else options.reference
    widest = float(torch.cat([setup.anchor.eigenvalues, setup.anchor.tail.reshape(1)]).max().sqrt())
    return replace(options, reference=reference, scales=(sigma, max(hypot(sigma, widest), 2 * sigma)))


def flow(setup: Setup, x: Tensor, budget: int, seed: int, sigma: float = SIGMA) -> Estimate | None:
    """Exact trace: d products at each stage."""
    steps = min(MOST_STEPS, budget // (STAGES * (1 + x[0].numel())))
    return None if steps < 2 else _flow(setup, x, steps, seed, sigma, trace="exact", products="reverse")


def _probed(trace: str, *, control: bool = False) -> Estimator:
    """Random probes; a quadratic form vᵀJv needs one backward pass, Hutch++ needs J itself."""

    def run(setup: Setup, x: Tensor, budget: int, seed: int, sigma: float = SIGMA) -> Estimate | None:
        least = 7 if trace == "hutch++" else 3
        steps = min(MOST_STEPS if budget >= FINE else MOST_STEPS // 2, budget // (STAGES * least))
        if steps < 2:
            return None
        more = {"products": "auto" if trace == "hutch++" else "reverse"}
        shared = setup.anchor if control else None
        probes = min(budget // (STAGES * steps) - 1, MOST_SKETCHED if trace == "hutch++" else budget)
        return _flow(setup, x, steps, seed, sigma, trace=trace, probes=probes, control=shared, **more)

    return run


def _flow(setup: Setup, x: Tensor, steps: int, seed: int, sigma: float, **options: Any) -> Estimate:
    # A grid has two levels: at σ_max itself nothing is left to follow, and the lower one is not used.
    grid = Grid(SIGMA_MAX, min(sigma, SIGMA_MAX / 1.001), steps, spacing="log")
    return log_density(setup.score, x, sigma, anchor=setup.end, method="flow", grid=grid, seed=seed, **options)


def ito(setup: Setup, x: Tensor, budget: int, seed: int, sigma: float = SIGMA) -> Estimate:
    """Itô's sum along forward-noised paths from x: eight paths, all levels of a path in one call.

    With x_0 = x and x_k at v_k rising from σ_0² to σ_max² on a logarithmic grid, and the score at the noisier end,
    `log p(x) ≈ log p(x_N) + Σ_k [s(x_k)·(x_{k−1} − x_k) − ½(v_k − v_{k−1})|s(x_k)|²]`, minus the same for a Gaussian q.
    """
    steps = max(1, budget // PATHS)
    if sigma >= SIGMA_MAX:
        return Estimate(setup.anchor.log_density(x, sigma), torch.zeros(len(x), dtype=x.dtype))
    levels = Grid(SIGMA_MAX, sigma, steps, spacing="log").levels.flip(0).to(x)
    widths = levels.square().diff()
    noise = Noise.draw(x.shape[0], seed=seed)
    rows = []
    for path in range(PATHS):
        white = noise.gaussian(tuple(x.shape[1:]), step=path, probes=steps, dtype=x.dtype)
        jumps = widths.sqrt().reshape(-1, *[1] * x.ndim) * white
        states = x + jumps.cumsum(0)
        rows.append(setup.anchor.log_density(x, sigma) + _ito_sum(setup, states, jumps, levels[1:], widths))
    return Estimate.of_groups(torch.stack(rows), evaluations=PATHS * steps)


def _ito_sum(setup: Setup, states: Tensor, jumps: Tensor, levels: Tensor, widths: Tensor) -> Tensor:
    """Σ over steps of Itô's terms of log p − log q, (count,)."""
    flat = states.flatten(0, 1)
    each = levels.repeat_interleave(states.shape[1])
    with torch.no_grad():
        scores = torch.cat([setup.score(y, s) for y, s in zip(flat.split(16384), each.split(16384), strict=True)])
    other = setup.anchor.score(flat, each)
    scores, other, jumps = (part.reshape(*states.shape[:2], -1) for part in (scores, other, jumps))
    squares = (scores.square() - other.square()).sum(-1)
    return (-((scores - other) * jumps).sum(-1) - 0.5 * widths[:, None] * squares).sum(0)


def kernel(setup: Setup, x: Tensor, budget: int, seed: int, sigma: float = SIGMA) -> Estimate:
    """The noised empirical law of as many draws as there are evaluations, another part of them for each seed."""
    order = torch.randperm(len(setup.data), generator=torch.Generator().manual_seed(seed))[:budget]
    estimate = log_density(setup.score, x, sigma, anchor=None, method="kernel", data=setup.data[order])
    return replace(estimate, evaluations=len(order))


ESTIMATORS: dict[str, Estimator] = {
    "published": _formula(Formula.published()),
    "flat": _formula(Formula(None, False, True, "stratified", False, 1)),
    "control": _formula(CONTROL),
    "antithetic": _formula(replace(CONTROL, antithetic=True)),
    "formula": _formula(Formula()),
    "mixture": _formula(Formula(), reference="fitted"),
    "low-rank": _formula(Formula(), reference="low_rank"),
    "flow": flow,
    "hutchinson": _probed("hutchinson"),
    "hutchinson, control": _probed("hutchinson", control=True),
    "hutch++": _probed("hutch++"),
    "ito": ito,
    "kernel": kernel,
}
# what the density formula's integral is evaluated by: with a wrong score they have one limit, and the flows another
FORMULAS = ("published", "flat", "control", "antithetic", "formula", "mixture", "low-rank", "ito")
NAMES = tuple(name for name in ESTIMATORS if name != "low-rank")  # on mixtures
IMAGE_NAMES = tuple(name for name in ESTIMATORS if name != "mixture")
