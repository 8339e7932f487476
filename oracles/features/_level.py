"""A cosine network at one noise level: its least squares, their derivatives along a path, and what it says in x.

Symbols as in `oracles.features`: `W = B (G + λI)⁻¹`, and along a path

    W⁽ⁿ⁾ = (B⁽ⁿ⁾ − Σ_{k=1}^n C(n, k) W⁽ⁿ⁻ᵏ⁾ G⁽ᵏ⁾)(G + λI)⁻¹

in x, with θ = Ωx + b,

    s = (W cos θ − (1 − c) x)/σ²,    ∇s = −(W diag(sin θ) Ω + (1 − c) I)/σ²,    D²s[u, v] = −W (cos θ ∘ Ωu ∘ Ωv)/σ²
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from oracles import _arrays
from oracles._arrays import Array, namespace
from oracles.features import _moments
from oracles.features._moments import Moments

if TYPE_CHECKING:
    from oracles.features import FeatureDenoiser, FittedDenoiser

# Levels at which the condition number is looked at before a flow, and the tightest tolerance of a flow.
LEVELS = 9
RTOL = 1e-12


def states(network: FeatureDenoiser, x: Any, name: str) -> Array:
    """States (..., d) in the network's kind."""
    return _arrays.check_states(x, network.spectrum.frequencies, network.dimension, name)


def tolerance(fitted: FittedDenoiser, sigma_max: float, sigma_min: float) -> float:
    """The tolerance of a flow: 1e-12, or the largest `eps · condition` of some levels between; NumPy networks."""
    levels = np.geomspace(sigma_max, sigma_min, LEVELS)
    return max(RTOL, float(np.finfo(float).eps) * max(fitted.condition(float(s)) for s in levels))


class Level:
    """The least squares at one noise level, with derivatives along a path whose moments' derivatives `data` gives."""

    def __init__(self, network: FeatureDenoiser, sigma: Array, variance: Array, data: Callable[[int], Moments | None]):
        self.network, self.sigma, self._data = network, sigma, data
        self.skip, self.gap = _skip(network.skip, sigma, variance)
        self.even, self.odd, self.damping = _moments.kernels(network.spectrum, sigma)
        self.matrix = self.gram(0) + network.ridge * _arrays.eye(network.size, sigma)
        _check_condition(self)
        self._coefficients = [self.solve(self.target(0))]

    def gram(self, order: int) -> Any:
        """G⁽ⁿ⁾ (m, m), None where it is zero."""
        data = self._data(order)
        return None if data is None else _moments.gram(self.even, self.odd, data)

    def target(self, order: int) -> Any:
        """B⁽ⁿ⁾ (d, m), None where it is zero."""
        data, bands = self._data(order), self.network.spectrum
        if data is None:
            return None
        return _moments.target(bands, self.damping, self.sigma, self.skip, self.gap, data)

    def solve(self, rows: Array) -> Array:
        """`rows (G + λI)⁻¹` for rows (·, m)."""
        return _arrays.solve(self.matrix, rows.T).T

    def coefficients(self, order: int = 0) -> Array:
        """W⁽ⁿ⁾ (d, m), each from those of lower order."""
        while len(self._coefficients) <= order:
            self._coefficients.append(self._next(len(self._coefficients)))
        return self._coefficients[order]

    def _next(self, order: int) -> Array:
        xp, right = namespace(self.matrix), self.target(order)
        for k in range(1, order + 1):
            change = self.gram(k)
            if change is not None:
                lower = math.comb(order, k) * xp.matmul(self._coefficients[order - k], change)
                right = -lower if right is None else right - lower
        return self.solve(right)


def _skip(skip: Callable[[Any], Any] | None, sigma: Array, variance: Array) -> tuple[Array, Array]:
    """c and 1 − c."""
    square = sigma * sigma
    if skip is None:
        return variance / (variance + square), square / (variance + square)
    chosen = skip(sigma)
    if not (_arrays.is_array(chosen) or isinstance(chosen, (int, float, np.generic))):
        raise TypeError(f"skip(sigma) must be a number, not {type(chosen).__name__}")
    value = _arrays.like(chosen, sigma)
    if tuple(value.shape) != ():
        raise ValueError(f"skip(sigma) has shape {tuple(value.shape)}; it must be one number")
    _arrays.check_finite(value, "skip(sigma)")
    return value, 1.0 - value


def _check_condition(level: Level) -> None:
    """Raise where rounding times the condition number of G + λI, if known, exceeds the accuracy."""
    known, ridge = _arrays.values(level.matrix), _arrays.values(level.network.ridge)
    if known is None or ridge is None:
        return
    epsilon, accuracy = float(np.finfo(known.dtype).eps), level.network.accuracy
    # G is positive semi-definite: the smallest eigenvalue of G + λI is at least λ, the largest at most the largest sum
    # of a row.
    if epsilon * np.abs(known).sum(axis=1).max() / float(ridge) <= accuracy:  # a bound that costs no eigenvalues
        return
    condition = _condition(known)
    if not epsilon * condition <= accuracy:
        raise ValueError(
            f"at sigma = {float(_arrays.concrete(level.sigma, 'sigma')):g} the condition number of G + ridge I is "
            f"{condition:.2g}: rounding may change the coefficients by {epsilon * condition:.1g} of their size, more "
            f"than accuracy = {accuracy:g}; raise ridge, use fewer or more different features, or allow more"
        )


