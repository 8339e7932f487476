"""Gaussian mixtures: exact densities, scores and their derivatives at every noise level.

Symbols: `ρ = Σ_k w_k N(μ_k, Σ_k)` on R^d; noised, `p_σ = ρ * N(0, σ² I) = Σ_k w_k N(μ_k, C_k)`, `C_k = Σ_k + σ² I`;
`g_k(x) = −C_k⁻¹ (x − μ_k)` the score of a component; `γ_k(x) = w_k N(x; μ_k, C_k) / p(x)` its responsibility;
`s = ∇ log p = Σ_k γ_k g_k`; `a_k = g_k − s`. Then (centred forms, which do not cancel when C_k is small)

    ∇s        = Σ_k γ_k [a_k a_kᵀ − C_k⁻¹]
    D²s[u, v] = Σ_k γ_k [(a_k·u)(a_k·v) a_k − (a_k·u) C_k⁻¹ v − (a_k·v) C_k⁻¹ u − (uᵀ C_k⁻¹ v) a_k]

A law is a tuple of groups of components, each with its own covariance representation, so that the mixture of a
full-covariance law with an empirical one keeps both as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from oracles import _arrays
from oracles._arrays import Array, namespace
from oracles._mixture import covariance, draws, line, local
from oracles._mixture.covariance import Covariances
from oracles._mixture.local import Group, Local, Piece

# Working set of one block of states, in numbers: small enough for a core's cache, large enough to hide call overhead.
BLOCK = 1 << 17
# JAX unrolls loops when it traces, so its blocks only bound the memory.
TRACED_BLOCK = 1 << 25


class GaussianMixture:
    """The law Σ_k w_k N(μ_k, Σ_k), its noised versions, and their derivatives in closed form.

    Parameters are arrays of one library (NumPy, PyTorch, JAX, array-api-strict), dtype and device, or numbers; results
    are of the same kind. Methods take states `x` of shape (..., d). Automatic differentiation flows through every
    method in `x`, the weights, the means and the variances.

    Args:
        weights: w_k, shape (K,), not negative, with sum 1; zeros are legal.
        means: μ_k, shape (K, d).
        covariances: Σ_k, shape (K, d, d), symmetric positive semi-definite; singular ones are legal data covariances.

    Raises:
        ValueError: for wrong shapes, values that are not finite, negative weights, weights that do not sum to one,
            covariances that are not positive semi-definite, arrays on different devices.
        TypeError: for arrays of different libraries or dtypes, or of integers.

    Source: closure of Gaussian mixtures under noising; Scarvelis & Solomon, arXiv 2509.23092.

    Example:
        >>> law = GaussianMixture([0.5, 0.5], [[-3.0, 0.0], [3.0, 0.0]], 2 * [[[0.5, 0.0], [0.0, 0.5]]])
        >>> law.noised(sigma=0.5).score([3.0, 1.5]).round(6)
        array([-0., -2.])
    """

    _pieces: dict[int, tuple[Piece, ...]] | None = None  # by number of states, see `prepared`

    def __init__(self, weights: Any, means: Any, covariances: Any):
        _, arrays = _arrays.common(weights=weights, means=means, covariances=covariances)
        _check_components(arrays["weights"], arrays["means"])
        size, dimension = arrays["means"].shape
        _check_shape(arrays["covariances"], (size, dimension, dimension), "covariances", "(K, d, d)")
        _arrays.check_finite(arrays["covariances"], "covariances")
        self.groups: tuple[Group, ...] = (
            Group(arrays["weights"], arrays["means"], covariance.full(arrays["covariances"])),
        )

    @classmethod
    def isotropic(cls, weights: Any, means: Any, variances: Any) -> GaussianMixture:
        """Σ_k = v_k I, with one variance for all components or variances of shape (K,); zero is legal.

        Example:
            >>> law = GaussianMixture.isotropic([1.0], [[0.0, 0.0]], 1.0)
            >>> round(float(law.noised(1.0).score_divergence([0.0, 0.0])), 12)
            -1.0
        """
        _, arrays = _arrays.common(means=means, weights=weights, variances=variances)
        _check_components(arrays["weights"], arrays["means"])
        size, dimension = arrays["means"].shape
        spread = _broadcast(arrays["variances"], (size,), "variances", "() or (K,)")
        covariance.check_variances(spread, "variances")
        return cls._of(arrays, covariance.Isotropic(spread[:, None], dimension))

    @classmethod
    def diagonal(cls, weights: Any, means: Any, variances: Any) -> GaussianMixture:
        """Σ_k = diag(v_k), variances of shape (K, d); zeros are legal."""
        _, arrays = _arrays.common(means=means, weights=weights, variances=variances)
        _check_components(arrays["weights"], arrays["means"])
        _check_shape(arrays["variances"], arrays["means"].shape, "variances", "(K, d)")
        covariance.check_variances(arrays["variances"], "variances")
        return cls._of(arrays, covariance.Diagonal(arrays["variances"]))

    @classmethod
    def low_rank(cls, weights: Any, means: Any, factors: Any, variances: Any = 0.0) -> GaussianMixture:
        """Σ_k = F_k F_kᵀ + v_k I, factors of shape (K, d, r), variances scalar or (K,).

        No d×d matrix is formed, unless derivatives in the factors are traced.
        """
        _, arrays = _arrays.common(means=means, weights=weights, factors=factors, variances=variances)
        _check_components(arrays["weights"], arrays["means"])
        size, dimension = arrays["means"].shape
        _check_factors(arrays["factors"], size, dimension)
        spread = _broadcast(arrays["variances"], (size,), "variances", "() or (K,)")
        covariance.check_variances(spread, "variances")
        return cls._of(arrays, covariance.low_rank(arrays["factors"], spread))

    @classmethod
    def empirical(cls, points: Any, weights: Any = None) -> GaussianMixture:
        """The empirical law Σ_i w_i δ_{y_i} of points (N, d); equal weights unless given."""
        _, arrays = _arrays.common(points=points)
        size = arrays["points"].shape[0]
        equal = _arrays.from_numpy(np.full(size, 1.0 / max(size, 1)), arrays["points"])
        return cls.isotropic(equal if weights is None else weights, arrays["points"], 0.0)

    @classmethod
    def _of(cls, arrays: dict[str, Array], covariances: Covariances) -> GaussianMixture:
        return cls.from_groups((Group(arrays["weights"], arrays["means"], covariances),))

    @classmethod
    def from_groups(cls, groups: tuple[Group, ...]) -> GaussianMixture:
        """The law with these groups of components, which are not checked again."""
        law = object.__new__(cls)
        law.groups = groups
        return law

    def __repr__(self) -> str:
        kinds = ", ".join(type(group.covariances).__name__.lower() for group in self.groups)
        return f"GaussianMixture(components={self.size}, dimension={self.dimension}, covariances={kinds})"

    @property
    def weights(self) -> Array:
        """w_k, shape (K,)."""
        return _arrays.joined([group.weights for group in self.groups])

    @property
    def means(self) -> Array:
        """μ_k, shape (K, d)."""
        return _arrays.joined([group.means for group in self.groups])

    @property
    def covariances(self) -> Array:
        """Σ_k as dense matrices (K, d, d)."""
        return _arrays.joined([group.covariances.matrices() for group in self.groups])

    @property
    def dimension(self) -> int:
        """d."""
        return self.groups[0].covariances.dimension

    @property
    def size(self) -> int:
        """K, the number of components."""
        return sum(group.covariances.size for group in self.groups)

    @property
    def mean(self) -> Array:
        """E[X], shape (d,)."""
        return namespace(self.weights).sum(self.weights[:, None] * self.means, axis=0)

    @property
    def covariance(self) -> Array:
        """Cov[X], shape (d, d)."""
        offsets = self.means - self.mean[None, :]
        between = namespace(offsets).matmul((self.weights[:, None] * offsets).T, offsets)
        return between + local.total(g.covariances.average(g.weights[:, None])[0, ...] for g in self.groups)

    def noised(self, sigma: Any, alpha: Any = 1.0) -> GaussianMixture:
        """The law of `α X + σ ε`, ε ~ N(0, I): means α μ_k, covariances α² Σ_k + σ² I, without a new factorisation.

        Raises:
            ValueError: unless σ and α are positive and finite numbers.
        """
        sigma, alpha = self._number(sigma, "sigma"), self._number(alpha, "alpha")
        return self.from_groups(tuple(group.noised(sigma, alpha) for group in self.groups))

    def log_density(self, x: Any) -> Array:
        """log p(x) in nats, shape (...)."""
        return self._map(lambda at: at.log_density, x)

    def responsibilities(self, x: Any) -> Array:
        """γ_k(x), the probability that component k made x, shape (..., K)."""
        return self._map(lambda at: at.responsibilities.T, x)

    def score(self, x: Any) -> Array:
        """s(x) = ∇ log p(x), shape (..., d)."""
        return self._map(lambda at: at.score, x)

    def log_density_and_score(self, x: Any) -> tuple[Array, Array]:
        """log p(x), shape (...), and s(x), shape (..., d), from one pass over the components."""
        log_density, score = self._map_many(lambda at: (at.log_density, at.score), x)
        return log_density, score

    def score_jacobian(self, x: Any) -> Array:
        """∇s(x) = ∇² log p(x), shape (..., d, d), symmetric."""
        return self._map(local.jacobian, x)

    def score_jacobian_product(self, x: Any, v: Any) -> Array:
        """∇s(x) v without forming the matrix; `v` has the shape of `x`."""
        return self._map(local.jacobian_product, x, v=v)

    def score_divergence(self, x: Any) -> Array:
        """div s(x) = Δ log p(x), shape (...)."""
        return self._map(local.divergence, x)

    def third_order(self, x: Any, u: Any, v: Any) -> Array:
        """D²s(x)[u, v], the second derivative of the score along u and v, shape (..., d); symmetric in u and v."""
        return self._map(local.third_order, x, u=u, v=v)

    def denoiser(self, x: Any, sigma: Any) -> Array:
        """D_σ(x) = E[X | X + σ ε = x] = x + σ² s_σ(x), shape (..., d)."""
        sigma = self._number(sigma, "sigma")
        return self.noised(sigma)._map(lambda at: local.posterior_mean(self.groups, at, sigma), x)

    def posterior(self, x: Any, sigma: Any) -> tuple[Array, Array]:
        """Mean (..., d) and covariance (..., d, d) of X given X + σ ε = x: `x + σ² s_σ` and `σ² (I + σ² ∇s_σ)`.

        They are evaluated from the posteriors of the components, which do not cancel at any σ.
        """
        sigma = self._number(sigma, "sigma")
        mean, spread = self.noised(sigma)._map_many(lambda at: local.posterior(self.groups, at, sigma), x)
        return mean, spread

    def conditioned(self, operator: Any, observation: Any, noise_covariance: Any) -> GaussianMixture:
        """The law of X given `y = A X + n`, n ~ N(0, R): again a mixture, exactly.

        With `S_k = A Σ_k Aᵀ + R` and `K_k = Σ_k Aᵀ S_k⁻¹`: weights `∝ w_k N(y; A μ_k, S_k)` (in logarithms), means
        `μ_k + K_k (y − A μ_k)`, covariances `Σ_k − K_k S_k K_kᵀ`, in factors that lose nothing to cancellation. Its
        score at noise level σ is `.conditioned(A, y, R).noised(σ).score(x)`.

        Args:
            operator: A, shape (p, d), of any rank.
            observation: y, shape (p,).
            noise_covariance: R as a variance, variances (p,) or a matrix (p, p), positive semi-definite; or the law of
                the noise as a `GaussianMixture` on R^p. Zero noise is legal in directions in which every component has
                variance.

        Raises:
            ValueError, TypeError: for wrong shapes, values, kinds; where the observation has no density.

        Factors cost about K (d q² + q³) operations, q = rank + p for low-rank covariances, d for full and diagonal
        ones. Isotropic covariances need no factors. Derivatives flow in everything; those in A, R and Σ take dense
        matrices.

        Source: conditioning of joint Gaussians, Bishop, Pattern Recognition and Machine Learning, 2006, section 2.3.3.

        Example:
            >>> law = GaussianMixture.isotropic([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 1.0)
            >>> posterior = law.conditioned([[0.0, 1.0]], [2.0], 1.0)  # says nothing of the first coordinate
            >>> posterior.means
            array([[-1.,  1.],
                   [ 1.,  1.]])
            >>> posterior.covariances[0]
            array([[1. , 0. ],
                   [0. , 0.5]])
        """
        return self._given(operator, observation, noise_covariance)[0]

    def log_evidence(self, operator: Any, observation: Any, noise_covariance: Any) -> Array:
        """log p(y) = log Σ_k w_k N(y; A μ_k, A Σ_k Aᵀ + R) in nats, shape (); arguments as for `conditioned`.

        Example:
            >>> law = GaussianMixture.isotropic([1.0], [[0.0, 0.0]], 1.0)
            >>> round(float(law.log_evidence([[3.0, 4.0]], [0.0], 11.0)), 9)  # −½ log 2π(9 + 16 + 11)
            -2.710698002
        """
        return self._given(operator, observation, noise_covariance)[1]

    def _given(self, operator: Any, observation: Any, noise: Any) -> tuple[GaussianMixture, Array]:
        """The posterior and log p(y)."""
        from oracles._mixture import conditioning

        groups, log_evidence = conditioning.given(self.groups, operator, observation, noise)
        return self.from_groups(groups), log_evidence

    def sample(self, n: int, seed: int | np.random.Generator | None = None) -> Array:
        """n independent draws (n, d), the same for one seed in every library; constants for differentiation."""
        return draws.sample(self.groups, n, seed)

    def cdf(self, x: Any) -> Array:
        """F(x) = P(X ≤ x) for d = 1, shape (...) for x of shape (..., 1)."""
        return line.cdf(self, self._states(x))

    def survival(self, x: Any) -> Array:
        """1 − F(x) for d = 1, without cancellation in the upper tail."""
        return line.survival(self, self._states(x))

    def quantile(self, u: Any, upper: bool = False) -> Array:
        """F⁻¹(u) for d = 1, shape (..., 1) for u of shape (...) in (0, 1); `upper` inverts 1 − F instead."""
        return line.quantile(self, u, upper)

    def constant(self) -> GaussianMixture:
        """The law with parameters that automatic differentiation does not see."""
        return self.from_groups(tuple(group.constant() for group in self.groups))

    def prepared(self) -> GaussianMixture:
        """The law for many evaluations at few states: what does not depend on the states is computed once and kept.

        Its parameters are constants for automatic differentiation.
        """
        law = self.constant()
        law._pieces = {}
        return law

    def numpy(self) -> GaussianMixture:
        """The law with parameters in NumPy float64."""
        return self.from_groups(tuple(group.numpy() for group in self.groups))

    def check_density(self) -> None:
        """Raise where a covariance is known to be singular."""
        if any(group.covariances.singular() for group in self.groups):
            raise ValueError("this law has a singular covariance and hence no density; take .noised(sigma) first")

    def over_blocks(self, function: Callable[..., Array], x: Any, **tangents: Any) -> Array:
        """Apply a function of states (n, d), and tangents, to states (..., d) in blocks of bounded size."""
        arrays = [self._states(x), *(self._states(value, name) for name, value in tangents.items())]
        xp, shape = namespace(*arrays), arrays[0].shape[:-1]
        flat = [xp.reshape(array, (-1, self.dimension)) for array in arrays]
        result = _arrays.joined([function(*(array[rows, :] for array in flat)) for rows in self._rows(flat[0])])
        return xp.reshape(result, (*shape, *result.shape[1:]))

    def _number(self, number: Any, name: str) -> Array:
        return _arrays.check_positive(number, self.groups[0].means, name)

    def _states(self, x: Any, name: str = "x") -> Array:
        return _arrays.check_states(x, self.groups[0].means, self.dimension, name)

    def _map(self, function: Callable[..., Array], x: Any, **tangents: Any) -> Array:
        return self._map_many(lambda *inputs: (function(*inputs),), x, **tangents)[0]

    def _map_many(self, function: Callable[..., tuple[Array, ...]], x: Any, **tangents: Any) -> tuple[Array, ...]:
        """Apply a function of `Local` (and tangents) to states (..., d), in blocks that fit a core's cache."""
        arrays = [self._states(x), *(self._states(value, name) for name, value in tangents.items())]
        self.check_density()
        xp = namespace(*arrays)
        arrays = list(xp.broadcast_arrays(*arrays)) if len(arrays) > 1 else arrays
        shape = arrays[0].shape[:-1]
        flat = arrays if len(shape) == 1 else [xp.reshape(array, (-1, self.dimension)) for array in arrays]
        pieces, cuts = self._ready(flat[0].shape[0]), self._rows(flat[0])
        blocks = [flat] if len(cuts) == 1 else [[array[rows, :] for array in flat] for rows in cuts]
        parts = [self._block(function, pieces, block) for block in blocks]
        whole = [_arrays.joined(list(part)) for part in zip(*parts, strict=True)]
        return tuple(whole if len(shape) == 1 else [xp.reshape(part, (*shape, *part.shape[1:])) for part in whole])

    def _ready(self, rows: int) -> tuple[Piece, ...]:
        """What does not depend on the states, kept where `prepared` allows it."""
        if self._pieces is None:
            return local.ready(self.groups, rows)
        if rows not in self._pieces:
            self._pieces[rows] = local.ready(self.groups, rows)
        return self._pieces[rows]

    @staticmethod
    def _block(
        function: Callable[..., tuple[Array, ...]], pieces: tuple[Piece, ...], arrays: list[Array]
    ) -> tuple[Array, ...]:
        return function(Local(pieces, arrays[0]), *arrays[1:])

    def _rows(self, x: Array) -> list[slice]:
        budget = BLOCK if _arrays.eager(x) else TRACED_BLOCK
        rows, step = x.shape[0], max(1, budget // (self.size * self.dimension))
        return [slice(i, min(i + step, rows)) for i in range(0, max(rows, 1), step)]


def _check_components(weights: Array, means: Array) -> None:
    if means.ndim != 2 or 0 in means.shape:
        raise ValueError(
            f"means has shape {tuple(means.shape)}; it must be (K, d) with at least one component and axis"
        )
    _check_shape(weights, means.shape[:1], "weights", "(K,)")
    _arrays.check_finite(means, "means")
    check_weights(weights)


def check_weights(weights: Array) -> None:
    """Raise where known weights are negative, not finite, or do not sum to one."""
    _arrays.check_finite(weights, "weights")
    known = _arrays.values(weights)
    if known is None:
        return
    if np.any(known < 0):
        raise ValueError(f"weights contains a negative value ({known.min()}); weights must be zero or positive")
    total = float(np.sum(known, dtype=np.float64))
    # Rounding of K weights leaves about √K ε; in double precision seven digits, as people write them, are enough.
    eps = np.finfo(known.dtype).eps
    if abs(total - 1.0) > min(10 * np.sqrt(eps), max(1e-7, 100 * eps * np.sqrt(known.size))):
        raise ValueError(f"weights sum to {total}, not to one; divide them by their sum")


def _check_shape(array: Array, shape: tuple[int, ...], name: str, words: str) -> None:
    if tuple(array.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(array.shape)}; it must be {words} = {tuple(shape)}")


def _check_factors(factors: Array, size: int, dimension: int) -> None:
    if factors.ndim != 3 or tuple(factors.shape[:2]) != (size, dimension) or factors.shape[2] == 0:
        raise ValueError(f"factors has shape {tuple(factors.shape)}; it must be (K, d, r) = ({size}, {dimension}, r)")
    _arrays.check_finite(factors, "factors")


def _broadcast(array: Array, shape: tuple[int, ...], name: str, words: str) -> Array:
    if tuple(array.shape) not in ((), shape):
        raise ValueError(f"{name} has shape {tuple(array.shape)}; it must be {words}")
    return namespace(array).broadcast_to(array, shape)
