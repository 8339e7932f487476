"""Every density estimator under one signature, at a budget of score evaluations for each state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from sensitivity import Estimate, Formula, Grid, log_density
from sensitivity.noise import Noise
from studies.density_formula.problems import SIGMA, SIGMA_MAX, Setup

Estimator = Callable[[Setup, Tensor, int, int], Estimate | None]
STAGES, MOST_STEPS, PATHS = 4, 64, 8
CONTROL = Formula(antithetic=False, times="independent", orthogonal=False, frame=1)


def estimate(name: str, setup: Setup, x: Tensor, budget: int, seed: int) -> Estimate | None:
    """`log p` at SIGMA of states (count, *shape); None where the budget does not reach for two steps of a flow."""
    return ESTIMATORS[name](setup, x, budget, seed)


def _formula(options: Formula, *, reference: str = "") -> Estimator:
    """The formula with options; `reference` names an attribute of the setup to take as the law q."""

    def run(setup: Setup, x: Tensor, budget: int, seed: int) -> Estimate:
        chosen = replace(options, reference=getattr(setup, reference)) if reference else options
        least = chosen.cost(1, 1) // chosen.replicates
        chosen = replace(chosen, replicates=max(1, min(chosen.replicates, budget // least)))
        return log_density(
            setup.score, x, SIGMA, anchor=setup.anchor, method="formula", grid=setup.grid, formula=chosen,
            evaluations=budget, seed=seed, chunk_size=32768,
        )  # fmt: skip

    return run


def flow(setup: Setup, x: Tensor, budget: int, seed: int) -> Estimate | None:
    """Exact trace: d products at each stage."""
    steps = min(MOST_STEPS, budget // (STAGES * (1 + x[0].numel())))
    return None if steps < 2 else _flow(setup, x, steps, seed, trace="exact")


def _probed(trace: str) -> Estimator:
    def run(setup: Setup, x: Tensor, budget: int, seed: int) -> Estimate | None:
        least = 7 if trace == "hutch++" else 3
        steps = min(32, budget // (STAGES * least))
        probes = min(64, budget // (STAGES * steps) - 1) if steps >= 2 else 0
        return None if steps < 2 else _flow(setup, x, steps, seed, trace=trace, probes=probes)

    return run


def _flow(setup: Setup, x: Tensor, steps: int, seed: int, *, trace: str, probes: int | None = None) -> Estimate:
    grid = Grid(SIGMA_MAX, SIGMA, steps, spacing="log")
    return log_density(
        setup.score, x, SIGMA, anchor=setup.anchor, method="flow", grid=grid, trace=trace, probes=probes, seed=seed
    )


def ito(setup: Setup, x: Tensor, budget: int, seed: int) -> Estimate:
    """Itô's sum along forward-noised paths from x: eight paths, all levels of a path in one call.

    With x_0 = x and x_k at v_k rising from σ_0² to σ_max² on a logarithmic grid, and the score at the noisier end,
    `log p(x) ≈ log p(x_N) + Σ_k [s(x_k)·(x_{k−1} − x_k) − ½(v_k − v_{k−1})|s(x_k)|²]`, minus the same for a Gaussian q.
    """
    steps = max(1, budget // PATHS)
    levels = Grid(SIGMA_MAX, SIGMA, steps, spacing="log").levels.flip(0).to(x)
    widths = levels.square().diff()
    noise = Noise.draw(x.shape[0], seed=seed)
    rows = []
    for path in range(PATHS):
        white = noise.gaussian(tuple(x.shape[1:]), step=path, probes=steps, dtype=x.dtype)
        jumps = widths.sqrt().reshape(-1, *[1] * x.ndim) * white
        states = x + jumps.cumsum(0)
        rows.append(setup.anchor.log_density(x, SIGMA) + _ito_sum(setup, states, jumps, levels[1:], widths))
    return Estimate.of_groups(torch.stack(rows), evaluations=PATHS * steps)


def _ito_sum(setup: Setup, states: Tensor, jumps: Tensor, levels: Tensor, widths: Tensor) -> Tensor:
    """Σ over steps of Itô's terms of log p − log q, (count,)."""
    flat = states.flatten(0, 1)
    each = levels.repeat_interleave(states.shape[1])
    with torch.no_grad():
        own = torch.cat([setup.score(y, s) for y, s in zip(flat.split(16384), each.split(16384), strict=True)])
    other = setup.anchor.score(flat, each)
    own, other, jumps = (part.reshape(*states.shape[:2], -1) for part in (own, other, jumps))
    squares = (own.square() - other.square()).sum(-1)
    return (-((own - other) * jumps).sum(-1) - 0.5 * widths[:, None] * squares).sum(0)


def kernel(setup: Setup, x: Tensor, budget: int, seed: int) -> Estimate:
    """The noised empirical law of as many draws as there are evaluations, another part of them for each seed."""
    order = torch.randperm(len(setup.data), generator=torch.Generator().manual_seed(seed))[:budget]
    found = log_density(setup.score, x, SIGMA, anchor=None, method="kernel", data=setup.data[order])
    return replace(found, evaluations=len(order))


ESTIMATORS: dict[str, Estimator] = {
    "published": _formula(Formula.published()),
    "control": _formula(CONTROL),
    "formula": _formula(Formula()),
    "mixture": _formula(Formula(), reference="fitted"),
    "low-rank": _formula(Formula(), reference="low_rank"),
    "flow": flow,
    "hutchinson": _probed("hutchinson"),
    "hutch++": _probed("hutch++"),
    "ito": ito,
    "kernel": kernel,
}
NAMES = tuple(name for name in ESTIMATORS if name != "low-rank")  # on mixtures
IMAGE_NAMES = tuple(name for name in ESTIMATORS if name not in ("mixture", "flow"))
