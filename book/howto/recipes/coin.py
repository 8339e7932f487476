"""The law of a coin, X = ±a with equal probability, noised exactly.

With noise τ: p = ½ [N(x; a, τ²) + N(x; −a, τ²)], and with h = tanh(ax/τ²),
s = (ah − x)/τ²,  s' = (a²(1 − h²)/τ² − 1)/τ²,  s'' = −2a³h(1 − h²)/τ⁶.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from oracles.lines import Line, Shape


@dataclass(frozen=True)
class Coin(Line):
    """±height with equal probability, plus Gaussian noise of standard deviation `noise`."""

    height: float
    noise: float = 0.0

    center = 0.0

    @property
    def spread(self) -> float:
        return float(np.hypot(self.height, self.noise))

    def noised(self, sigma: float, alpha: float = 1.0) -> Coin:
        return Coin(alpha * self.height, float(np.hypot(alpha * self.noise, sigma)))

    def sample(self, n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return self.height * rng.choice([-1.0, 1.0], n) + self.noise * rng.standard_normal(n)

    def _shape(self, x: np.ndarray) -> Shape:
        a, v = self.height, self.noise**2
        up, down = (x - a) / self.noise, (x + a) / self.noise
        h = np.tanh(a * x / v)
        half = np.log(0.5)
        return Shape(
            log_density=half + np.logaddexp(-(up**2) / 2, -(down**2) / 2) - np.log(2 * np.pi * v) / 2,
            score=(a * h - x) / v,
            slope=(a**2 * (1 - h**2) / v - 1) / v,
            curvature=-2 * a**3 * h * (1 - h**2) / v**3,
            log_cdf=half + np.logaddexp(log_ndtr(up), log_ndtr(down)),
            log_sf=half + np.logaddexp(log_ndtr(-up), log_ndtr(-down)),
        )
