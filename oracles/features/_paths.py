"""Paths of exactly trained networks: their data contaminated, reweighted, reduced, moved.

The names are those of `oracles.perturbation` and `oracles.edits`, and so are the signs: removing mass h is
`η = −h/(1 − h)` toward it. Along a path of weights the moments of the data change at a constant rate; along one of
points their derivatives of every order are sums of products of derivatives of cosines (`oracles.features._moments`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from oracles import _arrays
from oracles._arrays import Array, namespace
from oracles.edits import _removal_rates
from oracles.features._level import FittedLevel, states, tolerance
from oracles.features._moments import Moments, Spectrum, combined, moments
from oracles.mixture import check_weights
from oracles.perturbation import check_order

if TYPE_CHECKING:
    from oracles.features import FeatureDenoiser, FittedDenoiser


def checked_law(
    network: FeatureDenoiser, points: Any, weights: Any, name: str, weights_name: str
) -> tuple[Array, Array]:
    """Checked points (N, d) and weights (N,) in the network's kind; equal weights if None."""
    points = states(network, points, name)
    if points.ndim != 2 or points.shape[0] == 0:
        raise ValueError(f"{name} has shape {tuple(points.shape)}; it must be (N, d), at least one point")
    _arrays.check_finite(points, name)
    size = int(points.shape[0])
    equal = _arrays.from_numpy(np.full(size, 1.0 / size), points)
    weights = equal if weights is None else _arrays.check_states(weights, points, None, weights_name)
    if tuple(weights.shape) != (size,):
        raise ValueError(f"{weights_name} has shape {tuple(weights.shape)}; it must be (N,) = ({size},)")
    check_weights(weights)
    return points, weights


class FeaturePath:
    """A path η ↦ trained network through `base` at η = 0; subclasses say how the data move.

    The names are those of `oracles.perturbation.Perturbation`.
    """

    base: FittedDenoiser

    def __init__(self, base: FittedDenoiser):
        from oracles.features import FittedDenoiser

        if not isinstance(base, FittedDenoiser):
            raise TypeError(f"base must be a FittedDenoiser, not {type(base).__name__}; call fit(points) first")
        self.base = base
        self._latest: tuple[float, FittedLevel] | None = None

    def at(self, eta: Any) -> FittedDenoiser:
        """The network retrained exactly on the data at η."""
        raise NotImplementedError(f"{type(self).__name__} does not define at(eta)")

    def _derivative(self, order: int, eta: float = 0.0) -> Moments | None:
        """The data's moments differentiated n ≥ 1 times in η; None where zero."""
        raise NotImplementedError(f"{type(self).__name__} does not define _derivative")

    def numpy(self) -> FeaturePath:
        """The same path in NumPy float64."""
        raise NotImplementedError(f"{type(self).__name__} does not define numpy()")

    def score_derivative(self, x: Any, sigma: Any, order: int = 1, eta: float = 0.0) -> Array:
        """∂ⁿ s^η(x)/∂ηⁿ = W⁽ⁿ⁾ φ(x)/σ² for any n ≥ 1, shape (..., d)."""
        check_order(order)
        level = self._level(sigma, eta)
        return level._over_states(lambda _, angles: level._answer(angles, order) / level._square, x)

    def score_derivative_product(self, x: Any, sigma: Any, v: Any) -> Array:
        """∇ṡ(x) v, first order in η at 0, shape (..., d)."""
        level = self._level(sigma, 0.0)
        return level._over_states(lambda _, angles, t: level._along(angles, t, 1) / level._square, x, v=v)

    def sample(
        self, latents: Any, eta: float, sigma_max: float, sigma_min: float, *, rtol: float | None = None
    ) -> Array:
        """Where the flow of the network retrained at η carries latents (..., d)."""
        return self.at(eta).sample(latents, sigma_max, sigma_min, rtol=rtol)

    def sample_sensitivity(
        self, latents: Any, sigma_max: float, sigma_min: float, order: int = 1, *, rtol: float | None = None
    ) -> tuple[Array, Array]:
        """Samples (..., d) and their derivative of order 1 or 2 in η at 0, with fixed latents."""
        from oracles import flow

        latents, path = states(self.base.network, latents, "latents"), self.numpy()
        numbers = _arrays.concrete(latents, "sampling").astype(np.float64)
        rtol = tolerance(path.base, sigma_max, sigma_min) if rtol is None else rtol
        pair = flow.sensitivity(path, numbers, sigma_max, sigma_min, order, rtol)
        return _arrays.from_numpy(pair[0], latents), _arrays.from_numpy(pair[1], latents)

    def _level(self, sigma: Any, eta: float) -> FittedLevel:
        # A flow asks for ṡ and for ∇ṡ v at one level after the other: the least squares of the last level are kept.
        if eta == 0.0 and self._latest is not None and isinstance(sigma, float) and self._latest[0] == sigma:
            return self._latest[1]
        base = self.base if eta == 0.0 else self.at(eta)
        changes: dict[int, Moments | None] = {0: base.moments}

        def data(k: int) -> Moments | None:
            if k not in changes:
                changes[k] = self._change(k, eta)
            return changes[k]

        level = FittedLevel(base._level(sigma, data))
        if eta == 0.0 and isinstance(sigma, float) and isinstance(self.base.points, np.ndarray):
            self._latest = (sigma, level)
        return level

    def _change(self, order: int, eta: float) -> Moments | None:
        """The derivative of the moments, kept where it does not depend on the level."""
        if not isinstance(self.base.points, np.ndarray) or eta != 0.0:
            return self._derivative(order, eta)
        if order not in self._changes:
            self._changes[order] = self._derivative(order, eta)
        return self._changes[order]

    @cached_property
    def _changes(self) -> dict[int, Moments | None]:
        return {}


