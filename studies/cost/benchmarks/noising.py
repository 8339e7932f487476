"""A new noise level of a mixture, beside its construction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oracles import GaussianMixture
from studies.cost.benchmarks import Bound, Setup

QUESTION = "Does a new noise level cost a factorisation?"
SIZES = {
    "smoke": [{"components": 5, "dimension": 50}],
    "quick": [{"components": 10, "dimension": 100}],
    "full": [{"components": 10, "dimension": 100}, {"components": 4, "dimension": 400}],
}
BUILT, NOISED = "construction", "noised"
EXPECTED = (Bound(NOISED, BUILT, 0.05, "noise adds to eigenvalues: no new factorisation"),)


def prepare(parameters: Mapping[str, Any], device: str, seed: int) -> Setup:
    """Full covariances in NumPy float64."""
    size, dimension = parameters["components"], parameters["dimension"]
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((size, dimension, dimension))
    weights, means = np.full(size, 1 / size), rng.standard_normal((size, dimension))
    covariances = factors @ factors.transpose(0, 2, 1)
    law = GaussianMixture(weights, means, covariances)
    return Setup({BUILT: lambda: GaussianMixture(weights, means, covariances), NOISED: lambda: law.noised(0.3)})
