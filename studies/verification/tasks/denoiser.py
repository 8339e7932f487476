"""Task `denoiser`: the posterior mean `E[X | αX + σε = z]` (n, d) at the rows of `x` (= z).

The law's parameters are given; so is `score`, in variance-exploding coordinates (`score(x, σ) = ∇ log p_σ(x)`), for
those who check a conversion: `E[X | z] = y + τ² s_τ(y)` with `y = z/α`, `τ = σ/α` (Tweedie).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.verification.kit import Kit
from studies.verification.laws import oracle
from studies.verification.tasks import score as score_task
from studies.verification.tasks.base import Arrays, Case, Task

__all__ = ["TASK"]


def fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """Those of the task `score`, and the score."""
    return {**score_task.fields(case, inputs, kit), "score": kit.box(case.base, "score")}


def truth(case: Case, inputs: Arrays) -> np.ndarray:
    """The mean of X given z by conditioning each Gaussian component (n, d)."""
    return oracle(case.base).posterior(inputs["x"] / case.alpha, case.sigma / case.alpha)[0]


TASK = Task(
    name="denoiser",
    question="E[X | z] of z = αX + σε for a given law of X",
    inputs=("law", "score", "x", "sigma", "alpha"),
    qualifies="closed form in float64, equal to 50-digit arithmetic to 1e-12 (oracles.reference)",
    atol=1e-8,
    rtol=1e-5,
    quantile=1.0,
    noise=0.5,
    absolute=False,
    budget=100_000,
    cases=tuple(case for case in score_task.CASES if case.spread <= 1.0),
    draw=score_task.draw,
    fields=fields,
    truth=truth,
)
