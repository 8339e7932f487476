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

How far ∫ q d(log σ) is off is known for Gaussian data, whatever their scales λ: there −q is a positive combination of
σ²/(σ² + λ), λ ≥ 0. In a variable w that is a Möbius map of σ² without a pole, such a function has its own pole outside
the levels, so that its divided differences have one sign for all λ, and the error of the polynomial rule in w,

    ∫ q d(log σ) − Σ_i W_i q_i = ∫ q[w_0, …, w_n, w] Π_i (w − w_i) d(log σ),

is at most κ |q[w_0, …, w_n]| with κ = max_λ ∫ |Π_i (w − w_i)|/|w_λ − w| d(log σ), w_λ the pole: an a posteriori bound
(divided differences of Stieltjes functions; e.g. Baker & Graves-Morris 1996, Padé approximants, ch. 5). Such a rule
with its bound is a *reference*. Its variables are σ², σ⁻² and (σ² − c)/(σ² + c), the last for an even number of nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Levels = tuple[float, ...]

VARIABLES: tuple[Callable[[Array], Array], ...] = (np.log, lambda s: s, np.square)
"""log σ, σ and σ², as functions of σ; where all are taken, they are the first axis."""

# Polynomials of degree 3 in σ² against d(log σ) are resolved to rounding over steps that divide σ by up to about 100.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)


class Reference(NamedTuple):
    """A rule for ∫ q d(log σ), (n,), and what to multiply q_i by, (n,), for the bound of its error."""

    rates: Array
    bound: Array


class Form(NamedTuple):
    """Coefficients of an increment, for each of the V variables: in q_i, (V, n); in g_i·c_l and in
    g_i·(D_{m+1} − D_m), (V, n, n−1).
    """

    rates: Array
    defects: Array
    denoiser_steps: Array


@lru_cache(maxsize=65536)
def form(levels: Levels, interval: int, first: int, last: int, known: int) -> Form:
    """The increment over one interval of a window.

    Args:
        levels: σ_0, …, σ_{n−1} of the window.
        interval: l, from σ_l to σ_{l+1}.
        first, last: the nodes first, …, last take part; the others get weight 0.
        known: of these the first ones up to number `known` (exclusive) know their q; beyond them it is extrapolated.
    """
    count = len(VARIABLES)
    values = np.array(levels[first : last + 1])
    rates = np.zeros((count, len(levels)))
    rates[:, first:known] = log_weights(levels[first:known], levels[interval], levels[interval + 1])
    defects, denoiser_steps = np.zeros((2, count, len(levels), len(levels) - 1))
    products = _products(_variables(values), interval - first)
    defects[:, first : last + 1, first:last] = products
    denoiser_steps[:, first : last + 1, first:last] = -products @ _denoiser_shares(values)
    return Form(rates, defects, denoiser_steps)


def _variables(sigma: Array) -> Array:
    """All variables at levels, (V, n)."""
    return np.stack([to(sigma) for to in VARIABLES])


def _factors(t: Array, at: Array) -> tuple[Array, Array]:
    """(at − t_j)/(t_i − t_j), (…, n, n, points), with ones for i = j, and t_i − t_j likewise."""
    diagonal = np.arange(t.shape[-1])
    gaps = t[..., :, None] - t[..., None, :]
    gaps[..., diagonal, diagonal] = 1.0
    factors = (at[..., None, None, :] - t[..., None, :, None]) / gaps[..., None]
    factors[..., diagonal, diagonal, :] = 1.0
    return factors, gaps


def _lagrange(t: Array, at: Array) -> Array:
    """ℓ_i(at), (…, n, points)."""
    return np.multiply.reduce(_factors(t, at)[0], axis=-2)


def _slopes(factors: Array, gaps: Array) -> Array:
    """dℓ_i/dt, (…, n, points)."""
    diagonal = np.arange(gaps.shape[-1])
    # (…, i, k, j, points): the factor k is left out
    without = np.repeat(factors[..., None, :, :], len(diagonal), axis=-3)
    without[..., diagonal, diagonal, :] = 1.0
    terms = np.multiply.reduce(without, axis=-2) / gaps[..., None]
    terms[..., diagonal, diagonal, :] = 0.0
    return np.add.reduce(terms, axis=-2)


