"""A sensitivity by the two-step solver beside the hand-written pass, each with as many steps as log p needs.

The law is N(0, I/4) in d dimensions, whose denoiser is linear, whose flow and log density are known and of whose
divergence one probe of signs has no error: what is left is the grid's. A network of a real size is evaluated beside it
and multiplied by zero, so that a call costs what a network's does. Heun's rule for log p is off by 6.6 (40/n)² nat at
d = 784 and 25.6 (40/n)² at d = 3072 from σ = 20 to .05, so that `heun` steps leave .05; the two-step solver with log
densities from nodes has .010 and .039 at 40 steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sensitivity import GaussianAnchor, Grid, Points, Toward, as_score, sample_sensitivity
from sensitivity.sampler.step import required
from studies.cost.benchmarks import Bound, Setup
from studies.cost.benchmarks._problem import Problem
from studies.cost.benchmarks._public import Path
from studies.cost.benchmarks.fused import FUSED, single_pass
from studies.cost.timing import Counter
from studies.networks import Architecture, build

__all__ = ["EXPECTED", "QUESTION", "SIZES", "prepare"]

QUESTION = "What does a sensitivity cost beside the hand-written pass where log p is equally accurate?"
SIZES = {
    "smoke": [{"dimension": 16, "width": 16, "batch": 2, "heun": 80, "steps": 40}],
    "quick": [{"dimension": 784, "width": 256, "batch": 8, "heun": 460, "steps": 40}],
    "full": [
        {"dimension": 784, "width": 512, "batch": 8, "heun": 460, "steps": 40},
        {"dimension": 3072, "width": 128, "batch": 4, "heun": 906, "steps": 40},
    ],
}
OWN = "sensitivity, two-step solver"
EXPECTED = (Bound(OWN, FUSED, 0.2, "one network call a step, log densities of fourth order from the nodes"),)
VARIANCE, TOP, LEAST = 0.25, 20.0, 0.05


def prepare(parameters: Mapping[str, Any], device: str, seed: int) -> Setup:
    """The perturbation adds a point at the origin with a bandwidth of the law's own size."""
    dimension, batch = parameters["dimension"], parameters["batch"]
    generator = torch.Generator().manual_seed(seed)
    network = build(Architecture("mlp", parameters["width"], 3), (dimension,), seed=seed).eval().to(device)
    latents = (TOP * torch.randn(batch, dimension, generator=generator)).to(device)
    anchor = GaussianAnchor(torch.zeros(dimension, device=device), VARIANCE)

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return x * (VARIANCE / (VARIANCE + sigma**2))[:, None] + 0.0 * network(x, sigma)

    counter = Counter(denoiser)
    path = Path(counter, (dimension,), Grid(TOP, LEAST, parameters["heun"]), lambda x: x)
    moved = sum(4 * each.numel() for each in network.parameters()) + 8 * latents.numel()
    problem = Problem(counter, as_score(counter, "denoiser"), path, anchor, latents, latents[:1], moved)
    change = Toward(Points(torch.zeros(1, dimension, device=device), bandwidth=VARIANCE**0.5))

    def own() -> tuple[Tensor, Tensor]:
        result = sample_sensitivity(
            problem.score, latents, change, Grid(TOP, LEAST, parameters["steps"]), solver="2m", anchor=anchor,
            trace="hutchinson", probes=1, seed=0,
        )  # fmt: skip
        return result.samples, required(result.log_density)

    return Setup(
        {FUSED: lambda: single_pass(problem), OWN: own},
        counter,
        moved,
        errors={FUSED: lambda: _error(*single_pass(problem)), OWN: lambda: _error(*own())},
    )


def _error(samples: Tensor, log_density: Tensor) -> Tensor:
    """Of log p in nats, (batch,)."""
    variance = VARIANCE + LEAST**2
    length = samples.double().flatten(1).square().sum(1)
    known = -0.5 * samples[0].numel() * math.log(2 * math.pi * variance) - 0.5 * length / variance
    return (log_density.double().reshape(-1) - known).abs()
