"""Judging draws as a sample: projections of a Gaussian mixture are mixtures, with exact distribution functions.

For a direction u, `u·X_σ` has the law `Σ_k w_k N(u·μ_k, uᵀΣ_k u + σ²|u|²)`. Kolmogorov's distance to it has a known
distribution for independent draws; a sample that repeats one component, is too narrow, or holds copies shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special, stats

__all__ = ["directions", "projected_cdf", "smallest_p"]

EXTRA = 4


def directions(dimension: int) -> np.ndarray:
    """Unit directions (m, d): up to ten axes and four fixed random ones (one alone in one dimension)."""
    axes = np.eye(dimension)[:10]
    if dimension == 1:
        return axes
    extra = np.random.default_rng(dimension).standard_normal((EXTRA, dimension))
    return np.concatenate([axes, extra / np.linalg.norm(extra, axis=1, keepdims=True)])


def projected_cdf(law: Any, direction: np.ndarray, sigma: float, t: np.ndarray) -> np.ndarray:
    """`P(u·X_σ ≤ t)` for the law noised to σ, shape of `t`."""
    centres = law.means @ direction
    widths = np.sqrt(np.einsum("i,kij,j->k", direction, law.covariances, direction) + sigma**2)
    return (law.weights * special.ndtr((t[:, None] - centres) / widths)).sum(axis=1)


def smallest_p(law: Any, draws: np.ndarray, sigma: float) -> tuple[float, int]:
    """Smallest Bonferroni-corrected p-value over directions, and which direction it is."""
    chosen = directions(draws.shape[1])
    values = [
        stats.kstest(draws @ u, lambda t, u=u: projected_cdf(law, u, sigma, np.asarray(t))).pvalue for u in chosen
    ]
    worst = int(np.argmin(values))
    return min(1.0, float(values[worst]) * len(chosen)), worst
