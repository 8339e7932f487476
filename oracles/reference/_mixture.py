"""Gaussian mixtures in arbitrary precision, from raw derivatives of the density (see `oracles.reference`).

With `n_k = w_k N(x; μ_k, C_k)`, `g = −C_k⁻¹(x − μ_k)` and `P = C_k⁻¹`, the derivatives of n_k are n_k times
`g`, `g gᵀ − P`, `g_i g_j g_m − g_i P_jm − g_j P_im − g_m P_ij`; summed over k they are those of p, and

    s = ∂p/p,   ∇s = ∂²p/p − s sᵀ,   D²s = ∂³p/p − (s ⊗ ∂²p/p, three ways) + 2 s ⊗ s ⊗ s,

uncentred on purpose: nothing here cancels as in the code under test, and what cancels is bought back with digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np

from oracles.reference._certify import Array, certified, exact, size


class ReferenceMixture:
    """`Σ_k w_k N(μ_k, Σ_k)` with exact parameters and results to `digits` digits, as object arrays of mpf.

    Args:
        weights, means, covariances: shapes (K,), (K, d), (K, d, d); floats are taken as the binary numbers that they
            are, strings as decimals or fractions (`"1/3"`). Weights need not sum to one.
        digits: digits of every result.

    Example:
        >>> law = ReferenceMixture(["1"], [["0"]], [[["3"]]], digits=20)
        >>> mpmath.nstr(law.score(["1/3"], "1")[0], 15)
        '-0.0833333333333333'
    """

    def __init__(self, weights: Any, means: Any, covariances: Any, digits: int = 30) -> None:
        shapes = [np.shape(np.array(a, dtype=object)) for a in (weights, means, covariances)]
        if len(shapes[1]) != 2 or shapes[0] != shapes[1][:1] or shapes[2] != (*shapes[1], shapes[1][1]):
            raise ValueError(f"weights, means and covariances must have shapes (K,), (K, d), (K, d, d), not {shapes}")
        if digits < 1:
            raise ValueError(f"digits = {digits!r} must be at least 1")
        self.parameters, self.digits = (weights, means, covariances), digits
        self.size, self.dimension = shapes[1]

    def log_density(self, x: Any, sigma: Any) -> Any:
        """log p_σ(x)."""
        return self._certified(lambda raw: np.array([mpmath.log(raw.p)], dtype=object), x, sigma)[0]

    def score(self, x: Any, sigma: Any) -> Array:
        """s_σ(x), shape (d,)."""
        return self._certified(lambda raw: raw.score(), x, sigma, 1)

    def score_jacobian(self, x: Any, sigma: Any) -> Array:
        """∇s_σ(x), shape (d, d)."""
        return self._certified(lambda raw: raw.jacobian(), x, sigma, 2)

    def score_divergence(self, x: Any, sigma: Any) -> Any:
        """div s_σ(x)."""
        return self._certified(lambda raw: np.array([np.trace(raw.jacobian())], dtype=object), x, sigma, 2)[0]

    def third_order(self, x: Any, sigma: Any) -> Array:
        """D²s_σ(x), shape (d, d, d), symmetric."""
        return self._certified(lambda raw: raw.third_order(), x, sigma, 3)

    def responsibilities(self, x: Any, sigma: Any) -> Array:
        """γ_k(x), shape (K,)."""
        return self._certified(lambda raw: raw.terms / raw.p, x, sigma)

    def posterior(self, x: Any, sigma: Any) -> tuple[Array, Array]:
        """Mean (d,) and covariance (d, d) of X given X + σε = x, by Bayes' rule in each component."""

        def moments() -> tuple[Array, Array]:
            return self.raw(x, sigma).posterior(exact(self.parameters[1]), exact(self.parameters[2]), exact(sigma)[()])

        mean = certified(lambda: moments()[0], self.digits)
        return mean, certified(lambda: moments()[1], self.digits, lambda: size(mean) ** 2 + exact(sigma)[()] ** 2)

    def raw(self, x: Any, sigma: Any) -> Raw:
        """p and its derivatives at the present working precision."""
        weights, means, covariances = (exact(a) for a in self.parameters)
        noise = exact(sigma)[()] ** 2 * np.eye(self.dimension, dtype=object)
        return Raw(weights, means, covariances + noise, exact(x))

    def _certified(self, quantity: Callable[[Raw], Array], x: Any, sigma: Any, power: int | None = None) -> Array:
        """The quantity to `digits`; its natural size is that of C⁻¹ to the power/2."""
        scale = None if power is None else lambda: self.raw(x, sigma).scale() ** power
        return certified(lambda: quantity(self.raw(x, sigma)), self.digits, scale)


