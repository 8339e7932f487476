"""The paradox of classifier-free guidance: where would its direction come from?

Inside isolated shells the empirical scores of a class and of the whole data set are equal, so a network that had
learned them would have nothing to guide with. The learned scores differ where sampling goes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from sensitivity import as_score, guided
from studies.networks import Architecture, Denoiser
from studies.selective_underfitting import measures
from studies.selective_underfitting.config import Config
from studies.selective_underfitting.paths import noised, sampled
from studies.selective_underfitting.problem import Problem, problem
from studies.selective_underfitting.targets import Empirical, conditional
from studies.study import Context
from studies.training import Recipe, train_many

Row = dict[str, Any]
PROBLEM, CLASSES, WEIGHT, WIDTH, DEPTH = "digits", 10, 2.0, 128, 3
KEPT = 64  # latents a class


def networks(context: Context, data: Problem) -> list[Denoiser]:
    """Ten class networks, the unconditional one, and the unconditional one of another seed."""
    labels = check_labels(data)
    weights: list[Tensor | None] = [(labels == k).float() for k in range(CLASSES)]
    recipe = Recipe(Architecture("mlp", width=WIDTH, depth=DEPTH), steps=context.config.guidance_steps, batch=64)
    seeds = [0] * (CLASSES + 1) + [1]
    trained = train_many(
        recipe, data.train, weights=[*weights, None, None], seeds=seeds, cache=context.cache, device=context.device
    )
    return [t.network for t in trained]


def check_labels(data: Problem) -> Tensor:
    """The labels, which images have."""
    if data.labels is None:
        raise ValueError(f"the problem {data.name!r} has no classes to guide toward: choose digits or mnist14.")
    return data.labels


def run_guidance(context: Context) -> list[Row]:
    """Rows of every class and level, and of every class's samples."""
    config: Config = context.config
    data = problem(PROBLEM, max(config.images, 128))
    nets, whole = networks(context, data), Empirical(data.train)
    rows: list[Row] = []
    for label in range(CLASSES):
        branch = nets[label], conditional(data.train, check_labels(data), label)
        score = guided(as_score(branch[0], "denoiser"), as_score(nets[-2], "denoiser"), WEIGHT)
        count = min(KEPT, config.latents)
        paths = sampled(denoiser_of(score), score, data.train, config.levels, count, config.substeps)
        plain = sampled(branch[0], as_score(branch[0], "denoiser"), data.train, config.levels, count, config.substeps)
        rows += gaps(data, label, nets, branch, whole, paths.at, config)
        rows.append({"kind": "guided", "label": label, "accuracy": accuracy(data, paths.samples, label)})
        rows[-1] |= {"unguided_accuracy": accuracy(data, plain.samples, label)}
    return rows


def gaps(
    data: Problem,
    label: int,
    nets: list[Denoiser],
    branch: tuple[Denoiser, Empirical],
    whole: Empirical,
    at: dict[float, Tensor],
    config: Config,
) -> list[Row]:
    """Median gaps between conditional and unconditional denoisers, learned and empirical; and between two seeds."""
    pairs: dict[str, tuple[measures.Denoiser, measures.Denoiser]] = {
        "learned": (branch[0], nets[-2]),
        "empirical": (branch[1], whole),
        "seeds": (nets[-1], nets[-2]),
    }
    rows = []
    for sigma in (level for level in config.levels if level <= config.low):
        sets = {"training": noised(data.train[data.labels == label], sigma), "trajectory": at[sigma]}
        for name, x in sets.items():
            medians = {pair: float(measures.errors(*both, x, sigma).median()) for pair, both in pairs.items()}
            rows.append({"kind": "gap", "label": label, "sigma": sigma, "states": name} | medians)
    return rows


def denoiser_of(score: Any) -> Any:
    """`D = x + σ² s` at a single level."""
    return lambda x, sigma: x + sigma**2 * score(x, sigma)


def accuracy(data: Problem, x: Tensor, label: int) -> float:
    """The share of samples that the classifier gives the label."""
    return float(np.mean(measures.classifier(PROBLEM, len(data.train))(x).argmax(1) == label))
