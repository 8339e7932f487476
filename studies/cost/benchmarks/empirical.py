"""The empirical score of many points in float32, beside the two products it needs and what else computes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from oracles.empirical import EmpiricalLaw
from studies.cost.benchmarks import Bound, Setup

QUESTION = "How near does the empirical score come to the machine's own rate of matrix multiplication?"
SIZES = {
    "smoke": [{"points": 4000, "dimension": 784, "states": 64, "sigma": 1.0}],
    "quick": [{"points": 20_000, "dimension": 784, "states": 128, "sigma": 1.0}],
    "full": [
        {"points": 60_000, "dimension": 784, "states": 256, "sigma": 1.0},
        {"points": 60_000, "dimension": 784, "states": 256, "sigma": 0.05},
        {"points": 60_000, "dimension": 784, "states": 32, "sigma": 1.0},
    ],
}
PRODUCTS, OWN = "two matrix products", "EmpiricalLaw"
CDIST, ATTENTION = "cdist + softmax", "scaled_dot_product_attention"
EXPECTED = (
    Bound(OWN, PRODUCTS, 1 / 0.6, "60 % of the rate of the two products"),
    Bound(OWN, CDIST, 1.0, "no array of states × points is kept, no square root taken"),
    Bound(OWN, ATTENTION, 1.0, "the weights of the points are softmax attention"),
)


def prepare(parameters: Mapping[str, Any], device: str, seed: int) -> Setup:
    """Uniform points in [0, 1], every second within 1e-3 of its neighbour; states are noised points."""
    size, dimension, states, sigma = (parameters[key] for key in ("points", "dimension", "states", "sigma"))
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(size, dimension, generator=generator)
    nudge = torch.randn(size // 2, dimension, generator=generator) * 1e-3 / math.sqrt(dimension)
    points[1::2] = points[: 2 * (size // 2) : 2] + nudge
    points = points.to(device)
    x = points[:states] + sigma * torch.randn(states, dimension, generator=generator).to(device)
    weights = torch.rand(states, size, generator=generator).to(device)
    law = EmpiricalLaw(points)
    return Setup(
        {
            PRODUCTS: lambda: (x @ points.T, weights @ points),
            OWN: lambda: law.noised(sigma).score(x),
            CDIST: lambda: _by_distances(points, x, sigma),
            ATTENTION: lambda: _by_attention(points, x, sigma),
        }
    )


def _by_distances(points: Tensor, x: Tensor, sigma: float) -> Tensor:
    shares = torch.softmax(-torch.cdist(x, points).square() / (2 * sigma**2), dim=1)
    return (shares @ points - x) / sigma**2


def _by_attention(points: Tensor, x: Tensor, sigma: float) -> Tensor:
    """`x·y/σ² − |y|²/2σ²` as a product with one more coordinate."""
    bias = -points.square().sum(1, keepdim=True) / (2 * sigma**2)
    keys, queries = torch.cat([points, bias], 1), torch.cat([x / sigma**2, x.new_ones(len(x), 1)], 1)
    attend = torch.nn.functional.scaled_dot_product_attention
    return (attend(queries[None, None], keys[None, None], points[None, None], scale=1.0)[0, 0] - x) / sigma**2