def _condition(matrix: np.ndarray) -> float:
    # Not positive to rounding: no digit of W is known.
    values = np.linalg.eigvalsh(matrix.astype(np.float64))
    return float(values[-1] / values[0]) if values[0] > 0 else math.inf


class FittedLevel:
    """A trained network at one noise level: denoiser, score and the score's derivatives in x, for states (..., d)."""

    def __init__(self, level: Level):
        self.level, self.network, self.sigma = level, level.network, level.sigma
        self.coefficients = level.coefficients()

    @property
    def condition(self) -> float:
        """The condition number of G + λI."""
        return _condition(_arrays.concrete(self.level.matrix, "condition"))

    def denoiser(self, x: Any) -> Array:
        """D_σ(x) = c x + W φ(x), shape (..., d)."""
        return self._over_states(lambda y, angles: self.level.skip * y + self._answer(angles), x)

    def score(self, x: Any) -> Array:
        """s(x) = (W φ(x) − (1 − c) x)/σ², shape (..., d)."""
        return self._over_states(lambda y, angles: (self._answer(angles) - self.level.gap * y) / self._square, x)

    def score_jacobian(self, x: Any) -> Array:
        """∇s(x), rows by component, shape (..., d, d); not symmetric."""
        return self._over_states(self._jacobian, x)

    def score_jacobian_product(self, x: Any, v: Any) -> Array:
        """∇s(x) v, shape (..., d)."""
        return self._over_states(
            lambda _, angles, t: (self._along(angles, t) - self.level.gap * t) / self._square, x, v=v
        )

    def score_divergence(self, x: Any) -> Array:
        """div s(x), shape (...)."""
        xp, bands = namespace(self.coefficients), self.network.spectrum
        parts = xp.sum(self.coefficients.T * bands.frequencies, axis=1)
        constant = self.level.gap * self.network.dimension
        return self._over_states(lambda _, angles: -(xp.matmul(xp.sin(angles), parts) + constant) / self._square, x)

    def third_order(self, x: Any, u: Any, v: Any) -> Array:
        """D²s(x)[u, v] = −W (cos(Ωx + b) ∘ Ωu ∘ Ωv)/σ², shape (..., d)."""
        xp, omega = namespace(self.coefficients), self.network.spectrum.frequencies

        def curvature(_: Array, angles: Array, s: Array, t: Array) -> Array:
            both = xp.matmul(s, omega.T) * xp.matmul(t, omega.T)
            return -xp.matmul(xp.cos(angles) * both, self.coefficients.T) / self._square

        return self._over_states(curvature, x, u=u, v=v)

    @property
    def _square(self) -> Array:
        """σ²."""
        return self.sigma * self.sigma

    def _answer(self, angles: Array, order: int = 0) -> Array:
        """W⁽ⁿ⁾ φ at angles (n, m), shape (n, d)."""
        xp = namespace(angles)
        return xp.matmul(xp.cos(angles), self.level.coefficients(order).T)

    def _along(self, angles: Array, v: Array, order: int = 0) -> Array:
        """∇(W⁽ⁿ⁾ φ) v, shape (n, d)."""
        xp = namespace(angles)
        slopes = xp.sin(angles) * xp.matmul(v, self.network.spectrum.frequencies.T)
        return -xp.matmul(slopes, self.level.coefficients(order).T)

    def _jacobian(self, x: Array, angles: Array) -> Array:
        xp, bands = namespace(x), self.network.spectrum
        slopes = xp.sin(angles)[:, None, :] * self.coefficients[None, :, :]
        straight = self.level.gap * _arrays.eye(self.network.dimension, x)[None, :, :]
        return -(xp.matmul(slopes, bands.frequencies[None, :, :]) + straight) / self._square

    def _over_states(self, function: Callable[..., Array], x: Any, **tangents: Any) -> Array:
        """A function of states (n, d), angles (n, m) and tangents (n, d), at states (..., d)."""
        arrays = [states(self.network, x, "x"), *(states(self.network, t, name) for name, t in tangents.items())]
        xp = namespace(*arrays)
        arrays = list(xp.broadcast_arrays(*arrays)) if len(arrays) > 1 else arrays
        flat = [xp.reshape(array, (-1, self.network.dimension)) for array in arrays]
        result = function(flat[0], self.network.spectrum.angles(flat[0]), *flat[1:])
        return xp.reshape(result, (*arrays[0].shape[:-1], *result.shape[1:]))