class Raw:
    """p and its first three derivatives at one state, from those of the components."""

    def __init__(self, weights: Array, means: Array, covariances: Array, x: Array) -> None:
        self.inverses = [_inverse(c) for c in covariances]
        self.offsets = [x - m for m in means]
        self.g = [-p @ y for p, y in zip(self.inverses, self.offsets, strict=True)]
        self.terms = np.array(
            [_normal(w, c, y, g) for w, c, y, g in zip(weights, covariances, self.offsets, self.g, strict=True)]
        )
        self.p = self.terms.sum()

    def score(self) -> Array:
        return self._mean(self.g)

    def jacobian(self) -> Array:
        return self._second() - np.multiply.outer(self.score(), self.score())

    def third_order(self) -> Array:
        s, second = self.score(), self._second()
        third = self._mean([_third(g, p) for g, p in zip(self.g, self.inverses, strict=True)])
        return third - _symmetric(s, second) + 2 * np.multiply.outer(np.multiply.outer(s, s), s)

    def posterior(self, means: Array, covariances: Array, sigma: Any) -> tuple[Array, Array]:
        gains = [c @ p for c, p in zip(covariances, self.inverses, strict=True)]
        centres = [m + gain @ y for m, gain, y in zip(means, gains, self.offsets, strict=True)]
        mean = self._mean(centres)
        square = self._mean([np.multiply.outer(m, m) + sigma**2 * gain for m, gain in zip(centres, gains, strict=True)])
        return mean, square - np.multiply.outer(mean, mean)

    def scale(self) -> Any:
        """√ of the largest entry of a C_k⁻¹."""
        return mpmath.sqrt(max(size(p) for p in self.inverses))

    def gradient(self) -> Array:
        """∂p."""
        return self.p * self.score()

    def _second(self) -> Array:
        return self._mean([np.multiply.outer(g, g) - p for g, p in zip(self.g, self.inverses, strict=True)])

    def _mean(self, parts: list[Array]) -> Array:
        return sum(t * part for t, part in zip(self.terms, parts, strict=True)) / self.p


class ReferenceContamination:
    """ρ_η = (1 − η)ρ + ην of two reference mixtures: derivatives of the score of any order at any η.

    The score is the quotient (∂p + η ∂χ)/(p + η χ), χ = ν − p; its Taylor coefficients in η follow by power-series
    division, without the gate's formula.
    """

    def __init__(self, base: ReferenceMixture, toward: ReferenceMixture) -> None:
        if base.dimension != toward.dimension:
            raise ValueError(f"base has dimension {base.dimension} and toward {toward.dimension}: they must agree")
        self.base, self.toward = base, toward

    def score_derivative(self, x: Any, sigma: Any, order: int = 1, eta: Any = 0) -> Array:
        """∂ⁿ s^η(x)/∂ηⁿ, shape (d,), n = `order` ≥ 0."""

        def evaluate() -> Array:
            base, toward, share = self.base.raw(x, sigma), self.toward.raw(x, sigma), exact(eta)[()]
            slope, change = toward.p - base.p, toward.gradient() - base.gradient()
            level, gradient = base.p + share * slope, base.gradient() + share * change
            coefficient = gradient / level
            for n in range(1, order + 1):
                coefficient = ((change if n == 1 else 0 * change) - slope * coefficient) / level
            return mpmath.factorial(order) * coefficient

        return certified(evaluate, self.base.digits, lambda: self.base.raw(x, sigma).scale())


def _normal(weight: Any, covariance: Array, offset: Array, g: Array) -> Any:
    determinant = mpmath.det(mpmath.matrix((2 * mpmath.pi * covariance).tolist()))
    return weight * mpmath.exp((offset @ g) / 2) / mpmath.sqrt(determinant)


def _inverse(matrix: Array) -> Array:
    return np.array(mpmath.inverse(mpmath.matrix(matrix.tolist())).tolist(), dtype=object)


def _third(g: Array, p: Array) -> Array:
    return np.multiply.outer(np.multiply.outer(g, g), g) - _symmetric(g, p)


def _symmetric(vector: Array, matrix: Array) -> Array:
    """v_i M_jm + v_j M_im + v_m M_ij for symmetric M."""
    product = np.multiply.outer(vector, matrix)
    return sum((product.transpose(order) for order in ((0, 1, 2), (1, 0, 2), (1, 2, 0))), start=0 * product)
