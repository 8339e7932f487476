"""Influence of every training point on the samples of a cosine network: the adjoint of its flow, one solve for all.

Symbols as in `oracles.features`; u = log σ, a = Wᵀλ, h = (G + λ_r I)⁻¹ φ(x), λ_r the ridge. Upward from σ_min, with
x the sample's path and λ = ∇φ at its start,

    dx/du = (1 − c) x − W φ(x),      dλ/du = −(1 − c) λ − Ωᵀ(sin(Ωx + b) ∘ a)

and `φ̇[χ] = ∫ λ·Ẇ φ du`, `Ẇ = (Ḃ − WĠ)(G + λ_r I)⁻¹`, is linear in the moments of χ, so that their cotangent

    Γ_CC = −∫ ½(E₊ + E₋) ∘ a hᵀ du,   Γ_SS = −∫ ½(E₋ − E₊) ∘ a hᵀ du,
    Γ_XC = ∫ (1 − c) λ (e ∘ h)ᵀ du,   Γ_S = ∫ c σ² (Ωλ) ∘ e ∘ h du

is all that is integrated: its size does not depend on the number of points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from oracles import _arrays, flow
from oracles._dop853 import Stack, solve
from oracles._numeric import check_levels
from oracles.features._level import tolerance
from oracles.features._moments import Moments, functional

if TYPE_CHECKING:
    from oracles.features import FittedDenoiser

# Numbers in the state of one solve.
STATE = 1 << 18


def influence(
    fitted: FittedDenoiser,
    latents: Any,
    gradient: Any,
    points: Any,
    sigma_max: float,
    sigma_min: float,
    rtol: float | None,
) -> np.ndarray:
    """dφ/dη toward every point, shape (..., N), in NumPy."""
    check_levels(sigma_max, sigma_min)
    exact = fitted.numpy()
    rtol = tolerance(exact, sigma_max, sigma_min) if rtol is None else rtol
    states = _arrays.concrete(latents, "influence").astype(np.float64)
    samples = flow.sample(exact, states, sigma_max, sigma_min, rtol)
    start = _gradient(gradient, samples, latents)
    flat, slopes = (array.reshape(-1, states.shape[-1]) for array in (samples, start))
    where = _arrays.concrete(points, "influence").astype(np.float64)
    # Two of the four cotangents are (m, m) for every latent: they bound how many latents go together.
    step = max(1, STATE // (2 * exact.network.size**2))
    pieces = [
        _values(exact, flat[i : i + step], slopes[i : i + step], where, sigma_max, sigma_min, rtol)
        for i in range(0, len(flat), step)
    ]
    values = np.concatenate(pieces) if pieces else np.zeros((0, len(where)))
    return values.reshape(*states.shape[:-1], len(where))


def _gradient(gradient: Any, samples: np.ndarray, latents: Any) -> np.ndarray:
    """∇φ at the samples, NumPy."""
    given = gradient(_arrays.from_numpy(samples, latents)) if callable(gradient) else gradient
    known = _arrays.concrete(given, "functional_gradient") if _arrays.is_array(given) else np.asarray(given)
    if known.shape != samples.shape:
        raise ValueError(f"functional_gradient has shape {known.shape}; it must be that of the samples {samples.shape}")
    if not np.all(np.isfinite(known)):
        raise ValueError("functional_gradient contains values that are not finite; check the functional at the samples")
    return known.astype(np.float64)


def _values(
    fitted: FittedDenoiser,
    samples: np.ndarray,
    slopes: np.ndarray,
    points: np.ndarray,
    sigma_max: float,
    sigma_min: float,
    rtol: float,
) -> np.ndarray:
    """The influence of every point on some samples, shape (n, N)."""
    network = fitted.network
    layout = _Layout(network.size, network.dimension)
    start = np.concatenate([samples[None], slopes[None], np.zeros((layout.rows, *samples.shape))])
    end, _ = solve(_field(fitted, layout), start, float(np.log(sigma_min)), float(np.log(sigma_max)), rtol, 1.0)
    cotangent = layout.unpacked(end[2:])
    # Mass that comes to a point is taken from all the data alike, χ = δ_i − ρ, and the pairing is linear in χ.
    base = functional(network.spectrum, cotangent, fitted.points) @ fitted.weights
    return functional(network.spectrum, cotangent, points) - base[:, None]


class _Layout:
    """The cotangent (Γ_CC, Γ_SS, Γ_XC, Γ_S) of n latents as rows (r, n, d), which the solver controls one by one."""

    def __init__(self, size: int, dimension: int):
        self.size, self.dimension = size, dimension
        self.count = 2 * size * size + dimension * size + size
        self.rows = -(-self.count // dimension)

    def packed(self, parts: list[np.ndarray]) -> np.ndarray:
        """Parts (n, ...) as rows."""
        flat = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
        # Zeros fill the last row: the solver's blocks are vectors of one length d.
        flat = np.pad(flat, ((0, 0), (0, self.rows * self.dimension - self.count)))
        return flat.reshape(len(flat), self.rows, self.dimension).swapaxes(0, 1)

    def unpacked(self, rows: np.ndarray) -> Moments:
        """The cotangent, parts of shape (n, ...)."""
        m, d = self.size, self.dimension
        flat = rows.swapaxes(0, 1).reshape(rows.shape[1], -1)[:, : self.count]
        cuts = np.split(flat, np.cumsum([m * m, m * m, d * m]), axis=1)
        shapes = ((m, m), (m, m), (d, m), (m,))
        return Moments(*(part.reshape(len(flat), *shape) for part, shape in zip(cuts, shapes, strict=True)))


def _field(fitted: FittedDenoiser, layout: _Layout) -> Callable[[float, Stack], Stack]:
    bands = fitted.network.spectrum

    def field(u: float, stack: Stack) -> Stack:
        x, slope = stack[0], stack[1]
        here = fitted.noised(float(np.exp(u)))
        level, weights = here.level, here.coefficients
        angles = bands.angles(x)
        # W = B (G + λI)⁻¹ has δW = (δB − W δG)(G + λI)⁻¹: with a the state's cotangent, aᵀ δW φ pairs δG with −(Wᵀa) zᵀ
        # and δB with a zᵀ, z = (G + λI)⁻¹ φ; `even`, `odd` and `damping` are how G and B hang on the moments.
        features, turned = np.cos(angles), slope @ weights
        solved = level.solve(features)
        outer = turned[:, :, None] * solved[:, None, :]
        damped = level.damping * solved
        parts = [
            -level.even * outer,
            -level.odd * outer,
            level.gap * slope[:, :, None] * damped[:, None, :],
            level.skip * here._square * (slope @ bands.frequencies.T) * damped,
        ]
        moved = level.gap * x - features @ weights.T
        back = -level.gap * slope - (np.sin(angles) * turned) @ bands.frequencies
        return np.concatenate([moved[None], back[None], layout.packed(parts)])

    return field
