"""Transport on the line in arbitrary precision: distribution functions inverted, no solver (see `oracles.reference`).

A law here is a function `(x, sigma) -> (p, F, 1 − F)` of mpf at the present working precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np

from oracles.reference._certify import Array, differences, exact

LineFunction = Callable[[Any, Any], tuple[Any, Any, Any]]


def normals(weights: Any, means: Any, variances: Any) -> LineFunction:
    """Σ_k w_k N(m_k, v_k), weights summing to one."""

    def law(x: Any, sigma: Any) -> tuple[Any, Any, Any]:
        w, m, v = (exact(a) for a in (weights, means, variances))
        scales = [mpmath.sqrt(value + sigma**2) for value in v]
        z = [(x - mean) / scale for mean, scale in zip(m, scales, strict=True)]
        return (
            mpmath.fsum(a * mpmath.npdf(b) / c for a, b, c in zip(w, z, scales, strict=True)),
            mpmath.fdot(w, [_tail(-b) for b in z]),
            mpmath.fdot(w, [_tail(b) for b in z]),
        )

    return law


def uniform(low: Any, high: Any) -> LineFunction:
    """The uniform law on (low, high)."""

    def law(x: Any, sigma: Any) -> tuple[Any, Any, Any]:
        a, b = exact(low)[()], exact(high)[()]
        za, zb = (x - a) / sigma, (x - b) / sigma
        lower = sigma * (_hinge(za) - _hinge(zb)) / (b - a)
        upper = sigma * (_hinge(-zb) - _hinge(-za)) / (b - a)
        return (_tail(zb) - _tail(za)) / (b - a), lower, upper

    return law


def laplace(location: Any, scale: Any) -> LineFunction:
    """The Laplace law."""

    def law(x: Any, sigma: Any) -> tuple[Any, Any, Any]:
        b, y = exact(scale)[()], x - exact(location)[()]

        def part(t: Any) -> Any:
            return mpmath.exp(sigma**2 / (2 * b**2) - t / b) * _tail(sigma / b - t / sigma)

        ahead, behind = part(y), part(-y)
        lower = _tail(-y / sigma) + (behind - ahead) / 2
        return (ahead + behind) / (2 * b), lower, _tail(y / sigma) - (behind - ahead) / 2

    return law


def transport(
    base: LineFunction,
    toward: LineFunction,
    latent: Any,
    sigma_max: Any,
    sigma_min: Any,
    eta: Any = 0,
    digits: int = 30,
) -> Any:
    """x_η(σ_min) from x(σ_max) = `latent`: F^η(x; σ_min) = F^η(latent; σ_max), to `digits` digits."""
    return _moved(base, toward, latent, sigma_max, sigma_min, eta, digits)[0]


def transport_sensitivity(
    base: LineFunction, toward: LineFunction, latent: Any, sigma_max: Any, sigma_min: Any, digits: int = 18
) -> dict[str, Any]:
    """`samples`, `first`, `second` derivatives in η at 0 by differences of `transport`, with error bars."""
    return differences(
        lambda eta, working: _moved(base, toward, latent, sigma_max, sigma_min, eta, working), digits, digits
    )


def _moved(
    base: LineFunction, toward: LineFunction, latent: Any, sigma_max: Any, sigma_min: Any, eta: Any, digits: int
) -> Array:
    with mpmath.workdps(3 * digits + 40):
        z, high, low, share = (exact(a)[()] for a in (latent, sigma_max, sigma_min, eta))
        target = _mixed(base, toward, share, z, high)
        side = 1 if target[1] < target[2] else 2

        def function(x: Any) -> tuple[Any, Any]:
            values = _mixed(base, toward, share, x, low)
            # Of the two tails the smaller one, which does not round to 1; the sign makes both rise with x.
            return (values[side] - target[side]) * (3 - 2 * side), values[0]

        return np.array([_root(function, z * low / high, digits)], dtype=object)


def _mixed(base: LineFunction, toward: LineFunction, eta: Any, x: Any, sigma: Any) -> list[Any]:
    first, second = base(x, sigma), toward(x, sigma)
    return [(1 - eta) * a + eta * b for a, b in zip(first, second, strict=True)]


def _root(function: Callable[[Any], tuple[Any, Any]], start: Any, digits: int) -> Any:
    """Zero of an increasing function given with its slope: bisection to a hundredth of the scale, then Newton."""
    low, high, width = start - 1, start + 1, mpmath.mpf(1)
    while function(low)[0] > 0:
        low, width = low - width, 2 * width
    while function(high)[0] < 0:
        high, width = high + width, 2 * width
    x, tolerance = (low + high) / 2, mpmath.mpf(10) ** -(digits + 5)
    for _ in range(40 * digits):
        value, slope = function(x)
        low, high = (x, high) if value < 0 else (low, x)
        newton = x - value / slope if slope else low
        following = newton if low < newton < high else (low + high) / 2
        if abs(following - x) <= tolerance * (1 + abs(x)):
            return following
        x = following
    raise ArithmeticError("a quantile did not converge: the distribution function is not increasing")


def _tail(z: Any) -> Any:
    """1 − Φ(z)."""
    return mpmath.erfc(z / mpmath.sqrt(2)) / 2


def _hinge(z: Any) -> Any:
    return z * _tail(-z) + mpmath.npdf(z)
