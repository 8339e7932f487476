"""A network that is trained exactly: cosine features, least squares of the denoising loss, one solve a noise level.

    D_σ(x) = c_σ x + W φ(x),    φ(x) = cos(Ω x + b),    s_σ(x) = (D_σ(x) − x)/σ²

with frequencies Ω (m, d), phases b (m,), a skip c_σ, and W (d, m) the minimiser of the denoising loss over the points
x_i with weights w_i, its expectation over the noise ε in closed form (`oracles._feature_moments`):

    Σ_i w_i E|x_i − D_σ(x_i + σ ε)|² + λ|W|²   ⇒   W = B (G + λI)⁻¹,   G = E φφᵀ,   B = E (x_i − c x) φᵀ

It is a network's answer to its data without seeds, training error or Monte Carlo: retraining is a solve. G and B are
linear in the weights, so that along a path η of weights (`Ġ`, `Ḃ` constant) or of points (derivatives of any order)

    W⁽ⁿ⁾ = (B⁽ⁿ⁾ − Σ_{k=1}^n C(n, k) W⁽ⁿ⁻ᵏ⁾ G⁽ᵏ⁾)(G + λI)⁻¹,     ∂ⁿs/∂ηⁿ = W⁽ⁿ⁾ φ/σ²

in particular `Ẇ = (Ḃ − WĠ)(G + λI)⁻¹` and `Ẅ = −2ẆĠ(G + λI)⁻¹` for weights. The skip is a part of the network, not of
the data: it stays as it is when the data change. The score is *not* the gradient of a density, as that of hardly any
network is: the derivative `r (s^ν − s)` of the optimal score does not describe it.

As m grows and λ falls, D_σ tends to the optimum on the points, the posterior mean of the empirical law, where noised
points lie, and is free elsewhere; λ → ∞ leaves c_σ x. A row of zeros in Ω with phase 0 is a constant feature (a bias).

Rounding: the condition number of G + λI is at most (m + λ)/λ. `condition(sigma)` gives it. Where float rounding times
it exceeds `accuracy`, the relative error that W may have, evaluation raises instead of answering.

Paths are named as in `oracles.perturbation` and `oracles.edits`: `Contamination`, `Reweighting`, `removal`, `moving`.

Source: Rahimi & Recht, Random Features for Large-Scale Kernel Machines, NIPS 2007 (features); Vincent, Neural
Computation 23, 2011 (denoising score matching); Hampel, J. Amer. Stat. Assoc. 69, 1974 (influence).

>>> network = FeatureDenoiser([[1.0], [2.0]], [0.0, 0.5], ridge=0.1)
>>> fitted = network.fit([[-1.0], [1.0], [2.0]])
>>> fitted.denoiser([[0.5]], sigma=0.5).round(4)
array([[0.447]])
>>> moved = (fitted.at(1e-6, [[3.0]]).score([[0.5]], 0.5) - fitted.score([[0.5]], 0.5)) / 1e-6
>>> bool(abs(moved - fitted.score_derivative([[0.5]], 0.5, [[3.0]])) < 1e-4)
True
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from oracles import _arrays, _feature_moments
from oracles._arrays import Array, namespace
from oracles._feature_moments import Moments, Spectrum, combined, moments
from oracles.edits import removal_rates
from oracles.mixture import check_weights
from oracles.perturbation import check_order

# Relative error of W that is answered without complaint, by dtype.
ACCURACY = {"float64": 1e-6, "float32": 1e-2}
# Levels at which the condition number is looked at before a flow, and the tightest tolerance of a flow.
LEVELS = 9
RTOL = 1e-12

Skip = Callable[[Any], Any]


class FeatureDenoiser:
    """The network `D_σ(x) = c_σ x + W_σ cos(Ω x + b)`, to be trained exactly by `fit`.

    Args:
        frequencies: Ω, shape (m, d), in units of one over the data's.
        phases: b, shape (m,), in radians.
        ridge: λ > 0, the penalty λ|W|² beside the mean squared error over the data.
        skip: c_σ as a function of σ; None for `v/(v + σ²)`, v the mean variance of a coordinate of the points that
            are fitted first, which retraining keeps.
        accuracy: the largest relative error of W by rounding, estimated as `eps · condition`, at which values are
            returned; None for 1e-6 in float64 and 1e-2 in float32.

    Raises:
        ValueError, TypeError: for wrong shapes, kinds, or values.

    Source: Rahimi & Recht, NIPS 2007.

    Example:
        >>> FeatureDenoiser([[1.0, 0.0], [0.0, 2.0]], [0.0, 0.0], ridge=1.0)
        FeatureDenoiser(features=2, dimension=2, ridge=1)
    """

    def __init__(
        self, frequencies: Any, phases: Any, ridge: Any, skip: Skip | None = None, *, accuracy: float | None = None
    ):
        _, arrays = _arrays.common(frequencies=frequencies, phases=phases)
        omega, shifts = arrays["frequencies"], arrays["phases"]
        if omega.ndim != 2 or 0 in omega.shape:
            raise ValueError(f"frequencies has shape {tuple(omega.shape)}; it must be (m, d), at least one feature")
        if tuple(shifts.shape) != (omega.shape[0],):
            raise ValueError(f"phases has shape {tuple(shifts.shape)}; it must be (m,) = ({omega.shape[0]},)")
        for name, array in arrays.items():
            _arrays.check_finite(array, name)
        if skip is not None and not callable(skip):
            raise TypeError(f"skip must be a function of sigma or None, not {type(skip).__name__}")
        self.spectrum = _feature_moments.spectrum(omega, shifts)
        self.ridge, self.skip = _arrays.check_positive(ridge, omega, "ridge"), skip
        self.accuracy = _accuracy(accuracy, omega)

    @classmethod
    def random(
        cls, size: int, dimension: int, length: float, ridge: float, seed: int, skip: Skip | None = None
    ) -> FeatureDenoiser:
        """m = `size` random features in NumPy: ω ~ N(0, I/length²), b ~ U(0, 2π), of the kernel exp(−|x−y|²/2 length²).

        Example:
            >>> FeatureDenoiser.random(50, 2, length=0.5, ridge=1e-3, seed=0).size
            50
        """
        length = float(_arrays.check_positive(length, np.zeros(1), "length"))
        rng = np.random.default_rng(seed)
        frequencies = rng.standard_normal((size, dimension)) / length
        return cls(frequencies, rng.uniform(0.0, 2 * np.pi, size), ridge, skip)

    def __repr__(self) -> str:
        known = _arrays.values(self.ridge)
        ridge = "traced" if known is None else f"{float(known):g}"
        return f"FeatureDenoiser(features={self.size}, dimension={self.dimension}, ridge={ridge})"

    @property
    def size(self) -> int:
        """m, the number of features."""
        return int(self.spectrum.frequencies.shape[0])

    @property
    def dimension(self) -> int:
        """d."""
        return int(self.spectrum.frequencies.shape[1])

    def features(self, x: Any) -> Array:
        """φ(x) = cos(Ω x + b), shape (..., m)."""
        x = self.states(x, "x")
        flat = namespace(x).reshape(x, (-1, self.dimension))
        return namespace(x).reshape(namespace(x).cos(self.spectrum.angles(flat)), (*x.shape[:-1], self.size))

    def fit(self, points: Any, weights: Any = None) -> FittedDenoiser:
        """The network trained on points (N, d) with weights (N,), equal if None, at every level.

        Raises:
            ValueError, TypeError: for wrong shapes or kinds, values that are not finite, weights that are no law.
        """
        points, weights = self.law(points, weights, "points", "weights")
        return FittedDenoiser(self, points, weights, _variance(points, weights))

    def law(self, points: Any, weights: Any, name: str, weights_name: str) -> tuple[Array, Array]:
        """Checked points (N, d) and weights (N,) in the network's kind."""
        points = self.states(points, name)
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

    def states(self, x: Any, name: str) -> Array:
        """States (..., d) in the network's kind."""
        return _arrays.check_states(x, self.spectrum.frequencies, self.dimension, name)

    def numpy(self) -> FeatureDenoiser:
        """The network in NumPy float64, with the accuracy that it has."""
        bands = (self.spectrum.frequencies, self.spectrum.phases, self.ridge)
        omega, shifts, ridge = (_arrays.concrete(array, "numpy()").astype(np.float64) for array in bands)
        return FeatureDenoiser(omega, shifts, float(ridge), self.skip, accuracy=self.accuracy)


