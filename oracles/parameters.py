"""Derivatives of the score in the parameters of a mixture: weights, means and covariances, jointly, to second order.

The law moves along `w_k + η ẇ_k`, `μ_k + η μ̇_k`, `Σ_k + η Σ̇_k`. With `P = C_k⁻¹`, g_k, γ_k, a_k = g_k − s as in
`oracles.mixture`, and `e_k = N(x; μ_k, C_k)/p` (so that γ_k = w_k e_k, also where w_k = 0):

    ġ = P μ̇ − P Σ̇ g                 l̇ = −g·μ̇ + ½ gᵀΣ̇g − ½ tr PΣ̇                   (of log N(x; μ_k, C_k))
    g̈ = −2 P Σ̇ ġ                    l̈ = −ġ·μ̇ + gᵀΣ̇ġ + ½ tr PΣ̇PΣ̇
    A = ẇ e + γ l̇                    B = 2 ẇ e l̇ + γ (l̇² + l̈)                        (of w_k N(x; μ_k, C_k), over p)
    ṡ = Σ_k [A a + γ ġ]              s̈ = Σ_k [B a + 2 A ġ + γ g̈] − 2 (Σ_k A) ṡ

Only solves with C_k occur: no derivative of an eigenvector, hence nothing special at repeated eigenvalues.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from oracles import _arrays
from oracles._arrays import Array, eye, namespace
from oracles._mixture import covariance
from oracles._mixture.local import Group, Local, Piece, dot, jacobian_product, ready, total, weighted
from oracles._mixture.whitening import Whitening
from oracles.mixture import GaussianMixture, check_weights
from oracles.perturbation import Perturbation


@dataclass(frozen=True)
class Rates:
    """ẇ (K,), μ̇ (K, d) and Σ̇ as (K,) multiples of the identity, (K, d) diagonals or (K, d, d); None is zero."""

    weights: Any
    means: Any
    covariances: Any

    def rows(self, chosen: slice) -> Rates:
        """The rates of some of the components."""
        return Rates(*(None if a is None else a[chosen, ...] for a in (self.weights, self.means, self.covariances)))


class ParameterPerturbation(Perturbation):
    """The path of laws with parameters `w + η ẇ, μ + η μ̇, Σ + η Σ̇`.

    Args:
        base: the law at η = 0.
        weights: ẇ, shape (K,), with sum zero; None for no change.
        means: μ̇, shape (K, d); for an empirical law, the displacements of its points.
        covariances: Σ̇, shape (K,) for multiples of the identity, (K, d) for diagonals, or (K, d, d), symmetric.

    Raises:
        ValueError, TypeError: for shapes, kinds or values that do not fit the base.

    Source: the chain rule, above; influence of a point's position: Scarvelis & Solomon, arXiv 2509.23092.

    Example:
        >>> law = GaussianMixture.isotropic([1.0], [[0.0]], 1.0)
        >>> path = ParameterPerturbation(law, means=[[1.0]])
        >>> path.score_derivative([0.3], sigma=1.0)  # of −(x − η)/2
        array([0.5])
    """

    def __init__(self, base: GaussianMixture, weights: Any = None, means: Any = None, covariances: Any = None):
        self.base = base
        rates = {"weights": weights, "means": means, "covariances": covariances}
        shapes = {"weights": base.weights.shape, "means": base.means.shape}
        given = {name: _rate(base, name, value, shapes.get(name)) for name, value in rates.items() if value is not None}
        if not given:
            raise ValueError("no rate is given; give at least one of weights, means and covariances")
        self.rates = Rates(given.get("weights"), given.get("means"), given.get("covariances"))

    def numpy(self) -> ParameterPerturbation:
        """The same path with parameters in NumPy float64."""
        rates = (self.rates.weights, self.rates.means, self.rates.covariances)
        return ParameterPerturbation(
            self.base.numpy(), *(None if rate is None else _arrays.concrete(rate, "numpy()") * 1.0 for rate in rates)
        )

    def at(self, eta: float) -> GaussianMixture:
        """The law at η, as far as its weights and covariances are those of a law."""
        groups = tuple(_moved(group, rates, eta) for group, rates in _by_group(self.base.groups, self.rates))
        law = GaussianMixture.from_groups(groups)
        check_weights(law.weights)
        return law

    def score_derivative(self, x: Any, sigma: Any, order: int = 1, eta: float = 0.0) -> Array:
        """∂ⁿ s^η(x)/∂ηⁿ at noise level σ for n = 1 or 2, shape (..., d)."""
        if order not in (1, 2):
            raise ValueError(f"order = {order!r} must be 1 or 2 for a change of parameters")
        law = self.at(eta).noised(sigma)
        return law.over_blocks(lambda states: _derivative(law.groups, self.rates, states, order), x)

    def score_derivative_product(self, x: Any, sigma: Any, v: Any) -> Array:
        """∇ṡ(x) v, first order in η at 0, shape (..., d); `v` has the shape of `x`.

        `Σ_k [A ((a·v) a − P v − ∇s v) + γ ((ġ·v) a + (a·v) ġ + P Σ̇ P v)]`.
        """
        law = self.base.noised(sigma)
        return law.over_blocks(lambda *states: _product(law.groups, self.rates, *states), x, v=v)


def _product(groups: tuple[Group, ...], rates: Rates, x: Array, v: Array) -> Array:
    at = _unweighted(groups, x)
    pushed = jacobian_product(at, v)

    def part(whitening: Whitening, rates: Rates, relative: Array, share: Array, g: Array) -> Array:
        t, along = _moving(whitening, rates, relative, share, g, at.score), v[None, :, :]
        solved = whitening.solve(namespace(v).broadcast_to(along, t.centred.shape))
        turned = weighted(t.rate, dot(t.centred, along)[:, :, None] * t.centred - solved - pushed[None, :, :])
        inner = dot(t.velocity, along)[:, :, None] * t.centred + dot(t.centred, along)[:, :, None] * t.velocity
        if rates.covariances is not None:
            inner = inner + whitening.solve(_times(rates.covariances, solved))
        return turned + weighted(t.share, inner)

    return total(part(*terms) for terms in _parts(rates, at))


def _derivative(groups: tuple[Group, ...], rates: Rates, x: Array, order: int) -> Array:
    """ṡ or s̈ at states (n, d)."""
    at = _unweighted(groups, x)
    terms = [_moving(*part, at.score) for part in _parts(rates, at)]
    first = total(weighted(t.rate, t.centred) + weighted(t.share, t.velocity) for t in terms)
    if order == 1:
        return first
    second = total(
        weighted(t.acceleration_rate, t.centred)
        + 2.0 * weighted(t.rate, t.velocity)
        + weighted(t.share, t.acceleration)
        for t in terms
    )
    # γ is a quotient, w_k N_k over their sum, whose second derivative has −2 (Σ A) ṡ beside the numerators' own.
    mass = total(namespace(x).sum(t.rate, axis=0) for t in terms)
    return second - 2.0 * mass[:, None] * first


@dataclass(frozen=True)
class _Moving:
    """γ, A, B (K, n) and a, ġ, g̈ (K, n, d) of a piece."""

    share: Array
    rate: Array
    acceleration_rate: Array
    centred: Array
    velocity: Array
    acceleration: Array


class _Unweighted(Local):
    """Local quantities whose terms are log N(x; μ_k, C_k), so that e_k is known where w_k = 0."""

    def __init__(self, pieces: tuple[Piece, ...], x: Array, weights: Array):
        super().__init__(pieces, x)
        self.densities = self.terms
        self.terms = self.terms + _arrays.safe_log(weights)[:, None]


def _unweighted(groups: tuple[Group, ...], x: Array) -> _Unweighted:
    ones = tuple(Group(namespace(g.weights).ones_like(g.weights), g.means, g.covariances) for g in groups)
    weights = _arrays.joined([group.weights for group in groups])
    return _Unweighted(ready(ones, x.shape[0]), x, weights)


def _parts(rates: Rates, at: _Unweighted) -> Iterator[tuple[Whitening, Rates, Array, Array, Array]]:
    """Per piece: its whitening and rates, e_k and γ_k (K, n), g_k (K, n, d)."""
    end = 0
    # e_k = N_k/p and not γ_k/w_k: the rate of a weight acts on components that have none yet.
    relative = namespace(at.x).exp(at.densities - at.log_density[None, :])
    for piece, shares, scores in at.component_scores():
        start, end = end, end + piece.covariances.size
        yield piece.whitening, rates.rows(slice(start, end)), relative[start:end, :], shares, scores


def _moving(whitening: Whitening, rates: Rates, relative: Array, share: Array, g: Array, score: Array) -> _Moving:
    xp = namespace(g)
    velocity, acceleration = xp.zeros_like(g), xp.zeros_like(g)
    rate, second_rate = xp.zeros_like(share), xp.zeros_like(share)  # l̇ and l̈
    if rates.means is not None:
        means = xp.broadcast_to(rates.means[:, None, :], g.shape)
        velocity = velocity + whitening.solve(means)
        rate = rate - dot(g, means)
    if rates.covariances is not None:
        stretched = _times(rates.covariances, g)
        # g = −P (x − μ): Ṗ = −P Σ̇ P gives ġ = P μ̇ − P Σ̇ g; and g̈ = −2 P Σ̇ ġ, both rates being constant.
        velocity = velocity - whitening.solve(stretched)
        acceleration = -2.0 * whitening.solve(_times(rates.covariances, velocity))
        # ½ gᵀΣ̇g is what the exponent gains, −½ tr PΣ̇ what the normalisation loses.
        first, second = _traces(whitening, rates.covariances, g.shape[-1])
        rate = rate + 0.5 * (dot(g, stretched) - first[:, None])
        second_rate = dot(stretched, velocity) + 0.5 * second[:, None]
    if rates.means is not None:
        second_rate = second_rate - dot(velocity, rates.means[:, None, :])
    # A = (ẇ_k + w_k l̇_k) N_k/p, the rate of the numerator of γ_k; its own rate has 2 ẇ l̇ + w (l̇² + l̈), since ẅ = 0.
    gained = 0.0 * share if rates.weights is None else rates.weights[:, None] * relative
    return _Moving(
        share=share,
        rate=gained + share * rate,
        acceleration_rate=2.0 * gained * rate + share * (rate * rate + second_rate),
        centred=g - score[None, :, :],
        velocity=velocity,
        acceleration=acceleration,
    )


def _times(covariances: Array, vectors: Array) -> Array:
    """Σ̇ v for vectors (K, n, d)."""
    if covariances.ndim == 3:
        return namespace(vectors).matmul(vectors, covariances)
    return (covariances[:, None, None] if covariances.ndim == 1 else covariances[:, None, :]) * vectors


def _traces(whitening: Whitening, covariances: Array, dimension: int) -> tuple[Array, Array]:
    """tr PΣ̇ and tr PΣ̇PΣ̇, shape (K,); d×d matrices are formed."""
    xp = namespace(covariances)
    shape = (int(covariances.shape[0]), dimension, dimension)
    columns = _times(covariances, xp.broadcast_to(eye(dimension, covariances)[None, :, :], shape))
    rows = whitening.solve(columns)  # Σ̇ P, row by row
    first = xp.sum(xp.linalg.diagonal(rows), axis=-1)
    return first, xp.sum(rows * xp.matrix_transpose(rows), axis=(-2, -1))


def _rate(base: GaussianMixture, name: str, value: Any, shape: tuple[int, ...] | None) -> Array:
    """A rate in the kind of the base, of the right shape, finite, and keeping the total mass or the symmetry."""
    rate = _arrays.check_states(value, base.means, None, f"{name} (rate)")
    size, dimension = base.size, base.dimension
    shapes = [shape] if shape else [(size,), (size, dimension), (size, dimension, dimension)]
    if tuple(rate.shape) not in [tuple(s) for s in shapes]:
        words = " or ".join(str(tuple(s)) for s in shapes)
        raise ValueError(f"the rate of {name} has shape {tuple(rate.shape)}; it must be {words}")
    _arrays.check_finite(rate, f"the rate of {name}")
    if name == "weights":
        _check_balanced(rate)
    if rate.ndim == 3:
        covariance.check_symmetric(rate, "the rate of covariances")
    return rate


def _check_balanced(rate: Array) -> None:
    known = _arrays.values(rate)
    if known is not None and abs(known.sum()) > 1e-6 * max(1.0, abs(known).max()):
        raise ValueError(f"the rates of weights sum to {known.sum()}, not to zero; subtract their mean or rescale them")


def _by_group(groups: tuple[Group, ...], rates: Rates) -> Iterator[tuple[Group, Rates]]:
    end = 0
    for group in groups:
        start, end = end, end + group.covariances.size
        yield group, rates.rows(slice(start, end))


def _moved(group: Group, rates: Rates, eta: float) -> Group:
    weights = group.weights if rates.weights is None else _shifted(group.weights, eta * rates.weights)
    means = group.means if rates.means is None else group.means + eta * rates.means
    if rates.covariances is None:
        return Group(weights, means, group.covariances)
    return Group(weights, means, _stretched(group.covariances, rates.covariances, eta))


def _shifted(weights: Array, change: Array) -> Array:
    """w + c, where what rounding leaves of a weight that is taken away is zero."""
    xp = namespace(weights)
    moved = weights + change
    rounding = 8 * xp.finfo(weights.dtype).eps * xp.abs(weights)
    return xp.where(xp.abs(moved) <= rounding, xp.zeros_like(moved), moved)


def _stretched(covariances: covariance.Covariances, rate: Array, eta: float) -> covariance.Covariances:
    """Σ + η Σ̇; multiples of the identity move the eigenvalues, anything else is factorised anew."""
    if eta == 0:
        return covariances
    if rate.ndim == 1:
        moved = covariances.replaced(tuple(part + eta * rate[:, None] for part in covariances.spectrum))
        covariance.check_variances(_arrays.joined_columns(list(moved.spectrum)), "covariances")
        return moved
    dense = rate if rate.ndim == 3 else rate[:, :, None] * eye(covariances.dimension, rate)
    return covariance.full(covariances.matrices() + eta * dense)
