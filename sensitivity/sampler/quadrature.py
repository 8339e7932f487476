"""Weights that integrate a log density along neighbouring nodes of a path.

Along any smooth path x(σ), with y = x/σ, ω = 1/σ, q = σ² div s, g = σ s and the denoiser D = x + σ² s,

    dL = q d(log σ) + g·(dy − D dω),

where L = log p_σ(x(σ)). The last bracket vanishes on the exact flow; along a computed path it is the path's own
departure from the flow, or another law's drift. Between two nodes, with all functions replaced by the polynomials
through a *window* of neighbouring nodes in a variable t,

    L_b − L_a = Σ_i W_i q_i + Σ_il N_il g_i·e_l,     e_l = y_{l+1} − y_l − Σ_p V_lp D_p,

    W_i = ∫ ℓ_i d(log σ),   V_lp = ∫_l ℓ_p dω,   N_il = ∫ ℓ_i dΦ_l,   Φ_l = Σ_{i>l} ℓ_i,

with ℓ_i the Lagrange polynomials of the window: fourth order in the step for a window of four, whatever the sampler.
The variables t are log σ, σ and σ²: above the smallest scale of the data the functions are smooth in log σ, below it in
σ². To keep float32 safe, e_l is not formed from y and D but from small differences,

    c_l = y_{l+1} − y_l − D_{l+1} (ω_{l+1} − ω_l) = [x_{l+1} − x_l − σ_{l+1}(σ_l − σ_{l+1}) s_{l+1}]/σ_l,
    e_l = c_l − Σ_m U_lm (D_{m+1} − D_m),

so that an increment is a linear form in q_i, g_i·c_l and g_i·(D_{m+1} − D_m).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Levels = tuple[float, ...]

VARIABLES: tuple[Callable[[Array], Array], ...] = (np.log, lambda s: s, np.square)
"""log σ, σ and σ², as functions of σ."""

# Polynomials of degree 3 in σ² against d(log σ) are resolved to rounding over steps that divide σ by up to about 100.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)


class Form(NamedTuple):
    """Coefficients of an increment in q_i, (n,); in g_i·c_l, (n, n−1); in g_i·(D_{m+1} − D_m), (n, n−1)."""

    rates: Array
    defects: Array
    denoiser_steps: Array


@lru_cache(maxsize=65536)
def form(levels: Levels, interval: int, variable: int, first: int, last: int, known: int) -> Form:
    """The increment over one interval of a window.

    Args:
        levels: σ_0, …, σ_{n−1} of the window.
        interval: l, from σ_l to σ_{l+1}.
        variable: which of `VARIABLES`.
        first, last: the nodes first, …, last take part; the others get weight 0.
        known: of these the first ones up to number `known` (exclusive) know their q; beyond them it is extrapolated.
    """
    to = VARIABLES[variable]
    values = np.array(levels)
    chosen = np.arange(first, last + 1)
    t = to(values[chosen])
    rates = np.zeros(len(levels))
    rates[first:known] = log_weights(levels[first:known], levels[interval], levels[interval + 1], variable)
    defects, denoiser_steps = np.zeros((2, len(levels), len(levels) - 1))
    products = _products(t, interval - first)
    defects[first : last + 1, first:last] = products
    denoiser_steps[first : last + 1, first:last] = -products @ _references(values[chosen], to, t)
    return Form(rates, defects, denoiser_steps)


def _factors(t: Array, at: Array) -> tuple[Array, Array]:
    """(at − t_j)/(t_i − t_j), (n, n, points), with ones for i = j, and t_i − t_j likewise."""
    gaps = t[:, None] - t[None, :] + np.eye(len(t))
    factors = (at[None, None, :] - t[None, :, None]) / gaps[:, :, None]
    factors[np.arange(len(t)), np.arange(len(t))] = 1.0
    return factors, gaps


def _lagrange(t: Array, at: Array) -> Array:
    """ℓ_i(at), (n, points)."""
    return np.multiply.reduce(_factors(t, at)[0], axis=1)


def _slopes(t: Array, at: Array) -> Array:
    """dℓ_i/dt, (n, points)."""
    factors, gaps = _factors(t, at)
    own = np.arange(len(t))
    without = np.repeat(factors[:, None], len(t), axis=1)  # (i, k, j, points): the factor k is left out
    without[:, own, own] = 1.0
    terms = np.multiply.reduce(without, axis=2) / gaps[:, :, None]
    terms[own, own] = 0.0
    return np.add.reduce(terms, axis=1)


def _points(start: float, end: float) -> tuple[Array, Array]:
    """Nodes of the Gauss rule in log σ between two levels, and their weights."""
    low, high = np.log(start), np.log(end)
    return (high - low) / 2 * _NODES + (high + low) / 2, (high - low) / 2 * _WEIGHTS


@lru_cache(maxsize=65536)
def log_weights(levels: Levels, start: float, end: float, variable: int) -> Array:
    """W_i = ∫ ℓ_i d(log σ) between two levels, for the nodes at `levels`."""
    to = VARIABLES[variable]
    u, weights = _points(start, end)
    return _lagrange(to(np.array(levels)), to(np.exp(u))) @ weights


@lru_cache(maxsize=65536)
def inverse_weights(levels: Levels, start: float, end: float, variable: int) -> Array:
    """∫ ℓ_i dω, ω = 1/σ, between two levels, for the nodes at `levels`."""
    to = VARIABLES[variable]
    return _shares(to(np.array(levels)), to, start, end)


def _shares(t: Array, to: Callable[[Array], Array], start: float, end: float) -> Array:
    u, weights = _points(start, end)
    return _lagrange(t, to(np.exp(u))) @ (-weights * np.exp(-u))


def _products(t: Array, interval: int) -> Array:
    """N_il, (n, n−1); the Gauss rule is exact for polynomials."""
    half = (t[interval + 1] - t[interval]) / 2
    at = half * _NODES + (t[interval + 1] + t[interval]) / 2
    # A path is known by its steps x_{m+1} − x_m, not by its places: Σ_i ℓ̇_i x_i = Σ_m (Σ_{i>m} ℓ̇_i)(x_{m+1} − x_m),
    # as Σ_i ℓ̇_i = 0; the suffix sums keep small steps from being formed out of large coordinates.
    steps = np.cumsum(_slopes(t, at)[::-1], 0)[::-1][1:]
    return (_lagrange(t, at) * _WEIGHTS * half) @ steps.T


def _references(values: Array, to: Callable[[Array], Array], t: Array) -> Array:
    """U_lm, (n−1, n−1)."""
    count = len(values)
    shares = np.stack([_shares(t, to, start, end) for start, end in pairwise(values)])
    below = np.cumsum(shares, 1)[:, :-1]  # the shares of nodes 0 … m
    above = np.cumsum(shares[:, ::-1], 1)[:, ::-1][:, 1:]
    return np.where(np.triu(np.ones((count - 1, count - 1), bool), 1), above, -below)
