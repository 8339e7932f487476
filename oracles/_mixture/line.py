"""Distribution function and quantile of a mixture on the line: `F(x) = Σ_k w_k Φ((x − μ_k)/√C_k)`."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from oracles import _arrays
from oracles._arrays import Array, namespace

# Halvings of the bracket of a quantile; then two Newton steps make it exact to rounding and differentiable.
HALVINGS = 80


class LineLaw(Protocol):
    """What is asked of a mixture on the line."""

    @property
    def weights(self) -> Array: ...

    @property
    def means(self) -> Array: ...

    @property
    def covariances(self) -> Array: ...

    @property
    def dimension(self) -> int: ...

    def check_density(self) -> None: ...

    def log_density(self, x: Array) -> Array: ...

    def constant(self) -> LineLaw: ...


def cdf(law: LineLaw, x: Array) -> Array:
    """F(x), shape (...) for x (..., 1)."""
    return _mixed(law, _standardised(law, x))


def survival(law: LineLaw, x: Array) -> Array:
    """1 − F(x) = Σ_k w_k Φ((μ_k − x)/√C_k)."""
    return _mixed(law, -_standardised(law, x))


def _standardised(law: LineLaw, x: Array) -> Array:
    """(x − μ_k)/√C_k, shape (..., K)."""
    means, deviations = _parameters(law)
    return (x - means) / deviations


def _mixed(law: LineLaw, z: Array) -> Array:
    return namespace(z).sum(law.weights * _arrays.normal_cdf(z), axis=-1)


def _parameters(law: LineLaw) -> tuple[Array, Array]:
    """Means and standard deviations (K,) of a law on the line."""
    if law.dimension != 1:
        raise ValueError(f"cdf and quantile need a law of dimension 1; this one has dimension {law.dimension}")
    law.check_density()
    return law.means[:, 0], namespace(law.means).sqrt(law.covariances[:, 0, 0])


def quantile(law: LineLaw, u: Any, upper: bool) -> Array:
    """The root of F(x) = u (of 1 − F(x) = u when `upper`), bracketed by the quantiles of the components."""
    _parameters(law)
    u = _arrays.check_states(u, law.means, None, "u")
    _check_levels(u)
    fixed, levels = law.constant(), _arrays.detached(u)
    root = _bisected(fixed, levels, upper)[..., None]
    return _newton(law, u, _newton(law, u, root, upper), upper)


def _bracket(law: LineLaw, u: Array, upper: bool) -> tuple[Array, Array]:
    """The smallest and largest quantile of the components that have weight."""
    xp, (means, deviations) = namespace(u), _parameters(law)
    z = _arrays.normal_quantile(u)[..., None]
    ends = means + deviations * (-z if upper else z)
    # F is a mean of the components' own: at most u below all of their quantiles, at least u above all of them.
    possible, infinite = xp.broadcast_to(law.weights > 0, ends.shape), xp.full_like(ends, float("inf"))
    low, high = xp.where(possible, ends, infinite), xp.where(possible, ends, -infinite)
    return xp.min(low, axis=-1), xp.max(high, axis=-1)


def _bisected(law: LineLaw, u: Array, upper: bool) -> Array:
    # Not Newton from the start: between separated modes the density is nearly zero and a step would leave them.
    xp, (low, high) = namespace(u), _bracket(law, u, upper)
    for _ in range(HALVINGS):
        middle = low + 0.5 * (high - low)
        below = survival(law, middle[..., None]) > u if upper else cdf(law, middle[..., None]) < u
        low, high = xp.where(below, middle, low), xp.where(below, high, middle)
    return low + 0.5 * (high - low)


def _newton(law: LineLaw, u: Array, x: Array, upper: bool) -> Array:
    """One Newton step; two of them from a constant root carry exact derivatives up to the third."""
    excess = u - survival(law, x) if upper else cdf(law, x) - u
    # The root is a constant to derivatives; the step x − (F − u)/p has the derivative of the quantile in u and in the
    # law's parameters, exactly where F = u.
    return x - (excess * namespace(x).exp(-law.log_density(x)))[..., None]


def _check_levels(u: Array) -> None:
    known = _arrays.values(u)
    if known is not None and not np.all((known > 0) & (known < 1)):
        raise ValueError("u must lie strictly between 0 and 1; levels 0 and 1 are at infinity")
