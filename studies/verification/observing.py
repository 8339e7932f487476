"""Linear observations `y = A x + n`, n ~ N(0, R): operators by name, and posteriors by the exact mixture.

Operators (p, d), fixed by the case's name:

- `mask`: the first half of the coordinates is seen (d = 1: the only one);
- `mean`: means of neighbouring coordinates, as a coarse pixel sees fine ones;
- `mix`: p = ⌈d/2⌉ random combinations, entries `N(0, 1/d)`; with d > 200, p = 24 of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles import GaussianMixture
from studies.verification.laws import oracle
from studies.verification.tasks.base import Case, states

__all__ = ["joint", "log_likelihood", "operator", "posterior"]


def operator(case: Case) -> np.ndarray:
    """`A` (p, d)."""
    d = case.base.dimension
    p = 24 if d > 200 else (d + 1) // 2
    if case.operator == "mask":
        return np.eye(d)[:p]
    if case.operator == "mean":
        block = d // p
        return np.kron(np.eye(p), np.full((1, block), 1 / block))[:, :d]
    # Of unit variance in total, so that y is as large as a coordinate of x whatever d is.
    return case.rng("operator", 0).standard_normal((p, d)) / np.sqrt(d)


def joint(case: Case, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws `x` (count, d) from the prior and their observations `y` (count, p)."""
    x, matrix = states(case, rng, 0.0, count), operator(case)
    return x, x @ matrix.T + np.sqrt(case.noise) * rng.standard_normal((count, len(matrix)))


def posterior(case: Case, observation: np.ndarray) -> GaussianMixture:
    """The exact law of x given one observation (p,)."""
    return oracle(case.base).conditioned(operator(case), observation, case.noise)


def log_likelihood(case: Case, x: np.ndarray, observation: np.ndarray) -> Any:
    """`log N(y; A x, R)` but for a constant, for x (..., d)."""
    return -0.5 * ((observation - x @ operator(case).T) ** 2).sum(-1) / case.noise
