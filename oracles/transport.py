r"""Truths about sampling that need no solver: the 1-d quantile oracle, product laws and the single Gaussian.

**One dimension.**  The probability flow dx/dσ = −σ s(x) is the monotone transport between the noised laws, so that
F_σ(x(σ)) is constant along it (F the distribution function of ρ noised to σ).  With the latent x(σ_max) = z fixed and
ρ_η = (1 − η)ρ + ην, everything at σ_min follows from ``F^η(x_η; σ_min) = F^η(z; σ_max)``: with G = F^ν − F,
p the density, r = ν_σ/p and s the score, all at x and σ_min,

    x_η by inversion,   δ = dx/dη = [G(z; σ_max) − G(x; σ_min)]/p = [F^ν(z; σ_max) − F^ν(x; σ_min)]/p,
    d²x/dη² = −δ (2(r − 1) + s δ).

**Products** evolve coordinate by coordinate; when one factor is contaminated, ρ_1^η ⊗ ρ_2 is the contamination of
ρ_1 ⊗ ρ_2 toward ν_1 ⊗ ρ_2, whose transport is the factor's own.

**One Gaussian** N(μ, Σ), Σ = U diag(λ) Uᵀ: ``x(σ) = μ + A (z − μ)``, ``A = U diag(f) Uᵀ``,
``f = √((λ+σ²)/(λ+σ_max²))``; dx/dμ·v = (I − A)v and dx/dΣ·H = U(K∘UᵀHU)Uᵀ(z − μ) with the divided difference
``K_ij = (f_i − f_j)/(λ_i − λ_j) = (σ_max²−σ²)/[(λ_i+σ_max²)(λ_j+σ_max²)(f_i+f_j)]``, which has no special case at
repeated eigenvalues (Daleckii–Krein).

Sources: the flow is Song et al., arXiv 2011.13456, eq. 13; in one dimension its map is the increasing rearrangement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._invert import invert
from .lines import LineLaw, as_line


class QuantileOracle:
    """Exact samples and their derivatives in η for ρ_η = (1 − η) ``base`` + η ``toward`` on the line.

    Laws: Gaussian mixtures with d = 1 or any of :mod:`oracles.lines`.  ``latents`` is an array of any shape, read
    element by element, so both (n,) and (n, 1) do; results have its shape.

    >>> from oracles.lines import Laplace, Uniform
    >>> oracle = QuantileOracle(Uniform(-1.0, 2.0), Laplace(0.5, 0.3))
    >>> x, delta = oracle.sensitivity(np.array([3.0]), sigma_max=10.0, sigma_min=0.1)
    >>> step = (oracle.sample(np.array([3.0]), 1e-6, 10.0, 0.1) - x) / 1e-6
    >>> bool(np.all(abs(step - delta) < 1e-5))
    True
    """

    def __init__(self, base: Any, toward: Any) -> None:
        self.base: LineLaw = as_line(base)
        self.toward: LineLaw = as_line(toward)

    def sample(self, latents: ArrayLike, eta: float, sigma_max: float, sigma_min: float) -> np.ndarray:
        """Samples x_η(σ_min) from x(σ_max) = ``latents``; η ≤ 1, and η < 0 where ρ_η is still a measure."""
        _check_levels(sigma_max, sigma_min)
        z = _finite(latents)
        high, low = (_Contaminated(self.base.noised(t), self.toward.noised(t), eta) for t in (sigma_max, sigma_min))
        return invert(low, high.log_cdf(z), high.log_sf(z))

    def sensitivity(
        self, latents: ArrayLike, sigma_max: float, sigma_min: float, order: int = 1, eta: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Samples at ``eta`` and their derivative of ``order`` 1 or 2 in η there."""
        if order not in (1, 2):
            raise ValueError(f"order = {order!r} must be 1 or 2")
        z, x = _finite(latents), self.sample(latents, eta, sigma_max, sigma_min)
        low = _Contaminated(self.base.noised(sigma_min), self.toward.noised(sigma_min), eta)
        log_p = low.log_density(x)
        # F^η agrees at both ends, so of χ = ν − ρ = (ν − ρ_η)/(1 − η) only ν's part is left.
        moved = _probability_between(self.toward.noised(sigma_max), z, self.toward.noised(sigma_min), x, log_p)
        delta = moved / (1 - eta)
        if order == 1:
            return x, delta
        ratio = np.exp(self.toward.noised(sigma_min).log_density(x) - log_p)
        return x, -delta * (2 * (ratio - 1) / (1 - eta) + low.score(x) * delta)

    def error_bar(self, latents: ArrayLike, eta: float, sigma_max: float, sigma_min: float) -> np.ndarray:
        """Bound on the rounding error of :meth:`sample`: ``8ε (|x| + (1 + |log T|) T/p)``, T the smaller tail at x.

        It is large between well separated modes, where the transport itself is ill-conditioned.
        """
        x = self.sample(latents, eta, sigma_max, sigma_min)
        low = _Contaminated(self.base.noised(sigma_min), self.toward.noised(sigma_min), eta)
        tail = np.minimum(low.log_cdf(x), low.log_sf(x))
        return 8 * np.finfo(float).eps * (np.abs(x) + (1 - tail) * np.exp(tail - low.log_density(x)))


