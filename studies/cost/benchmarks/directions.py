"""Influence of all points by one backward pass, beside forward sensitivities toward one point after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sensitivity import Points, Toward, sample_sensitivity
from studies.cost.benchmarks import Bound, Setup
from studies.cost.benchmarks._problem import Problem
from studies.cost.benchmarks.influence import MLP, OWN, SMALL, own

__all__ = ["EXPECTED", "QUESTION", "SIZES", "prepare"]

QUESTION = "What would the influence of all points cost by forward sensitivities, many directions in one solve?"
SIZES = {
    "smoke": [{"kind": "mlp", "width": 32, **SMALL}],
    "full": [{**MLP, "batch": 8, "steps": 4}],
}
DIRECTIONS = (1, 4, 16)
MANY = f"forward, {DIRECTIONS[-1]} directions"
# All points take no longer than one solve for a few directions.  (N points are N/16 such solves: a bound of 3750, which
# was claimed before, could not fail.)
EXPECTED = (Bound(OWN, MANY, 1.0, "one adjoint path serves all points, each direction takes a tangent path"),)


def prepare(parameters: Mapping[str, Any], device: str, seed: int) -> Setup:
    """Directions are single training images; they share the network calls of a solve."""
    problem = Problem.of(parameters, device, seed, count=parameters["points"])
    points = Points(problem.data, bandwidth=0.5)

    def forward(count: int) -> Callable[[], object]:
        changes = [Toward(Points(problem.data[k : k + 1], bandwidth=0.5)) for k in range(count)]
        return lambda: sample_sensitivity(
            problem.score, problem.latents, changes, problem.grid, anchor=problem.anchor, trace="hutchinson", probes=1,
            seed=0, products="double-vjp",
        )  # fmt: skip

    solves = {f"forward, {count} direction{'s' if count > 1 else ''}": forward(count) for count in DIRECTIONS}
    return Setup({**solves, OWN: own(problem, points)}, problem.counter, problem.moved)