def _accuracy(accuracy: float | None, like: Array) -> float:
    if accuracy is None:
        return ACCURACY.get(str(like.dtype).rsplit(".", 1)[-1], 1e-2)
    if not 0 < accuracy < 1:
        raise ValueError(f"accuracy = {accuracy!r} must lie between 0 and 1: it is a relative error")
    return float(accuracy)


def _variance(points: Array, weights: Array) -> Array:
    """The mean variance of a coordinate, a constant."""
    xp, points, weights = namespace(points), _arrays.detached(points), _arrays.detached(weights)
    offsets = points - xp.matmul(weights, points)[None, :]
    return xp.sum(weights * _arrays.square(offsets)) / int(points.shape[1])


class Level:
    """The least squares at one noise level, with derivatives along a path whose moments' derivatives `data` gives."""

    def __init__(self, network: FeatureDenoiser, sigma: Array, variance: Array, data: Callable[[int], Moments | None]):
        self.network, self.sigma, self._data = network, sigma, data
        self.skip, self.gap = _skip(network.skip, sigma, variance)
        self.even, self.odd, self.damping = _feature_moments.kernels(network.spectrum, sigma)
        self.matrix = self.gram(0) + network.ridge * _arrays.eye(network.size, sigma)
        _check_condition(self)
        self._coefficients = [self.solve(self.target(0))]

    def gram(self, order: int) -> Any:
        """G⁽ⁿ⁾ (m, m), None where it is zero."""
        data = self._data(order)
        return None if data is None else _feature_moments.gram(self.even, self.odd, data)

    def target(self, order: int) -> Any:
        """B⁽ⁿ⁾ (d, m), None where it is zero."""
        data, bands = self._data(order), self.network.spectrum
        if data is None:
            return None
        return _feature_moments.target(bands, self.damping, self.sigma, self.skip, self.gap, data)

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


