"""Task `score`: the score of a known law at a noise level.

`z = αX + σε`, `X ~ ρ`, `ε ~ N(0, I)`; asked is `∇ log p(z)` (n, d) at the rows of `x` (= z). The law's parameters
are given, `alpha` is 1 unless the case says otherwise; there is no score to call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.verification.kit import Kit
from studies.verification.laws import oracle
from studies.verification.tasks.base import Arrays, Case, Task, states

__all__ = ["CASES", "TASK", "draw"]

CASES = (
    Case("line", 0.3),
    Case("plane", 0.1, tags=("anisotropic",)),
    Case("plane", 0.5, alpha=0.6, label="alpha", tags=("alpha", "anisotropic")),
    Case("plane", 0.5, spread=30.0, label="tail", tags=("tail", "anisotropic")),
    Case("plane", 80.0, tags=("anisotropic", "high noise")),
    Case("five", 0.2, tags=("anisotropic",)),
    Case("sharp", 0.001, tags=("anisotropic", "low noise", "separated")),
    Case("singular", 0.01, tags=("anisotropic", "singular", "low noise", "separated")),
    Case("points", 0.3, tags=("points",)),
    Case("far-points", 0.02, tags=("points", "low noise", "far from the origin")),
    Case("ball", 0.4, tags=("isotropic",)),
    Case("ball", 0.4, alpha=0.7, label="alpha", tags=("alpha", "isotropic")),
    Case("hundred", 0.5, tags=("anisotropic", "separated")),
    Case("ball-784", 1.0, count=8, tags=("isotropic",)),
    Case("sheet-784", 0.1, count=8, tags=("anisotropic", "low noise", "separated")),
    Case("photo-3072", 0.3, count=4, suite="full", tags=("anisotropic", "separated", "image-sized")),
    Case("line", 0.001, suite="full", tags=("low noise",)),
    Case("line", 80.0, suite="full", tags=("high noise",)),
    Case("plane", 0.5, spread=100.0, label="far-tail", suite="full", tags=("tail", "anisotropic")),
    Case("ten", 0.05, suite="full", tags=("anisotropic",)),
    Case("twenty", 0.3, suite="full", tags=("anisotropic",)),
    Case("fifty", 2.0, suite="full", tags=("anisotropic",)),
    Case("points", 0.001, suite="full", tags=("points", "low noise")),
    Case("sheet-784", 0.002, count=8, suite="full", tags=("anisotropic", "low noise")),
)


def draw(case: Case, rng: np.random.Generator) -> Arrays:
    """States z (n, d) at the case's level."""
    return {"x": case.alpha * states(case, rng, case.sigma / case.alpha)}


def fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """The law's parameters, the states, σ and α."""
    return {
        "law": kit.parameters(case.base),
        "x": kit.array(inputs["x"]),
        "sigma": case.sigma,
        "alpha": case.alpha,
    }


def truth(case: Case, inputs: Arrays) -> np.ndarray:
    """`∇ log p(z)` from the exact mixture (n, d)."""
    return oracle(case.base).noised(case.sigma, case.alpha).score(inputs["x"])


TASK = Task(
    name="score",
    question="∇ log p(z) of z = αX + σε for a given law of X",
    inputs=("law", "x", "sigma", "alpha"),
    qualifies="closed form in float64, equal to 50-digit arithmetic to 1e-12 (oracles.reference)",
    atol=1e-9,
    rtol=1e-5,
    quantile=1.0,
    noise=0.5,
    absolute=False,
    budget=100_000,
    cases=CASES,
    draw=draw,
    fields=fields,
    truth=truth,
)
