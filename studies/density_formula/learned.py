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
from studies.density_formula.estimators import ESTIMATORS, NAMES, estimate, flow
from studies.density_formula.exact import quality
from studies.density_formula.problems import SIGMA, SIGMA_MAX, Setup, exact_setup, far, near, noisy_states, truth
from studies.networks import Architecture
from studies.study import Cell, Context
from studies.training import Objective, Recipe, train

Rows = list[dict[str, Any]]
OBJECTIVE = Objective(mean=-0.3, spread=1.6)
ROTATION = 0.3


def cells(config: Config) -> list[Cell]:
    """One cell for each dimension, and one for scores that are wrong on purpose."""
    found = [Cell(f"network-d={d}", {"part": "network", "dimension": d}, seed=3) for d in config.network_dimensions]
    return [*found, Cell("excess-planted", {"part": "excess"}, seed=3)]


def recipe(width: int, steps: int) -> Recipe:
    """How the study's networks are trained."""
    return Recipe(Architecture(width=width, depth=3), OBJECTIVE, steps=steps, rate=3e-3, halflife=steps / 20)


def run(cell: Cell, context: Context) -> Rows:
    """Rows of a trained network: all estimators, and its over-estimate."""
    config, law = context.config, near(cell.parameters["dimension"])
    pool = torch.from_numpy(np.asarray(law.sample(20_000, 8))).float()
    trained = train(recipe(config.network_width, config.network_steps), pool, cache=context.cache)
    setup = Setup(as_score(trained.network.double(), "denoiser"), exact_setup(law).data)
    x = noisy_states(law, config.network_states, cell.seed)
    shared = {"dimension": law.dimension, "budget": config.network_budget}
    own = flow(setup, x, 4 * config.network_budget, 0)
    rows = []
    for name in NAMES:
        found = [estimate(name, setup, x, config.network_budget, 100 + k) for k in range(1 if name == "flow" else 3)]
        kept = [each for each in found if each is not None]
        if kept and own is not None:
            row = quality(kept, truth(law, x)) | {"own_rms": quality(kept, own.value)["rms"]}
            rows.append({"part": "network", "estimator": name} | shared | row)
    return [*rows, excess(f"network, d = {law.dimension}", setup, law, config.excess_states)]


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
    found = ESTIMATORS["formula"](setup, x, 256, 9)
    gap = (truth(law, x) - found.value).numpy() if found is not None else np.full(count, np.nan)
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
