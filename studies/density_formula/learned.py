"""Parts 2 and 3: networks trained on mixtures, and the over-estimate of −log p by a wrong score."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oracles import GaussianMixture
from sensitivity import Score, as_score
from studies.bridge import engine_measure
from studies.density_formula.config import Config
from studies.density_formula.estimators import ESTIMATORS, FORMULAS, NAMES, estimate
from studies.density_formula.exact import gathered, quality
from studies.density_formula.problems import SIGMA, SIGMA_MAX, Setup, exact_setup, far, near, noisy_states, truth
from studies.networks import Architecture
from studies.study import Cell, Context
from studies.training import Objective, Recipe, train

Rows = list[dict[str, Any]]
OBJECTIVE = Objective(mean=-0.3, spread=1.6)
ROTATION = 0.3
WIDE = 20  # dimension from which networks have twice the width


def cells(config: Config) -> list[Cell]:
    """One cell for each dimension, and one for scores that are wrong on purpose."""
    cells = [Cell(f"network-d={d}", {"part": "network", "dimension": d}, seed=3) for d in config.network_dimensions]
    return [*cells, Cell("excess-planted", {"part": "excess"}, seed=3)]


def recipe(width: int, steps: int) -> Recipe:
    """How the study's networks are trained."""
    return Recipe(Architecture(width=width, depth=3), OBJECTIVE, steps=steps, rate=3e-3, halflife=steps / 20)


def run(cell: Cell, context: Context) -> Rows:
    """Rows of a trained network: all estimators, what formula and flow converge to, and the over-estimate.

    `rms` and `bias` are errors against the exact law, which no estimator can undo. The flow's limit is its exact trace
    on a fine grid, the formula's a run at many evaluations: with a wrong score they differ (`limits`). `own_*` are
    errors against the flow's limit, the density of what the network's flow samples, `limit_*` those of an estimator
    against what it converges to itself.
    """
    config, law = context.config, near(cell.parameters["dimension"])
    setup = trained_setup(law, context)
    x = noisy_states(law, config.network_states, cell.seed)
    limits = {name: estimate(name, setup, x, config.network_limit, 9000) for name in ("flow", "formula")}
    flow, formula = (each.value for each in limits.values() if each is not None)
    exact, rows = truth(law, x), []
    for row, estimates in gathered(setup, x, config.network_budgets, config.network_repeats, NAMES):
        against_flow = _named("own", quality(estimates, flow))
        limit = _named("limit", quality(estimates, formula if row["estimator"] in FORMULAS else flow))
        rows.append(
            {"part": "network", "dimension": law.dimension} | row | quality(estimates, exact) | against_flow | limit
        )
    gap = formula - flow
    sizes = {"gap": float(gap.mean()), "gap_rms": float(gap.square().mean().sqrt())}
    limit_row = {"part": "limits", "dimension": law.dimension} | sizes
    return [*rows, limit_row, excess(f"network, d = {law.dimension}", setup, law, config.excess_states)]


def _named(prefix: str, row: dict[str, Any]) -> dict[str, Any]:
    kept = ("rms", "bias", "bias_error", "state_squares")
    return {f"{prefix}_{key}": row[key] for key in kept}


def trained_setup(law: GaussianMixture, context: Context) -> Setup:
    """A denoiser trained on fresh draws of the law."""
    config = context.config
    pool = torch.from_numpy(np.asarray(law.sample(20_000, 8))).float()
    width = config.network_width * (2 if law.dimension > WIDE else 1)
    trained = train(recipe(width, config.network_steps), pool, cache=context.cache)
    return Setup(as_score(trained.network.double(), "denoiser"), exact_setup(law).data)


def run_excess(config: Config) -> Rows:
    """Scores that are wrong on purpose, and the exact one, in the plane."""
    law = near(2)
    data, right = exact_setup(law).data, engine_measure(law).score
    wrong = {"exact": right, "rotation": _rotated(right), "another law": engine_measure(far(2)).score}
    return [excess(name, Setup(score, data), law, config.excess_states) for name, score in wrong.items()]


def _rotated(score: Score) -> Score:
    """The score plus a divergence-free field, which is no gradient."""
    turn = torch.tensor([[0.0, -ROTATION], [ROTATION, 0.0]], dtype=torch.float64)

    def field(x: Tensor, sigma: Tensor) -> Tensor:
        level = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1)
        return score(x, sigma) + (x @ turn.to(x)) / (1 + level**2)

    return field


def excess(name: str, setup: Setup, law: GaussianMixture, count: int) -> dict[str, Any]:
    """Mean of log p − log p̂ over x ~ ρ, and ½ ∫ E|s_θ − s|² dv by independent draws."""
    x = noisy_states(law, count, 21)
    result = ESTIMATORS["formula"](setup, x, 256, 9)
    gap = (truth(law, x) - result.value).numpy() if result is not None else np.full(count, np.nan)
    theory = score_error(setup.score, law, 16 * count, 22).numpy()
    return {
        "part": "excess",
        "score": name,
        "excess": float(gap.mean()),
        "excess_error": float(gap.std(ddof=1) / len(gap) ** 0.5),
        "theory": float(theory.mean()),
        "theory_error": float(theory.std(ddof=1) / len(theory) ** 0.5),
        "negative": float((gap < 0).mean()),
    }


def score_error(score: Score, law: GaussianMixture, count: int, seed: int) -> Tensor:
    """Independent terms with mean ½ ∫ E|s_θ − s|² dv: σ log-uniform, weight σ² log(σ_max/σ_0)."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.from_numpy(np.asarray(law.sample(count, seed)))
    span = log(SIGMA_MAX / SIGMA)
    levels = SIGMA * torch.exp(span * torch.rand(count, generator=generator, dtype=torch.float64))
    y = clean + levels[:, None] * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        gap = score(y, levels) - engine_measure(law).score(y, levels)
    return span * levels.square() * gap.square().sum(1)
