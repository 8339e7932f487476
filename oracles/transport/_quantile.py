"""The 1-d quantile oracle: samples and derivatives by inverting distribution functions (see `oracles.transport`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles._numeric import check_levels, numpy_states, restored
from oracles.lines import Line, as_line
from oracles.transport._invert import invert


class QuantileOracle:
    """Exact samples and their derivatives in η for ρ_η = (1 − η) `base` + η `toward` on the line.

    Laws: Gaussian mixtures with d = 1 or any of `oracles.lines`. `latents` is an array of any shape, read
    element by element, so both (n,) and (n, 1) do; results have its shape.

    Example:
        >>> from oracles.lines import Laplace, Uniform
        >>> oracle = QuantileOracle(Uniform(-1.0, 2.0), Laplace(0.5, 0.3))
        >>> x, delta = oracle.sensitivity(np.array([3.0]), sigma_max=10.0, sigma_min=0.1)
        >>> step = (oracle.sample(np.array([3.0]), 1e-6, 10.0, 0.1) - x) / 1e-6
        >>> bool(np.all(abs(step - delta) < 1e-5))
        True
    """

    def __init__(self, base: Any, toward: Any) -> None:
        self.base: Line = as_line(base)
        self.toward: Line = as_line(toward)

    def sample(self, latents: Any, eta: float, sigma_max: float, sigma_min: float) -> Any:
        """Samples x_η(σ_min) from x(σ_max) = `latents`; η ≤ 1, and η < 0 where ρ_η is still a measure.

        Raises:
            ValueError: unless 0 < sigma_min < sigma_max and the latents are finite; where η removes too much mass.
        """
        return restored(self._sample(numpy_states(latents), eta, sigma_max, sigma_min), latents)

    def _sample(self, z: np.ndarray, eta: float, sigma_max: float, sigma_min: float) -> np.ndarray:
        check_levels(sigma_max, sigma_min)
        high, low = self._at(eta, sigma_max), self._at(eta, sigma_min)
        return invert(low, high.log_cdf(z), high.log_sf(z))

    def _at(self, eta: float, sigma: float) -> _Contaminated:
        return _Contaminated(self.base.noised(sigma), self.toward.noised(sigma), eta)

    def sensitivity(
        self, latents: Any, sigma_max: float, sigma_min: float, order: int = 1, eta: float = 0.0
    ) -> tuple[Any, Any]:
        """Samples at `eta` < 1 and their derivative of `order` 1 or 2 in η there."""
        if order not in (1, 2):
            raise ValueError(f"order = {order!r} must be 1 or 2")
        if not eta < 1:
            raise ValueError(f"eta = {eta!r} must be below 1: nothing of the base law is left to move from")
        z = numpy_states(latents)
        x = self._sample(z, eta, sigma_max, sigma_min)
        low, toward = self._at(eta, sigma_min), self.toward.noised(sigma_min)
        log_p = low.log_density(x)
        # F^η agrees at both ends, so of χ = ν − ρ = (ν − ρ_η)/(1 − η) only ν's part is left.
        value = _probability_between(self.toward.noised(sigma_max), z, toward, x, log_p) / (1 - eta)
        if order == 2:
            # δ = A/((1 − η) p^η(x)): along η, A changes by −ν δ and p^η at the sample by (ν − p^η)/(1 − η) + p′ δ.
            ratio = np.exp(toward.log_density(x) - log_p)
            value = -value * (2 * (ratio - 1) / (1 - eta) + low.score(x) * value)
        return restored(x, latents), restored(value, latents)

    def error_bar(self, latents: Any, eta: float, sigma_max: float, sigma_min: float) -> np.ndarray:
        """Bound on the rounding error of `sample`: `8ε (|x| + (1 + |log T|) T/p)`, T the smaller tail at x.

        It is large between well separated modes, where the transport itself is ill-conditioned.
        """
        x = self._sample(numpy_states(latents), eta, sigma_max, sigma_min)
        low = self._at(eta, sigma_min)
        tail = np.minimum(low.log_cdf(x), low.log_sf(x))
        return 8 * np.finfo(float).eps * (np.abs(x) + (1 - tail) * np.exp(tail - low.log_density(x)))


class _Contaminated:
    """(1 − η)ρ + ην in logarithms, for either sign of η."""

    def __init__(self, base: Line, toward: Line, eta: float) -> None:
        if not (np.isfinite(eta) and eta <= 1):
            raise ValueError(f"eta = {eta!r} must be finite and at most 1: it is the share of mass moved")
        self.base, self.toward, self.eta = base, toward, eta
        mean = (1 - eta) * base.center + eta * toward.center
        self.center, self.spread = mean, max(base.spread, toward.spread) + abs(base.center - toward.center)

    def _combined(self, base: np.ndarray, toward: np.ndarray) -> np.ndarray:
        if self.eta == 0:
            return base
        if self.eta == 1:
            return toward
        kept, moved = np.log1p(-self.eta) + base, np.log(abs(self.eta)) + toward
        if self.eta > 0:
            return np.logaddexp(kept, moved)
        if np.any(moved >= kept):
            raise ValueError(
                f"eta = {self.eta!r} removes more mass than the base law has at one of the points: use a smaller |eta|"
            )
        return kept + np.log1p(-np.exp(moved - kept))

    def log_density(self, x: np.ndarray) -> np.ndarray:
        return self._combined(self.base.log_density(x), self.toward.log_density(x))

    def log_cdf(self, x: np.ndarray) -> np.ndarray:
        return self._combined(self.base.log_cdf(x), self.toward.log_cdf(x))

    def log_sf(self, x: np.ndarray) -> np.ndarray:
        return self._combined(self.base.log_sf(x), self.toward.log_sf(x))

    def score(self, x: np.ndarray) -> np.ndarray:
        if self.eta == 0:
            return self.base.score(x)
        share = self.eta * np.exp(self.toward.log_density(x) - self.log_density(x))
        return (1 - share) * self.base.score(x) + share * self.toward.score(x)


def _probability_between(high: Line, z: np.ndarray, low: Line, x: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    """[F_high(z) − F_low(x)]/p from whichever tail does not round to 1."""
    lower, upper = low.log_cdf(x), low.log_sf(x)
    left = lower <= upper
    begin = np.exp(np.where(left, lower, upper) - log_p)
    end = np.exp(np.where(left, high.log_cdf(z), high.log_sf(z)) - log_p)
    return np.where(left, end - begin, begin - end)
