"""Part 1: every estimator on exact scores at equal evaluations, and the coverage of the formula's intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensitivity import Estimate
from studies.density_formula.config import Config
from studies.density_formula.estimators import NAMES, estimate
from studies.density_formula.problems import LAWS, exact_setup, noisy_states, truth
from studies.study import Cell

Rows = list[dict[str, Any]]
FAMILY = ("published", "control", "formula", "mixture")
LIMIT = 10_000  # evaluations beyond which only the formula is run


def cells(config: Config) -> list[Cell]:
    """One cell for each law: all estimators and budgets."""
    laws = [("far", d) for d in config.far] + [("near", d) for d in config.near]
    found = [Cell(f"exact-{f}-d={d}", {"part": "exact", "family": f, "dimension": d}, seed=1) for f, d in laws]
    return [*found, *(Cell(f"coverage-d={d}", {"part": "coverage", "dimension": d}, seed=2) for d in config.far)]


def run(cell: Cell, config: Config) -> Rows:
    """Rows: one for each estimator and budget."""
    family, dimension = cell.parameters["family"], cell.parameters["dimension"]
    law = LAWS[family](dimension)
    setup, x = exact_setup(law), noisy_states(law, config.states, cell.seed)
    exact, rows = truth(law, x), []
    for budget, repeats in zip(config.budgets, config.repeats, strict=True):
        for name in NAMES:
            count = 1 if name == "flow" else repeats
            if budget > LIMIT and name not in FAMILY:
                continue
            found = [estimate(name, setup, x, budget, 100 + k) for k in range(count)]
            if found[0] is not None:
                shared = {"part": "exact", "family": family, "dimension": dimension, "estimator": name}
                rows.append(shared | {"budget": budget} | quality([f for f in found if f is not None], exact))
    return rows


def run_coverage(cell: Cell, config: Config) -> Rows:
    """Whether 90 % intervals of the formula hold the truth, state by state."""
    law = LAWS["far"](cell.parameters["dimension"])
    setup, x = exact_setup(law), noisy_states(law, config.coverage_states, cell.seed)
    exact, hits, within = truth(law, x), 0, []
    for seed in range(4):
        found = estimate("formula", setup, x, 512, 1000 + seed)
        if found is not None:
            low, high = found.interval(0.9)
            hits += int(((low <= exact) & (exact <= high)).sum())
            within.append(float((found.value - exact).abs().median()))
    trials = 4 * config.coverage_states
    return [
        {
            "part": "coverage",
            "dimension": law.dimension,
            "hits": hits,
            "trials": trials,
            "median_error": float(np.median(within)),
        }
    ]


def quality(found: list[Estimate], exact: Tensor) -> dict[str, Any]:
    """Error of repetitions (R) at states (n): one row's numbers.

    `bias` is the mean error with `bias_error`, `persistent` the rms over states of the error that repetitions share
    (its noise subtracted), `sd` the rms deviation within a state, `reported` the rms of reported standard errors.
    """
    errors = torch.stack([each.value for each in found]) - exact
    repeats, count = errors.shape
    reported = torch.stack([each.standard_error for each in found]).square().mean(0)
    variance = errors.var(0) if repeats > 1 else reported  # of one estimate
    means = errors.mean(0)
    persistent = float((means.square() - variance / repeats).mean().clamp(min=0).sqrt())
    cost = found[0].evaluations
    factor = torch.exp(-errors) - 1  # the source of a sensitivity carries ν/p̂
    return {
        "evaluations": int(cost if isinstance(cost, int) else cost.max()),
        "rms": float(errors.square().mean().sqrt()),
        "bias": float(means.mean()),
        "bias_error": float((variance.mean() / (repeats * count)).sqrt()),
        "persistent": persistent,
        "sd": float(variance.mean().sqrt()),
        "reported": float(reported.mean().sqrt()),
        "state_variances": reported.tolist(),
        "source_error": float(factor.abs().median()),
        "source_bias": float(factor.mean()),
        "source_theory": float(torch.expm1(variance / 2).mean()),
    }
