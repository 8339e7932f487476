"""Symbolic mixtures: definitions that SymPy differentiates, and closed forms (see `oracles.symbolic`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp

from oracles.symbolic._expression import Arguments, Expression, array

KINDS = ("full", "diagonal", "isotropic")
QUANTITIES = (
    "log_density",
    "score",
    "score_jacobian",
    "score_divergence",
    "third_order",
    "denoiser",
    "posterior_covariance",
)
SIGMA, ETA = sp.Symbol("sigma", positive=True), sp.Symbol("eta", real=True)


class SymbolicMixture:
    """A mixture of `size` = K components in R^d with symbols for everything.

    Args:
        size, dimension: K and d, small: expressions grow quickly beyond K d = 6.
        covariance: "full" (symbols (K, d, d), symmetric), "diagonal" (K, d) or "isotropic" (K,).
        name: prefix of the parameters' names, for a second law: `toward_weights`, ...

    Raises:
        ValueError: for an unknown kind or a size or dimension below 1.
    """

    def __init__(self, size: int, dimension: int, covariance: str = "full", name: str = "") -> None:
        if covariance not in KINDS:
            raise ValueError(f"covariance = {covariance!r} must be one of {', '.join(KINDS)}")
        if size < 1 or dimension < 1:
            raise ValueError(f"size = {size!r} and dimension = {dimension!r} must be at least 1")
        self.size, self.dimension, self.kind, self.name = size, dimension, covariance, name
        letters = ("omega", "m", "S") if name else ("w", "mu", "Sigma")
        components, axes = range(1, size + 1), range(1, dimension + 1)
        self.x = sp.Array([sp.Symbol(f"x_{i}", real=True) for i in axes])
        self.weights = sp.Array([sp.Symbol(f"{letters[0]}_{k}", positive=True) for k in components])
        self.means = sp.Array([[sp.Symbol(f"{letters[1]}_{k}{i}", real=True) for i in axes] for k in components])
        self.covariances = _covariance_symbols(letters[2], components, axes, covariance)

    @property
    def arguments(self) -> Arguments:
        """The symbols by argument name: x, sigma and the parameters, with the law's prefix."""
        prefix = f"{self.name}_" if self.name else ""
        parameters = {"weights": self.weights, "means": self.means, "covariances": self.covariances}
        return {"x": self.x, "sigma": sp.Array(SIGMA), **{prefix + k: v for k, v in parameters.items()}}

    def clean_covariances(self) -> list[sp.Matrix]:
        """Σ_k."""
        return [dense(self.covariances[k], self.kind, self.dimension) for k in range(self.size)]

    def noised_covariances(self) -> list[sp.Matrix]:
        """C_k = Σ_k + σ² I."""
        return [m + SIGMA**2 * sp.eye(self.dimension) for m in self.clean_covariances()]

    def offsets(self) -> list[sp.Matrix]:
        """x − μ_k as columns."""
        return [sp.Matrix([self.x[i] - self.means[k, i] for i in range(self.dimension)]) for k in range(self.size)]

    def component_densities(self) -> list[sp.Expr]:
        """N(x; μ_k, C_k)."""
        return [
            sp.exp(-(y.T * c.inv() * y)[0] / 2) / sp.sqrt((2 * sp.pi) ** self.dimension * c.det())
            for c, y in zip(self.noised_covariances(), self.offsets(), strict=True)
        ]

    def density(self) -> sp.Expr:
        """p(x)."""
        return sp.Add(*(w * n for w, n in zip(self.weights, self.component_densities(), strict=True)))

    def definition(self, quantity: str) -> Expression:
        """A quantity of `QUANTITIES` by differentiating log p; the posterior's moments by Bayes' rule."""
        local = Local(self)
        makers: dict[str, Callable[[], Any]] = {
            "log_density": lambda: sp.log(self.density()),
            "score": lambda: self._derivatives(1),
            "score_jacobian": lambda: self._derivatives(2),
            "score_divergence": lambda: sp.Add(*(sp.diff(sp.log(self.density()), x, 2) for x in self.x)),
            "third_order": lambda: self._derivatives(3),
            "denoiser": lambda: sp.Array(list(local.posterior_mean())),
            "posterior_covariance": lambda: sp.Array(local.posterior_covariance().tolist()),
        }
        return Expression(_chosen(makers, quantity)(), self.arguments)

    def closed_form(self, quantity: str) -> Expression:
        """A derivative in the centred form that `oracles.mixture` evaluates; the posterior's moments by Tweedie."""
        local, axes = Local(self), range(self.dimension)
        makers: dict[str, Callable[[], Any]] = {
            "score": lambda: sp.Array(list(local.score)),
            "score_jacobian": lambda: sp.Array(local.jacobian().tolist()),
            "score_divergence": lambda: local.jacobian().trace(),
            "third_order": lambda: array(
                [local.third(*n) for n in itertools.product(axes, repeat=3)], (self.dimension,) * 3
            ),
            "denoiser": lambda: sp.Array([self.x[i] + SIGMA**2 * local.score[i] for i in axes]),
            "posterior_covariance": lambda: sp.Array(
                (SIGMA**2 * (sp.eye(self.dimension) + SIGMA**2 * local.jacobian())).tolist()
            ),
        }
        return Expression(_chosen(makers, quantity)(), self.arguments)

    def _derivatives(self, order: int) -> sp.Array:
        """The array of order-fold derivatives of log p, each distinct one taken once."""
        derivatives: dict[tuple[int, ...], sp.Expr] = {(): sp.log(self.density())}
        for length in range(1, order + 1):
            for index in itertools.combinations_with_replacement(range(self.dimension), length):
                derivatives[index] = sp.diff(derivatives[index[:-1]], self.x[index[-1]])
        entries = [derivatives[tuple(sorted(n))] for n in itertools.product(range(self.dimension), repeat=order)]
        return sp.Array(entries, (self.dimension,) * order)


