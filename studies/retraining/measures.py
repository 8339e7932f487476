"""Agreement of predicted and actual changes, latent by latent."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from studies.statistics import spearman_brown

Array = np.ndarray


def pearson(a: Array, b: Array) -> Array:
    """Correlation over pixels of each row of (n, pixels), (n,); 0 where either row is constant (nothing is
    predicted)."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return cosines(a, b)


def cosines(a: Array, b: Array) -> Array:
    """Cosine of the angle between rows, (n,); 0 where either row vanishes."""
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), size, out=np.zeros(len(a)), where=size > 0)


def agreement(predicted: Array, actual: Array) -> dict[str, Any]:
    """Per-latent correlation and cosine; rank correlation of norms and the slope of actual on predicted change."""
    lengths = np.linalg.norm(predicted, axis=1), np.linalg.norm(actual, axis=1)
    moved = bool(lengths[0].std() > 0)
    total = float((predicted**2).sum())
    return {
        "correlation": pearson(predicted, actual).tolist(),
        "cosine": cosines(predicted, actual).tolist(),
        "predicted_norm": lengths[0].tolist(),
        "actual_norm": lengths[1].tolist(),
        "norm_rank": float(stats.spearmanr(*lengths).statistic) if moved else 0.0,
        "calibration": float((predicted * actual).sum()) / total if total > 0 else 0.0,
    }


def noise_floor(changes: Array) -> dict[str, Any]:
    """From the changes of P pairs (P, n, pixels): correlation of two pairs per latent, and the ceilings it implies."""
    pairs = [pearson(changes[i], changes[j]) for i, j in combinations(range(len(changes)), 2)]
    between = np.mean(pairs, axis=0)
    typical = max(float(np.median(between)), 0.0)
    return {
        "between": between.tolist(),
        "reliability": typical,
        "ceiling_one": typical**0.5,
        "ceiling": float(spearman_brown(typical, len(changes))) ** 0.5,
    }
