"""What a sensitivity costs beside sampling and beside the log density it needs, on a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sensitivity import GaussianAnchor, Grid, Points, Toward, as_score, sample, sample_sensitivity
from studies.cost.benchmarks import Bound, Setup
from studies.cost.timing import Counter
from studies.networks import Architecture, build

QUESTION = "What does a sensitivity cost beside sampling, and beside sampling with its log density?"
SIZES = {
    "smoke": [{"dimension": 8, "width": 32, "batch": 16, "steps": 5}],
    "quick": [{"dimension": 64, "width": 256, "batch": 64, "steps": 20}],
    "full": [
        {"dimension": 64, "width": 512, "batch": 64, "steps": 20},
        {"dimension": 784, "width": 512, "batch": 64, "steps": 20},
    ],
}
PLAIN, DENSITY, SENSITIVITY = "sampling", "sampling + log density", "sensitivity"
EXPECTED = (
    Bound(SENSITIVITY, DENSITY, 2.0, "probes and tangents share each network call, so no more than twice the work"),
)


def prepare(parameters: Mapping[str, Any], device: str, seed: int) -> Setup:
    """Heun's method with one Hutchinson probe; the perturbation adds one point."""
    dimension, width, batch = (parameters[key] for key in ("dimension", "width", "batch"))
    generator = torch.Generator().manual_seed(seed)
    network = build(Architecture("mlp", width, 3), (dimension,), seed=seed).eval().to(device)
    counter = Counter(network)
    score = as_score(counter, "denoiser")
    grid = Grid(20.0, 0.05, parameters["steps"])
    latents = (20 * torch.randn(batch, dimension, generator=generator)).to(device)
    change = Toward(Points(torch.randn(1, dimension, generator=generator).to(device)))
    anchor = GaussianAnchor(torch.zeros(dimension, device=device), torch.eye(dimension, device=device))

    options: dict[str, Any] = {"anchor": anchor, "trace": "hutchinson", "probes": 1, "seed": seed}

    def sensitivity() -> object:
        return sample_sensitivity(score, latents, change, grid, **options)

    alternatives = {
        PLAIN: lambda: sample(score, latents, grid),
        DENSITY: lambda: sample(score, latents, grid, log_density=True, **options),
        SENSITIVITY: sensitivity,
    }
    size = sum(each.numel() * each.element_size() for each in network.parameters())
    return Setup(alternatives, counter, size + 2 * latents.numel() * latents.element_size())
