"""Closed forms at a block of states: responsibilities, component scores, and the derivatives made of them.

Symbols as in `oracles.mixture`: γ_k responsibilities, g_k component scores, s = Σ_k γ_k g_k, a_k = g_k − s.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from oracles import _arrays
from oracles._arrays import Array, dot, namespace, weighted
from oracles._mixture.covariance import Covariances
from oracles._mixture.whitening import Blocks, Whitening

# Components are cut into pieces of this many numbers (K·d), and pieces beyond a few are evaluated twice, not kept.
PIECE = 1 << 22
KEPT = 8


@dataclass(frozen=True)
class Group:
    """Components that share a covariance representation: weights (K,), means (K, d), factorised covariances."""

    weights: Array
    means: Array
    covariances: Covariances

    def noised(self, sigma: Array, alpha: Array) -> Group:
        """The group of `α X + σ ε`."""
        return Group(self.weights, alpha * self.means, self.covariances.noised(sigma, alpha))

    def constant(self) -> Group:
        """The group with parameters that automatic differentiation does not see."""
        weights, means = _arrays.detached(self.weights), _arrays.detached(self.means)
        return Group(weights, means, self.covariances.constant())

    def numpy(self) -> Group:
        """The group with parameters in NumPy float64."""
        weights, means = (_arrays.concrete(array, "numpy()") for array in (self.weights, self.means))
        return Group(weights.astype(np.float64), means.astype(np.float64), self.covariances.numpy())

    def rows(self, chosen: slice) -> Group:
        """Some of the components."""
        return Group(self.weights[chosen], self.means[chosen, :], self.covariances.rows(chosen))


@dataclass(frozen=True)
class Piece:
    """Components made ready for evaluation: log w_k − ½ log det 2πC_k, means, covariances, whitening."""

    constants: Array
    means: Array
    covariances: Covariances
    whitening: Whitening

    def blocks(self, x: Array) -> Blocks:
        """The whitened x − μ_k for states (n, d)."""
        return self.whitening.whiten(x[None, :, :] - self.means[:, None, :])

    def log_terms(self, blocks: Blocks) -> Array:
        """log w_k + log N(x; μ_k, C_k), shape (K, n)."""
        return self.constants[:, None] - 0.5 * self.whitening.square(blocks)


def ready(groups: Iterable[Group], rows: int) -> tuple[Piece, ...]:
    """The groups as pieces of bounded size, for evaluation at a number of states."""
    return tuple(_piece(group.rows(chosen), rows) for group in groups for chosen in _cuts(group))


def _cuts(group: Group) -> list[slice]:
    size, dimension = group.means.shape
    step = max(1, PIECE // dimension)
    return [slice(i, min(i + step, size)) for i in range(0, size, step)]


def _piece(group: Group, rows: int) -> Piece:
    whitening = group.covariances.whitening(rows)
    normalisation = 0.5 * group.covariances.dimension * math.log(2 * math.pi)
    constants = _arrays.safe_log(group.weights) - whitening.log_root_determinant - normalisation
    return Piece(constants, group.means, group.covariances, whitening)


class Local:
    """log p, γ_k, g_k and s at states x (n, d)."""

    def __init__(self, pieces: tuple[Piece, ...], x: Array):
        self.x, self.pieces = x, pieces
        blocks = [piece.blocks(x) for piece in pieces] if len(pieces) <= KEPT else None
        self._blocks = blocks
        self.terms = _arrays.joined(
            [piece.log_terms(piece.blocks(x) if blocks is None else blocks[i]) for i, piece in enumerate(pieces)]
        )

    @cached_property
    def log_density(self) -> Array:
        """log p, shape (n,)."""
        return _arrays.log_sum_exp(self.terms)

    @cached_property
    def responsibilities(self) -> Array:
        """γ_k, shape (K, n)."""
        return _arrays.softmax(self.terms)

    @cached_property
    def score(self) -> Array:
        """s, shape (n, d)."""
        return -total(piece.whitening.combine(shares, blocks) for piece, shares, blocks in self._walk())

    def component_scores(self) -> Iterator[tuple[Piece, Array, Array]]:
        """Per piece: the piece, γ_k (K, n) and g_k (K, n, d)."""
        for piece, shares, blocks in self._walk():
            yield piece, shares, -piece.whitening.back(blocks)

    def centred(self) -> Iterator[tuple[Piece, Array, Array]]:
        """Per piece: the piece, γ_k (K, n) and a_k (K, n, d)."""
        for piece, shares, scores in self.component_scores():
            yield piece, shares, scores - self.score[None, :, :]

    def _walk(self) -> Iterator[tuple[Piece, Array, Blocks]]:
        sizes = [piece.covariances.size for piece in self.pieces]
        for i, (piece, end) in enumerate(zip(self.pieces, itertools.accumulate(sizes), strict=True)):
            blocks = piece.blocks(self.x) if self._blocks is None else self._blocks[i]
            # On few states calls cost more than arithmetic, above all where they carry derivatives: a slice of all, and
            # a reshape to the same shape elsewhere, are left out.
            every = self.responsibilities
            yield piece, every if len(sizes) == 1 else every[end - sizes[i] : end, :], blocks


def jacobian(at: Local) -> Array:
    """∇s = Σ_k γ_k [a_k a_kᵀ − C_k⁻¹], shape (n, d, d)."""
    # Centred: far out E[g gᵀ] and s sᵀ are both of the size |x|²/σ⁴, of which their difference keeps no digit.
    return total(second_moment(w, a) - piece.whitening.average(w) for piece, w, a in at.centred())


def jacobian_product(at: Local, v: Array) -> Array:
    """Σ_k γ_k [a_k (a_k·v) − C_k⁻¹ v], shape (n, d)."""

    def part(piece: Piece, w: Array, a: Array) -> Array:
        solved = piece.whitening.combine(w, piece.whitening.whiten(v[None, :, :]))
        return weighted(w * dot(a, v[None, :, :]), a) - solved

    return total(part(*terms) for terms in at.centred())


def divergence(at: Local) -> Array:
    """Σ_k γ_k [|a_k|² − tr C_k⁻¹], shape (n,)."""
    return total(
        namespace(a).sum(w * (dot(a, a) - piece.whitening.trace()[:, None]), axis=0) for piece, w, a in at.centred()
    )


def third_order(at: Local, u: Array, v: Array) -> Array:
    """D²s[u, v], shape (n, d), with C_k⁻¹ replaced by `E_k = C_k⁻¹ − Σ_j γ_j C_j⁻¹`, which Σ_k γ_k a_k = 0 allows.

    E_k, not C_k⁻¹, is what the third derivative is made of: it is zero for equal covariances.
    """
    parts = zip(at.centred(), _excess(at, u), _excess(at, v), strict=True)
    return total(_third_order(w, a, u[None, :, :], v[None, :, :], *excess) for (_, w, a), *excess in parts)


def _third_order(w: Array, a: Array, u: Array, v: Array, excess_u: Array, excess_v: Array) -> Array:
    """Σ_k γ_k [(a·u)(a·v) a − (a·u) E v − (a·v) E u − (uᵀ E v) a] from E_k u and E_k v (K, n, d)."""
    along_u, along_v = dot(a, u), dot(a, v)
    straight = weighted(w * (along_u * along_v - dot(excess_u, v)), a)
    return straight - weighted(w * along_u, excess_v) - weighted(w * along_v, excess_u)


def _excess(at: Local, v: Array) -> list[Array]:
    """E_k v of every piece, (K, n, d), from differences to one component, so that equal covariances leave zero."""
    solved = [piece.whitening.solve(v[None, :, :]) for piece in at.pieces]
    one = solved[0][:1, :, :]
    differences = [part - one for part in solved]
    parts = zip(at.centred(), differences, strict=True)
    mean = total(weighted(w, difference) for (_, w, _), difference in parts)
    return [difference - mean[None, :, :] for difference in differences]


def posterior_mean(groups: Iterable[Group], at: Local, sigma: Array) -> Array:
    """Σ_k γ_k m_k, m_k = μ_k + Σ_k C_k⁻¹ (x − μ_k): no cancellation at large σ. `at` is the noised law's."""
    return total(weighted(w, m) for w, m, _ in _posteriors(groups, at, sigma))


