"""Log density along the probability flow with the exact trace, beside the public packages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sensitivity import log_density
from studies.cost.benchmarks import Bound, Setup, _public
from studies.cost.benchmarks._problem import SIGMA_MIN, Problem
from studies.cost.benchmarks.density import OWN, compared

__all__ = ["EXPECTED", "QUESTION", "SIZES", "prepare"]

QUESTION = "What does a log density with the exact trace cost beside the fastest public package?"
NETWORK = {"data": "digits", "depth": 3, "training": 40, "steps": 7}
SMALL = {"data": "digits", "side": 4, "depth": 2, "training": 5, "batch": 4, "steps": 7}
SIZES = {
    "smoke": [{"kind": "mlp", "width": 32, **SMALL}],
    "quick": [{"kind": "mlp", "width": 704, **NETWORK, "side": 8, "batch": 8}],
    "full": [
        {"kind": "mlp", "width": 704, **NETWORK, "side": 8, "batch": 8},
        {"kind": "unet", "width": 56, **NETWORK, "side": 4, "batch": 2},
    ],
}
EXPECTED = (Bound(OWN, tuple(_public.LIKELIHOODS), 1.0, "one batched backward pass for all coordinates of a stage"),)


def prepare(parameters: Mapping[str, Any], device: str, seed: int) -> Setup:
    """As `density`, at d = 64 and 16: one backward pass for each coordinate of each state."""
    problem = Problem.of(parameters, device, seed)
    x = problem.samples()
    return compared(problem, x, "exact", {OWN: lambda: _difference(problem, x)})


def _difference(problem: Problem, x: Tensor) -> Tensor:
    """Difference from flow_matching, relative to the log density, (batch,)."""
    theirs = _public.flow_matching_likelihood(problem.path, x, True)
    value: Tensor = log_density(
        problem.score, x, SIGMA_MIN, anchor=problem.anchor, grid=problem.grid, trace="exact", solver="heun"
    ).value
    return ((value - theirs) / theirs).abs()
