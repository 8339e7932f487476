"""Influence of every training point beside public sampling with its log density, and beside its own bare parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from sensitivity import Points, influence
from studies.cost.benchmarks import Bound, Setup
from studies.cost.benchmarks._problem import Problem
from studies.cost.benchmarks.sensitivity import PUBLIC

__all__ = ["EXPECTED", "OWN", "PARTS", "QUESTION", "SIZES", "own", "prepare"]

QUESTION = "What does the influence of all training points cost beside sampling with a log density, and its own parts?"
FASHION = {"data": "fashion", "side": 28, "depth": 3, "points": 60_000, "batch": 32}
MLP = {"kind": "mlp", "width": 512, **FASHION, "training": 100}
UNET = {"kind": "unet", "width": 56, **FASHION, "training": 8}
SMALL = {"data": "digits", "side": 8, "depth": 2, "training": 5, "batch": 4, "steps": 3, "points": 512}
SIZES = {
    "smoke": [{"kind": "mlp", "width": 32, **SMALL}],
    "quick": [{**MLP, "points": 10_000, "steps": 3}],
    "full": [{**MLP, "steps": 2}, {**UNET, "steps": 1}],
}
OWN, PARTS = "influence", "network evaluations + two products"
EXPECTED = (
    Bound(OWN, PUBLIC, 3.0, "one backward pass through the stages; the points cost two products", kind="unet"),
    Bound(OWN, PARTS, 1.3, "the network and two products with the points are all the arithmetic there is", kind="mlp"),
)


def prepare(parameters: Mapping[str, Any], device: str, seed: int) -> Setup:
    """Heun's method, one probe a stage, one functional: the mean of a sample's pixels."""
    problem = Problem.of(parameters, device, seed, count=parameters["points"])
    points = Points(problem.data, bandwidth=0.5)
    bare = {PARTS: parts(problem, points)} if parameters["kind"] == "mlp" else {}  # a U-Net's claim is another
    alternatives = {**problem.public(), **bare, OWN: own(problem, points)}
    return Setup(alternatives, problem.counter, problem.moved, references=PUBLIC)


def own(problem: Problem, points: Points) -> Callable[[], object]:
    """The influence of all points on the mean pixel of each sample."""
    return lambda: influence(
        problem.score, problem.latents, lambda x: x.flatten(1).mean(1), points, problem.grid, anchor=problem.anchor,
        trace="hutchinson", probes=1, seed=0,
    )  # fmt: skip


def parts(problem: Problem, points: Points) -> Callable[[], object]:
    """The same network evaluations with one backward pass each, and the two products of all points with all stages."""
    stages = 2 * problem.grid.steps
    rows = problem.latents.flatten(1).repeat(stages, 1)
    level = torch.tensor(1.0).to(problem.latents)

    def evaluations() -> None:
        for _ in range(2 * stages):  # forward with its probe, and backward with its cotangent
            with torch.enable_grad():
                x = problem.latents.detach().requires_grad_()
                value = problem.counter(x, level)
            torch.autograd.grad(value, x, problem.latents)

    def products() -> None:
        for block in points.data.flatten(1).split(points.block):
            states = rows @ block.T
            cotangents = rows @ block.T
            del states, cotangents

    def run() -> None:
        evaluations()
        products()

    return run
