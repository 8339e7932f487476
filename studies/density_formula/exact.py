"""Part 1: every estimator on exact scores at equal evaluations, the mean error of the formula, and its coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from sensitivity import Estimate
from studies.density_formula.config import Config
from studies.density_formula.estimators import NAMES, estimate, timed
from studies.density_formula.problems import LAWS, Setup, exact_setup, noisy_states, truth
from studies.statistics import holm
from studies.study import Cell

Rows = list[dict[str, Any]]


def cells(config: Config) -> list[Cell]:
    """A cell for each law with all estimators and budgets; on far laws the mean error and the coverage."""
    laws = [("far", d) for d in reversed(config.far)] + [("near", d) for d in reversed(config.near)]
    cells = [Cell(f"exact-{f}-d={d}", {"part": "exact", "family": f, "dimension": d}, seed=1) for f, d in laws]
    cells += [Cell(f"bias-d={d}", {"part": "bias", "dimension": d}, seed=14) for d in reversed(config.far)]
    return [*cells, *(Cell(f"coverage-d={d}", {"part": "coverage", "dimension": d}, seed=2) for d in config.far)]


def run(cell: Cell, config: Config) -> Rows:
    """Rows: one for each estimator and budget."""
    family, dimension = cell.parameters["family"], cell.parameters["dimension"]
    law = LAWS[family](dimension)
    setup, x = exact_setup(law), noisy_states(law, config.states, cell.seed)
    shared = {"part": "exact", "family": family, "dimension": dimension}
    runs = gathered(setup, x, config.budgets, config.repeats, NAMES)
    known = exact_setup(law, exact_anchor=True)
    ends = gathered(known, x, config.budgets[-1:], config.repeats[-1:], ("flow", "formula"))
    runs += [(row | {"estimator": f"{row['estimator']}, exact end"}, each) for row, each in ends]
    exact = truth(law, x)
    return [shared | row | quality(each, exact) for row, each in runs]


Runs = list[tuple[dict[str, Any], list[Estimate]]]


def gathered(
    setup: Setup, x: Tensor, budgets: tuple[int, ...], repeats: tuple[int, ...], names: tuple[str, ...]
) -> Runs:
    """Estimates of every estimator at every budget that it can use; what is not random runs once."""
    gathered_runs: Runs = []
    for budget, count in zip(budgets, repeats, strict=True):
        for name in names:
            runs = [timed(name, setup, x, budget, 100 + k) for k in range(1 if name == "flow" else count)]
            kept = [each for each, _ in runs if each is not None]
            seconds = float(np.median([spent for _, spent in runs]))
            if kept:
                gathered_runs.append(({"estimator": name, "budget": budget, "seconds": seconds}, kept))
    return gathered_runs


def run_bias(cell: Cell, config: Config) -> Rows:
    """Mean error of the formula over many independent estimates at fixed states, with either end of the integral.

    `mean_p` tests the mean over states, `state_p` is the smallest p-value of the states' own t-tests after Holm's
    correction: errors of both signs cannot hide in a mean.
    """
    law = LAWS["far"](cell.parameters["dimension"])
    x = noisy_states(law, config.bias_states, cell.seed)
    exact, rows = truth(law, x), []
    for end in ("exact", "matched"):
        setup = exact_setup(law, exact_anchor=end == "exact")
        for budget, repeats in zip(config.bias_budgets, config.bias_repeats, strict=True):
            estimates = [estimate("formula", setup, x, budget, 14_000 + k) for k in range(repeats)]
            errors = torch.stack([each.value for each in estimates if each is not None]) - exact
            shared = {"part": "bias", "dimension": law.dimension, "end": end, "budget": budget}
            rows.append(shared | mean_error(errors.numpy()))
    return rows


def mean_error(errors: np.ndarray) -> dict[str, Any]:
    """Tests of a mean error from independent errors (repeats, states) at fixed states."""
    repeats, count = errors.shape
    variances = errors.var(0, ddof=1)
    bias, deviation = float(errors.mean()), float(np.sqrt(variances.mean()))
    error = deviation / float(np.sqrt(repeats * count))
    single = stats.ttest_1samp(errors, 0.0, axis=0).pvalue
    return {
        "bias": bias,
        "bias_error": error,
        "sd": deviation,
        "mean_p": float(2 * stats.t.sf(abs(bias) / error, count * (repeats - 1))),
        "state_p": float(holm(single).min()),
        "estimates": repeats * count,
    }


def run_coverage(cell: Cell, config: Config) -> Rows:
    """Whether 90 % intervals of the formula hold the truth, state by state."""
    law = LAWS["far"](cell.parameters["dimension"])
    setup, x = exact_setup(law), noisy_states(law, config.coverage_states, cell.seed)
    exact, hits, within = truth(law, x), 0, []
    for seed in range(4):
        result = estimate("formula", setup, x, 512, 1000 + seed)
        if result is not None:
            low, high = result.interval(0.9)
            hits += int(((low <= exact) & (exact <= high)).sum())
            within.append(float((result.value - exact).abs().median()))
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


def quality(estimates: list[Estimate], exact: Tensor) -> dict[str, Any]:
    """Error of repetitions (R) at states (n): one row's numbers.

    `bias` is the mean error with `bias_error`, `persistent` the rms over states of the error that repetitions share
    (its noise subtracted), `sd` the rms deviation within a state, `reported` the rms of reported standard errors,
    `state_squares` the mean square error of each state.
    """
    errors = torch.stack([each.value for each in estimates]) - exact
    repeats, count = errors.shape
    reported = torch.stack([each.standard_error for each in estimates]).square().mean(0)
    variance = errors.var(0) if repeats > 1 else reported  # of one estimate
    means = errors.mean(0)
    persistent = float((means.square() - variance / repeats).mean().clamp(min=0).sqrt())
    cost = estimates[0].evaluations
    factor = torch.exp(-errors) - 1  # the source of a sensitivity carries ν/p̂
    return {
        "evaluations": int(cost if isinstance(cost, int) else cost.max()),
        "rms": float(errors.square().mean().sqrt()),
        "state_squares": errors.square().mean(0).tolist(),
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
