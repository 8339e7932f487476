"""Symbolic derivatives of the score in the data measure (see `oracles.symbolic`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from oracles.symbolic._expression import Arguments, Expression
from oracles.symbolic._symbols import ETA, Local, SymbolicMixture, dense, rational_point


class SymbolicContamination:
    """ρ_η = (1 − η) ρ + η ν of two symbolic mixtures in one R^d; ν must have been given a name.

    Raises:
        ValueError: for different dimensions, or names that clash.
    """

    def __init__(self, base: SymbolicMixture, toward: SymbolicMixture) -> None:
        if base.dimension != toward.dimension or not toward.name or toward.name == base.name:
            raise ValueError("base and toward must have one dimension, and toward a name of its own, such as 'toward'")
        self.base, self.toward = base, toward

    @property
    def arguments(self) -> Arguments:
        """The symbols of both laws, and eta."""
        return {**self.base.arguments, **self.toward.arguments, "eta": sp.Array(ETA)}

    def score(self) -> Expression:
        """s^η = ∇ log((1 − η) p + η ν)."""
        density = (1 - ETA) * self.base.density() + ETA * self.toward.density()
        return Expression(sp.derive_by_array(sp.log(density), self.base.x), self.arguments)

    def definition(self, order: int = 1) -> Expression:
        """∂ⁿ s^η/∂ηⁿ at η, by differentiation."""
        return Expression(sp.diff(self.score().value, ETA, order), self.arguments)

    def closed_form(self, order: int = 1) -> Expression:
        """`n! (1 − r)^{n−1} r / D^{n+1} (s^ν − s)`, `r = ν/p`, `D = 1 − η + ηr`."""
        ratio = self.toward.density() / self.base.density()
        gate = sp.factorial(order) * (1 - ratio) ** (order - 1) * ratio / (1 - ETA + ETA * ratio) ** (order + 1)
        return Expression(sp.Array(list(gate * (Local(self.toward).score - Local(self.base).score))), self.arguments)

    def rational_point(self, seed: int = 0) -> dict[str, Any]:
        """Rational values for `vanishes`, η = 1/5 among them."""
        return {**rational_point(self.base, self.toward, seed=seed), "eta": sp.Rational(1, 5)}


class SymbolicPath:
    """Parameters that move: `w + η ẇ, μ + η μ̇, Σ + η Σ̇`; arguments `weights_rate`, `means_rate`, `covariances_rate`."""

    def __init__(self, base: SymbolicMixture) -> None:
        self.base = base
        self.weights, self.means, self.covariances = (
            getattr(base, name).applyfunc(lambda s: sp.Symbol(f"dot_{s.name}", real=True))
            for name in ("weights", "means", "covariances")
        )

    @property
    def arguments(self) -> Arguments:
        """The symbols of the law and of the rates."""
        rates = {"weights_rate": self.weights, "means_rate": self.means, "covariances_rate": self.covariances}
        return {**self.base.arguments, **rates}

    def definition(self, order: int = 1) -> Expression:
        """∂ⁿ s^η/∂ηⁿ at η = 0, by differentiation."""
        pairs = [(getattr(self.base, n), getattr(self, n)) for n in ("weights", "means", "covariances")]
        moved = {s: s + ETA * r for a, b in pairs for s, r in zip(sp.flatten(a), sp.flatten(b), strict=True)}
        score = sp.derive_by_array(sp.log(self.base.density().xreplace(moved)), self.base.x)
        return Expression(sp.diff(score, ETA, order).subs(ETA, 0), self.arguments)

    def closed_form(self, order: int = 1) -> Expression:
        """The form of `oracles.parameters`: Σ_k [A a + γ ġ], or Σ_k [B a + 2 A ġ + γ g̈] − 2 (Σ_k A) ṡ for order 2."""
        if order not in (1, 2):
            raise ValueError(f"order = {order!r} must be 1 or 2: higher orders have no closed form here")
        local, density = Local(self.base), self.base.density()
        first, second, mass = sp.zeros(self.base.dimension, 1), sp.zeros(self.base.dimension, 1), sp.Integer(0)
        for k, component in enumerate(self.base.component_densities()):
            e, share, a = component / density, self.base.weights[k] * component / density, local.a[k]
            velocity, rate, acceleration, rate_change = self._component(local, k)
            moved = self.weights[k] * e + share * rate
            accelerated = 2 * self.weights[k] * e * rate + share * (rate**2 + rate_change)
            first += moved * a + share * velocity
            second += accelerated * a + 2 * moved * velocity + share * acceleration
            mass += moved
        return Expression(sp.Array(list(first if order == 1 else second - 2 * mass * first)), self.arguments)

    def _component(self, local: Local, k: int) -> tuple[sp.Matrix, sp.Expr, sp.Matrix, sp.Expr]:
        """ġ, l̇, g̈, l̈ of component k, l its log density."""
        p, g, shift = local.inverses[k], local.g[k], sp.Matrix(self.means[k])
        spread = dense(self.covariances[k], self.base.kind, self.base.dimension)
        velocity = p * shift - p * spread * g
        rate = -(g.T * shift)[0] + (g.T * spread * g)[0] / 2 - (p * spread).trace() / 2
        change = -(velocity.T * shift)[0] + (g.T * spread * velocity)[0] + (p * spread * p * spread).trace() / 2
        return velocity, rate, -2 * p * spread * velocity, change

    def rational_point(self, seed: int = 0) -> dict[str, Any]:
        """Rational values for `vanishes`, rates included."""
        rng = np.random.default_rng([seed, 1])
        values = rational_point(self.base, seed=seed)
        for name, symbols in (("weights", self.weights), ("means", self.means), ("covariances", self.covariances)):
            numbers = {s: sp.Rational(int(rng.integers(-4, 5)), 3) for s in sp.flatten(symbols)}
            values[f"{name}_rate"] = symbols.applyfunc(lambda s, numbers=numbers: numbers[s])
        return values
