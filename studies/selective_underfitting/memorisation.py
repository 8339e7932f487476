"""Memorisation and novelty by a calibrated distance.

`m(x) = |x − x_(1)|² / mean_{i ≤ k} |x − x_(i)|²` with x_(i) the i-th nearest training point and k = 50 (at most N): 0
on a training point, near 1 where many are equally far. Song et al. 2025, arXiv 2510.01378, give no threshold. Ours is
`THRESHOLD` = 0.1: 1 % to 4 % of real held-out digits and MNIST images fall below it (64 to 512 training images), so a
share of memorised samples above that is more than a new image would show. `memorised_share` takes many thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["THRESHOLD", "THRESHOLDS", "calibrated_distance", "memorised", "memorised_share"]

THRESHOLD = 0.1
THRESHOLDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)


def calibrated_distance(x: Tensor, data: Tensor, *, neighbours: int = 50) -> tuple[Tensor, Tensor]:
    """m(x), (batch,), and the index of the nearest training point, (batch,).

    Args:
        x: samples (batch, *shape).
        data: training points (N, *shape).
        neighbours: k ≥ 2, at most N are used.

    Raises:
        ValueError: fewer than two points or neighbours, or shapes that differ.

    Example:
        >>> data = torch.tensor([[0.0], [1.0], [3.0]])
        >>> [part.tolist() for part in calibrated_distance(torch.tensor([[0.0], [2.0]]), data)]
        [[0.0, 0.5], [0, 1]]
    """
    if x.shape[1:] != data.shape[1:]:
        raise ValueError(f"x has states of shape {tuple(x.shape[1:])} but data of {tuple(data.shape[1:])}.")
    if len(data) < 2 or neighbours < 2:
        raise ValueError(f"{len(data)} points and neighbours={neighbours}: a calibrated distance needs two of each.")
    distances = torch.cdist(x.flatten(1), data.flatten(1), compute_mode="donot_use_mm_for_euclid_dist").square()
    near = distances.topk(min(neighbours, len(data)), dim=1, largest=False)
    return near.values[:, 0] / near.values.mean(1).clamp(min=1e-30), near.indices[:, 0]


def memorised(x: Tensor, data: Tensor, *, threshold: float = THRESHOLD, neighbours: int = 50) -> Tensor:
    """Whether `m(x) < threshold`, (batch,) bool."""
    return calibrated_distance(x, data, neighbours=neighbours)[0] < threshold


def memorised_share(x: Tensor, data: Tensor, thresholds: Sequence[float] = THRESHOLDS) -> list[float]:
    """The share of memorised samples at each threshold: how much the verdict depends on the choice.

    Example:
        >>> memorised_share(torch.zeros(3, 1), torch.tensor([[0.0], [1.0]]), (0.1, 0.5))
        [1.0, 1.0]
    """
    distance = calibrated_distance(x, data)[0]
    return [float((distance < each).double().mean()) for each in thresholds]
