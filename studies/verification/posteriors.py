"""Judging draws of posteriors (m, L, d) for m observations: calibration of ranks, and distance to exact draws.

*Simulation-based calibration* (Talts et al., arXiv 1804.06788). The hidden state x* and its observation come from the
joint law; if the L draws are of the posterior, then x* is one more of them, and the rank of f(x*) among f(draws) is
uniform on 0…L, for any f. Here f are projections and the log-likelihood; ranks, and their distance from the middle
(which shows draws too narrow or too wide), are held to Kolmogorov's test.

*Energy distance* (Székely & Rizzo 2013): `2 E|D − E| − E|D − D'| − E|E − E'|` between the draws D and exact draws E of
the same posterior, summed over the observations. Exchanging the labels of D and E within an observation changes
nothing if the laws are equal: the sum's place among such exchanges gives a p-value, by the Gamma law of their mean,
variance and skewness, since one in a million cannot be counted.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import stats

from studies.verification.draws import directions
from studies.verification.observing import log_likelihood, posterior
from studies.verification.tasks.base import Case

__all__ = ["calibration_p", "energy_p", "exact_draws"]

PERMUTATIONS = 300


def calibration_p(case: Case, draws: np.ndarray, hidden: np.ndarray, observations: np.ndarray) -> float:
    """Smallest p-value of the ranks over functionals, corrected for their number."""
    rng, values = np.random.default_rng(0), []
    for state, drawn in _functionals(case, draws, hidden, observations):
        # Ties cannot occur among continuous draws; copies break them at random. Jitter makes the ranks continuous.
        below = (drawn < state[:, None]).sum(1) + rng.binomial((drawn == state[:, None]).sum(1), 0.5)
        level = (below + rng.random(len(below))) / (draws.shape[1] + 1)
        values += [stats.kstest(level, "uniform").pvalue, stats.kstest(np.abs(2 * level - 1), "uniform").pvalue]
    return min(1.0, float(min(values)) * len(values))


def _functionals(
    case: Case, draws: np.ndarray, hidden: np.ndarray, observations: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """`f(x*)` (m,) and `f(draws)` (m, L) for each functional."""
    chosen = directions(hidden.shape[1])
    values = [(hidden @ u, draws @ u) for u in chosen]
    return [
        *values,
        (log_likelihood(case, hidden, observations), log_likelihood(case, draws, observations[:, None])),
    ]


def exact_draws(case: Case, observations: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Exact draws (m, L, d) of each noised posterior."""
    return _drawn(case, observations.tobytes(), len(observations), count, seed)


@lru_cache(maxsize=8)  # several estimators, or repeats, answer the same problem
def _drawn(case: Case, content: bytes, rows: int, count: int, seed: int) -> np.ndarray:
    rng, observations = np.random.default_rng(seed), np.frombuffer(content).reshape(rows, -1)
    clean = np.stack([posterior(case, y).sample(count, rng) for y in observations])
    return clean + case.sigma * rng.standard_normal(clean.shape)


def energy_p(draws: np.ndarray, exact: np.ndarray) -> float:
    """The p-value of the summed energy distance, both sets (m, L, d).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> same, wide = rng.standard_normal((30, 20, 2)), 1.5 * rng.standard_normal((30, 20, 2))
        >>> energy_p(same, rng.standard_normal((30, 20, 2))) > 1e-3, energy_p(wide, same) < 1e-4
        (True, True)
    """
    both = np.concatenate([draws, exact], axis=1)
    products = both @ both.swapaxes(1, 2)
    squares = np.einsum("mii->mi", products)
    gaps = np.sqrt(np.maximum(squares[:, :, None] + squares[:, None, :] - 2 * products, 0.0))
    count = draws.shape[1]
    # With l = ±1/L, −lᵀ|x_i − x_j|l is the energy distance, so that an exchange of labels costs a product.
    labels = np.repeat([1.0, -1.0], count) / count
    rng = np.random.default_rng(1)
    orders = rng.random((PERMUTATIONS, len(both), 2 * count)).argsort(axis=2)
    moved = np.concatenate([np.broadcast_to(labels, (1, len(both), 2 * count)), labels[orders]])
    distances = -np.einsum("bmi,mij,bmj->b", moved, gaps, moved, optimize=True)
    return _beyond(distances[0], distances[1:])


def _beyond(value: float, others: np.ndarray) -> float:
    """How rarely the law of `others`, by three moments, exceeds `value` (Pearson's third type)."""
    spread = others.std(ddof=1)
    if not spread > 0:
        return 0.0 if value > others.mean() else 1.0
    return float(stats.pearson3.sf((value - others.mean()) / spread, max(stats.skew(others), 0.0)))
