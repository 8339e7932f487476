"""The attribution problem: training points drawn from a known mixture, latents, a functional, and its true influence.

Points `y_1 … y_N` are drawn from a Gaussian mixture ρ; `φ(x) = a·x` of the sample that the probability flow of ρ makes
from a latent. The true influence of point i is `dφ/dη` at η = 0 when mass moves, `ρ_η = (1 − η) ρ + η δ_{y_i}`: by the
variational equation `dδ_i/du = −σ² (∇s δ_i + r_i (s_i − s))` in `u = log σ` along the exact flow, all points at once,
by RK4 steps on the oracle's closed forms (no code of the engine).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from oracles import GaussianMixture
from sensitivity import Grid
from studies.verification.laws import law, oracle

__all__ = ["SIGMA_MAX", "SIGMA_MIN", "STEPS", "Setup", "true_influence"]

SIGMA_MAX, SIGMA_MIN, STEPS = 10.0, 0.15, 40
TRUTH_STEPS = 600


@dataclass(frozen=True)
class Setup:
    """One problem.

    Attributes:
        name: the law's name in the verification suite.
        points: N.
        latents: how many queries n.
        seed: of the draws.
    """

    name: str
    points: int
    queries: int
    seed: int

    @cached_property
    def exact(self) -> GaussianMixture:
        """ρ."""
        return oracle(law(self.name))

    @cached_property
    def data(self) -> Tensor:
        """Training points (N, d), float64."""
        return torch.tensor(np.asarray(self.exact.sample(self.points, self.seed)))

    @cached_property
    def latents(self) -> Tensor:
        """States at σ_max (n, d): draws from the exact noised law."""
        rng = np.random.default_rng([self.seed, 1])
        drawn = np.asarray(self.exact.sample(self.queries, np.random.default_rng([self.seed, 2])))
        return torch.tensor(drawn + SIGMA_MAX * rng.standard_normal(drawn.shape))

    @cached_property
    def direction(self) -> Tensor:
        """`a`, a unit vector (d,)."""
        drawn = np.random.default_rng([self.seed, 3]).standard_normal(self.exact.dimension)
        return torch.tensor(drawn / np.linalg.norm(drawn))

    @property
    def grid(self) -> Grid:
        """The sampler's grid, of all methods."""
        return Grid(SIGMA_MAX, SIGMA_MIN, STEPS)

    def functional(self, x: Tensor) -> Tensor:
        """`φ(x) = a·x` (n,)."""
        return x @ self.direction.to(x)


def true_influence(setup: Setup, steps: int = TRUTH_STEPS) -> np.ndarray:
    """`dφ(x_0)/dη` toward each point (n, N)."""
    points = setup.data.numpy()
    x = setup.latents.numpy()
    delta = np.zeros((len(points), *x.shape))
    levels = np.linspace(np.log(SIGMA_MAX), np.log(SIGMA_MIN), steps + 1)
    for u, v in pairwise(levels):
        x, delta = _rk4(setup, points, x, delta, u, v - u)
    return (delta @ setup.direction.numpy()).T


def _rk4(
    setup: Setup, points: np.ndarray, x: np.ndarray, delta: np.ndarray, u: float, h: float
) -> tuple[np.ndarray, np.ndarray]:
    slopes = [_slope(setup, points, x, delta, u)]
    for weight in (0.5, 0.5, 1.0):
        dx, dd = slopes[-1]
        slopes.append(_slope(setup, points, x + weight * h * dx, delta + weight * h * dd, u + weight * h))
    mean = [(a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(*slopes, strict=True)]
    return x + h * mean[0], delta + h * mean[1]


def _slope(
    setup: Setup, points: np.ndarray, x: np.ndarray, delta: np.ndarray, u: float
) -> tuple[np.ndarray, np.ndarray]:
    sigma = np.exp(u)
    noised = setup.exact.noised(sigma)
    score, jacobian = noised.score(x), noised.score_jacobian(x)
    pull = (points[:, None] - x) / sigma**2
    log_point = -0.5 * (pull**2).sum(-1) * sigma**2 - 0.5 * x.shape[1] * np.log(2 * np.pi * sigma**2)
    source = np.exp(log_point - noised.log_density(x))[..., None] * (pull - score)
    moved = np.einsum("nij,knj->kni", jacobian, delta) + source
    return -(sigma**2) * score, -(sigma**2) * moved