def _skip(skip: Skip | None, sigma: Array, variance: Array) -> tuple[Array, Array]:
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
        return self.map(lambda y, angles: self.level.skip * y + self.answer(angles), x)

    def score(self, x: Any) -> Array:
        """s(x) = (W φ(x) − (1 − c) x)/σ², shape (..., d)."""
        return self.map(lambda y, angles: (self.answer(angles) - self.level.gap * y) / self.square, x)

    def score_jacobian(self, x: Any) -> Array:
        """∇s(x), rows by component, shape (..., d, d); not symmetric."""
        return self.map(self._jacobian, x)

    def score_jacobian_product(self, x: Any, v: Any) -> Array:
        """∇s(x) v, shape (..., d)."""
        return self.map(lambda _, angles, t: (self.along(angles, t) - self.level.gap * t) / self.square, x, v=v)

    def score_divergence(self, x: Any) -> Array:
        """div s(x), shape (...)."""
        xp, bands = namespace(self.coefficients), self.network.spectrum
        parts = xp.sum(self.coefficients.T * bands.frequencies, axis=1)
        constant = self.level.gap * self.network.dimension
        return self.map(lambda _, angles: -(xp.matmul(xp.sin(angles), parts) + constant) / self.square, x)

    def third_order(self, x: Any, u: Any, v: Any) -> Array:
        """D²s(x)[u, v] = −W (cos(Ωx + b) ∘ Ωu ∘ Ωv)/σ², shape (..., d)."""
        xp, omega = namespace(self.coefficients), self.network.spectrum.frequencies

        def bend(_: Array, angles: Array, s: Array, t: Array) -> Array:
            both = xp.matmul(s, omega.T) * xp.matmul(t, omega.T)
            return -xp.matmul(xp.cos(angles) * both, self.coefficients.T) / self.square

        return self.map(bend, x, u=u, v=v)

    @property
    def square(self) -> Array:
        """σ²."""
        return self.sigma * self.sigma

    def answer(self, angles: Array, order: int = 0) -> Array:
        """W⁽ⁿ⁾ φ at angles (n, m), shape (n, d)."""
        xp = namespace(angles)
        return xp.matmul(xp.cos(angles), self.level.coefficients(order).T)

    def along(self, angles: Array, v: Array, order: int = 0) -> Array:
        """∇(W⁽ⁿ⁾ φ) v, shape (n, d)."""
        xp = namespace(angles)
        slopes = xp.sin(angles) * xp.matmul(v, self.network.spectrum.frequencies.T)
        return -xp.matmul(slopes, self.level.coefficients(order).T)

    def _jacobian(self, x: Array, angles: Array) -> Array:
        xp, bands = namespace(x), self.network.spectrum
        slopes = xp.sin(angles)[:, None, :] * self.coefficients[None, :, :]
        straight = self.level.gap * _arrays.eye(self.network.dimension, x)[None, :, :]
        return -(xp.matmul(slopes, bands.frequencies[None, :, :]) + straight) / self.square

    def map(self, function: Callable[..., Array], x: Any, **tangents: Any) -> Array:
        """A function of states (n, d), angles (n, m) and tangents (n, d), at states (..., d)."""
        arrays = [self.network.states(x, "x"), *(self.network.states(t, name) for name, t in tangents.items())]
        xp = namespace(*arrays)
        arrays = list(xp.broadcast_arrays(*arrays)) if len(arrays) > 1 else arrays
        flat = [xp.reshape(array, (-1, self.network.dimension)) for array in arrays]
        result = function(flat[0], self.network.spectrum.angles(flat[0]), *flat[1:])
        return xp.reshape(result, (*arrays[0].shape[:-1], *result.shape[1:]))


