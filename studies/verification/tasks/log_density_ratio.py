"""Task `log-density-ratio`: `log r = log ν_σ(x) − log p_σ(x)` (n,), nats; ν known in full, ρ by its score.

States come half from each law, so that both signs and both sizes of r occur.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.verification.kit import Kit
from studies.verification.laws import oracle
from studies.verification.tasks import log_density
from studies.verification.tasks.base import Arrays, Case, Task, states

__all__ = ["CASES", "TASK"]

IMAGE = ("image-sized",)
CASES = (
    Case("line", 0.2, "line-toward", sigma_max=10.0, steps=64),
    Case("plane", 0.3, "plane-toward", sigma_max=10.0, steps=64),
    Case("gaussian", 0.2, "gaussian-toward", sigma_max=10.0, steps=64),
    Case("five", 0.2, "five-toward", sigma_max=10.0, steps=64),
    Case("ten", 0.2, "ten-toward", sigma_max=10.0, steps=96, count=16),
    Case("hundred", 0.5, "hundred-toward", sigma_max=10.0, steps=96, count=2, tags=("d = 100",)),
    Case("photo-784", 0.14, "photo-784-toward", sigma_max=10.0, steps=32, count=1, tags=IMAGE),
    Case("photo-3072", 0.14, "photo-3072-toward", sigma_max=10.0, steps=32, count=1, suite="full", tags=IMAGE),
    Case("plane", 3.0, "plane-toward", sigma_max=10.0, steps=64, suite="full"),
    Case("fifty", 0.3, "fifty-toward", sigma_max=10.0, steps=128, count=8, suite="full"),
)


def draw(case: Case, rng: np.random.Generator) -> Arrays:
    """States (n, d): even rows from ρ noised, odd rows from ν noised."""
    x = states(case, rng, case.sigma)
    x[1::2] = states(Case(str(case.toward), case.sigma, count=case.count), rng, case.sigma)[1::2]
    return {"x": x}


def fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """Those of `log-density`, and the perturbation."""
    return {**log_density.fields(case, inputs, kit), "perturbation": kit.toward(case.other)}


def truth(case: Case, inputs: Arrays) -> np.ndarray:
    """`log ν_σ(x) − log p_σ(x)` of the exact mixtures (n,)."""
    base, other = oracle(case.base).noised(case.sigma), oracle(case.other).noised(case.sigma)
    return other.log_density(inputs["x"]) - base.log_density(inputs["x"])


TASK = Task(
    name="log-density-ratio",
    question="log ν_σ(x) − log p_σ(x) in nats, ν known, ρ by its score",
    inputs=("score", "anchor", "x", "sigma", "grid", "perturbation", "probes", "seed"),
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
