"""Task `evidence`: `log p(y)` (n,), nats, of linear observations `y = A X + n`, `X ~ ρ`, `n ~ N(0, noise I)`."""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.verification.kit import Kit
from studies.verification.laws import oracle
from studies.verification.observing import joint, operator
from studies.verification.tasks.base import Arrays, Case, Task
from studies.verification.tasks.posterior_score import observed

__all__ = ["TASK"]

CASES = (
    Case("gaussian", 0.0, operator="mix", noise=0.05, tags=("one Gaussian",)),
    Case("plane", 0.0, operator="mask", noise=0.1),
    Case("five", 0.0, operator="mix", noise=0.05),
    Case("image", 0.0, operator="mean", noise=0.05, tags=("d = 16",)),
    Case("photo-784", 0.0, operator="mix", noise=0.05, count=16, tags=("image-sized",)),
    Case("plane", 0.0, operator="mix", noise=3.0, suite="full", label="noisy", tags=("much noise",)),
    Case("photo-784", 0.0, operator="mask", noise=0.05, count=4, suite="full", label="masked", tags=("image-sized",)),
)


def draw(case: Case, rng: np.random.Generator) -> Arrays:
    """Observations (n, p), drawn as the model says."""
    return {"observations": joint(case, rng, case.count)[1]}


def fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """The prior and the observations."""
    return {**observed(case, kit), "observations": kit.array(inputs["observations"])}


def truth(case: Case, inputs: Arrays) -> np.ndarray:
    """`log p(y)` of the exact mixture (n,)."""
    prior, matrix = oracle(case.base), operator(case)
    return np.array([float(prior.log_evidence(matrix, y, case.noise)) for y in inputs["observations"]])


TASK = Task(
    name="evidence",
    question="log p(y) in nats for y = A X + n, the prior known",
    inputs=("law", "score", "operator", "noise", "observations", "seed"),
    qualifies="closed form in float64 (oracles); equals the density of the image of ρ under A, noised, in the tests",
    atol=0.01,
    rtol=1e-3,
    quantile=0.9,
    noise=1.0,
    absolute=True,
    budget=100_000,
    cases=CASES,
    draw=draw,
    fields=fields,
    truth=truth,
)