class FittedDenoiser:
    """A `FeatureDenoiser` trained on points: made by `fit` and `at`.

    Results are arrays of the kind of the network's parameters. Derivatives of the library flow through the denoiser,
    the score and its derivatives in x, σ, points, weights, frequencies, phases and ridge (the skip is a constant in
    the data); samples and their sensitivities are computed in NumPy float64 and are constants.

    `noised(sigma)` is the network at one level and has what `oracles.flow` needs of a law.
    """

    def __init__(self, network: FeatureDenoiser, points: Array, weights: Array, variance: Array):
        self.network, self.points, self.weights, self.variance = network, points, weights, variance
        self._latest: tuple[float, FittedLevel] | None = None

    def __repr__(self) -> str:
        return f"FittedDenoiser({self.network!r}, points={int(self.points.shape[0])})"

    @cached_property
    def moments(self) -> Moments:
        """The four sums over the points."""
        return moments(self.network.spectrum, self.points, self.weights)

    def noised(self, sigma: Any) -> FittedLevel:
        """The network at noise level σ: one solve for any number of states."""
        if self._latest is not None and isinstance(sigma, float) and self._latest[0] == sigma:
            return self._latest[1]
        level = FittedLevel(self.level(sigma, lambda k: self.moments if k == 0 else None))
        if isinstance(sigma, float) and isinstance(self.points, np.ndarray):  # flows come back to a level
            self._latest = (sigma, level)
        return level

    def level(self, sigma: Any, data: Callable[[int], Moments | None]) -> Level:
        """The least squares at σ along a path."""
        return Level(self.network, _arrays.check_sigma(sigma, self.points), self.variance, data)

    def coefficients(self, sigma: Any) -> Array:
        """W at noise level σ, shape (d, m)."""
        return self.noised(sigma).coefficients

    def condition(self, sigma: Any) -> float:
        """The condition number of G + λI at noise level σ."""
        return self.noised(sigma).condition

    def denoiser(self, x: Any, sigma: Any) -> Array:
        """D_σ(x), shape (..., d).

        Raises:
            ValueError: where rounding may spoil more than `accuracy` of the coefficients.
        """
        return self.noised(sigma).denoiser(x)

    def score(self, x: Any, sigma: Any) -> Array:
        """s_σ(x) = (D_σ(x) − x)/σ², shape (..., d); no gradient of a density."""
        return self.noised(sigma).score(x)

    def score_jacobian(self, x: Any, sigma: Any) -> Array:
        """∇s_σ(x), shape (..., d, d); not symmetric."""
        return self.noised(sigma).score_jacobian(x)

    def score_derivative(
        self, x: Any, sigma: Any, toward: Any, toward_weights: Any = None, order: int = 1, eta: float = 0.0
    ) -> Array:
        """∂ⁿ s^η(x)/∂ηⁿ of the network retrained on `(1 − η) ρ + η ν`, for any n ≥ 1, shape (..., d).

        Args:
            x: states, shape (..., d).
            sigma: σ > 0.
            toward: points (M, d) of ν, with `toward_weights` (M,), equal if None.
            order: n.
            eta: where the derivative is taken.
        """
        return Contamination(self, toward, toward_weights).score_derivative(x, sigma, order, eta)

    def at(self, eta: Any, toward: Any, toward_weights: Any = None) -> FittedDenoiser:
        """The network retrained exactly on `(1 − η) ρ + η ν`, 0 ≤ η ≤ 1; see `removal` for mass taken away."""
        return Contamination(self, toward, toward_weights).at(eta)

    def retrained(self, points: Array, weights: Array) -> FittedDenoiser:
        """The same network, skip included, on other points and weights, in its kind."""
        points, weights = self.network.law(points, weights, "points", "weights")
        return FittedDenoiser(self.network, points, weights, self.variance)

    def sample(self, latents: Any, sigma_max: float, sigma_min: float, *, rtol: float | None = None) -> Array:
        """Where the network's probability flow carries latents (..., d) from σ_max to σ_min.

        `rtol` is the solver's tolerance; None for 1e-12 or, where larger, the rounding error of the coefficients.
        """
        from oracles import flow

        latents = self.network.states(latents, "latents")
        fitted = self.numpy()
        numbers = _arrays.concrete(latents, "sampling").astype(np.float64)
        rtol = fitted.tolerance(sigma_max, sigma_min) if rtol is None else rtol
        return _arrays.from_numpy(flow.sample(fitted, numbers, sigma_max, sigma_min, rtol), latents)

    def sample_sensitivity(
        self,
        latents: Any,
        toward: Any,
        sigma_max: float,
        sigma_min: float,
        order: int = 1,
        *,
        toward_weights: Any = None,
        rtol: float | None = None,
    ) -> tuple[Array, Array]:
        """Samples (..., d) and their derivative of order 1 or 2 in η toward ν, at η = 0 and with fixed latents."""
        path = Contamination(self, toward, toward_weights)
        return path.sample_sensitivity(latents, sigma_max, sigma_min, order, rtol=rtol)

    def influence(
        self,
        latents: Any,
        functional_gradient: Any,
        sigma_max: float,
        sigma_min: float,
        *,
        points: Any = None,
        rtol: float | None = None,
    ) -> Array:
        """dφ/dη toward every point x_i (`χ = δ_{x_i} − ρ`) for each latent, shape (..., N), by one adjoint solve.

        Args:
            latents: x(σ_max), shape (..., d).
            functional_gradient: ∇φ at the samples, an array (..., d), or the function that maps samples to it.
            sigma_max, sigma_min: the levels of the flow.
            points: other points (N, d) than the training ones.

        The mean over the training points, with their weights, is zero.
        """
        from oracles import _feature_influence

        latents = self.network.states(latents, "latents")
        points = self.points if points is None else self.network.states(points, "points")
        values = _feature_influence.influence(
            self, latents, functional_gradient, points, float(sigma_max), float(sigma_min), rtol
        )
        return _arrays.from_numpy(values, latents)

    def numpy(self) -> FittedDenoiser:
        """The same network in NumPy float64."""
        arrays = (_arrays.concrete(a, "numpy()").astype(np.float64) for a in (self.points, self.weights, self.variance))
        return FittedDenoiser(self.network.numpy(), *arrays)

    def tolerance(self, sigma_max: float, sigma_min: float) -> float:
        """The tolerance of a flow: 1e-12, or the largest `eps · condition` of some levels between."""
        levels = np.geomspace(sigma_max, sigma_min, LEVELS)
        return max(RTOL, float(np.finfo(float).eps) * max(self.numpy().condition(float(s)) for s in levels))


