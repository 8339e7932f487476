"""The empirical law of many points, noised: N = 60 000 images in float32, without an array of N × states × dimension.

`p_σ(x) = Σ_i w_i N(x; α y_i, σ² I)` for points y_i; its score is `(D − x)/σ²` (α = 1) with D the mean of the points
under the weights `γ_i ∝ w_i exp(−|x − y_i|²/2σ²)`, the optimum of denoising score matching on a finite training set
(Vincent, Neural Computation 23, 2011; "empirical score" in Song et al., arXiv 2510.01378).

`GaussianMixture.empirical` is the same law for a few points. This one streams (`oracles._empirical_sums`): its log
density in float32 stays within 1e-2 nat of float64 for σ ≥ .002 of the data scale, near-duplicates included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from oracles import _arrays
from oracles._arrays import Array, namespace
from oracles._empirical_sums import Data, Evaluation, evaluations
from oracles.mixture import GaussianMixture, check_weights

# Points in a block when norms or distances of all of them are taken.
ROWS = 4096


class EmpiricalLaw:
    """Σ_i w_i δ_{y_i} for points (N, d) of any number; noise it to evaluate it.

    Args:
        points: y_i, shape (N, d), NumPy or torch (JAX and array-api-strict work on concrete arrays); not copied.
        weights: w_i, shape (N,), not negative, with sum 1; equal if None.

    Raises:
        ValueError, TypeError: for wrong shapes, values that are not finite, weights that are no law.

    Example:
        >>> law = EmpiricalLaw([[0.0, 0.0], [2.0, 0.0]])
        >>> law.denoiser([1.0, 0.5], sigma=1.0)
        array([1., 0.])
    """

    def __init__(self, points: Any, weights: Any = None):
        _, arrays = _arrays.common(points=points)
        self.points = arrays["points"]
        if self.points.ndim != 2 or 0 in self.points.shape:
            raise ValueError(f"points has shape {tuple(self.points.shape)}; it must be (N, d), at least one point")
        size = int(self.points.shape[0])
        equal = _arrays.from_numpy(np.full(size, 1.0 / size), self.points)
        _, arrays = _arrays.common(points=self.points, weights=equal if weights is None else weights)
        self.weights = arrays["weights"]
        if tuple(self.weights.shape) != (size,):
            raise ValueError(f"weights has shape {tuple(self.weights.shape)}; it must be (N,) = ({size},)")
        check_weights(self.weights)
        self._data = _prepared(self.points, self.weights)

    def __repr__(self) -> str:
        return f"EmpiricalLaw(points={self.size}, dimension={self.dimension})"

    @property
    def size(self) -> int:
        """N."""
        return int(self.points.shape[0])

    @property
    def dimension(self) -> int:
        """d."""
        return int(self.points.shape[1])

    @property
    def mean(self) -> Array:
        """E[X], shape (d,)."""
        return namespace(self.points).matmul(self.weights, self.points)

    @property
    def covariance(self) -> Array:
        """Cov[X], shape (d, d)."""
        xp, total, mean = namespace(self.points), 0.0, self.mean
        for rows in _slices(self.size):
            offsets = self.points[rows, :] - mean[None, :]
            total = total + xp.matmul((self.weights[rows, None] * offsets).T, offsets)
        return total

    @cached_property
    def nearest_distance(self) -> float:
        """min_{i≠j} |y_i − y_j|, from products in float32 or float64 and differences of the closest pairs.

        It takes N² d multiplications.
        """
        return _nearest(_arrays.concrete(self.points, "nearest_distance"))

    def separation(self, sigma: float) -> float:
        """The largest Bhattacharyya coefficient of two noised points, `exp(−min |y_i − y_j|²/8σ²)`, in (0, 1]."""
        sigma = float(_arrays.check_sigma(sigma, self.points))
        return math.exp(-(self.nearest_distance**2) / (8 * sigma**2))

    def noised(self, sigma: Any, alpha: Any = 1.0) -> NoisedEmpiricalLaw:
        """The law of `α X + σ ε`, ε ~ N(0, I)."""
        sigma = _arrays.check_positive(sigma, self.points, "sigma")
        return NoisedEmpiricalLaw(self, sigma, _arrays.check_positive(alpha, self.points, "alpha"))

    def denoiser(self, x: Any, sigma: Any) -> Array:
        """D_σ(x) = E[X | X + σ ε = x] = Σ_i γ_i y_i, shape (..., d)."""
        return self.noised(sigma).mapped(lambda at, _: at.mean, x)

    def posterior(self, x: Any, sigma: Any) -> tuple[Array, Array]:
        """Mean (..., d) and covariance (..., d, d) of X given X + σ ε = x."""
        noised = self.noised(sigma)
        return self.denoiser(x, sigma), noised.mapped(lambda at, states: _second_moments(at, states), x)

    def sample(self, n: int, seed: int | np.random.Generator | None = None) -> Array:
        """n draws of points (n, d), with replacement."""
        chosen = np.random.default_rng(seed).choice(self.size, n, p=_normalised(self.weights))
        return namespace(self.points).take(self.points, _arrays.integers(chosen, self.points), axis=0)

    def mixture(self) -> GaussianMixture:
        """The same law as a Gaussian mixture, for few points."""
        return GaussianMixture.empirical(self.points, self.weights)

    def numpy(self) -> EmpiricalLaw:
        """The law with points and weights in NumPy float64."""
        return EmpiricalLaw(_arrays.concrete(self.points, "numpy()").astype(np.float64), _normalised(self.weights))


class NoisedEmpiricalLaw:
    """Σ_i w_i N(α y_i, σ² I); methods take states x of shape (..., d) as those of a Gaussian mixture do.

    With u = x/α and τ = σ/α it is the law at α = 1: `log p(x) = log p_τ(u) − d log α`, `s(x) = s_τ(u)/α`.
    """

    def __init__(self, law: EmpiricalLaw, sigma: Array, alpha: Array):
        self.law, self.sigma, self.alpha = law, sigma, alpha
        self.dimension, self.size = law.dimension, law.size
        self._level = sigma / alpha

    def __repr__(self) -> str:
        return f"NoisedEmpiricalLaw({self.law!r}, sigma={float(self.sigma):g}, alpha={float(self.alpha):g})"

    @property
    def weights(self) -> Array:
        """w_i, shape (N,)."""
        return self.law.weights

    @property
    def mean(self) -> Array:
        """α E[X], shape (d,)."""
        return self.alpha * self.law.mean

    @property
    def covariance(self) -> Array:
        """α² Cov[X] + σ² I, shape (d, d)."""
        return self.alpha**2 * self.law.covariance + self.sigma**2 * _arrays.eye(self.dimension, self.sigma)

    def noised(self, sigma: Any, alpha: Any = 1.0) -> NoisedEmpiricalLaw:
        """The law of `α X + σ ε` for X of this law."""
        sigma = _arrays.check_positive(sigma, self.sigma, "sigma")
        alpha = _arrays.check_positive(alpha, self.sigma, "alpha")
        level = namespace(sigma).sqrt((alpha * self.sigma) ** 2 + sigma**2)
        return NoisedEmpiricalLaw(self.law, level, alpha * self.alpha)

    def log_density(self, x: Any) -> Array:
        """log p(x) in nats, shape (...)."""
        return self.mapped(lambda at, _: self._log_density(at), x)

    def score(self, x: Any) -> Array:
        """s(x) = ∇ log p(x), shape (..., d)."""
        return self.mapped(lambda at, _: self._score(at), x)

    def log_density_and_score(self, x: Any) -> tuple[Array, Array]:
        """log p(x), shape (...), and s(x), shape (..., d), from one pass over the points."""
        xp = namespace(self.sigma)

        def joint(at: Evaluation, _: Array) -> Array:
            return xp.concat([self._log_density(at)[:, None], self._score(at)], axis=1)

        result = self.mapped(joint, x)
        return result[..., 0], result[..., 1:]

    def score_jacobian(self, x: Any) -> Array:
        """∇s(x), shape (..., d, d), one column after the other."""
        identity = _arrays.eye(self.dimension, self.sigma) / self.sigma**2
        scale = (self.alpha * self._level**2) ** 2
        return self.mapped(lambda at, states: _second_moments(at, states) / scale - identity, x)

    def score_jacobian_product(self, x: Any, v: Any) -> Array:
        """∇s(x) v = Σ_i γ_i a_i (a_i·v) − v/σ², a_i = (y_i − D)/(α τ²), shape (..., d)."""
        scale = (self.alpha * self._level**2) ** 2
        return self.mapped(lambda at, _, t: at.contract(t) / scale - t / self.sigma**2, x, v=v)

    def score_divergence(self, x: Any) -> Array:
        """div s(x), shape (...)."""
        scale = (self.alpha * self._level**2) ** 2
        return self.mapped(lambda at, _: at.second_moment / scale - self.dimension / self.sigma**2, x)

    def third_order(self, x: Any, u: Any, v: Any) -> Array:
        """D²s(x)[u, v] = Σ_i γ_i (a_i·u)(a_i·v) a_i, shape (..., d)."""
        scale = (self.alpha * self._level**2) ** 3
        return self.mapped(lambda at, _, *pair: at.contract(*pair) / scale, x, u=u, v=v)

    def responsibilities(self, x: Any) -> Array:
        """γ_i(x), shape (..., N)."""
        return self.mapped(lambda at, _: at.shares(), x)

    def sample(self, n: int, seed: int | np.random.Generator | None = None) -> Array:
        """n draws (n, d)."""
        rng = np.random.default_rng(seed)
        points = self.law.sample(n, rng)
        noise = _arrays.from_numpy(rng.standard_normal((n, self.dimension)), points)
        return self.alpha * points + self.sigma * noise

    def numpy(self) -> NoisedEmpiricalLaw:
        """The law in NumPy float64."""
        return self.law.numpy().noised(float(self.sigma), float(self.alpha))

    def mapped(self, function: Callable[..., Array], x: Any, **tangents: Any) -> Array:
        """A function of an `Evaluation`, its states (n, d) and tangents, at states (..., d)."""
        arrays = [_arrays.check_states(x, self.sigma, self.dimension)]
        arrays += [_arrays.check_states(value, self.sigma, self.dimension, name) for name, value in tangents.items()]
        xp = namespace(*arrays)
        arrays = list(xp.broadcast_arrays(*arrays)) if len(arrays) > 1 else arrays
        flat = [xp.reshape(array, (-1, self.dimension)) for array in arrays]
        states = flat[0] / self.alpha
        parts = [
            function(at, states[rows, :], *(tangent[rows, :] for tangent in flat[1:]))
            for rows, at in evaluations(self.law._data, states, self._level)
        ]
        result = _arrays.joined(parts)
        return xp.reshape(result, (*arrays[0].shape[:-1], *result.shape[1:]))

    def _log_density(self, at: Evaluation) -> Array:
        constant = 0.5 * self.dimension * math.log(2 * math.pi)
        return at.log_sum - self.dimension * namespace(self.sigma).log(self.sigma) - constant

    def _score(self, at: Evaluation) -> Array:
        return at.shift / (self.alpha * self._level**2)


def _prepared(points: Array, weights: Array) -> Data:
    """Centre and norms, summed in float64; raise where a point is not finite."""
    xp, parts, reach, spread = namespace(points), [], 0.0, 0.0
    for rows in _slices(int(points.shape[0])):
        _arrays.check_finite(points[rows, :], "points")
    centre = _arrays.detached(xp.mean(points, axis=0))
    for rows in _slices(int(points.shape[0])):
        block = xp.astype(points[rows, :], xp.float64)
        offsets = block - xp.astype(centre, xp.float64)[None, :]
        parts.append(xp.astype(0.5 * xp.sum(offsets * offsets, axis=1), points.dtype))
        reach = max(reach, _largest(xp.sum(block * block, axis=1)))
        spread = max(spread, 2 * _largest(parts[-1]))
    return Data(points, _arrays.safe_log(weights), centre, _arrays.joined(parts), math.sqrt(reach), math.sqrt(spread))


def _largest(array: Array) -> float:
    return float(np.max(_arrays.concrete(array, "an empirical law")))


def _slices(size: int) -> list[slice]:
    return [slice(i, min(i + ROWS, size)) for i in range(0, size, ROWS)]


def _normalised(weights: Array) -> np.ndarray:
    known = _arrays.concrete(weights, "sampling").astype(np.float64)
    return np.asarray(known / known.sum())


def _second_moments(at: Evaluation, states: Array) -> Array:
    """Σ_i γ_i (y_i − D)(y_i − D)ᵀ, shape (n, d, d)."""
    xp, identity = namespace(states), _arrays.eye(int(states.shape[1]), states)
    columns = [
        at.contract(xp.broadcast_to(row[None, :], states.shape))
        for row in (identity[i, :] for i in range(states.shape[1]))
    ]
    return xp.stack(columns, axis=2)


def _nearest(points: np.ndarray) -> float:
    """The smallest distance of two points: products find the pairs, differences measure the closest."""
    if len(points) < 2:
        return math.inf
    centred = points - points.mean(axis=0)
    squares = np.einsum("nd,nd->n", centred, centred)
    # What |y|² + |y′|² − 2 y·y′ may be off: pairs within it of the least are measured by their differences.
    doubt = 8 * float(np.finfo(points.dtype).eps) * float(squares.max())
    best = math.inf
    for rows in _slices(len(points)):
        for others in _slices(len(points)):
            if others.start >= rows.start:
                best = min(best, _nearest_pair(centred, squares, rows, others, doubt, best))
    return math.sqrt(best)


def _nearest_pair(
    points: np.ndarray, squares: np.ndarray, rows: slice, others: slice, doubt: float, best: float
) -> float:
    """The smallest squared distance between two blocks of points, if below `best`."""
    distances = squares[rows, None] + squares[None, others] - 2 * points[rows] @ points[others].T
    if rows == others:
        np.fill_diagonal(distances, np.inf)
    # The least and what is compared with it may both be off.
    limit = min(best, float(distances.min())) + 2 * doubt
    i, j = np.nonzero(distances <= limit)
    for k in range(0, len(i), ROWS):
        offsets = points[rows][i[k : k + ROWS]].astype(np.float64) - points[others][j[k : k + ROWS]]
        best = min(best, float(np.einsum("nd,nd->n", offsets, offsets).min()))
    return best
