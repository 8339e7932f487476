"""Task `divergence`: `div f = tr J` (n,) of a black-box field f, in `1/units²`, exactly or by random probes.

The field is `f_σ(x) = s_σ(x) + B x/(1 + σ²)` with tr B ≠ 0. A stochastic estimator uses `seed`, may use `probes`, and
may return its standard error.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.verification.kit import Kit
from studies.verification.laws import oracle
from studies.verification.tasks.base import Arrays, Case, Task, states
from studies.verification.tasks.jacobian_product import tilt

__all__ = ["PROBES", "TASK"]

PROBES = 16

CASES = (
    Case("line", 0.3, tilt=0.7),
    Case("plane", 0.1, tilt=0.7),
    Case("plane", 3.0, tilt=3.0, label="tilted", tags=("strongly tilted",)),
    Case("five", 0.3, tilt=1.0),
    Case("points", 0.3, tilt=1.0, tags=("points",)),
    Case("singular", 0.02, tilt=1.0, tags=("singular", "low noise")),
    Case("hundred", 0.7, tilt=0.5, count=16, tags=("d = 100",)),
    Case("photo-784", 0.3, tilt=0.2, count=4, tags=("image-sized",)),
    Case("photo-3072", 0.3, count=1, suite="full", tags=("image-sized",)),
    Case("ball-784", 1.0, tilt=0.2, count=4, suite="full", tags=("d = 784",)),
    Case("sharp", 0.01, tilt=1.0, suite="full", tags=("low noise",)),
    Case("plane", 80.0, tilt=1.0, suite="full", tags=("high noise",)),
)


def draw(case: Case, rng: np.random.Generator) -> Arrays:
    """States (n, d)."""
    return {"x": states(case, rng, case.sigma)}


def fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """The black-box field and the states."""
    return {
        "score": kit.tilted(case.base, tilt(case)),
        "x": kit.array(inputs["x"]),
        "sigma": case.sigma,
        "probes": case.probes or PROBES,
    }


def truth(case: Case, inputs: Arrays) -> np.ndarray:
    """`div s_σ(x) + tr B/(1 + σ²)` (n,)."""
    exact = oracle(case.base).noised(case.sigma).score_divergence(inputs["x"])
    return exact + np.trace(tilt(case)) / (1.0 + case.sigma**2)


TASK = Task(
    name="divergence",
    question="div f of a black-box field",
    inputs=("score", "x", "sigma", "probes", "seed"),
    qualifies="closed form in float64 (centred), equal to 50-digit arithmetic to 1e-12 (oracles.reference)",
    atol=1e-6,
    rtol=1e-3,
    quantile=1.0,
    noise=5.0,
    absolute=False,
    budget=100_000,
    cases=CASES,
    draw=draw,
    fields=fields,
    truth=truth,
)