def posterior(groups: Iterable[Group], at: Local, sigma: Array) -> tuple[Array, Array]:
    """The posterior mean D and covariance Σ_k γ_k [(m_k − D)(m_k − D)ᵀ + σ² Σ_k C_k⁻¹]."""
    parts = list(_posteriors(groups, at, sigma))
    mean = total(weighted(w, m) for w, m, _ in parts)
    spread = (second_moment(w, m - mean[None, :, :]) + sigma * sigma * c.average(w) for w, m, c in parts)
    return mean, total(spread)


def _posteriors(groups: Iterable[Group], at: Local, sigma: Array) -> Iterator[tuple[Array, Array, Covariances]]:
    """Per group: γ_k (K, n), m_k (K, n, d) and Σ_k C_k⁻¹."""
    end = 0
    for group in groups:
        start, end = end, end + group.covariances.size
        shrinkage, means = group.covariances.shrinkage(sigma), group.means[:, None, :]
        yield at.responsibilities[start:end, :], means + shrinkage.apply(at.x[None, :, :] - means), shrinkage


def second_moment(weights: Array, vectors: Array) -> Array:
    """`Σ_k w_kn v_kn v_knᵀ`, shape (n, d, d)."""
    xp = namespace(weights)
    # A product over the components, (n, d, K) by (n, K, d): the summands (K, n, d, d) are never formed.
    columns = xp.permute_dims(weights[:, :, None] * vectors, (1, 2, 0))
    return xp.matmul(columns, xp.permute_dims(vectors, (1, 0, 2)))


def total(parts: Iterable[Array]) -> Array:
    """The sum of arrays, at least one."""
    iterator = iter(parts)
    return sum(iterator, start=next(iterator))
