"""Distances, places and predictions of denoisers at common states; every f, D, E here is (n, d)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rms(difference: Tensor) -> float:
    """Root mean square over states of the length of a difference."""
    return math.sqrt(float(difference.square().sum(-1).mean()))


def cosine(a: Tensor, b: Tensor) -> float:
    """Median over states of the cosine of a and b; states where either vanishes count as 0."""
    lengths = a.norm(dim=-1) * b.norm(dim=-1)
    values = torch.where(lengths > 0, (a * b).sum(-1) / lengths.clamp(min=1e-300), torch.zeros_like(lengths))
    return float(values.median())


def pooled_cosine(a: Tensor, b: Tensor) -> float:
    """The cosine of all states' vectors taken as one; 0 where either vanishes."""
    lengths = float(a.norm() * b.norm())
    return float((a * b).sum()) / lengths if lengths > 0 else 0.0


def place(f: Tensor, population: Tensor, empirical: Tensor) -> float:
    """`⟨f − D, E − D⟩/|E − D|²` over all states: 0 at the population's denoiser, 1 at the empirical one.

    Example:
        >>> zero, one = torch.zeros(2, 2), torch.ones(2, 2)
        >>> place(0.25 * one, zero, one)
        0.25
    """
    way = empirical - population
    return float(((f - population) * way).sum() / way.square().sum().clamp(min=1e-300))


def explained(observed: Tensor, predicted: Tensor) -> float:
    """`1 − |observed − predicted|²/|observed|²` over all states: 1 exact, 0 as good as predicting nothing."""
    return 1 - float((observed - predicted).square().sum() / observed.square().sum().clamp(min=1e-300))


def halfway(f: Tensor, empirical: Tensor, log_ratio: Tensor) -> Tensor:
    """`g (E_B − f)`, g = r/(1 + r), r = p_B/p_A: the exact change of a denoiser f when half of the mass becomes B.

    The finite form of `Ḋ = r (D^ν − D)` (Scarvelis & Solomon 2025, arXiv 2509.23092) at η = ½; f is of the law A.

    Args:
        f: the denoiser at the states.
        empirical: E_B there.
        log_ratio: log r (n,).
    """
    return torch.sigmoid(log_ratio).unsqueeze(-1) * (empirical - f)


def scale(observed: Tensor, predicted: Tensor) -> float:
    """`⟨observed, predicted⟩/|predicted|²`: the factor that fits best, below 1 where the prediction overshoots."""
    return float((observed * predicted).sum() / predicted.square().sum().clamp(min=1e-300))


def shared(first: Tensor, second: Tensor) -> float:
    """The mean over states of `⟨first, second⟩` for two differences that only the data have in common.

    With `first = f_A − f_B` under one seed and `second` under another, what seeds do averages out and the expectation
    is `|E f_A − E f_B|²`, E over seeds: that of `|f_A − f_B|² − |f_A − f_A′|²`, with less noise. May be negative.

    Example:
        >>> shared(torch.ones(2, 2), torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        1.0
    """
    return float((first * second).sum(-1).mean())


def distinct(points: Tensor, tolerance: float) -> int:
    """Number of clusters of points (n, d) nearer than `tolerance` to the cluster's first point, in order."""
    left, count = points, 0
    while len(left):
        left = left[(left - left[0]).norm(dim=-1) > tolerance]
        count += 1
    return count
