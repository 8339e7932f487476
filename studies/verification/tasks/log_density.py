"""Task `log-density`: `log p_σ(x)` (n,), nats, from a black-box score.

Given are the score at every level, and the exact log density at `grid.sigma_max` and above (`anchor`). One way is the
probability flow: with `dx/dσ = −σ s`, `d log p_σ(x(σ))/dσ = σ div s`, hence
`log p_σ(x) = anchor(x(σ_max)) − ∫ σ div s dσ` (Song et al., arXiv 2011.13456, eq. 39).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.verification.kit import Kit
from studies.verification.laws import oracle
from studies.verification.tasks.base import Arrays, Case, Task, states

__all__ = ["CASES", "PROBES", "TASK", "draw", "fields"]

PROBES = 8

CASES = (
    Case("line", 0.05, sigma_max=10.0, steps=64, tags=("low noise",)),
    Case("plane", 0.1, sigma_max=10.0, steps=64),
    Case("plane", 0.5, sigma_max=10.0, steps=64, spread=6.0, label="tail", tags=("tail",)),
    Case("gaussian", 0.2, sigma_max=10.0, steps=64, tags=("one Gaussian",)),
    Case("five", 0.2, sigma_max=10.0, steps=64),
    Case("ten", 0.2, sigma_max=10.0, steps=96, count=16),
    Case("hundred", 0.5, sigma_max=10.0, steps=96, count=2, tags=("d = 100",)),
    Case("photo-784", 0.14, sigma_max=10.0, steps=32, count=1, tags=("image-sized",)),
    Case("photo-3072", 0.14, sigma_max=10.0, steps=32, count=1, suite="full", tags=("image-sized",)),
    Case("points", 0.4, sigma_max=10.0, steps=64, suite="full", tags=("points",)),
    Case("singular", 0.1, sigma_max=10.0, steps=64, suite="full", tags=("singular",)),
    Case("plane", 0.01, sigma_max=80.0, steps=256, suite="full", tags=("low noise",)),
    Case("fifty", 0.3, sigma_max=10.0, steps=128, count=8, suite="full"),
)


def draw(case: Case, rng: np.random.Generator) -> Arrays:
    """States (n, d) at the level asked about."""
    return {"x": states(case, rng, case.sigma)}


def fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """The score, the anchor, the states and a proposed grid from sigma_max down to sigma."""
    return {
        "score": kit.box(case.base, "score"),
        "anchor": kit.anchor(case.base, case.sigma_max),
        "x": kit.array(inputs["x"]),
        "sigma": case.sigma,
        "grid": kit.levels(case.sigma_max, case.sigma, case.steps),
        "probes": case.probes or PROBES,
    }


def truth(case: Case, inputs: Arrays) -> np.ndarray:
    """`log p_σ(x)` of the exact mixture (n,)."""
    return oracle(case.base).noised(case.sigma).log_density(inputs["x"])


TASK = Task(
    name="log-density",
    question="log p_σ(x) in nats, from a black-box score and the exact law at sigma_max",
    inputs=("score", "anchor", "x", "sigma", "grid", "probes", "seed"),
    qualifies="closed form in float64, equal to 50-digit arithmetic to 1e-12 (oracles.reference)",
    atol=0.02,
    rtol=1e-3,
    quantile=0.9,
    noise=1.0,
    absolute=True,
    budget=1_000_000,
    cases=CASES,
    draw=draw,
    fields=fields,
    truth=truth,
)