class Contamination(FeaturePath):
    """Retraining on `(1 − η) ρ + η ν`, ν the law of points `toward` (M, d) with weights (M,), equal if None.

    Example:
        >>> from oracles.features import FeatureDenoiser
        >>> fitted = FeatureDenoiser([[1.0]], [0.3], ridge=0.1).fit([[0.0], [1.0]])
        >>> Contamination(fitted, [[2.0]]).at(0.5).weights
        array([0.25, 0.25, 0.5 ])
    """

    def __init__(self, base: FittedDenoiser, toward: Any, toward_weights: Any = None):
        super().__init__(base)
        self.points, self.weights = checked_law(base.network, toward, toward_weights, "toward", "toward_weights")

    def at(self, eta: Any) -> FittedDenoiser:
        """The network retrained on both laws' points, 0 ≤ η ≤ 1."""
        known = _arrays.values(eta) if _arrays.is_array(eta) else eta
        if known is not None and not 0 <= known <= 1:
            raise ValueError(f"eta = {eta} leaves [0, 1], where the weights are no law; see removal for less mass")
        xp = namespace(self.points)
        weights = xp.concat([(1 - eta) * self.base.weights, eta * self.weights])
        return self.base.retrained(xp.concat([self.base.points, self.points]), weights)

    def _derivative(self, order: int, eta: float = 0.0) -> Moments | None:
        """M^ν − M^ρ, then zero."""
        if order > 1:
            return None
        return combined([(1.0, moments(self._bands, self.points, self.weights)), (-1.0, self.base.moments)])

    def score_derivative(self, x: Any, sigma: Any, order: int = 1, eta: float = 0.0) -> Array:
        """∂ⁿ s^η(x)/∂ηⁿ for any n ≥ 1 at 0 ≤ η ≤ 1, shape (..., d)."""
        return super().score_derivative(x, sigma, order, eta)

    def numpy(self) -> Contamination:
        """The same path in NumPy float64."""
        return Contamination(self.base.numpy(), *_float64(self.points, self.weights))

    @property
    def _bands(self) -> Spectrum:
        return self.base.network.spectrum