class Local:
    """γ_k, g_k, s, a_k and P_k = C_k⁻¹ of a symbolic mixture, and what is made of them."""

    def __init__(self, law: SymbolicMixture) -> None:
        self.law, self.components = law, range(law.size)
        self.inverses = [c.inv() for c in law.noised_covariances()]
        terms = [w * n for w, n in zip(law.weights, law.component_densities(), strict=True)]
        self.shares = [sp.Integer(1)] if law.size == 1 else [t / sp.Add(*terms) for t in terms]
        self.g = [-inverse * y for inverse, y in zip(self.inverses, law.offsets(), strict=True)]
        self.score = self.average(self.g)
        self.a = [g - self.score for g in self.g]

    def average(self, parts: list[Any]) -> Any:
        """Σ_k γ_k parts_k."""
        return sum((share * part for share, part in zip(self.shares, parts, strict=True)), start=0 * parts[0])

    def jacobian(self) -> sp.Matrix:
        """Σ_k γ_k [a_k a_kᵀ − P_k]."""
        return self.average([a * a.T - p for a, p in zip(self.a, self.inverses, strict=True)])

    def third(self, i: int, j: int, m: int) -> sp.Expr:
        """Σ_k γ_k [a_i a_j a_m − a_i P_jm − a_j P_im − a_m P_ij]."""
        return self.average(
            [
                a[i] * a[j] * a[m] - a[i] * p[j, m] - a[j] * p[i, m] - a[m] * p[i, j]
                for a, p in zip(self.a, self.inverses, strict=True)
            ]
        )

    def posterior_means(self) -> list[sp.Matrix]:
        """E[X | x, k] = μ_k + Σ_k P_k (x − μ_k)."""
        parts = zip(self.law.clean_covariances(), self.inverses, self.law.offsets(), strict=True)
        return [sp.Matrix(self.law.x) - y + c * p * y for c, p, y in parts]

    def posterior_mean(self) -> sp.Matrix:
        """E[X | x]."""
        return self.average(self.posterior_means())

    def posterior_covariance(self) -> sp.Matrix:
        """Cov[X | x]: within the components (σ² Σ_k P_k) and between them."""
        spreads = [m - self.posterior_mean() for m in self.posterior_means()]
        within = [SIGMA**2 * c * p for c, p in zip(self.law.clean_covariances(), self.inverses, strict=True)]
        return self.average([w + s * s.T for w, s in zip(within, spreads, strict=True)])


def rational_point(*laws: SymbolicMixture, seed: int = 0) -> dict[str, Any]:
    """Rational values of x, σ and the laws' parameters at which `vanishes` decides quickly and exactly.

    C_k = L Lᵀ with rational triangular L, so that √det is rational (Σ_k = L Lᵀ − σ² I need not be a covariance: no
    identity minds), and μ_k = x − L z with even integer z, so that the exponents are integers.
    """
    rng = np.random.default_rng(seed)
    d = laws[0].dimension

    def number() -> sp.Rational:
        return sp.Rational(int(rng.integers(1, 6)), int(rng.integers(1, 4)))

    sigma, x = number(), sp.Matrix([number() for _ in range(d)])
    values: dict[str, Any] = {"x": list(x), "sigma": sigma}
    for law in laws:
        roots = [_root(law, number) for _ in range(law.size)]
        shifts = [sp.Matrix([2 * int(rng.integers(-1, 2)) for _ in range(d)]) for _ in roots]
        prefix = f"{law.name}_" if law.name else ""
        values[prefix + "weights"] = [number() for _ in roots]
        values[prefix + "means"] = [list(x - root * z) for root, z in zip(roots, shifts, strict=True)]
        values[prefix + "covariances"] = [_packed(r * r.T - sigma**2 * sp.eye(d), law.kind) for r in roots]
    return values


def dense(symbols: Any, kind: str, dimension: int) -> sp.Matrix:
    """One covariance as a matrix."""
    if kind == "full":
        return sp.Matrix(dimension, dimension, sp.flatten(symbols))
    return sp.diag(*sp.flatten(symbols)) if kind == "diagonal" else symbols * sp.eye(dimension)


def _root(law: SymbolicMixture, number: Callable[[], sp.Rational]) -> sp.Matrix:
    d = law.dimension
    if law.kind == "isotropic":
        return number() * sp.eye(d)
    return sp.Matrix(d, d, lambda i, j: number() if i == j or (i > j and law.kind == "full") else 0)


def _packed(matrix: sp.Matrix, kind: str) -> Any:
    if kind == "full":
        return matrix.tolist()
    return [matrix[i, i] for i in range(matrix.rows)] if kind == "diagonal" else matrix[0, 0]


def _covariance_symbols(letter: str, components: range, axes: range, kind: str) -> sp.Array:
    def symbol(k: int, *indices: int) -> sp.Symbol:
        return sp.Symbol(f"{letter}_{k}" + "".join(str(i) for i in sorted(indices)), real=True)

    if kind == "isotropic":
        return sp.Array([symbol(k) for k in components])
    if kind == "diagonal":
        return sp.Array([[symbol(k, i) for i in axes] for k in components])
    return sp.Array([[[symbol(k, i, j) for j in axes] for i in axes] for k in components])


def _chosen(makers: dict[str, Callable[[], Any]], quantity: str) -> Callable[[], Any]:
    if quantity not in makers:
        raise ValueError(f"quantity = {quantity!r} must be one of {', '.join(makers)}")
    return makers[quantity]