class FeaturePath:
    """A path η ↦ trained network through `base` at η = 0; subclasses say how the data move.

    The names are those of `oracles.perturbation.Perturbation`.
    """

    base: FittedDenoiser

    def __init__(self, base: FittedDenoiser):
        if not isinstance(base, FittedDenoiser):
            raise TypeError(f"base must be a FittedDenoiser, not {type(base).__name__}; call fit(points) first")
        self.base = base
        self._latest: tuple[float, FittedLevel] | None = None

    def at(self, eta: Any) -> FittedDenoiser:
        """The network retrained exactly on the data at η."""
        raise NotImplementedError(f"{type(self).__name__} does not define at(eta)")

    def derivative(self, order: int, eta: float = 0.0) -> Moments | None:
        """The data's moments differentiated n ≥ 1 times in η; None where zero."""
        raise NotImplementedError(f"{type(self).__name__} does not define derivative")

    def numpy(self) -> FeaturePath:
        """The same path in NumPy float64."""
        raise NotImplementedError(f"{type(self).__name__} does not define numpy()")

    def score_derivative(self, x: Any, sigma: Any, order: int = 1, eta: float = 0.0) -> Array:
        """∂ⁿ s^η(x)/∂ηⁿ = W⁽ⁿ⁾ φ(x)/σ² for any n ≥ 1, shape (..., d)."""
        check_order(order)
        level = self._level(sigma, eta)
        return level.map(lambda _, angles: level.answer(angles, order) / level.square, x)

    def score_derivative_product(self, x: Any, sigma: Any, v: Any) -> Array:
        """∇ṡ(x) v, first order in η at 0, shape (..., d)."""
        level = self._level(sigma, 0.0)
        return level.map(lambda _, angles, t: level.along(angles, t, 1) / level.square, x, v=v)

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

        latents, path = self.base.network.states(latents, "latents"), self.numpy()
        numbers = _arrays.concrete(latents, "sampling").astype(np.float64)
        rtol = path.base.tolerance(sigma_max, sigma_min) if rtol is None else rtol
        pair = flow.sensitivity(path, numbers, sigma_max, sigma_min, order, rtol)
        return _arrays.from_numpy(pair[0], latents), _arrays.from_numpy(pair[1], latents)

    def _level(self, sigma: Any, eta: float) -> FittedLevel:
        if eta == 0.0 and self._latest is not None and isinstance(sigma, float) and self._latest[0] == sigma:
            return self._latest[1]
        base = self.base if eta == 0.0 else self.at(eta)
        changes: dict[int, Moments | None] = {0: base.moments}

        def data(k: int) -> Moments | None:
            if k not in changes:
                changes[k] = self._change(k, eta)
            return changes[k]

        level = FittedLevel(base.level(sigma, data))
        if eta == 0.0 and isinstance(sigma, float) and isinstance(self.base.points, np.ndarray):
            self._latest = (sigma, level)
        return level

    def _change(self, order: int, eta: float) -> Moments | None:
        """The derivative of the moments, kept where it does not depend on the level."""
        if not isinstance(self.base.points, np.ndarray) or eta != 0.0:
            return self.derivative(order, eta)
        if order not in self._changes:
            self._changes[order] = self.derivative(order, eta)
        return self._changes[order]

    @cached_property
    def _changes(self) -> dict[int, Moments | None]:
        return {}


