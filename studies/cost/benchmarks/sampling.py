"""What a sensitivity costs beside sampling and beside the log density it needs, on a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sensitivity import GaussianAnchor, Grid, Points, Toward, as_score, sample_sensitivity
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.traces import Trace
from sensitivity.jacobians.trial import choose
from sensitivity.noise import Noise
from sensitivity.sampler.carried_density import Memory
from sensitivity.sampler.local_maps import Law, Laws
from sensitivity.sampler.path import observed, run, sampling
from sensitivity.sampler.step import State
from sensitivity.sampler.tableau import find, of_grid
from sensitivity.scores.score import Score
from studies.cost.benchmarks import Bound, Setup
from studies.cost.timing import Counter
from studies.networks import Architecture, build
from studies.sampling import sample

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

    def sensitivity() -> object:
        return sample_sensitivity(score, latents, change, grid, anchor=anchor, trace="hutchinson", probes=1, seed=seed)

    alternatives = {
        PLAIN: lambda: sample(score, latents, grid),
        DENSITY: lambda: sample_with_density(score, latents, grid, seed),
        SENSITIVITY: sensitivity,
    }
    size = sum(each.numel() * each.element_size() for each in network.parameters())
    return Setup(alternatives, counter, size + 2 * latents.numel() * latents.element_size())


def sample_with_density(score: Score, latents: Tensor, grid: Grid, seed: int) -> State:
    """Samples and the increment of their log density along the path, from one probe a stage."""
    trace = Trace.resolve("hutchinson", 1, latents[0].numel())
    noise = Noise.draw(len(latents), seed=seed, device=latents.device)
    products = choose(Products(score), latents[:1], torch.tensor(grid.sigma_max).to(latents))
    laws = Laws((Law(products, 1.0),), trace, noise)
    start = State(latents, memory=Memory.start(latents.new_zeros(1, trace.groups, len(latents))))
    *path, last = of_grid(grid, find("heun"), latents, trace)
    with torch.no_grad():
        return observed(laws, run(start, path, sampling(laws)), last)
