"""Sensitivity of samples by every kind of Jacobian product, beside public sampling with its one-probe log density."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sensitivity import GaussianAnchor, Points, Toward, as_score, sample_sensitivity
from studies.cost.benchmarks import Bound, Setup
from studies.cost.benchmarks._problem import Problem
from studies.cost.benchmarks.density import MLP, SMALL, UNET

__all__ = ["EXPECTED", "PUBLIC", "QUESTION", "SIZES", "prepare"]

QUESTION = "What does a sensitivity cost beside sampling and one-probe log density of the fastest public package?"
SIZES = {
    "smoke": [{"kind": "mlp", "width": 32, **SMALL}],
    "quick": [MLP],
    "full": [MLP, {**UNET, "steps": 2}],
}
PUBLIC = ("flow_matching: sampling + likelihood", "torchdiffeq (FFJORD recipe): sampling + likelihood")
BANDWIDTH = 1.5  # wide enough for a density ratio that neither overflows nor vanishes while images form
METHODS = ("fastest", "forward", "double-vjp", "one-sided", "finite")
FASTEST, ONE_SIDED = "sensitivity, fastest", "sensitivity, one-sided"
EXPECTED = (
    Bound(FASTEST, PUBLIC, 2.0, "exact products: probe and tangent share each network call"),
    Bound(ONE_SIDED, PUBLIC, 1.2, "one network evaluation for the tangent", error=1e-2),
)


def prepare(parameters: Mapping[str, Any], device: str, seed: int) -> Setup:
    """Heun's method, one probe a stage; the perturbation adds one of the training images."""
    problem = Problem.of(parameters, device, seed)
    change = Points(problem.data[:1], bandwidth=BANDWIDTH)

    def own(method: str) -> Callable[[], Tensor]:
        return lambda: _sensitivity(problem.score, problem, change, method)

    exact: list[Tensor] = []

    def error(run: Callable[[], Tensor]) -> Tensor:
        if not exact:
            exact.append(_in_double(problem, change))
        gap = (run().double() - exact[0]).flatten(1).norm(dim=1)
        return gap / exact[0].flatten(1).norm(dim=1)

    own_runs = {f"sensitivity, {method}": own(method) for method in METHODS}
    return Setup(
        {**problem.public(), **own_runs},
        problem.counter,
        problem.moved,
        references=PUBLIC,
        errors={name: lambda run=run: error(run) for name, run in own_runs.items()},  # type: ignore[misc]
    )


def _sensitivity(score: Any, problem: Problem, change: Points, method: str) -> Tensor:
    latents = problem.latents.to(change.data)
    parts = (problem.anchor.mean, problem.anchor.eigenvalues, problem.anchor.eigenvectors, problem.anchor.tail)
    anchor = GaussianAnchor.from_factors(*(part.to(latents) for part in parts))
    return sample_sensitivity(
        score, latents, Toward(change), problem.grid, anchor=anchor, trace="hutchinson", probes=1, seed=0,
        products=method,
    ).sensitivity  # fmt: skip


def _in_double(problem: Problem, change: Points) -> Tensor:
    """The sensitivity in double precision with exact products and the same noise."""
    network: Any = copy.deepcopy(problem.counter.network)
    network.double()
    return _sensitivity(as_score(network, "denoiser"), problem, change.to(torch.float64), "auto")
