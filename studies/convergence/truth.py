"""What is true of a problem's samples, from the oracles alone: quantiles in one dimension, the exact flow in more."""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles import flow
from oracles.transport import QuantileOracle
from studies.convergence.problems import SIGMA_MAX, SIGMA_MIN, Problem

Array = np.ndarray
RTOL = 1e-13


def samples(problem: Problem, eta: float) -> Array:
    """x_η at SIGMA_MIN, (n, d): the mixture ρ_η itself carries the latents, nothing is linearised."""
    if problem.dimension == 1:
        return np.asarray(_quantiles(problem).sample(problem.latents, eta, SIGMA_MAX, SIGMA_MIN))
    law = problem.base if eta == 0 else problem.perturbation.at(eta)
    return np.asarray(flow.sample(law, problem.latents, SIGMA_MAX, SIGMA_MIN, RTOL))


def sensitivity(problem: Problem) -> Array:
    """δ = dx_η/dη at η = 0, (n, d)."""
    if problem.dimension == 1:
        return np.asarray(_quantiles(problem).sensitivity(problem.latents, SIGMA_MAX, SIGMA_MIN)[1])
    return np.asarray(flow.sensitivity(problem.perturbation, problem.latents, SIGMA_MAX, SIGMA_MIN, rtol=RTOL)[1])


def quotients(problem: Problem, etas: tuple[float, ...]) -> dict[float, Array]:
    """`(x_η − x_0)/η`, (n, d), for each η."""
    base = samples(problem, 0.0)
    return {eta: (samples(problem, eta) - base) / eta for eta in etas}


def tolerance(problem: Problem) -> float:
    """How far off `samples` may be: the largest difference between two tolerances over a few latents."""
    few = problem.latents[:4]
    if problem.dimension == 1:
        return float(_quantiles(problem).error_bar(few, 0.0, SIGMA_MAX, SIGMA_MIN).max())
    return float(flow.error_bar(problem.base, few, SIGMA_MAX, SIGMA_MIN, order=0, rtol=RTOL).max())


def worst_curvature(problem: Problem, eta: float, points: int = 5) -> Array:
    """The largest |d²x/dη²| over [0, η] on a lattice of η, (n,); one dimension, from the quantile oracle."""
    oracle = _quantiles(problem)
    values = [_second(oracle, problem.latents, e) for e in np.linspace(0.0, eta, points)]
    return np.max(np.abs(np.stack(values)), axis=0)


def _second(oracle: Any, latents: Array, eta: float) -> Array:
    return np.asarray(oracle.sensitivity(latents, SIGMA_MAX, SIGMA_MIN, order=2, eta=eta)[1])[:, 0]


def _quantiles(problem: Problem) -> QuantileOracle:
    return QuantileOracle(problem.base, problem.toward)
