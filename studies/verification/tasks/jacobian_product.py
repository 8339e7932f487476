"""Task `score-jacobian-product`: `J v`, `J_ij = ∂f_i/∂x_j`, of a black-box field f at the rows of `x` and `vectors`.

The field is that of a network: the exact score plus a non-conservative part, `f_σ(x) = s_σ(x) + B x/(1 + σ²)`, so that
`J` is not symmetric and a transposed product shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.verification.kit import Kit
from studies.verification.laws import oracle
from studies.verification.tasks.base import Arrays, Case, Task, states

__all__ = ["CASES", "TASK", "tilt"]

CASES = (
    Case("line", 0.3, tilt=0.7),
    Case("plane", 0.1, tilt=0.7, tags=("not symmetric",)),
    Case("plane", 3.0, tilt=3.0, label="tilted", tags=("not symmetric", "strongly tilted")),
    Case("five", 0.3, tilt=1.0, tags=("not symmetric",)),
    Case("five", 0.3, tilt=0.0, label="plain"),
    Case("points", 0.3, tilt=1.0, tags=("not symmetric", "points")),
    Case("singular", 0.02, tilt=1.0, tags=("singular", "low noise")),
    Case("hundred", 0.7, tilt=0.5, count=16, tags=("not symmetric",)),
    Case("photo-3072", 0.3, count=4, tags=("image-sized",)),
    Case("ball-784", 1.0, tilt=0.2, count=4, suite="full", tags=("not symmetric",)),
    Case("sharp", 0.01, tilt=1.0, suite="full", tags=("low noise",)),
    Case("plane", 80.0, tilt=1.0, suite="full", tags=("high noise",)),
)


def tilt(case: Case) -> np.ndarray:
    """`B` (d, d), standard normal entries times `tilt/√d`, trace not zero; fixed by the law's name."""
    d = case.base.dimension
    if not case.tilt:
        return np.zeros((d, d))
    rng = case.rng("tilt", 0)
    return case.tilt * (rng.standard_normal((d, d)) / np.sqrt(d) + 0.3 * np.eye(d))


def draw(case: Case, rng: np.random.Generator) -> Arrays:
    """States (n, d) and directions (n, d)."""
    x = states(case, rng, case.sigma)
    return {"x": x, "vectors": rng.standard_normal(x.shape)}


def fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """The black-box field, the states and the directions."""
    return {
        "score": kit.tilted(case.base, tilt(case)),
        "x": kit.array(inputs["x"]),
        "sigma": case.sigma,
        "vectors": kit.array(inputs["vectors"]),
    }


def truth(case: Case, inputs: Arrays) -> np.ndarray:
    """`∇s_σ(x) v + B v/(1 + σ²)` (n, d)."""
    noised = oracle(case.base).noised(case.sigma)
    exact = noised.score_jacobian_product(inputs["x"], inputs["vectors"])
    return exact + inputs["vectors"] @ tilt(case).T / (1.0 + case.sigma**2)


TASK = Task(
    name="score-jacobian-product",
    question="J v of a black-box field, J_ij = ∂f_i/∂x_j",
    inputs=("score", "x", "sigma", "vectors"),
    qualifies="closed form in float64 (centred), equal to 50-digit arithmetic to 1e-12 (oracles.reference)",
    atol=1e-8,
    rtol=1e-4,
    quantile=1.0,
    noise=0.5,
    absolute=False,
    budget=100_000,
    cases=CASES,
    draw=draw,
    fields=fields,
    truth=truth,
)