class Contamination(FeaturePath):
    """Retraining on `(1 − η) ρ + η ν`, ν the law of points `toward` (M, d) with weights (M,), equal if None.

    Example:
        >>> fitted = FeatureDenoiser([[1.0]], [0.3], ridge=0.1).fit([[0.0], [1.0]])
        >>> Contamination(fitted, [[2.0]]).at(0.5).weights
        array([0.25, 0.25, 0.5 ])
    """

    def __init__(self, base: FittedDenoiser, toward: Any, toward_weights: Any = None):
        super().__init__(base)
        self.points, self.weights = base.network.law(toward, toward_weights, "toward", "toward_weights")

    def at(self, eta: Any) -> FittedDenoiser:
        """The network retrained on both laws' points, 0 ≤ η ≤ 1."""
        known = _arrays.values(eta) if _arrays.is_array(eta) else eta
        if known is not None and not 0 <= known <= 1:
            raise ValueError(f"eta = {eta} leaves [0, 1], where the weights are no law; see removal for less mass")
        xp = namespace(self.points)
        weights = xp.concat([(1 - eta) * self.base.weights, eta * self.weights])
        return self.base.retrained(xp.concat([self.base.points, self.points]), weights)

    def derivative(self, order: int, eta: float = 0.0) -> Moments | None:
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
        rounding = 8 * xp.finfo(weights.dtype).eps * xp.abs(weights)
        moved = xp.where(xp.abs(moved) <= rounding, xp.zeros_like(moved), moved)
        return self.base.retrained(self.base.points, moved)

    def derivative(self, order: int, eta: float = 0.0) -> Moments | None:
        """The moments with the rates for weights, then zero."""
        return moments(self.base.network.spectrum, self.base.points, self.rates) if order == 1 else None

    def numpy(self) -> Reweighting:
        """The same path in NumPy float64."""
        return Reweighting(self.base.numpy(), *_float64(self.rates))


