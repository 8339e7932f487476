"""Task `sample`: samples (n, d) at sigma_min.

Cases of two kinds.  *Flow*: `latents` at sigma_max are given, and row i is asked to be the end of the probability flow
`dx/dσ = −σ s_σ(x)` that starts in latent i.  *Law* (`law` and `count` are given too): `count` independent draws from
the law noised to sigma_min, made in any way; they are judged as a sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles import flow
from studies.verification.kit import Kit
from studies.verification.laws import oracle
from studies.verification.reduction import is_reducible, reduction
from studies.verification.tasks.base import Arrays, Case, Task, states

__all__ = ["TASK", "latents", "path_fields"]

DRAWS = 5000

CASES = (
    Case("line", 0.05, sigma_max=10.0, steps=64, tags=("flow",)),
    Case("plane", 0.1, sigma_max=10.0, steps=64, tags=("flow",)),
    Case("gaussian", 0.1, sigma_max=10.0, steps=64, tags=("flow", "one Gaussian")),
    Case("five", 0.1, sigma_max=10.0, steps=64, tags=("flow",)),
    Case("hundred", 0.3, sigma_max=10.0, steps=128, count=8, tags=("flow", "d = 100")),
    Case("line", 0.3, sigma_max=10.0, steps=64, count=DRAWS, judge="law", label="law", tags=("law",)),
    Case("plane", 0.3, sigma_max=10.0, steps=64, count=DRAWS, judge="law", label="law", tags=("law",)),
    Case("five", 0.3, sigma_max=10.0, steps=64, count=DRAWS, judge="law", label="law", tags=("law",)),
    Case("photo-784", 0.3, sigma_max=10.0, steps=128, count=8, tags=("flow", "image-sized")),
    Case("photo-3072", 0.3, sigma_max=10.0, steps=128, count=4, tags=("flow", "image-sized")),
    Case("ten", 0.1, sigma_max=10.0, steps=64, count=16, suite="full", tags=("flow",)),
    Case("plane", 0.01, sigma_max=80.0, steps=256, suite="full", tags=("flow", "low noise")),
    Case("points", 0.2, sigma_max=10.0, steps=64, suite="full", tags=("flow", "points")),
    Case("twenty", 0.1, sigma_max=10.0, steps=64, count=DRAWS, judge="law", label="law", suite="full", tags=("law",)),
)


def latents(case: Case, rng: np.random.Generator) -> Arrays:
    """Latents (n, d): draws from the exact law at sigma_max."""
    return {"latents": states(case, rng, case.sigma_max)}


def path_fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """The score, the latents and a proposed grid."""
    return {
        "score": kit.box(case.base, "score"),
        "latents": kit.array(inputs["latents"]),
        "grid": kit.levels(case.sigma_max, case.sigma, case.steps),
    }


def fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """Those of a path; a law case adds the law's parameters and the number of draws."""
    given = path_fields(case, inputs, kit)
    if case.judge == "law":
        given |= {"law": kit.parameters(case.base), "count": case.count}
    return given


def truth(case: Case, inputs: Arrays) -> np.ndarray:
    """Ends of the flow (n, d); empty for law cases, which are judged by exact distribution functions."""
    if case.judge == "law":
        return np.empty((0, case.base.dimension))
    if is_reducible(case.base):
        return reduction(case.base).sample(inputs["latents"], case.sigma_max, case.sigma)
    return flow.sample(oracle(case.base), inputs["latents"], case.sigma_max, case.sigma)


TASK = Task(
    name="sample",
    question="the end of the probability flow from given latents; draws from the law",
    inputs=(
        "score",
        "latents",
        "grid",
        "seed",
        "in problems marked *law* also `law` and `count`, the number of draws asked for",
    ),
    qualifies="DOP853 at rtol 1e-12 with an error bar (oracles.flow); exact distribution functions for draws",
    atol=2e-3,
    rtol=2e-3,
    quantile=0.9,
    noise=0.0,
    absolute=False,
    budget=100_000,
    cases=CASES,
    draw=latents,
    fields=fields,
    truth=truth,
    slow=True,
)
