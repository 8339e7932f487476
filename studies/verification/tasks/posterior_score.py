"""Task `posterior-score`: the score of the noised posterior (n, d) at the rows of `x`, for one linear observation.

Seen is `y = A X + n`, `n ~ N(0, R)`, R = `noise` I; asked is `∇ log p_σ(x | y)`, the score of the law of `X + σε` given
y. The prior is given by its parameters (`law`) and by its score; samplers of inverse problems approximate the answer
from the score alone: `s_σ(x) + ∇ log p(y | X_σ = x)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.verification.kit import Kit
from studies.verification.observing import joint, operator, posterior
from studies.verification.tasks.base import Arrays, Case, Task

__all__ = ["TASK", "observed"]

CASES = (
    Case("gaussian", 0.3, operator="mix", noise=0.05, tags=("one Gaussian",)),
    Case("plane", 0.2, operator="mask", noise=0.1),
    Case("five", 0.3, operator="mix", noise=0.05),
    Case("unit", 0.5, operator="mask", noise=0.1, tags=("one Gaussian", "unit variance", "d = 16")),
    Case("image", 0.5, operator="mean", noise=0.05, tags=("d = 16",)),
    Case("photo-784", 0.5, operator="mix", noise=0.05, count=4, tags=("image-sized",)),
    Case("plane", 3.0, operator="mix", noise=0.02, suite="full", tags=("high noise",)),
    Case("ten", 0.1, operator="mean", noise=0.5, suite="full"),
    Case("photo-784", 2.0, operator="mask", noise=0.05, count=4, suite="full", tags=("image-sized",), label="masked"),
)


def draw(case: Case, rng: np.random.Generator) -> Arrays:
    """One observation (p,) and states (n, d) of its noised posterior."""
    _, seen = joint(case, rng, 1)
    clean = posterior(case, seen[0]).sample(case.count, rng)
    return {"observation": seen[0], "x": clean + case.sigma * rng.standard_normal(clean.shape)}


def observed(case: Case, kit: Kit) -> dict[str, Any]:
    """The prior by parameters and score, the operator and the variance of the noise."""
    return {
        "law": kit.parameters(case.base),
        "score": kit.box(case.base, "score"),
        "operator": kit.array(operator(case)),
        "noise": case.noise,
    }


def fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """The prior, the observation and the states."""
    given = {"observation": kit.array(inputs["observation"]), "x": kit.array(inputs["x"]), "sigma": case.sigma}
    return {**observed(case, kit), **given}


def truth(case: Case, inputs: Arrays) -> np.ndarray:
    """`∇ log p_σ(x | y)` of the exact posterior mixture (n, d)."""
    return posterior(case, inputs["observation"]).noised(case.sigma).score(inputs["x"])


TASK = Task(
    name="posterior-score",
    question="∇ log p_σ(x | y) for y = A X + n, the prior known",
    inputs=("law", "score", "operator", "noise", "observation", "x", "sigma"),
    qualifies="closed form in float64: a mixture conditioned component by component; two other routes in the tests",
    atol=1e-6,
    rtol=1e-3,
    quantile=0.9,
    noise=0.5,
    absolute=False,
    budget=100_000,
    cases=CASES,
    draw=draw,
    fields=fields,
    truth=truth,
)
