"""Task `sample-sensitivity`: `δ = dx/dη` (n, d) of the probability flow's end, latents fixed, for `(1 − η) ρ + η ν`.

Given are the score of ρ, its exact law at sigma_max (`anchor`) and ν in full. With `ṡ` the score's derivative,
`dδ/dσ = −σ (∇s δ + ṡ)`, `δ(σ_max) = 0` (Scarvelis & Solomon, arXiv 2509.23092).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles import AdditivePerturbation, flow
from studies.verification.kit import Kit
from studies.verification.laws import oracle
from studies.verification.reduction import is_reducible, reduction
from studies.verification.tasks.base import Arrays, Case, Task
from studies.verification.tasks.sample import latents, path_fields

__all__ = ["PROBES", "TASK"]

PROBES = 8

IMAGE = ("image-sized",)
CASES = (
    Case("line", 0.05, "line-toward", sigma_max=10.0, steps=192),
    Case("plane", 0.1, "plane-toward", sigma_max=10.0, steps=128),
    Case("gaussian", 0.1, "gaussian-toward", sigma_max=10.0, steps=128),
    Case("five", 0.1, "five-toward", sigma_max=10.0, steps=128),
    Case("ten", 0.2, "ten-toward", sigma_max=10.0, steps=128, count=16),
    Case("hundred", 0.5, "hundred-toward", sigma_max=10.0, steps=128, count=4, tags=("d = 100",)),
    Case("photo-784", 0.3, "photo-784-toward", sigma_max=10.0, steps=80, count=1, tags=IMAGE),
    Case("photo-3072", 0.3, "photo-3072-toward", sigma_max=10.0, steps=80, count=1, suite="full", tags=IMAGE),
    Case("plane", 0.02, "plane-toward", sigma_max=80.0, steps=256, suite="full", tags=("low noise",)),
    Case("fifty", 0.3, "fifty-toward", sigma_max=10.0, steps=384, count=8, suite="full"),
)


def fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """Those of a path, the anchor and the perturbation."""
    return {
        **path_fields(case, inputs, kit),
        "anchor": kit.anchor(case.base, case.sigma_max),
        "perturbation": kit.toward(case.other),
        "probes": case.probes or PROBES,
    }


def truth(case: Case, inputs: Arrays) -> np.ndarray:
    """`δ` (n, d) by the variational equation along the exact flow."""
    if is_reducible(case.base, case.other):
        return reduction(case.base, case.other).sensitivity(inputs["latents"], case.sigma_max, case.sigma)
    perturbation = AdditivePerturbation(oracle(case.base), oracle(case.other))
    return flow.sensitivity(perturbation, inputs["latents"], case.sigma_max, case.sigma)[1]


TASK = Task(
    name="sample-sensitivity",
    question="d/dη of the probability flow's end at η = 0, latents fixed",
    inputs=("score", "latents", "grid", "anchor", "perturbation", "probes", "seed"),
    qualifies="DOP853 at rtol 1e-12 with an error bar (oracles.flow); d = 1 equals the quantile oracle",
    atol=1e-3,
    rtol=5e-3,
    quantile=0.9,
    noise=1.0,
    absolute=False,
    budget=1_000_000,
    cases=CASES,
    draw=latents,
    fields=fields,
    truth=truth,
    slow=True,
)
