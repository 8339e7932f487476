"""Influence held against networks trained on random halves: the linear data-modelling score (Park et al. 2023, arXiv
2303.14186)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from sensitivity import Points, influence
from studies.retraining.bench import Bench
from studies.retraining.gradients import attributions
from studies.retraining.measures import short
from studies.retraining.predictors import random_trace

Array = np.ndarray
EXTREMES = 4
SEEDS = 2
SHOWN = 6


def ink(samples: Tensor) -> Tensor:
    """The functional φ: mean pixel of each sample."""
    return samples.flatten(1).mean(1)


def run_halves(bench: Bench) -> list[dict[str, Any]]:
    """Rows: the LDS of each attribution, that of a second seed, and the most influential images of some samples."""
    count = len(bench.train)
    rng = np.random.default_rng(17)
    masks = np.stack([rng.permutation(count) < count // 2 for _ in range(bench.regime.halves)])
    weights: list[Tensor | None] = [torch.from_numpy(mask).double() / mask.sum() for mask in masks]
    actual = np.stack([bench.samples(bench.parts(weights, seed)).mean(-1) for seed in range(SEEDS)])
    shared = {"kind": "lds", "regime": bench.regime.name, "halves": len(masks), "seeds": SEEDS}
    values = _attributions(bench) | attributions(bench)
    # Weight moved onto a half raises each member's share from 1/N to 2/N: φ changes by the half's mean influence.
    predicted = {name: each @ masks.T / masks.sum(1) for name, each in values.items()}
    rows = [shared | {"predictor": name, "lds": short(lds(each.T, actual.mean(0)))} for name, each in predicted.items()]
    rows.append(shared | {"predictor": "second seed", "lds": short(lds(actual[0], actual[1]))})
    return rows + _extremes(bench, values["influence"])


def lds(predicted: Array, actual: Array) -> Array:
    """Spearman's correlation over halves of (halves, n) arrays, per latent, (n,)."""
    first, second = (stats.rankdata(each, axis=0) for each in (predicted, actual))
    first, second = (each - each.mean(axis=0) for each in (first, second))
    size = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
    return np.divide((first * second).sum(axis=0), size, out=np.zeros(len(size)), where=size > 0)


def _attributions(bench: Bench) -> dict[str, Array]:
    """Influences (n, N): ours from the first base network, and the empirical score's own."""
    points = Points(bench.train.images, bandwidth=bench.bandwidth)
    shared = random_trace(bench)
    ours = influence(bench.score(bench.base[0]), bench.latents, ink, points, bench.grid, anchor=bench.anchor, **shared)
    theirs = influence(points.score, bench.latents, ink, points, bench.grid, anchor=points, **shared)
    return {"influence": _array(ours.values), "empirical": _array(theirs.values)}


def _array(values: Tensor) -> Array:
    return np.asarray(values.detach().double().cpu())


def _extremes(bench: Bench, values: Array) -> list[dict[str, Any]]:
    """Pixels of the images of largest and smallest influence on the first samples."""
    samples, images = bench.samples(bench.base[:1])[0], bench.train.images.flatten(1).double().cpu().numpy()
    rows = []
    for b in range(min(SHOWN, len(samples))):
        order = values[b].argsort()
        chosen = np.concatenate([order[::-1][:EXTREMES], order[:EXTREMES]])
        row = {"kind": "influential", "regime": bench.regime.name, "latent": b, "sample": short(samples[b], 2)}
        rows.append(row | {"images": short(images[chosen].ravel(), 2), "influence": short(values[b][chosen])})
    return rows
