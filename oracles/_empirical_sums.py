"""Sums over the points of an empirical law, streamed in blocks: no array of size states × points × dimension.

With y_i the points, w_i their weights, `ℓ_i = log w_i − |x − y_i|²/2σ²`, `γ_i = exp ℓ_i / Σ_j exp ℓ_j`, everything is

    log Z = log Σ_i exp ℓ_i,    D = Σ_i γ_i y_i,    Σ_i γ_i |y_i − D|²,    Σ_i γ_i Π_t ((y_i − D)·t) (y_i − D)

Two ways, chosen by the rounding error of ℓ:

`Streamed`: `|x − y|²` by the product x·y of whole blocks, at the speed of matrix multiplication. Its rounding error in
ℓ, about `4 ε |x||y|/σ²`, is 58 nats at σ = .002 of the data scale in float32 and d = 784.

`Leading`: where that error exceeds `TOLERANCE`, the product only finds the points within reach of the largest term
(beyond it, N terms add less than 1e-4 of the sum), and these are evaluated anew from differences in float64.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from oracles import _arrays
from oracles._arrays import Array, namespace

# Largest rounding error of ℓ, in nats, with which the product form is used.
TOLERANCE = 4e-3
# Logarithms below the largest term at which N equal terms are negligible: N exp(−log N − NEGLIGIBLE) ≈ 1e-4.
NEGLIGIBLE = 9.0
# Numbers in a block of states × points, states in a chunk, and numbers in one gather of points by states.
BLOCK = 1 << 19
CHUNK = 256
GATHER = 1 << 22


@dataclass(frozen=True)
class Data:
    """Points (N, d), log weights (N,), a centre c (d,), and |y − c|²/2 (N,), with their largest norms |y|, |y − c|."""

    points: Array
    log_weights: Array
    centre: Array
    half_squares: Array
    reach: float
    spread: float

    def scaled_centre_terms(self, sigma: Array, chosen: slice) -> Array:
        """log w − |y − c|²/2σ² of some of the points."""
        return self.log_weights[chosen] - self.half_squares[chosen] / (sigma * sigma)


class Evaluation(ABC):
    """The sums at some states x (n, d)."""

    @property
    @abstractmethod
    def log_sum(self) -> Array:
        """log Z, shape (n,)."""

    @property
    @abstractmethod
    def mean(self) -> Array:
        """D, shape (n, d)."""

    @property
    @abstractmethod
    def shift(self) -> Array:
        """D − x, shape (n, d)."""

    @property
    @abstractmethod
    def second_moment(self) -> Array:
        """Σ_i γ_i |y_i − D|², shape (n,)."""

    @abstractmethod
    def contract(self, *tangents: Array) -> Array:
        """Σ_i γ_i Π_t ((y_i − D)·t) (y_i − D) for tangents (n, d), shape (n, d)."""

    @abstractmethod
    def shares(self) -> Array:
        """γ_i, shape (n, N)."""


def evaluations(data: Data, x: Array, sigma: Array) -> Iterator[tuple[slice, Evaluation]]:
    """Evaluations at states (n, d), a few at a time, with the rows they stand for."""
    rows = x.shape[0]
    for start in range(0, max(rows, 1), CHUNK):
        stop = min(start + CHUNK, rows)
        yield from _chunk(data, x[start:stop, :], sigma, start)


def _chunk(data: Data, x: Array, sigma: Array, start: int) -> Iterator[tuple[slice, Evaluation]]:
    doubt = _rounding(data, x, sigma)
    streamed = Streamed(data, x, sigma)
    if doubt <= TOLERANCE or x.shape[0] == 0:
        yield slice(start, start + x.shape[0]), streamed
        return
    # A term and the largest may each be wrong by `doubt`: the reach is widened by both.
    candidates = streamed.within(math.log(data.points.shape[0]) + NEGLIGIBLE + 2 * doubt)
    for chosen in candidates.groups(data.points.shape[1]):
        rows = slice(start + chosen.start, start + chosen.stop)
        yield rows, Leading(data, x[chosen, :], sigma, candidates.padded(chosen))


def _rounding(data: Data, x: Array, sigma: Array) -> float:
    """The rounding error of ℓ in the product form, in nats."""
    centred, level = _arrays.concrete(x - data.centre[None, :], "an empirical law"), _arrays.concrete(sigma, "sigma")
    if not np.all(np.isfinite(centred)):
        raise ValueError("x contains values that are not finite; remove or replace them")
    # The worst pair of state and point decides for all of the chunk: one way is taken for it.
    largest = float(np.sqrt(np.max(np.sum(centred.astype(np.float64) ** 2, axis=-1), initial=0.0)))
    epsilon = float(np.finfo(centred.dtype).eps) / 2
    return 4 * epsilon * (largest * data.reach + data.spread**2 / 2) / float(level) ** 2


class Streamed(Evaluation):
    """The product form, block by block, with a running maximum."""

    def __init__(self, data: Data, x: Array, sigma: Array):
        self.data, self.x, self.sigma = data, x, sigma
        self.xp = namespace(x)
        # |x − y|²/2 = |x − c|²/2 + (x − c)·c − (x − c)·y + |y − c|²/2: the product is with the points as they are, of
        # which no centred copy is made.
        centred = x - data.centre[None, :]
        self._scaled = centred / (sigma * sigma)
        inner = self.xp.sum(centred * (0.5 * centred + data.centre[None, :]), axis=-1)
        self._offset = -inner / (sigma * sigma)

    def blocks(self) -> Iterator[tuple[slice, Array, Array]]:
        """Rows of points, the points (M, d), and ℓ (n, M) up to a term of the state."""
        size, step = self.data.points.shape[0], max(1, BLOCK // max(1, self.x.shape[0]))
        for start in range(0, size, step):
            chosen = slice(start, min(start + step, size))
            points = self.data.points[chosen, :]
            column = self.data.scaled_centre_terms(self.sigma, chosen)
            yield chosen, points, self.xp.matmul(self._scaled, points.T) + column[None, :]

    @cached_property
    def _sums(self) -> tuple[Array, Array, Array]:
        """The largest ℓ (n,), Σ exp(ℓ − largest) (n,), and the same weighted sum of points (n, d)."""
        xp = self.xp
        # Online: what was summed so far fades as the running maximum rises. It begins at a finite number, for −∞ − (−∞)
        # is no number, and it is a constant for derivatives, from which it cancels.
        top = xp.full_like(self._offset, -float(xp.finfo(self.x.dtype).max) / 2)
        total, points_total = xp.zeros_like(self._offset), xp.zeros_like(self.x)
        for _, points, terms in self.blocks():
            higher = xp.maximum(top, _arrays.detached(xp.max(terms, axis=1)))
            fade, shares = xp.exp(top - higher), _shares(terms - higher[:, None])
            total = total * fade + xp.sum(shares, axis=1)
            points_total = points_total * fade[:, None] + xp.matmul(shares, points)
            top = higher
        return top, total, points_total

    @property
    def log_sum(self) -> Array:
        top, total, _ = self._sums
        return top + self.xp.log(total) + self._offset

    @property
    def mean(self) -> Array:
        return self._sums[2] / self._sums[1][:, None]

    @property
    def shift(self) -> Array:
        return self.mean - self.x

    def _weighted(self) -> Iterator[tuple[slice, Array, Array]]:
        """Rows of points, the points, and γ (n, M)."""
        top, total, _ = self._sums
        for chosen, points, terms in self.blocks():
            yield chosen, points, _shares(terms - top[:, None]) / total[:, None]

    @property
    def second_moment(self) -> Array:
        xp, half_squares = self.xp, self.data.half_squares
        raw = 2.0 * sum(xp.matmul(shares, half_squares[chosen]) for chosen, _, shares in self._weighted())
        # The difference loses about ε|y − c|², which this way of summing keeps below TOLERANCE σ²: nothing beside the
        # d σ² that stands next to it in a divergence.
        centred = self.mean - self.data.centre[None, :]
        return raw - xp.sum(centred * centred, axis=-1)

    def contract(self, *tangents: Array) -> Array:
        xp, mean = self.xp, self.mean
        # D is taken off the sums, not off the points: a block is used as it lies, without a centred copy.
        total, mass = xp.zeros_like(self.x), xp.zeros_like(self._offset)
        for _, points, shares in self._weighted():
            for tangent in tangents:
                shares = shares * (xp.matmul(tangent, points.T) - xp.sum(tangent * mean, axis=-1)[:, None])
            total = total + xp.matmul(shares, points)
            mass = mass + xp.sum(shares, axis=1)
        return total - mass[:, None] * mean

    def shares(self) -> Array:
        top, total, _ = self._sums
        parts = [self.xp.exp(terms - top[:, None]) / total[:, None] for _, _, terms in self.blocks()]
        return self.xp.concat(parts, axis=1)

    def within(self, depth: float) -> Candidates:
        """The points whose ℓ lies within `depth` of the state's largest."""
        top = np.full(self.x.shape[0], -np.inf)
        blocks: list[tuple[np.ndarray, ...]] = []
        for chosen, _, terms in self.blocks():
            terms = _arrays.detached(terms)
            highest = _arrays.concrete(self.xp.max(terms, axis=1), "an empirical law").astype(np.float64)
            top = np.maximum(top, highest)
            # The maximum so far only rises: a block may leave too many, which are sorted out at the end, never too few.
            floor = _arrays.from_numpy(top - depth, terms)
            rows, columns = self.xp.nonzero(terms >= floor[:, None])
            near = [_arrays.concrete(array, "an empirical law") for array in (rows, columns, terms[rows, columns])]
            blocks.append((near[0], near[1] + chosen.start, near[2]))
        rows, columns, terms = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        kept = terms >= top[rows] - depth
        return Candidates(rows[kept], columns[kept], self.x.shape[0])


