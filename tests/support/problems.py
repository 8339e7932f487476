"""Named test problems: anisotropic, asymmetric, unequal weights, non-zero divergence; nothing sits in a null space."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .strategies import Parameters, covariance


class Problem(NamedTuple):
    """A base law ρ and the law ν that mass moves toward."""

    name: str
    base: Parameters
    toward: Parameters


def _law(rng: np.random.Generator, d: int, k: int, spread: float) -> Parameters:
    raw = rng.uniform(0.5, 2.0, k)
    means = spread * rng.standard_normal((k, d)) + 0.3
    return Parameters(raw / raw.sum(), means, np.stack([0.3 * covariance(rng, d, "full") for _ in range(k)]))


def problem(d: int, k: int = 3, seed: int = 0) -> Problem:
    """The problem of dimension `d` with `k` components in ρ and two in ν."""
    rng = np.random.default_rng([seed, d, k])
    return Problem(f"d{d}_k{k}_s{seed}", _law(rng, d, k, 1.5), _law(rng, d, 2, 1.2))


PROBLEMS = {p.name: p for p in (problem(1), problem(1, 2, 1), problem(2), problem(3, 4), problem(5, 2), problem(10))}
