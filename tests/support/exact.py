"""Mixtures in mpmath, straight from the definition, as an independent route for the oracles' numbers.

`p(x) = Σ_k w_k det(2πC_k)^{-1/2} exp(−½ (x−μ_k)ᵀ C_k⁻¹ (x−μ_k))` with sixty digits; derivatives of log p are quotients
of derivatives of p, in uncentred form, which no cancellation can spoil at that precision.
"""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np

DIGITS = 60


class Exact:
    """A mixture with float64 parameters, noised to σ, evaluated at one state (d,) at a time."""

    def __init__(self, weights: Any, means: Any, covariances: Any, sigma: float = 0.0, digits: int = DIGITS):
        self.digits = digits
        with mp.workdps(digits):
            size, d = np.shape(means)
            self.weights = [mp.mpf(float(w)) for w in weights]
            self.means = [mp.matrix([float(v) for v in mean]) for mean in means]
            noise = mp.mpf(float(sigma)) ** 2 * mp.eye(d)
            self.covariances = [_matrix(covariances[k]) + noise for k in range(size)]
            self.inverses = [c**-1 for c in self.covariances]
            self.roots = [mp.sqrt(mp.det(2 * mp.pi * c)) for c in self.covariances]
        self.dimension = d

    def _terms(self, x: Any) -> tuple[list[Any], list[Any], list[Any]]:
        """log w_k N_k, the responsibilities, and g_k."""
        point = mp.matrix([float(v) for v in x])
        offsets = [point - mean for mean in self.means]
        scores = [-(p * delta) for p, delta in zip(self.inverses, offsets, strict=True)]
        logs = [
            (mp.log(w) if w else mp.mpf("-inf")) - mp.log(root) + (delta.T * g)[0] / 2
            for w, root, delta, g in zip(self.weights, self.roots, offsets, scores, strict=True)
        ]
        top = max(logs)
        self._log = top + mp.log(sum(mp.exp(value - top) for value in logs))
        return logs, [mp.exp(value - self._log) for value in logs], scores

    def log_density(self, x: Any) -> float:
        with mp.workdps(self.digits):
            self._terms(x)
            return float(self._log)

    def score(self, x: Any) -> np.ndarray:
        with mp.workdps(self.digits):
            return _floats(self._score(x))

    def _score(self, x: Any) -> Any:
        _, shares, scores = self._terms(x)
        return sum((w * g for w, g in zip(shares, scores, strict=True)), mp.zeros(self.dimension, 1))

    def score_jacobian(self, x: Any) -> np.ndarray:
        with mp.workdps(self.digits):
            return _floats(self._jacobian(x))

    def _jacobian(self, x: Any) -> Any:
        _, shares, scores = self._terms(x)
        score = self._score(x)
        moments = mp.zeros(self.dimension, self.dimension)
        for w, g, p in zip(shares, scores, self.inverses, strict=True):
            moments += w * (g * g.T - p)
        return moments - score * score.T

    def third_order(self, x: Any, u: Any, v: Any) -> np.ndarray:
        """D²s[u, v] by a symmetric difference of ∇s along v with a step far below the sixty digits."""
        with mp.workdps(2 * self.digits):
            step = mp.mpf(10) ** (-self.digits // 2)
            point, along = mp.matrix([float(a) for a in x]), mp.matrix([float(a) for a in v])
            sides = [self._jacobian_at(point + sign * step * along) for sign in (1, -1)]
            return _floats((sides[0] - sides[1]) * mp.matrix([float(a) for a in u]) / (2 * step))

    def _jacobian_at(self, point: Any) -> Any:
        original, self.means = self.means, [mean - point for mean in self.means]
        try:
            return self._jacobian(np.zeros(self.dimension))
        finally:
            self.means = original

    def condition(self) -> float:
        """The largest condition number of the noised covariances."""
        return max(float(np.linalg.cond(_floats(c))) for c in self.covariances)


def _matrix(values: Any) -> Any:
    return mp.matrix([[float(v) for v in row] for row in np.asarray(values)])


def _floats(matrix: Any) -> np.ndarray:
    array = np.array([[float(matrix[i, j]) for j in range(matrix.cols)] for i in range(matrix.rows)])
    return array[:, 0] if matrix.cols == 1 else array