def _points(start: Any, end: Any) -> tuple[Array, Array]:
    """Levels at the nodes of the Gauss rule in log σ between two levels, (…, points), and the weights."""
    # From the ratio of the levels, whose logarithm is small: where weights are in the thousands its rounding shows.
    half = np.log(np.divide(end, start))[..., None] / 2
    return np.asarray(start)[..., None] * np.exp(half * (1 + _NODES)), half * _WEIGHTS


@lru_cache(maxsize=65536)
def log_weights(levels: Levels, start: float, end: float) -> Array:
    """W_i = ∫ ℓ_i d(log σ) between two levels, for the nodes at `levels`, (V, n)."""
    sigma, weights = _points(start, end)
    return _lagrange(_variables(np.array(levels)), _variables(sigma)) @ weights


@lru_cache(maxsize=65536)
def inverse_weights(levels: Levels, start: float, end: float) -> Array:
    """∫ ℓ_i dω, ω = 1/σ, between two levels, for the nodes at `levels`, (V, n)."""
    return _shares(np.array(levels), np.array([start]), np.array([end]))[..., 0]


@lru_cache(maxsize=65536)
def references(levels: Levels, start: float, end: float) -> tuple[Reference, ...]:
    """References on all `levels` for the increment between two of them."""
    most, least, middle = max(levels) ** 2, min(levels) ** 2, start * end

    def centred(v: Array) -> Array:
        return (v - middle) / (v + middle)

    values = [
        _reference(levels, start, end, lambda v: v / most, (0.0, np.inf)),
        _reference(levels, start, end, lambda v: -least / v, (-np.inf, 0.0)),
    ]
    return (*values, *([_reference(levels, start, end, centred, (-1.0, 1.0))] if len(levels) % 2 == 0 else []))


def _reference(
    levels: Levels, start: float, end: float, to: Callable[[Array], Array], poles: tuple[float, float]
) -> Reference:
    """The rule in a variable `to`(σ²) whose poles for λ from 0 to ∞ lie outside the interval `poles`."""
    sigma, weights = _points(start, end)
    w, at = to(np.square(np.array(levels))), to(np.square(sigma))
    product = np.abs(at[None, :] - w[:, None]).prod(0)
    # 1/|w_λ − w| grows as the pole comes near: the largest κ belongs to the ends of where it can lie.
    nearest = [np.abs(at - pole) for pole in poles if np.isfinite(pole)]
    bound = max(product / gap @ np.abs(weights) for gap in nearest)
    divided = 1 / (w[:, None] - w[None, :] + np.eye(len(w))).prod(1)
    return Reference(_lagrange(w, at) @ weights, bound * divided)


def _shares(values: Array, starts: Array, ends: Array) -> Array:
    """∫ ℓ_i dω over intervals, (V, n, intervals)."""
    sigma, weights = _points(starts, ends)
    polynomials = _lagrange(_variables(values), _variables(sigma.reshape(-1)))
    return np.einsum("vilp,lp->vil", polynomials.reshape(*polynomials.shape[:-1], *sigma.shape), -weights / sigma)


def _products(t: Array, interval: int) -> Array:
    """N_il, (V, n, n−1); the Gauss rule is exact for polynomials."""
    low, high = t[:, interval, None], t[:, interval + 1, None]
    half = (high - low) / 2
    factors, gaps = _factors(t, half * _NODES + (high + low) / 2)
    # A path is known by its steps x_{m+1} − x_m, not by its places: Σ_i ℓ̇_i x_i = Σ_m (Σ_{i>m} ℓ̇_i)(x_{m+1} − x_m),
    # as Σ_i ℓ̇_i = 0; the suffix sums keep small steps from being formed out of large coordinates.
    steps = np.cumsum(_slopes(factors, gaps)[:, ::-1], 1)[:, ::-1][:, 1:]
    return (np.multiply.reduce(factors, axis=-2) * (_WEIGHTS * half)[:, None]) @ steps.mT


def _denoiser_shares(values: Array) -> Array:
    """U_lm, (V, n−1, n−1)."""
    shares = _shares(values, values[:-1], values[1:]).mT
    below = np.cumsum(shares, 2)[..., :-1]  # the shares of nodes 0 … m
    above = np.cumsum(shares[..., ::-1], 2)[..., ::-1][..., 1:]
    return np.where(np.triu(np.ones(shares.shape[-2:-1] * 2, bool), 1), above, -below)
