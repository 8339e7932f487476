"""Task `posterior-sample`: L draws (m, L, d) of the noised posterior for each of m observations.

`X ~ ρ`, `y = A X + n`, m times; asked are `count` draws of the law of `X + σ_min ε` given each row of `observations`.
They are judged together, see `studies.verification.posteriors`: by simulation-based calibration (ranks of the state
that made the observation among its draws are uniform) and by the energy distance to exact draws, with permutations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.verification.kit import Kit
from studies.verification.observing import joint
from studies.verification.tasks.base import Arrays, Case, Task
from studies.verification.tasks.posterior_score import observed

__all__ = ["TASK"]

LEVELS: dict[str, Any] = {"sigma_max": 20.0, "steps": 64, "draws": 40, "judge": "posterior"}
UNIT = ("one Gaussian", "unit variance", "d = 16")

CASES = (
    Case("gaussian", 0.1, operator="mix", noise=0.05, count=150, tags=("one Gaussian",), **LEVELS),
    Case("plane", 0.1, operator="mask", noise=0.1, count=150, **LEVELS),
    Case(
        "unit", 0.1, operator="mask", noise=0.1, count=150, tags=("one Gaussian", "unit variance", "d = 16"), **LEVELS
    ),
    Case("image", 0.1, operator="mean", noise=0.05, count=150, tags=("d = 16",), **LEVELS),
    Case("photo-784", 0.3, operator="mix", noise=0.05, count=40, suite="full", tags=("image-sized",), **LEVELS),
)


def draw(case: Case, rng: np.random.Generator) -> Arrays:
    """Observations (m, p), and the noised states (m, d) that made them, which the estimator does not see."""
    x, seen = joint(case, rng, case.count)
    return {"observations": seen, "hidden": x + case.sigma * rng.standard_normal(x.shape)}


def fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """The prior, the observations, the number of draws and a proposed grid."""
    return {
        **observed(case, kit),
        "observations": kit.array(inputs["observations"]),
        "count": case.draws,
        "grid": kit.levels(case.sigma_max, case.sigma, case.steps),
    }


def truth(case: Case, inputs: Arrays) -> np.ndarray:
    """The hidden states and their observations side by side (m, d + p): what the judge compares with."""
    return np.concatenate([inputs["hidden"], inputs["observations"]], axis=1)


TASK = Task(
    name="posterior-sample",
    question="draws of the noised posterior for each of several linear observations",
    inputs=("law", "score", "operator", "noise", "observations", "count", "grid", "seed"),
    qualifies="exact posterior mixtures (oracles); ranks of the hidden state are uniform for any right sampler",
    atol=0.0,
    rtol=0.0,
    quantile=1.0,
    noise=0.0,
    absolute=False,
    budget=100_000,
    cases=CASES,
    draw=draw,
    fields=fields,
    truth=truth,
)