class _Contaminated:
    """(1 − η)ρ + ην in logarithms, for either sign of η."""

    def __init__(self, base: LineLaw, toward: LineLaw, eta: float) -> None:
        if not (np.isfinite(eta) and eta < 1):
            raise ValueError(f"eta = {eta!r} must be finite and below 1: it is the share of mass moved")
        self.base, self.toward, self.eta = base, toward, eta
        mean = (1 - eta) * base.center + eta * toward.center
        self.center, self.spread = mean, max(base.spread, toward.spread) + abs(base.center - toward.center)

    def _combined(self, base: np.ndarray, toward: np.ndarray) -> np.ndarray:
        if self.eta == 0:
            return base
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


def _probability_between(high: LineLaw, z: np.ndarray, low: LineLaw, x: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    """[F_high(z) − F_low(x)]/p from whichever tail does not round to 1."""
    left = np.exp(high.log_cdf(z) - log_p) - np.exp(low.log_cdf(x) - log_p)
    right = np.exp(low.log_sf(x) - log_p) - np.exp(high.log_sf(z) - log_p)
    return np.where(low.log_cdf(x) <= low.log_sf(x), left, right)


class ProductLaw:
    """The law ρ_1 ⊗ … ⊗ ρ_d of independent coordinates, with the methods of a law in R^d (x of shape (..., d)).

    >>> from oracles.lines import Laplace, Uniform
    >>> law = ProductLaw([Uniform(0.0, 1.0), Laplace(0.0, 1.0)]).noised(0.5)
    >>> law.score(np.zeros((3, 2))).shape
    (3, 2)
    """

    def __init__(self, factors: Sequence[Any]) -> None:
        if not len(factors):
            raise ValueError("factors must name at least one law on the line")
        self.factors = tuple(as_line(f) for f in factors)

    @property
    def dimension(self) -> int:
        """d, the number of factors."""
        return len(self.factors)

    def noised(self, sigma: float, alpha: float = 1.0) -> ProductLaw:
        """The law of αX + σε."""
        return ProductLaw([f.noised(sigma, alpha) for f in self.factors])

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """log p(x), shape (...)."""
        return self._each("log_density", x).sum(axis=-1)

    def score(self, x: np.ndarray) -> np.ndarray:
        """∇ log p(x), shape (..., d)."""
        return self._each("score", x)

    def score_jacobian(self, x: np.ndarray) -> np.ndarray:
        """∇s(x), diagonal, shape (..., d, d)."""
        return self._each("score_slope", x)[..., None] * np.eye(self.dimension)

    def score_jacobian_product(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        """∇s(x) v, shape (..., d)."""
        return self._each("score_slope", x) * v

    def score_divergence(self, x: np.ndarray) -> np.ndarray:
        """div s(x), shape (...)."""
        return self._each("score_slope", x).sum(axis=-1)

    def third_order(self, x: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """D²s(x)[u, v], shape (..., d)."""
        return self._each("score_curvature", x) * u * v

    def sample(self, n: int, seed: int) -> np.ndarray:
        """``n`` independent draws (n, d), a function of ``seed`` alone."""
        seeds = np.random.default_rng(seed).integers(2**63, size=self.dimension)
        return np.stack([f.sample(n, int(k)) for f, k in zip(self.factors, seeds, strict=True)], -1)

    def _each(self, method: str, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, dtype=float)
        if x.ndim == 0 or x.shape[-1] != self.dimension:
            raise ValueError(f"x of shape {x.shape} must have shape (..., {self.dimension}): one column a factor")
        return np.stack([getattr(f, method)(x[..., i]) for i, f in enumerate(self.factors)], -1)


class ProductOracle:
    """Exact transport of ``rotation @ X``, X with independent coordinates, some of them contaminated.

    ``bases`` and ``towards`` are laws on the line, one a coordinate; ``None`` in ``towards`` leaves the factor alone.
    With one factor contaminated this is the contamination of the product toward :attr:`toward`.  With several, each
    factor moves on its own, ρ_1^η ⊗ ρ_2^η: to first order the contaminations add, beyond that it is another path.
    ``rotation`` (d, d) is orthogonal, identity by default.
    """

    def __init__(
        self, bases: Sequence[Any], towards: Sequence[Any | None], rotation: np.ndarray | None = None
    ) -> None:
        if len(bases) != len(towards):
            raise ValueError(f"towards has {len(towards)} entries for {len(bases)} bases: give one (or None) for each")
        d = len(bases)
        self.base = ProductLaw(bases)
        self.oracles = [None if t is None else QuantileOracle(b, t) for b, t in zip(bases, towards, strict=True)]
        self.rotation = np.eye(d) if rotation is None else np.asarray(rotation, dtype=float)
        if self.rotation.shape != (d, d) or not np.allclose(self.rotation @ self.rotation.T, np.eye(d), atol=1e-12):
            raise ValueError(f"rotation must be an orthogonal matrix of shape ({d}, {d})")

    @property
    def toward(self) -> ProductLaw:
        """The product with each contaminated factor replaced by its ν, in the unrotated coordinates."""
        return ProductLaw(
            [f if o is None else o.toward for f, o in zip(self.base.factors, self.oracles, strict=True)]
        )

    def sample(self, latents: np.ndarray, eta: float, sigma_max: float, sigma_min: float) -> np.ndarray:
        """Samples x_η(σ_min), shape (..., d)."""
        z = self._unrotated(latents)
        columns = [self._oracle(i).sample(z[..., i], self._eta(i, eta), sigma_max, sigma_min) for i in self._coordinates]
        return np.stack(columns, -1) @ self.rotation.T

    def sensitivity(
        self, latents: np.ndarray, sigma_max: float, sigma_min: float, order: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Samples and their derivative of ``order`` 1 or 2 in η at 0, both (..., d)."""
        z = self._unrotated(latents)
        pairs = [self._oracle(i).sensitivity(z[..., i], sigma_max, sigma_min, order) for i in self._coordinates]
        moving = np.array([o is not None for o in self.oracles])
        x, delta = (np.stack(columns, -1) for columns in zip(*pairs, strict=True))
        return x @ self.rotation.T, np.where(moving, delta, 0.0) @ self.rotation.T

    @property
    def _coordinates(self) -> range:
        return range(len(self.oracles))

    def _oracle(self, i: int) -> QuantileOracle:
        law = self.base.factors[i]
        return self.oracles[i] or QuantileOracle(law, law)

    def _eta(self, i: int, eta: float) -> float:
        return 0.0 if self.oracles[i] is None else eta

    def _unrotated(self, latents: np.ndarray) -> np.ndarray:
        return np.asarray(latents, dtype=float) @ self.rotation


@dataclass(frozen=True)
class GaussianOracle:
    """The probability flow of N(μ, Σ) in closed form, ``mean`` (d,), ``covariance`` (d, d), singular allowed.

    >>> oracle = GaussianOracle(np.zeros(2), np.diag([3.0, 0.0]))
    >>> oracle.sample(np.array([[1.0, 1.0]]), sigma_max=1.0, sigma_min=0.5).round(4).tolist()
    [[0.9014, 0.5]]
    """

    mean: np.ndarray
    covariance: np.ndarray

    def __post_init__(self) -> None:
        m, c = np.asarray(self.mean, dtype=float), np.asarray(self.covariance, dtype=float)
        if m.ndim != 1 or c.shape != (m.size, m.size):
            raise ValueError(f"mean must have shape (d,) and covariance (d, d), not {m.shape} and {c.shape}")
        if not np.allclose(c, c.T, atol=1e-12 * np.abs(c).max(initial=0)):
            raise ValueError("covariance must be symmetric: pass (C + C.T)/2")
        values, vectors = np.linalg.eigh((c + c.T) / 2)
        if values.min(initial=0) < -1e-12 * max(values.max(initial=0), 1e-300):
            raise ValueError(f"covariance must be positive semi-definite; its smallest eigenvalue is {values.min():.3g}")
        for name, value in (("mean", m), ("covariance", c), ("_values", np.maximum(values, 0)), ("_vectors", vectors)):
            object.__setattr__(self, name, value)

    def sample(self, latents: np.ndarray, sigma_max: float, sigma_min: float) -> np.ndarray:
        """x(σ_min) from x(σ_max) = ``latents`` (..., d)."""
        u = self._basis
        return self.mean + ((latents - self.mean) @ u * self._shrink(sigma_max, sigma_min)) @ u.T

    def sensitivity_mean(
        self, latents: np.ndarray, direction: np.ndarray, sigma_max: float, sigma_min: float
    ) -> np.ndarray:
        """dx(σ_min)/dμ · ``direction`` (d,), of the shape of ``latents`` (the same for every latent)."""
        u = self._basis
        moved = direction - u @ (self._shrink(sigma_max, sigma_min) * (u.T @ direction))
        return np.broadcast_to(moved, np.shape(latents)).copy()

    def sensitivity_covariance(
        self, latents: np.ndarray, direction: np.ndarray, sigma_max: float, sigma_min: float
    ) -> np.ndarray:
        """dx(σ_min)/dΣ · ``direction`` (d, d, symmetric), of the shape of ``latents``."""
        _check_levels(sigma_max, sigma_min)
        u, f = self._basis, self._shrink(sigma_max, sigma_min)
        top = self._eigenvalues + sigma_max**2
        divided = (sigma_max**2 - sigma_min**2) / (np.outer(top, top) * (f[:, None] + f))
        matrix = u @ (divided * (u.T @ direction @ u)) @ u.T
        return (latents - self.mean) @ matrix.T

    @property
    def _basis(self) -> np.ndarray:
        return self.__dict__["_vectors"]

    @property
    def _eigenvalues(self) -> np.ndarray:
        return self.__dict__["_values"]

    def _shrink(self, sigma_max: float, sigma_min: float) -> np.ndarray:
        _check_levels(sigma_max, sigma_min)
        return np.sqrt((self._eigenvalues + sigma_min**2) / (self._eigenvalues + sigma_max**2))


def _finite(latents: ArrayLike) -> np.ndarray:
    z = np.asarray(latents, dtype=float)
    if not np.all(np.isfinite(z)):
        raise ValueError("latents must be finite: an infinite or NaN state has no quantile")
    return z


def _check_levels(sigma_max: float, sigma_min: float) -> None:
    if not (np.isfinite(sigma_max) and 0 < sigma_min < sigma_max):
        raise ValueError(
            f"sigma_max = {sigma_max!r} and sigma_min = {sigma_min!r} must satisfy 0 < sigma_min < sigma_max < inf"
        )