class Reweighting(FeaturePath):
    """Retraining with the weights `w + η c`, rates c of shape (N,) with sum zero.

    Example:
        >>> from oracles.features import FeatureDenoiser
        >>> fitted = FeatureDenoiser([[1.0]], [0.3], ridge=0.1).fit([[0.0], [1.0]])
        >>> Reweighting(fitted, [-0.5, 0.5]).at(0.5).weights
        array([0.25, 0.75])
    """

    def __init__(self, base: FittedDenoiser, rates: Any):
        super().__init__(base)
        self.rates = _arrays.check_states(rates, base.weights, None, "rates")
        if tuple(self.rates.shape) != tuple(base.weights.shape):
            raise ValueError(
                f"rates has shape {tuple(self.rates.shape)}; it must be (N,) = {tuple(base.weights.shape)}"
            )
        _arrays.check_finite(self.rates, "rates")
        known = _arrays.values(self.rates)
        if known is not None and abs(known.sum()) > 1e-6 * max(1.0, np.abs(known).max()):
            raise ValueError(f"rates sum to {known.sum()}, not to zero; subtract their mean or rescale them")

    def at(self, eta: Any) -> FittedDenoiser:
        """The network retrained with the weights at η, where none is negative; what rounding leaves of one is zero."""
        xp, weights = namespace(self.rates), self.base.weights
        moved = weights + eta * self.rates
        # A removal at η = 1 takes w − w in floating point, whose rounding may be below zero; a negative weight would be
        # refused.
        rounding = 8 * xp.finfo(weights.dtype).eps * xp.abs(weights)
        moved = xp.where(xp.abs(moved) <= rounding, xp.zeros_like(moved), moved)
        return self.base.retrained(self.base.points, moved)

    def _derivative(self, order: int, eta: float = 0.0) -> Moments | None:
        """The moments with the rates for weights, then zero."""
        return moments(self.base.network.spectrum, self.base.points, self.rates) if order == 1 else None

    def numpy(self) -> Reweighting:
        """The same path in NumPy float64."""
        return Reweighting(self.base.numpy(), *_float64(self.rates))


def removal(fitted: FittedDenoiser, indices: Sequence[int]) -> tuple[Reweighting, float]:
    """The removal of training points: the path toward them, and the η < 0 that removes them, `−h/(1 − h)` for mass h.

    Example:
        >>> from oracles.features import FeatureDenoiser
        >>> fitted = FeatureDenoiser([[1.0]], [0.3], ridge=0.1).fit([[0.0], [1.0], [3.0], [4.0]])
        >>> path, eta = removal(fitted, [1, 2])
        >>> eta, path.at(eta).weights
        (-1.0, array([0.5, 0. , 0. , 0.5]))
    """
    rates, eta = _removal_rates(fitted.weights, indices)
    return Reweighting(fitted, rates), eta


class Displacement(FeaturePath):
    """Retraining on points moved by `η v_i`, displacements v of shape (N, d); derivatives of any order."""

    def __init__(self, base: FittedDenoiser, displacements: Any):
        super().__init__(base)
        self.displacements = states(base.network, displacements, "displacements")
        if tuple(self.displacements.shape) != tuple(base.points.shape):
            shapes = f"{tuple(self.displacements.shape)}; it must be (N, d) = {tuple(base.points.shape)}"
            raise ValueError(f"displacements has shape {shapes}")
        _arrays.check_finite(self.displacements, "displacements")

    def at(self, eta: Any) -> FittedDenoiser:
        """The network retrained on the points at η."""
        return self.base.retrained(self.base.points + eta * self.displacements, self.base.weights)

    def _derivative(self, order: int, eta: float = 0.0) -> Moments | None:
        """The moments' derivative at η."""
        base, points = self.base, self.base.points
        points = points if eta == 0.0 else points + eta * self.displacements
        return moments(base.network.spectrum, points, base.weights, self.displacements, order)

    def numpy(self) -> Displacement:
        """The same path in NumPy float64."""
        return Displacement(self.base.numpy(), *_float64(self.displacements))


def moving(fitted: FittedDenoiser, displacements: Any) -> Displacement:
    """The path of networks whose training points move by `η v_i`, displacements v of shape (N, d).

    Example:
        >>> from oracles.features import FeatureDenoiser
        >>> fitted = FeatureDenoiser([[1.0]], [0.3], ridge=0.1).fit([[0.0], [1.0]])
        >>> moving(fitted, [[0.0], [2.0]]).at(0.5).points
        array([[0.],
               [2.]])
    """
    return Displacement(fitted, displacements)


def _float64(*arrays: Array) -> list[np.ndarray]:
    return [_arrays.concrete(array, "numpy()").astype(np.float64) for array in arrays]
