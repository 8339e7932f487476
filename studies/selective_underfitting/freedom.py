"""Freedom of extrapolation: the same targets, a broader region in which they are supervised."""

from __future__ import annotations

from typing import Any

import torch

from studies.networks import Architecture
from studies.selective_underfitting import measures
from studies.selective_underfitting.config import Config, Freedom
from studies.selective_underfitting.ladder import score_of, shown
from studies.selective_underfitting.memorisation import memorised_share
from studies.selective_underfitting.paths import noised, sampled
from studies.selective_underfitting.problem import problem
from studies.selective_underfitting.shells import Shells
from studies.selective_underfitting.targets import Distilled, Empirical
from studies.study import Context
from studies.training import Recipe, train_many

Row = dict[str, Any]
PROBLEM = "digits"


def largest(config: Config) -> int:
    """Images in the largest D_region: the common pool, so that every network is preconditioned alike."""
    return config.score_size * max(max(freedom.ratios) for freedom in config.freedoms)


def run_freedom(freedom: Freedom, ratio: int, thickness: float, context: Context) -> list[Row]:
    """Rows of all seeds: memorised share, error to the targets on held-out states, loss at the end of training."""
    config: Config = context.config
    data = problem(PROBLEM, largest(config))
    score_set = data.train[: config.score_size]
    weights = torch.zeros(len(data.train))
    weights[: config.score_size * ratio] = 1.0
    objective = Distilled(thickness=thickness, data=score_set)
    steps, architecture = freedom.steps, Architecture(freedom.kind, width=freedom.width, depth=freedom.depth)  # type: ignore[arg-type]  # JSON text
    recipe = Recipe(architecture, objective, steps, freedom.batch, warmup=min(100, steps // 4), halflife=steps / 20)
    every, seeds = [weights] * freedom.seeds, list(range(freedom.seeds))
    networks = train_many(recipe, data.train, weights=every, seeds=seeds, cache=context.cache, device=context.device)
    shared = {"kind": "freedom", "network": freedom.kind, "ratio": ratio, "thickness": thickness}
    region_set = data.train[: config.score_size * ratio]
    return [
        shared | {"seed": k, "loss": float(n.history[-1])} | measured(n.network, score_set, region_set, config)
        for k, n in zip(seeds, networks, strict=True)
    ]


def run_exact(context: Context) -> list[Row]:
    """The control: the exact empirical score of D_score."""
    config: Config = context.config
    score_set = problem(PROBLEM, largest(config)).train[: config.score_size]
    shared = {"kind": "freedom", "network": "memoriser", "ratio": 1, "thickness": 1.0, "seed": 0, "loss": 0.0}
    return [shared | measured(Empirical(score_set), score_set, score_set, config)]


def measured(denoiser: Any, score_set: torch.Tensor, region_set: torch.Tensor, config: Config) -> Row:
    """Samples and errors of one network."""
    held_out, target = problem(PROBLEM, largest(config)).held_out, Empirical(score_set)
    paths = sampled(denoiser, score_of(denoiser), score_set, config.levels, config.latents, config.substeps)
    low = [sigma for sigma in config.levels if sigma <= config.low]
    shells = Shells(score_set)
    inside = [measures.mean_error(denoiser, target, noised(score_set, s), s, None) for s in low]
    region = [measures.mean_error(denoiser, target, noised(region_set, s), s, None) for s in low]
    outside = [measures.mean_error(denoiser, target, noised(held_out, s), s, shells) for s in low]
    return {
        "samples": len(paths.samples),
        "memorised": memorised_share(paths.samples, score_set),
        "inside_errors": inside,
        "region_errors": region,
        "path_deviation": [float(shells.deviation(paths.at[s], s).median()) for s in config.levels],
        "heldout_errors": outside,
        "energy": measures.energy_distance(paths.samples, held_out),
        **shown(paths.samples),
    }
