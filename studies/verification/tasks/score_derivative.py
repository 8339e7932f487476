"""Task `score-derivative`: `ṡ = d s_σ^η(x)/dη` (n, d) at η = 0 for `ρ_η = (1 − η) ρ + η ν`.

Given are the score and the exact log density of ρ, and ν in full. The answer is `r (s^ν − s)` with `r = ν_σ/p_σ`
(Scarvelis & Solomon, arXiv 2509.23092).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles import AdditivePerturbation
from studies.verification.kit import Kit
from studies.verification.laws import oracle
from studies.verification.tasks import log_density_ratio
from studies.verification.tasks.base import Arrays, Case, Task

__all__ = ["TASK"]

CASES = (
    Case("line", 0.05, "line-toward", sigma_max=10.0, steps=64, tags=("low noise",)),
    Case("line", 1.0, "line-toward", sigma_max=10.0, steps=64),
    Case("plane", 0.1, "plane-toward", sigma_max=10.0, steps=64),
    Case("plane", 2.0, "plane-toward", sigma_max=10.0, steps=64, tags=("high noise",)),
    Case("gaussian", 0.2, "gaussian-toward", sigma_max=10.0, steps=64),
    Case("five", 0.2, "five-toward", sigma_max=10.0, steps=64),
    Case("ten", 0.2, "ten-toward", sigma_max=10.0, steps=64, count=16),
    Case("hundred", 0.5, "hundred-toward", sigma_max=10.0, steps=96, count=4, tags=("d = 100",)),
    Case("photo-784", 0.3, "photo-784-toward", sigma_max=10.0, steps=64, count=8, tags=("image-sized",)),
    Case("photo-3072", 0.3, "photo-3072-toward", sigma_max=10.0, steps=64, count=4, tags=("image-sized",)),
    Case("points", 0.3, "points", label="self", sigma_max=10.0, steps=64, suite="full", tags=("ν = ρ",)),
    Case("fifty", 0.3, "fifty-toward", sigma_max=10.0, steps=128, count=8, suite="full"),
)


def fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """Those of `log-density-ratio`, and the exact log density of ρ."""
    return {**log_density_ratio.fields(case, inputs, kit), "log_density": kit.box(case.base, "log_density")}


def truth(case: Case, inputs: Arrays) -> np.ndarray:
    """`ṡ` of the exact mixtures (n, d)."""
    return AdditivePerturbation(oracle(case.base), oracle(case.other)).score_derivative(inputs["x"], case.sigma)


TASK = Task(
    name="score-derivative",
    question="d/dη of the score at η = 0 for (1 − η) ρ + η ν",
    inputs=("score", "log_density", "anchor", "x", "sigma", "grid", "perturbation", "probes", "seed"),
    qualifies="closed form in float64; equal to the difference quotient of the exact scores of ρ_η to O(η)",
    atol=1e-7,
    rtol=1e-3,
    quantile=0.9,
    noise=2.0,
    absolute=False,
    budget=1_000_000,
    cases=CASES,
    draw=log_density_ratio.draw,
    fields=fields,
    truth=truth,
)
