"""Implication (b): the diffusion classifier. Classes are ranked by the weighted sum (the density formula), by the
unweighted heuristic, and by the truth; all classes see the same noise.

On clean images every rule is right, which shows nothing. Images are therefore given with noise of level σ_1: the rules
start there (`log p_{σ_1}(x | c)`, and the heuristic's process with σ_1 as its beginning), and classes overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from oracles import GaussianMixture
from sensitivity import Score, as_score
from studies import data
from studies.bridge import engine_measure
from studies.density_formula.config import Config
from studies.density_formula.estimators import estimate
from studies.density_formula.learned import recipe
from studies.density_formula.problems import SIGMA, SIGMA_MAX, Setup, noisy_states, truth
from studies.study import Cell, Context
from studies.training import train_many

Rows = list[dict[str, Any]]
CLASSES, DIMENSION = 4, 10


def cells(config: Config) -> list[Cell]:
    """Mixtures, and images at each level of their noise."""
    shared = {"part": "classifier-images", "images": config.class_images}
    cells = [Cell(f"classifier-images-sigma={s:g}", shared | {"sigma": s}, seed=6) for s in config.class_levels]
    return [*cells, Cell("classifier-mixtures", {"part": "classifier-mixtures"}, seed=6)]


def class_laws() -> list[GaussianMixture]:
    """Overlapping classes that differ in place and scale: two components each, variances grow by a third."""
    rng = np.random.default_rng(61)
    laws = []
    for label in range(CLASSES):
        means = 0.2 * rng.standard_normal((2, DIMENSION))
        factors = rng.standard_normal((2, DIMENSION, DIMENSION)) / np.sqrt(DIMENSION)
        shapes = factors @ factors.swapaxes(1, 2) + 0.2 * np.eye(DIMENSION)
        laws.append(GaussianMixture(np.array([0.35, 0.65]), means, 0.1 * (4 / 3) ** label * shapes))
    return laws


def unweighted(
    score: Score, x: Tensor, budget: int, seed: int, *, sigma: float = SIGMA, differentiable: bool = False
) -> Tensor:
    """`E|ε̂ − ε|²` over t uniform in the variance-preserving process, `t = τ²/(1 + τ²)`, ε̂ = −τ s; (count,).

    Stratified times; each state has noise of its own, common to the classes, as the heuristic is used (Li et al. 2023,
    arXiv 2303.16203, section 3).
    """
    generator = torch.Generator().manual_seed(seed)
    last = (SIGMA_MAX**2 - sigma**2) / (1 + SIGMA_MAX**2 - sigma**2)
    t = last * (torch.arange(budget) + torch.rand(budget, generator=generator, dtype=torch.float64)) / budget
    tau = (t / (1 - t)).sqrt().to(x)
    total = torch.zeros(len(x), dtype=x.dtype)
    size = max(1, 32768 // len(x))
    for part in tau.split(size):
        z = torch.randn((len(part), *x.shape), generator=generator, dtype=x.dtype)
        spread = part.reshape(-1, *[1] * x.ndim)
        y = (x + spread * z).flatten(0, 1)
        levels = (sigma**2 + part.square()).sqrt().repeat_interleave(len(x))
        with torch.set_grad_enabled(differentiable):
            scores = score(y, levels).reshape(len(part), *x.shape)
        total = total + (spread * scores + z).square().flatten(2).sum((0, 2))
    return total / budget


def run_mixtures(cell: Cell, config: Config) -> Rows:
    """Exact scores; Bayes' rule with equal priors is known."""
    laws = class_laws()
    share = config.classifier_states // CLASSES
    x = torch.cat([noisy_states(law, share, cell.seed + k) for k, law in enumerate(laws)])
    labels = torch.arange(CLASSES).repeat_interleave(share)
    exact = torch.stack([truth(law, x) for law in laws])
    pooled = torch.cat([torch.from_numpy(np.asarray(law.sample(1000, 5))) for law in laws])
    setups = [Setup(engine_measure(law).score, pooled) for law in laws]
    rows = []
    for budget in config.classifier_budgets:
        for rule, values in rankings(setups, x, budget, seed=7).items():
            rows.append({"part": "classifier-mixtures", "budget": budget, "rule": rule} | judged(values, exact, labels))
    bayes = judged(exact, exact, labels)
    return [*rows, {"part": "classifier-mixtures", "budget": 0, "rule": "Bayes"} | bayes]


def run_images(cell: Cell, context: Context) -> Rows:
    """One network for each class; the flow's likelihood (random probes) stands for the truth."""
    config, name, sigma = context.config, cell.parameters["images"], cell.parameters["sigma"]
    train_set, held_out = data.load(name).split(0.1, seed=0)
    labels = train_set.labels if train_set.labels is not None else torch.zeros(0)
    weights = [(labels == k).double() / (labels == k).sum() for k in range(10)]
    training = recipe(config.class_width, config.class_steps)
    networks = train_many(training, train_set.images, weights=weights, seeds=range(10), cache=context.cache)
    pool = train_set.images.double()
    setups = [Setup(as_score(t.network.double(), "denoiser"), pool) for t in networks]
    x = held_out.images[: config.class_states].double()
    x = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(62), dtype=x.dtype)
    shown = held_out.labels[: config.class_states] if held_out.labels is not None else torch.zeros(0)
    flows = [estimate("hutchinson, control", each, x, config.class_flow, 63, sigma) for each in setups]
    likelihood = torch.stack([each.value for each in flows if each is not None])
    shared = {"part": "classifier-images", "images": name, "sigma": sigma}
    rows = [shared | {"rule": "flow", "budget": config.class_flow} | judged(likelihood, likelihood, shown)]
    for budget in config.class_budgets:
        for rule, values in rankings(setups, x, budget, seed=64, sigma=sigma).items():
            rows.append(shared | {"rule": rule, "budget": budget} | judged(values, likelihood, shown))
    return rows


def rankings(setups: list[Setup], x: Tensor, budget: int, seed: int, sigma: float = SIGMA) -> dict[str, Tensor]:
    """Scores of all classes (classes, count), larger is likelier, by rule."""
    weighted = [estimate("formula", each, x, budget, seed, sigma) for each in setups]
    plain = [-unweighted(each.score, x, budget, seed, sigma=sigma) for each in setups]
    return {
        "weighted": torch.stack([each.value for each in weighted if each is not None]),
        "unweighted": torch.stack(plain),
    }


def judged(values: Tensor, exact: Tensor, labels: Tensor) -> dict[str, Any]:
    """Accuracy, agreement with the truth's choice, and rank correlation of the classes' log odds."""
    chosen, best = values.argmax(0), exact.argmax(0)
    odds, true_odds = (v - v.mean(0) for v in (values, exact))
    return {
        "right": (chosen == labels).int().tolist(),
        "agrees": (chosen == best).int().tolist(),
        "accuracy": float((chosen == labels).double().mean()),
        "agreement": float((chosen == best).double().mean()),
        "rank": float(spearmanr(odds.flatten().numpy(), true_odds.flatten().numpy())[0]),
    }
