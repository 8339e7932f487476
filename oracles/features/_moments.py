"""What the least squares of a cosine network need of the data, and their expectation over noise in closed form.

Symbols: features `φ_j(x) = cos(ω_j·x + b_j)`, ω_j the rows of Ω (m, d); for points x_i with weights w_i,
`c_ij = cos(ω_j·x_i + b_j)`, `s_ij = sin(ω_j·x_i + b_j)`. The data enter by four sums only, whatever their number,

    CC = Σ_i w_i c_i c_iᵀ,    SS = Σ_i w_i s_i s_iᵀ,    XC = Σ_i w_i x_i c_iᵀ,    S = Σ_i w_i s_i

and with `e_j = exp(−σ²|ω_j|²/2)`, `E±_jk = exp(−σ²|ω_j ± ω_k|²/2)`, `x = x_i + σ ε`, c the skip,

    G = E[φ φᵀ]          = ½ (E₊ + E₋) ∘ CC + ½ (E₋ − E₊) ∘ SS
    B = E[(x_i − c x) φᵀ] = (1 − c) XC diag(e) + c σ² Ωᵀ diag(e ∘ S)

from `cos α cos β = ½ [cos(α + β) + cos(α − β)]`, `E cos(θ + σ ω·ε) = e cos θ` and `E ε cos(θ + σ ω·ε) = −σ ω e sin θ`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from oracles import _arrays
from oracles._arrays import Array, namespace

# Numbers in a block of points × features, or of pairs of features × dimensions.
BLOCK = 1 << 21


@dataclass(frozen=True)
class Moments:
    """CC (m, m), SS (m, m), XC (d, m) and S (m,): linear in the weights."""

    cosines: Array
    sines: Array
    products: Array
    slopes: Array

    def parts(self) -> tuple[Array, ...]:
        """The four sums."""
        return self.cosines, self.sines, self.products, self.slopes


def combined(terms: Iterable[tuple[float, Moments]]) -> Moments:
    """Σ a M of numbers and moments."""
    scaled = [[factor * part for part in moments.parts()] for factor, moments in terms]
    return Moments(*(sum(column[1:], start=column[0]) for column in zip(*scaled, strict=True)))


@dataclass(frozen=True)
class Spectrum:
    """Frequencies Ω (m, d) and phases b (m,), with |ω_j|² (m,) and |ω_j ± ω_k|² (m, m)."""

    frequencies: Array
    phases: Array
    squares: Array
    sums: Array
    differences: Array

    def angles(self, x: Array) -> Array:
        """Ω x + b for states (n, d), shape (n, m)."""
        return namespace(x).matmul(x, self.frequencies.T) + self.phases[None, :]


def spectrum(frequencies: Array, phases: Array) -> Spectrum:
    """Squared lengths taken from the vectors themselves: products would lose those of nearly equal frequencies."""
    sums = _arrays.joined([_arrays.square(w[:, None, :] + frequencies[None, :, :]) for w in _blocks(frequencies)])
    differences = _arrays.joined(
        [_arrays.square(w[:, None, :] - frequencies[None, :, :]) for w in _blocks(frequencies)]
    )
    return Spectrum(frequencies, phases, _arrays.square(frequencies), sums, differences)


def _blocks(frequencies: Array) -> Iterator[Array]:
    size, dimension = frequencies.shape
    step = max(1, BLOCK // (size * dimension))
    for start in range(0, size, step):
        yield frequencies[start : min(start + step, size), :]


def moments(bands: Spectrum, points: Array, weights: Array, velocities: Array | None = None, order: int = 0) -> Moments:
    """The sums over points (N, d), or their derivative of `order` in η as the points move by η v_i.

    With ν = Ω v_i, `∂ᵃ cos θ = νᵃ cos(θ + aπ/2)`; products by Leibniz's rule.
    """
    rows, size = max(1, BLOCK // int(bands.phases.shape[0])), int(points.shape[0])
    chosen = [slice(i, min(i + rows, size)) for i in range(0, size, rows)]
    parts = [
        _block(bands, points[c, :], weights[c], None if velocities is None else velocities[c, :], order) for c in chosen
    ]
    return combined((1.0, part) for part in parts)


def _block(bands: Spectrum, points: Array, weights: Array, velocities: Array | None, order: int) -> Moments:
    xp = namespace(points)
    # Σ_i w_i c_i c_iᵀ moves through both factors, x_i c_iᵀ through x_i once (a straight path has no second derivative)
    # and through c_i.
    waves = _waves(bands, points, velocities, order)
    column = weights[:, None]
    pairs = [(math.comb(order, a), waves[a], waves[order - a]) for a in range(order + 1)]
    cosines = sum(n * xp.matmul((column * one[0]).T, other[0]) for n, one, other in pairs)
    sines = sum(n * xp.matmul((column * one[1]).T, other[1]) for n, one, other in pairs)
    products = xp.matmul((column * points).T, waves[order][0])
    if velocities is not None and order:
        products = products + order * xp.matmul((column * velocities).T, waves[order - 1][0])
    return Moments(cosines, sines, products, xp.sum(column * waves[order][1], axis=0))


def _waves(bands: Spectrum, points: Array, velocities: Array | None, order: int) -> list[tuple[Array, Array]]:
    """Derivatives of cos θ and sin θ of the orders 0 to `order`."""
    xp, angles = namespace(points), bands.angles(points)
    cosines, sines = xp.cos(angles), xp.sin(angles)
    turns = [(cosines, sines), (-sines, cosines), (-cosines, -sines), (sines, -cosines)]
    if velocities is None or order == 0:
        return turns[:1]
    speeds = xp.matmul(velocities, bands.frequencies.T)
    return [tuple(speeds**a * wave for wave in turns[a % 4]) for a in range(order + 1)]


def kernels(bands: Spectrum, sigma: Array) -> tuple[Array, Array, Array]:
    """½ (E₊ + E₋), ½ (E₋ − E₊), shape (m, m), and e, shape (m,)."""
    xp, half = namespace(sigma), -0.5 * sigma * sigma
    plus, minus = xp.exp(half * bands.sums), xp.exp(half * bands.differences)
    return 0.5 * (plus + minus), 0.5 * (minus - plus), xp.exp(half * bands.squares)


def gram(even: Array, odd: Array, data: Moments) -> Array:
    """G, or its derivative, from the first two kernels."""
    return even * data.cosines + odd * data.sines


def target(bands: Spectrum, damping: Array, sigma: Array, skip: Array, gap: Array, data: Moments) -> Array:
    """B, or its derivative, shape (d, m), from the third kernel e, the skip c and gap = 1 − c."""
    slopes = bands.frequencies.T * (damping * data.slopes)[None, :]
    return gap * data.products * damping[None, :] + skip * sigma * sigma * slopes


def functional(bands: Spectrum, cotangent: Moments, points: Array) -> Any:
    """`c_iᵀ Γ_CC c_i + s_iᵀ Γ_SS s_i + x_iᵀ Γ_XC c_i + Γ_S·s_i` for points (N, d), cotangents (n, ...); (n, N)."""
    xp, angles = namespace(points), bands.angles(points)
    cosines, sines = xp.cos(angles), xp.sin(angles)
    slopes = xp.matmul(cotangent.slopes, sines.T)
    rows = [(cotangent.cosines, cosines, cosines), (cotangent.sines, sines, sines)]
    rows.append((cotangent.products, points, cosines))
    return slopes + sum(xp.sum(xp.matmul(left[None], matrix) * right[None], axis=2) for matrix, left, right in rows)