def removal(fitted: FittedDenoiser, indices: Sequence[int]) -> tuple[Reweighting, float]:
    """The removal of training points: the path toward them, and the η < 0 that removes them, `−h/(1 − h)` for mass h.

    Example:
        >>> fitted = FeatureDenoiser([[1.0]], [0.3], ridge=0.1).fit([[0.0], [1.0], [3.0], [4.0]])
        >>> path, eta = removal(fitted, [1, 2])
        >>> eta, path.at(eta).weights
        (-1.0, array([0.5, 0. , 0. , 0.5]))
    """
    rates, eta = removal_rates(fitted.weights, indices)
    return Reweighting(fitted, rates), eta


class Displacement(FeaturePath):
    """Retraining on points moved by `η v_i`, displacements v of shape (N, d); derivatives of any order."""

    def __init__(self, base: FittedDenoiser, displacements: Any):
        super().__init__(base)
        self.displacements = base.network.states(displacements, "displacements")
        if tuple(self.displacements.shape) != tuple(base.points.shape):
            shapes = f"{tuple(self.displacements.shape)}; it must be (N, d) = {tuple(base.points.shape)}"
            raise ValueError(f"displacements has shape {shapes}")
        _arrays.check_finite(self.displacements, "displacements")

    def at(self, eta: Any) -> FittedDenoiser:
        """The network retrained on the points at η."""
        return self.base.retrained(self.base.points + eta * self.displacements, self.base.weights)

    def derivative(self, order: int, eta: float = 0.0) -> Moments | None:
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
        >>> fitted = FeatureDenoiser([[1.0]], [0.3], ridge=0.1).fit([[0.0], [1.0]])
        >>> moving(fitted, [[0.0], [2.0]]).at(0.5).points
        array([[0.],
               [2.]])
    """
    return Displacement(fitted, displacements)


def _float64(*arrays: Array) -> list[np.ndarray]:
    return [_arrays.concrete(array, "numpy()").astype(np.float64) for array in arrays]
