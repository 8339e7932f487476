"""A network that is trained exactly: cosine features, least squares of the denoising loss, one solve a noise level.

    D_σ(x) = c_σ x + W φ(x),    φ(x) = cos(Ω x + b),    s_σ(x) = (D_σ(x) − x)/σ²

with frequencies Ω (m, d), phases b (m,), a skip c_σ, and W (d, m) the minimiser of the denoising loss over the points
x_i with weights w_i, its expectation over the noise ε in closed form (`oracles.features._moments`):

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

Example:
    >>> network = FeatureDenoiser([[1.0], [2.0]], [0.0, 0.5], ridge=0.1)
    >>> fitted = network.fit([[-1.0], [1.0], [2.0]])
    >>> fitted.denoiser([[0.5]], sigma=0.5).round(4)
    array([[0.447]])
    >>> moved = (fitted.at(1e-6, [[3.0]]).score([[0.5]], 0.5) - fitted.score([[0.5]], 0.5)) / 1e-6
    >>> bool(abs(moved - fitted.score_derivative([[0.5]], 0.5, [[3.0]])) < 1e-4)
    True
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from oracles import _arrays
from oracles._arrays import Array, namespace
from oracles.features import _moments
from oracles.features._level import FittedLevel, Level, states, tolerance
from oracles.features._moments import Moments, moments
from oracles.features._paths import Contamination, Displacement, FeaturePath, Reweighting, checked_law, moving, removal

__all__ = [
    "Contamination",
    "Displacement",
    "FeatureDenoiser",
    "FeaturePath",
    "FittedDenoiser",
    "FittedLevel",
    "Reweighting",
    "moving",
    "removal",
]

# Relative error of W that is answered without complaint, by dtype.
ACCURACY = {"float64": 1e-6, "float32": 1e-2}

Skip = Callable[[Any], Any]


class FeatureDenoiser:
    """The network `D_σ(x) = c_σ x + W_σ cos(Ω x + b)`, to be trained exactly by `fit`.

    Args:
        frequencies: Ω, shape (m, d), in units of one over the data's.
        phases: b, shape (m,), in radians.
        ridge: λ > 0, the penalty λ|W|² beside the mean squared error over the data.
        skip: c_σ as a function of σ; None for `v/(v + σ²)`, v the mean variance of a coordinate of the points that
            are fitted first, which retraining keeps. One's own costs the score about eps/σ² by the rounding of 1 − c.
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
        self.spectrum = _moments.spectrum(omega, shifts)
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
        x = states(self, x, "x")
        flat = namespace(x).reshape(x, (-1, self.dimension))
        return namespace(x).reshape(namespace(x).cos(self.spectrum.angles(flat)), (*x.shape[:-1], self.size))

    def fit(self, points: Any, weights: Any = None) -> FittedDenoiser:
        """The network trained on points (N, d) with weights (N,), equal if None, at every level.

        Raises:
            ValueError, TypeError: for wrong shapes or kinds, values that are not finite, weights that are no law.
        """
        points, weights = checked_law(self, points, weights, "points", "weights")
        return FittedDenoiser(self, points, weights, _variance(points, weights))

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
        self._moments: Moments | None = None

    def __repr__(self) -> str:
        return f"FittedDenoiser({self.network!r}, points={int(self.points.shape[0])})"

    @property
    def moments(self) -> Moments:
        """The four sums over the points."""
        if self._moments is not None:
            return self._moments
        bands = self.network.spectrum
        known = moments(bands, self.points, self.weights)
        # What derivatives are traced through belongs to one graph, and is not kept for another.
        traced = (self.points, self.weights, bands.frequencies, bands.phases, *known.parts())
        if not any(_arrays.tracked(array) for array in traced):
            self._moments = known
        return known

    def noised(self, sigma: Any) -> FittedLevel:
        """The network at noise level σ: one solve for any number of states."""
        if self._latest is not None and isinstance(sigma, float) and self._latest[0] == sigma:
            return self._latest[1]
        level = FittedLevel(self._level(sigma, lambda k: self.moments if k == 0 else None))
        if isinstance(sigma, float) and isinstance(self.points, np.ndarray):  # flows come back to a level
            # Of a float only: an array's σ may be traced, and what is traced belongs to one graph.
            self._latest = (sigma, level)
        return level

    def _level(self, sigma: Any, data: Callable[[int], Moments | None]) -> Level:
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
        points, weights = checked_law(self.network, points, weights, "points", "weights")
        return FittedDenoiser(self.network, points, weights, self.variance)

    def sample(self, latents: Any, sigma_max: float, sigma_min: float, *, rtol: float | None = None) -> Array:
        """Where the network's probability flow carries latents (..., d) from σ_max to σ_min.

        `rtol` is the solver's tolerance; None for 1e-12 or, where larger, the rounding error of the coefficients.
        """
        from oracles import flow

        latents = states(self.network, latents, "latents")
        fitted = self.numpy()
        numbers = _arrays.concrete(latents, "sampling").astype(np.float64)
        rtol = tolerance(fitted, sigma_max, sigma_min) if rtol is None else rtol
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
        from oracles.features import _influence

        latents = states(self.network, latents, "latents")
        points = self.points if points is None else states(self.network, points, "points")
        values = _influence.influence(
            self, latents, functional_gradient, points, float(sigma_max), float(sigma_min), rtol
        )
        return _arrays.from_numpy(values, latents)

    def numpy(self) -> FittedDenoiser:
        """The same network in NumPy float64."""
        arrays = (_arrays.concrete(a, "numpy()").astype(np.float64) for a in (self.points, self.weights, self.variance))
        return FittedDenoiser(self.network.numpy(), *arrays)
