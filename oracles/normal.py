"""Closed forms at a block of states: derivatives of the score, posteriors, draws, the distribution function.

The symbols are those of `oracles.mixture`; `Local` carries γ_k, g_k and s at the states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from oracles import _arrays
from oracles._arrays import Array, namespace

if TYPE_CHECKING:
    from oracles.covariance import Covariances, Spectrum
    from oracles.mixture import GaussianMixture, Group, Local

# Halvings of the bracket of a quantile; then two Newton steps make it exact to rounding and differentiable.
HALVINGS = 80


def jacobian(at: Local) -> Array:
    """∇s = Σ_k γ_k [a_k a_kᵀ − C_k⁻¹], shape (n, d, d)."""
    return _total(_second_moment(w, a) - c.average(w, c.inverse()) for c, w, a in at)


def jacobian_product(at: Local, v: Array) -> Array:
    """Σ_k γ_k [a_k (a_k·v) − C_k⁻¹ v], shape (n, d)."""
    return _total(_weighted(w, a * _dot(a, v[None, ...])[..., None] - _solved(c, v)) for c, w, a in at)


def divergence(at: Local) -> Array:
    """Σ_k γ_k [|a_k|² − tr C_k⁻¹], shape (n,)."""
    return _total(namespace(a).sum(w * (_dot(a, a) - c.trace(c.inverse())[:, None]), axis=0) for c, w, a in at)


def third_order(at: Local, u: Array, v: Array) -> Array:
    """D²s[u, v], shape (n, d)."""
    return _total(_weighted(w, _third_order(c, a, u[None, ...], v[None, ...])) for c, w, a in at)


def _third_order(c: Covariances, a: Array, u: Array, v: Array) -> Array:
    solved_u, solved_v = _solved(c, u[0, ...]), _solved(c, v[0, ...])
    along_u, along_v = _dot(a, u)[..., None], _dot(a, v)[..., None]
    return along_u * along_v * a - along_u * solved_v - along_v * solved_u - _dot(solved_u, v)[..., None] * a


def posterior_mean(law: GaussianMixture, x: Array, sigma: Array, at: Local) -> Array:
    """Σ_k γ_k m_k with m_k = μ_k + Σ_k C_k⁻¹ (x − μ_k), which does not cancel at large σ."""
    return _total(_weighted(w, m) for w, m in zip(at.responsibilities, _means(law, x, sigma), strict=True))


def posterior(law: GaussianMixture, x: Array, sigma: Array, at: Local) -> tuple[Array, Array]:
    """The posterior mean D and the covariance Σ_k γ_k [(m_k − D)(m_k − D)ᵀ + σ² Σ_k C_k⁻¹]."""
    means = _means(law, x, sigma)
    mean = _total(_weighted(w, m) for w, m in zip(at.responsibilities, means, strict=True))
    spread = (
        _second_moment(w, m - mean[None, ...]) + g.covariances.average(w, _shrunk(g, sigma, sigma * sigma))
        for g, w, m in zip(law.groups, at.responsibilities, means, strict=True)
    )
    return mean, _total(spread)


def _means(law: GaussianMixture, x: Array, sigma: Array) -> list[Array]:
    """The component posterior means m_k, shape (K, n, d), of every group."""
    offsets = [x[None, :, :] - group.means[:, None, :] for group in law.groups]
    pairs = zip(law.groups, offsets, strict=True)
    return [g.means[:, None, :] + g.covariances.apply(_shrunk(g, sigma), delta) for g, delta in pairs]


def _shrunk(group: Group, sigma: Array, factor: Any = 1.0) -> Spectrum:
    """The eigenvalues of Σ C⁻¹ times a factor."""
    return tuple(factor * part / (part + sigma * sigma) for part in group.covariances.spectrum)


def sample(law: GaussianMixture, n: int, rng: np.random.Generator) -> Array:
    """n draws (n, d): the number of each component is multinomial, so a permutation makes them independent."""
    weights = _arrays.concrete(law.weights, "sampling").astype(np.float64)
    counts = rng.multinomial(n, weights / weights.sum())
    starts = np.cumsum([0, *(group.covariances.size for group in law.groups)])
    draws = [_draw(g, counts[a:b], rng) for g, a, b in zip(law.groups, starts[:-1], starts[1:], strict=True)]
    return _arrays.from_numpy(rng.permutation(np.concatenate(draws)), law.groups[0].means)


def _draw(group: Group, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """counts[k] draws of component k, in the order of the components."""
    means = _arrays.concrete(group.means, "sampling").astype(np.float64)
    noise = rng.standard_normal((int(counts.sum()), means.shape[1]))
    return np.repeat(means, counts, axis=0) + group.covariances.coloured(noise, counts)


def cdf(law: GaussianMixture, x: Array) -> Array:
    """Σ_k w_k Φ((x − μ_k)/√C_k)."""
    return _mixed(law, _standardised(law, x))


def survival(law: GaussianMixture, x: Array) -> Array:
    """Σ_k w_k Φ((μ_k − x)/√C_k)."""
    return _mixed(law, -_standardised(law, x))


def _standardised(law: GaussianMixture, x: Array) -> Array:
    """(x − μ_k)/√C_k, shape (..., K)."""
    means, deviations = _line(law)
    return (x - means) / deviations


def _mixed(law: GaussianMixture, z: Array) -> Array:
    return namespace(z).sum(law.weights * _arrays.normal_cdf(z), axis=-1)


def _line(law: GaussianMixture) -> tuple[Array, Array]:
    """Means and standard deviations (K,) of a law on the line."""
    if law.dimension != 1:
        raise ValueError(f"cdf and quantile need a law of dimension 1; this one has dimension {law.dimension}")
    law.check_density()
    xp = namespace(law.means)
    return law.means[:, 0], xp.sqrt(law.covariances[:, 0, 0])


def quantile(law: GaussianMixture, u: Any, upper: bool) -> Array:
    """The root of F(x) = u, bracketed by the quantiles of the components."""
    means, deviations = _line(law)
    u = _arrays.check_states(u, law.means, None, "u")
    _check_levels(u)
    xp, fixed = namespace(u), _constant(law)
    z = _arrays.normal_quantile(_arrays.detached(u))[..., None]
    ends = _arrays.detached(means) + _arrays.detached(deviations) * (-z if upper else z)
    positive = _arrays.detached(law.weights) > 0
    infinite = xp.full_like(ends, float("inf"))
    low = xp.min(xp.where(positive, ends, infinite), axis=-1)
    high = xp.max(xp.where(positive, ends, -infinite), axis=-1)
    root = _bisected(fixed, _arrays.detached(u), low, high, upper)[..., None]
    return _newton(law, u, _newton(law, u, root, upper), upper)


def _bisected(law: GaussianMixture, u: Array, low: Array, high: Array, upper: bool) -> Array:
    xp = namespace(u)
    for _ in range(HALVINGS):
        middle = low + 0.5 * (high - low)
        below = survival(law, middle[..., None]) > u if upper else cdf(law, middle[..., None]) < u
        low, high = xp.where(below, middle, low), xp.where(below, high, middle)
    return low + 0.5 * (high - low)


def _newton(law: GaussianMixture, u: Array, x: Array, upper: bool) -> Array:
    """One Newton step; two of them from a constant root carry exact derivatives up to the third."""
    excess = u - survival(law, x) if upper else cdf(law, x) - u
    return x - (excess * namespace(x).exp(-law.log_density(x)))[..., None]


def _check_levels(u: Array) -> None:
    known = _arrays.values(u)
    if known is not None and not np.all((known > 0) & (known < 1)):
        raise ValueError("u must lie strictly between 0 and 1; levels 0 and 1 are at infinity")


def _constant(law: GaussianMixture) -> GaussianMixture:
    """The law with parameters that automatic differentiation does not see."""
    return law.from_groups(tuple(group.constant() for group in law.groups))


def _solved(c: Covariances, v: Array) -> Array:
    """C_k⁻¹ v for vectors (n, d) common to the components, shape (K, n, d)."""
    xp = namespace(v)
    return c.apply(c.inverse(), xp.broadcast_to(v[None, :, :], (c.size, *v.shape)))


def _dot(a: Array, b: Array) -> Array:
    return namespace(a).sum(a * b, axis=-1)


def _weighted(weights: Array, vectors: Array) -> Array:
    """Σ_k w_k v_k over (K, n) and (K, n, d)."""
    return namespace(weights).sum(weights[:, :, None] * vectors, axis=0)


def _second_moment(weights: Array, vectors: Array) -> Array:
    """Σ_k w_k v_k v_kᵀ, shape (n, d, d)."""
    xp = namespace(weights)
    rows = xp.permute_dims(vectors, (1, 0, 2))
    return xp.matmul(xp.permute_dims(weights[:, :, None] * vectors, (1, 2, 0)), rows)


def _total(parts: Any) -> Array:
    first, *others = parts
    return sum(others, start=first)
