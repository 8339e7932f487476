"""Errors inside and outside, return to the training point, quality of samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sensitivity import Score
from studies.selective_underfitting.memorisation import THRESHOLD, calibrated_distance
from studies.selective_underfitting.paths import SIGMA_MIN, noised, path
from studies.selective_underfitting.problem import Problem, problem
from studies.selective_underfitting.shells import Shells

Denoiser = Callable[[Tensor, Tensor], Tensor]
ENOUGH = 8  # states outside the shells below which no outside error is given
NAN = float("nan")


def errors(first: Denoiser, second: Denoiser, x: Tensor, sigma: float) -> Tensor:
    """`|D_1 − D_2|²/(σ² d)` at states x (batch, *shape), (batch,)."""
    level = torch.tensor(sigma, dtype=x.dtype)
    with torch.no_grad():
        gap = (first(x, level) - second(x, level)).flatten(1)
    return gap.square().mean(1) / sigma**2


def mean_error(first: Denoiser, second: Denoiser, x: Tensor, sigma: float, shells: Shells | None) -> float:
    """The mean of `errors`, over states outside all shells where these are given; NaN for too few."""
    kept = x if shells is None else x[~shells.contains(x, sigma)]
    return float(errors(first, second, kept, sigma).mean()) if len(kept) >= ENOUGH else NAN


def parts(denoiser: Denoiser, target: Denoiser, centre: Tensor, x: Tensor, sigma: float) -> tuple[float, float, float]:
    """The error taken apart about a point c: own = `|D − c|²`, gap = `|D⋆ − c|²`, both over σ² d, and the pull.

    The pull `Σ (D − c)·(D⋆ − c) / Σ |D⋆ − c|²` (sums over states) is how far D goes from c toward the empirical
    denoiser: 0 for D = c, 1 for D⋆. The mean error to D⋆ is own + gap (1 − 2 pull), exactly.

    Args:
        denoiser, target: D, D⋆.
        centre: c, like x (batch, *shape).

    Example:
        >>> x = torch.zeros(8, 2)
        >>> parts(lambda x, s: x + 0.25, lambda x, s: x + 1, x, x, 1.0)
        (0.0625, 1.0, 0.25)
    """
    if len(x) < ENOUGH:
        return NAN, NAN, NAN
    level = torch.tensor(sigma, dtype=x.dtype)
    with torch.no_grad():
        from_centre, gap = ((each(x, level) - centre).flatten(1) for each in (denoiser, target))
    scale = gap.square().sum()
    pull = float((from_centre * gap).sum() / scale) if scale > 0 else NAN
    return float(from_centre.square().mean()) / sigma**2, float(gap.square().mean()) / sigma**2, pull


def returned(denoiser: Denoiser, score: Score, train: Tensor, sigma: float, substeps: int) -> float:
    """The share of training points (at most 64), noised to σ, that the flow takes back to themselves."""
    start = noised(train[:64], sigma, seed=7)
    octaves = max(1, math.ceil(math.log2(sigma / SIGMA_MIN)))
    levels = [SIGMA_MIN * (sigma / SIGMA_MIN) ** (1 - k / octaves) for k in range(octaves + 1)]
    end = path(score, start, levels, substeps)[-1]
    with torch.no_grad():
        end = denoiser(end, torch.tensor(SIGMA_MIN))
    distance, nearest = calibrated_distance(end, train)
    return float(((distance < THRESHOLD) & (nearest == torch.arange(len(start)))).double().mean())


def energy_distance(x: Tensor, y: Tensor) -> float:
    """`2 E|X − Y| − E|X − X'| − E|Y − Y'|` (Székely & Rizzo 2013), unbiased; 0 for equal laws.

    Example:
        >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> energy_distance(x[:100], x[100:]) < 0.1 < energy_distance(x[:100], x[100:] + 2)
        True
    """
    a, b = x.flatten(1).double(), y.flatten(1).double()
    return float(2 * torch.cdist(a, b).mean() - torch.pdist(a).mean() - torch.pdist(b).mean())


@lru_cache(maxsize=4)
def classifier(name: str, size: int) -> Callable[[Tensor], np.ndarray]:
    """Class probabilities (batch, classes) of a logistic classifier trained on all images beside the held-out ones."""
    from sklearn.linear_model import LogisticRegression

    from studies import data

    bench, images = problem(name, size), data.load(name)
    check_labels(bench)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    used = torch.cat([order[:size], order[size + len(bench.held_out) :]])
    labels = images.labels
    model = LogisticRegression(C=0.02, max_iter=3000)
    model.fit(images.images[used].flatten(1).numpy(), np.asarray(labels)[used.numpy()])
    return lambda x: model.predict_proba(x.flatten(1).numpy())


def check_labels(bench: Problem) -> None:
    """Refuse problems without classes."""
    if bench.labels is None:
        raise ValueError(f"the problem {bench.name!r} has no classes: choose digits or mnist14.")


def confidence(bench: Problem, x: Tensor) -> float:
    """The mean probability of the likeliest class; NaN for problems without classes."""
    if bench.labels is None:
        return NAN
    return float(classifier(bench.name, len(bench.train))(x).max(axis=1).mean())
