"""Task `influence`: `d φ(x_0)/dη` (n, N) when mass moves from ρ to each of N given points, latents fixed.

Entry (b, i) is the derivative at η = 0 of `φ` at the flow's end from latent b for `(1 − η) ρ + η δ_{y_i}`, `y_i` row i
of `data`; positive: φ rises when point i gets more mass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles import AdditivePerturbation, GaussianMixture, flow
from studies.verification.kit import Kit
from studies.verification.laws import oracle
from studies.verification.problem import Functional
from studies.verification.tasks.base import Arrays, Case, Task, states
from studies.verification.tasks.sample import path_fields

__all__ = ["TASK"]

CASES = (
    Case("line", 0.2, sigma_max=10.0, steps=128, count=16, points=12),
    Case("plane", 0.3, sigma_max=10.0, steps=128, count=12, points=6),
    Case("five", 0.4, sigma_max=10.0, steps=128, count=8, points=4),
    Case("training", 0.3, sigma_max=10.0, steps=256, count=8, points=6, tags=("ρ empirical",)),
    Case("ten", 0.5, sigma_max=10.0, steps=128, count=8, points=4, suite="full"),
)


def _functional(case: Case) -> tuple[np.ndarray, np.ndarray]:
    rng, d = case.rng("functional", 0), case.base.dimension
    square = rng.standard_normal((d, d)) / d
    return rng.standard_normal(d), square + square.T


def draw(case: Case, rng: np.random.Generator) -> Arrays:
    """Latents (n, d) at sigma_max and points (N, d): the training points where ρ is empirical, draws from ρ else."""
    given = {"latents": states(case, rng, case.sigma_max)}
    if case.base.form == "points":
        return given | {"data": case.base.means[: case.points].copy()}
    return given | {"data": states(case, rng, 0.0, case.points)}


def fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """Those of a path, the anchor, the points and the functional."""
    return {
        **path_fields(case, inputs, kit),
        "anchor": kit.anchor(case.base, case.sigma_max),
        "data": kit.array(inputs["data"]),
        "functional": kit.functional(*_functional(case)),
    }


def truth(case: Case, inputs: Arrays) -> np.ndarray:
    """`∇φ(x_0)·δ_i` (n, N): one variational equation per point."""
    functional, base = Functional(*_functional(case)), oracle(case.base)
    columns = []
    for point in inputs["data"]:
        perturbation = AdditivePerturbation(base, GaussianMixture.empirical(point[None]))
        samples, delta = flow.sensitivity(perturbation, inputs["latents"], case.sigma_max, case.sigma)
        columns.append((functional.gradient(samples) * delta).sum(-1))
    return np.stack(columns, axis=1)


TASK = Task(
    name="influence",
    question="d/dη of φ(x_0) for mass moved to each of N points, latents fixed",
    inputs=("score", "latents", "grid", "anchor", "data", "functional", "seed"),
    qualifies="DOP853 at rtol 1e-12 with an error bar, one variational equation per point (oracles.flow)",
    atol=1e-3,
    rtol=5e-3,
    quantile=0.9,
    noise=1.0,
    absolute=False,
    budget=1_000_000,
    cases=CASES,
    draw=draw,
    fields=fields,
    truth=truth,
    slow=True,
)