def _shares(logs: Array) -> Array:
    """exp of logarithms that are at most zero, for sums whose largest term is one.

    Terms below e^−70 (e^−600 in double precision) become that: N of them are nothing beside the largest. Subnormal
    numbers, in which they would end, take a processor up to a hundred times as long, also in products.
    """
    xp = namespace(logs)
    return xp.exp(xp.clip(logs, min=-600.0 if float(xp.finfo(logs.dtype).eps) < 1e-10 else -70.0))


class Candidates:
    """Pairs of states and points that matter."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray, size: int):
        order = np.argsort(rows, kind="stable")
        self.columns, self.counts = columns[order], np.bincount(rows, minlength=size)
        self.starts = np.cumsum(self.counts) - self.counts

    def groups(self, dimension: int) -> Iterator[slice]:
        """Consecutive states whose points, padded to the longest list, fit in one gather."""
        start, widest = 0, 1
        for stop, count in enumerate(self.counts.tolist()):
            widest = max(widest, count)
            if stop > start and (stop - start + 1) * widest * dimension > GATHER:
                yield slice(start, stop)
                start, widest = stop, count
        yield slice(start, len(self.counts))

    def padded(self, chosen: slice) -> tuple[np.ndarray, np.ndarray]:
        """Indices (n, k) of points and which of them are meant, for some of the states."""
        counts, starts = self.counts[chosen, None], self.starts[chosen, None]
        places = np.arange(counts.max())[None, :]
        # A list ends before the longest: its last point is repeated, and marked as not meant.
        return self.columns[starts + np.minimum(places, counts - 1)], places < counts


class Leading(Evaluation):
    """Differences to the points that matter, in float64."""

    def __init__(self, data: Data, x: Array, sigma: Array, padded: tuple[np.ndarray, np.ndarray]):
        xp = self.xp = namespace(x)
        self.data, self.like, self.indices = data, x, padded[0]
        rows, width = padded[0].shape
        flat = _arrays.integers(padded[0].ravel(), x)
        near = xp.reshape(xp.take(data.points, flat, axis=0), (rows, width, x.shape[1]))
        self._x = xp.astype(x, xp.float64)
        self._offsets = xp.astype(near, xp.float64) - self._x[:, None, :]
        logs = xp.astype(xp.reshape(xp.take(data.log_weights, flat, axis=0), (rows, width)), xp.float64)
        squares = xp.sum(self._offsets * self._offsets, axis=-1)
        # Points that only fill up a shorter list get the logarithm of no weight.
        absent = _arrays.from_numpy(np.where(padded[1], 0.0, -np.inf), logs)
        level = xp.astype(sigma, xp.float64)
        terms = (logs + absent - 0.5 * squares / (level * level)).T
        self._log_sum, self._shares = _arrays.log_sum_exp(terms), _arrays.softmax(terms).T
        self._shift = xp.sum(self._shares[:, :, None] * self._offsets, axis=1)

    def _cast(self, array: Array) -> Array:
        return self.xp.astype(array, self.like.dtype, copy=False)

    @cached_property
    def _centred(self) -> Array:
        """y_i − D, shape (n, k, d)."""
        return self._offsets - self._shift[:, None, :]

    @property
    def log_sum(self) -> Array:
        return self._cast(self._log_sum)

    @property
    def mean(self) -> Array:
        return self._cast(self._x + self._shift)

    @property
    def shift(self) -> Array:
        return self._cast(self._shift)

    @property
    def second_moment(self) -> Array:
        squares = self.xp.sum(self._centred * self._centred, axis=-1)
        return self._cast(self.xp.sum(self._shares * squares, axis=1))

    def contract(self, *tangents: Array) -> Array:
        shares = self._shares
        for tangent in tangents:
            along = self.xp.sum(self._centred * self.xp.astype(tangent, self.xp.float64)[:, None, :], axis=-1)
            shares = shares * along
        return self._cast(self.xp.sum(shares[:, :, None] * self._centred, axis=1))

    def shares(self) -> Array:
        known = _arrays.concrete(self._shares, "an empirical law")
        dense = np.zeros((known.shape[0], self.data.points.shape[0]))
        rows = np.broadcast_to(np.arange(known.shape[0])[:, None], known.shape)
        np.add.at(dense, (rows, self.indices), known)
        return _arrays.from_numpy(dense, self.like)
