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
from studies.retraining.predictors import random_trace

EXTREMES = 4


def ink(samples: Tensor) -> Tensor:
    """The functional φ: mean pixel of each sample."""
    return samples.flatten(1).mean(1)


def run_halves(bench: Bench) -> list[dict[str, Any]]:
    """Rows: the LDS of each attribution, and the most influential images of the first samples."""
    count = len(bench.train)
    rng = np.random.default_rng(17)
    masks = np.stack([rng.permutation(count) < count // 2 for _ in range(bench.regime.halves)])
    actual = np.stack([_ink_of_half(bench, mask) for mask in masks])
    rows, own = [], None
    for name, values in _attributions(bench).items():
        own = values if own is None else own
        # Weight moved onto a half: each member's share rises from 1/N to 2/N, so φ changes by the mean influence of the
        # half.
        predicted = np.stack([values[:, mask].mean(1) for mask in masks])
        scores = [float(stats.spearmanr(predicted[:, b], actual[:, b]).statistic) for b in range(actual.shape[1])]
        rows.append(
            {"kind": "lds", "regime": bench.regime.name, "predictor": name, "halves": len(masks), "lds": scores}
        )
    return rows + _extremes(bench, own)


def _ink_of_half(bench: Bench, mask: np.ndarray) -> np.ndarray:
    weights = torch.from_numpy(mask).double()
    return bench.samples([bench.half(weights / weights.sum())])[0].mean(1)


def _attributions(bench: Bench) -> dict[str, np.ndarray]:
    """Influences (n, N): ours from the first base network, and the empirical score's own."""
    points = Points(bench.train.images, bandwidth=bench.bandwidth)
    shared = {**random_trace(bench)}
    ours = influence(bench.score(bench.base[0]), bench.latents, ink, points, bench.grid, anchor=bench.anchor, **shared)
    theirs = influence(points.score, bench.latents, ink, points, bench.grid, anchor=points, **shared)
    return {"influence": ours.values.double().numpy(), "empirical": theirs.values.double().numpy()}


def _extremes(bench: Bench, values: np.ndarray | None) -> list[dict[str, Any]]:
    """Pixels of the images of largest and smallest influence on the first samples."""
    if values is None:
        return []
    samples, images = bench.samples(bench.base[:1])[0], bench.train.images.flatten(1).double().numpy()
    rows = []
    for b in range(min(4, len(samples))):
        order = values[b].argsort()
        chosen = np.concatenate([order[::-1][:EXTREMES], order[:EXTREMES]])
        row = {"kind": "influential", "regime": bench.regime.name, "latent": b, "sample": samples[b].tolist()}
        rows.append(row | {"images": images[chosen].ravel().tolist(), "influence": values[b][chosen].tolist()})
    return rows
