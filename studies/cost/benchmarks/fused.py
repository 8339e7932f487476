"""The engine beside one hand-written pass: Heun's method with log p along the path, one probe a stage, reverse mode.

That is what a user writes in twenty lines who wants samples with their log densities: every network evaluation with one
backward pass. A sensitivity carries its tangent through the same evaluations, an influence goes back through them once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sensitivity import Points, Toward, influence, sample_sensitivity
from studies.cost.benchmarks import Bound, Setup
from studies.cost.benchmarks._problem import Problem

__all__ = ["EXPECTED", "FUSED", "QUESTION", "SIZES", "prepare", "single_pass"]

QUESTION = "What do sensitivities and influences cost beside a hand-written pass for samples and log densities?"
IMAGES = {"data": "fashion", "side": 28, "batch": 8, "steps": 2, "points": 60_000}
CONV = {"kind": "conv", "width": 96, "depth": 6, "training": 0, **IMAGES}
MLP = {"kind": "mlp", "width": 512, "depth": 3, "training": 100, **IMAGES, "steps": 8}
TRANSFORMER = {"kind": "transformer", "width": 128, "depth": 5, "training": 8, **IMAGES}
DIFFUSERS = {"kind": "diffusers", "width": 48, "depth": 1, "training": 0, **IMAGES}
SMALL = {"data": "digits", "side": 8, "batch": 2, "steps": 2, "points": 64}
SIZES = {
    "smoke": [{"kind": "mlp", "width": 32, "depth": 2, "training": 5, **SMALL}],
    "quick": [{**CONV, "points": 10_000}, {**MLP, "points": 10_000}],
    "full": [
        CONV, MLP, TRANSFORMER, DIFFUSERS,
        {**CONV, "batch": 32}, {**CONV, "side": 14}, {**CONV, "steps": 6}, {**MLP, "batch": 32},
    ],
}  # fmt: skip
FUSED, OWN, ONE_SIDED = "fused pass", "sensitivity", "sensitivity, one-sided"
MANY, INFLUENCE = "sensitivity, 16 perturbations", "influence"
EXPECTED = (
    Bound(OWN, FUSED, 1.6, "value, probe and tangent in one batch; log densities need one probe a node"),
    Bound(ONE_SIDED, FUSED, 1.25, "one network evaluation for the tangent", error=1e-2),
    Bound(INFLUENCE, FUSED, 2.2, "one backward pass more through the stages, and two products", batch=8),
    Bound(INFLUENCE, FUSED, 1.8, "the same, the products shared by more samples", batch=32),
    Bound(MANY, OWN, 4.0, "perturbations share the value and its intermediate results"),
)
BANDWIDTH = 0.3  # the least level
ABREAST, BLOCK = 16, 1024


def prepare(parameters: Mapping[str, Any], device: str, seed: int) -> Setup:
    """A perturbation weighs a block of the training images up; sixteen of them at once; the influence of all points."""
    problem = Problem.of(parameters, device, seed, count=parameters["points"])
    blocks = problem.data[:BLOCK].chunk(ABREAST)
    changes = [Toward(Points(block, bandwidth=BANDWIDTH)) for block in blocks]
    points = Points(problem.data, bandwidth=BANDWIDTH)

    def own(change: Any, products: str = "auto") -> Tensor:
        return sample_sensitivity(
            problem.score, problem.latents, change, problem.grid, anchor=problem.anchor, trace="hutchinson", probes=1,
            seed=0, products=products,
        ).sensitivity  # fmt: skip

    alternatives: dict[str, Callable[[], object]] = {
        FUSED: lambda: single_pass(problem),
        OWN: lambda: own(changes[0]),
        ONE_SIDED: lambda: own(changes[0], "one-sided"),
        MANY: lambda: own(changes),
        INFLUENCE: lambda: _influence(problem, points),
    }
    if parameters["batch"] == IMAGES["batch"]:
        alternatives |= problem.public()  # shown beside: they take their log densities by a second pass
    exact = own(changes[0])
    return Setup(
        alternatives,
        problem.counter,
        problem.moved,
        errors={ONE_SIDED: lambda: _distance(own(changes[0], "one-sided"), exact)},
    )


def _influence(problem: Problem, points: Points) -> object:
    return influence(
        problem.score, problem.latents, lambda x: x.flatten(1).mean(1), points, problem.grid, anchor=problem.anchor,
        trace="hutchinson", probes=1, seed=0,
    )  # fmt: skip


def _distance(values: Tensor, exact: Tensor) -> Tensor:
    """Relative distance, (batch,)."""
    return (values - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)


def single_pass(problem: Problem) -> tuple[Tensor, Tensor]:
    """Samples and log p at them, in nats: the twenty lines."""
    x, levels = problem.latents, problem.grid.levels.tolist()
    log = problem.anchor.log_density(x, torch.full((), levels[0], dtype=x.dtype, device=x.device))
    for start, end in pairwise(levels):
        score, divergence = _with_divergence(problem, x, start)
        ahead, ahead_divergence = _with_divergence(problem, x + (start - end) * start * score, end)
        x = x + 0.5 * (start - end) * (start * score + end * ahead)
        log = log - 0.5 * (start - end) * (start * divergence + end * ahead_divergence)
    return x, log


def _with_divergence(problem: Problem, x: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """The score and one probe's estimate of its divergence."""
    probe = torch.randint_like(x, 2) * 2 - 1
    with torch.enable_grad():
        state = x.detach().requires_grad_()
        sigma = torch.full(x.shape[:1], level, dtype=x.dtype, device=x.device)
        score = (problem.counter(state, sigma) - state) / level**2
        (image,) = torch.autograd.grad(score, state, probe)
    return score.detach(), (image * probe).flatten(1).sum(1)
