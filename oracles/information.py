"""Entropy and divergence of mixtures in one or two dimensions, by quadrature with an error estimate.

`h(p) = −E_p log p` and `KL(p‖q) = E_p log(p/q)`, in nats. The expectation over each component is an integral in its
whitened coordinates z, `x = μ_k + C_k^{1/2} z`, over |z_i| ≤ 12 (beyond lies less than 1e-32 of the mass). What makes
log p hard is the other components: a narrow one inside a wide one is a bump of its own width. So the panels start from
the components' own scales, as short near a component's centre as it is wide and longer in proportion to the distance
(`oracles._quadrature`), and are halved where the estimated error is; the errors of all panels add up to the stated one.
In two dimensions the inner integral runs along lines, on which every component is a Gaussian of known centre and width,
and the outer one across them. States enter relative to the component, so that widths of 1e-8 beside means of size 1
lose no digits. NumPy float64; laws in other libraries are converted.

Source: Cover & Thomas, Elements of Information Theory, 2006, chapter 8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from oracles._quadrature import Features, integrate
from oracles.mixture import GaussianMixture

REACH = 12.0  # of the integral, in standard deviations
ROUNDING = 64 * np.finfo(float).eps  # of a logarithm in the tails, relative to 1 + ∫ |f|; part of the stated error
NEGLIGIBLE = 60.0  # nats below the component's own density, at which another one in the same law is not looked for
LINES = 128  # inner integrals taken at once

Function = Callable[[np.ndarray], np.ndarray]


class Quantity(NamedTuple):
    """A value in nats and the estimated absolute error of its quadrature."""

    value: float
    error: float


def entropy(law: GaussianMixture, tolerance: float = 1e-10) -> Quantity:
    """Differential entropy h(p) = −E_p log p.

    Args:
        law: p, of dimension 1 or 2, with a density.
        tolerance: the absolute error at which panels are no longer halved.

    Raises:
        ValueError: for other dimensions, or a singular law.

    Example:
        >>> value, error = entropy(GaussianMixture.isotropic([1.0], [[0.0]], 1.0))
        >>> round(value, 9)  # ½ log 2πe
        1.418938533
    """
    p = _Parts.of(law)
    return _expectation(p, [p], lambda frame, z: -frame.log_density(p, z), tolerance)


def kl(law: GaussianMixture, other: GaussianMixture, tolerance: float = 1e-10) -> Quantity:
    """KL(p‖q) = E_p log(p/q) ≥ 0; p = `law`, q = `other`, both of dimension 1 or 2.

    Example:
        >>> p = GaussianMixture.isotropic([1.0], [[0.0]], 1.0)
        >>> q = GaussianMixture.isotropic([1.0], [[1.0]], 1.0)
        >>> abs(kl(p, q).value - 0.5) < 1e-10
        True
    """
    if law.dimension != other.dimension:
        raise ValueError(f"the laws have dimensions {law.dimension} and {other.dimension}; they must be equal")
    p, q = _Parts.of(law), _Parts.of(other)
    return _expectation(p, [p, q], lambda frame, z: frame.log_density(p, z) - frame.log_density(q, z), tolerance)


def expectation(law: GaussianMixture, function: Function, tolerance: float = 1e-10) -> Quantity:
    """E_p f for a function of states (n, d) with values (n,), d = 1 or 2, that varies on the scales of the components.

    The error is that of the quadrature: rounding in f itself is not in it, nor features of f that no component has.
    """
    p = _Parts.of(law, density=False)
    return _expectation(p, [p], lambda frame, z: function(frame.states(z)), tolerance)


@dataclass(frozen=True)
class _Parts:
    """Components that have weight: log weights (K,), means (K, d) and roots (K, d, d) of the covariances."""

    logs: np.ndarray
    means: np.ndarray
    roots: np.ndarray

    @classmethod
    def of(cls, law: GaussianMixture, density: bool = True) -> _Parts:
        """From a law; `density` refuses singular ones.

        Raises:
            ValueError: for a dimension above 2, or a singular law.
        """
        if law.dimension not in (1, 2):
            raise ValueError(f"quadrature needs a law of dimension 1 or 2; this one has dimension {law.dimension}")
        law = law.numpy()
        if density:
            law.check_density()
        weights = np.asarray(law.weights)
        kept = weights > 0
        values, vectors = np.linalg.eigh(np.asarray(law.covariances)[kept])
        roots = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        return cls(np.log(weights[kept]), np.asarray(law.means)[kept], roots)

    def __len__(self) -> int:
        return len(self.logs)


class _Frame:
    """Whitened coordinates of one component: x = μ + R z."""

    def __init__(self, mean: np.ndarray, root: np.ndarray):
        self.mean, self.root = mean, root

    def states(self, z: np.ndarray) -> np.ndarray:
        """x of z, both (n, d)."""
        return self.mean + z @ self.root.T

    def seen(self, parts: _Parts) -> tuple[np.ndarray, np.ndarray]:
        """A_j and b_j with `R_j⁻¹ (x − μ_j) = A_j z + b_j`, (K, d, d) and (K, d); the frame's own are I and 0."""
        turned = np.linalg.solve(parts.roots, np.broadcast_to(self.root, parts.roots.shape))
        shift = np.linalg.solve(parts.roots, (self.mean - parts.means)[..., None])[..., 0]
        same = np.all(parts.means == self.mean, -1) & np.all(parts.roots == self.root, (-1, -2))
        turned[same] = np.eye(len(self.mean))  # no rounding of a solve where a component meets itself
        return turned, shift

    def log_density(self, parts: _Parts, z: np.ndarray) -> np.ndarray:
        """log p at z, (n,)."""
        turned, shift = self.seen(parts)
        white = np.einsum("kij,nj->nki", turned, z) + shift
        volumes = np.linalg.slogdet(parts.roots)[1] + 0.5 * len(self.mean) * np.log(2 * np.pi)
        return np.asarray(logsumexp(parts.logs - volumes - 0.5 * np.sum(white**2, -1), axis=-1))

    def means_and_roots(self, parts: _Parts) -> tuple[np.ndarray, np.ndarray]:
        """Means (K, d) and roots (K, d, d) of the components in this frame."""
        inverse = np.linalg.inv(self.root)
        return (parts.means - self.mean) @ inverse.T, inverse @ parts.roots


def _expectation(
    law: _Parts, others: Sequence[_Parts], function: Callable[[_Frame, np.ndarray], np.ndarray], tolerance: float
) -> Quantity:
    """Σ_k w_k E_k f, with panels from the scales of all components of the `others`."""
    value = error = 0.0
    for log_weight, mean, root in zip(law.logs, law.means, law.roots, strict=True):
        weight, frame = float(np.exp(log_weight)), _Frame(mean, root)
        along = _line if len(mean) == 1 else _plane
        part = along(partial(function, frame), _shapes(frame, others), tolerance)
        value, error = value + weight * part[0], error + weight * part[1]
    return Quantity(value, error)


def _shapes(frame: _Frame, others: Sequence[_Parts]) -> tuple[np.ndarray, np.ndarray]:
    """Centres (J, d) and roots (J, d, d), in the frame, of the components that may be met within its reach."""
    size = len(frame.mean)
    centres, roots = [np.zeros((1, size))], [np.eye(size)[None]]
    if np.all(np.linalg.norm(frame.root, axis=0) > 0):  # a singular component meets f alone
        for parts in others:
            # Columns of roots are eigenvectors times √λ: one of length zero is a direction without variance.
            regular = np.all(np.linalg.norm(parts.roots, axis=1) > 0, axis=-1)
            means, scales = frame.means_and_roots(parts)
            spread = np.linalg.norm(scales, axis=-1)
            near = np.all(np.abs(means) < REACH + 2 * REACH * spread, axis=-1) & regular
            centres.append(means[near])
            roots.append(scales[near])
    return np.concatenate(centres), np.concatenate(roots)


def _line(function: Function, shapes: tuple[np.ndarray, np.ndarray], tolerance: float) -> tuple[float, float]:
    """E f(z), z ~ N(0, 1), with its error."""
    centres, roots = shapes

    def integrand(owner: np.ndarray, z: np.ndarray) -> np.ndarray:
        return (_normal(z) * function(z[:, None]))[:, None]

    features = Features(centres[None, :, 0], np.abs(roots[None, :, 0, 0]))
    value, error, size = integrate(integrand, features, REACH, np.array([tolerance]))
    return float(value[0, 0]), float(error[0] + ROUNDING * (1 + size[0]))


def _plane(function: Function, shapes: tuple[np.ndarray, np.ndarray], tolerance: float) -> tuple[float, float]:
    """E f(z), z ~ N(0, I₂): lines along z₁ inside, z₂ outside; the inner errors are integrated too."""
    lines = _Lines.of(*shapes)

    def outer(owner: np.ndarray, u: np.ndarray) -> np.ndarray:
        rows = [lines.integrals(function, part, tolerance) for part in np.array_split(u, -(-len(u) // LINES))]
        return _normal(u)[:, None] * np.concatenate(rows)

    value, error, size = integrate(outer, lines.across(), REACH, np.array([tolerance]))
    return float(value[0, 0]), float(error[0] + value[0, 1] + ROUNDING * (1 + size[0]))


@dataclass(frozen=True)
class _Lines:
    """Components on lines z₂ = u: N(centre + slope (u − height), width²) in z₁; N(height, spread²) is that of z₂."""

    centre: np.ndarray
    height: np.ndarray
    slope: np.ndarray
    width: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, centres: np.ndarray, roots: np.ndarray) -> _Lines:
        """From centres (J, 2) and roots (J, 2, 2); the width is |det R|/spread, which cancels nothing."""
        spread = np.linalg.norm(roots[:, 1], axis=-1)
        slope = np.sum(roots[:, 0] * roots[:, 1], axis=-1) / spread**2
        area = np.abs(roots[:, 0, 0] * roots[:, 1, 1] - roots[:, 0, 1] * roots[:, 1, 0])
        return cls(centres[:, 0], centres[:, 1], slope, area / spread, spread)

    def across(self) -> Features:
        """Where the outer integrand varies: at the components, and where the ridges of two of them cross."""
        i, j = np.triu_indices(len(self.centre), 1)
        turn = self.slope[i] - self.slope[j]
        with np.errstate(divide="ignore", invalid="ignore"):
            start = self.centre - self.slope * self.height
            where = -(start[i] - start[j]) / turn
            extent = (self.width[i] + self.width[j]) / np.abs(turn)
        seen = np.isfinite(where) & (np.abs(where) < REACH) & (extent > 0) & (extent < 1)
        centres = np.concatenate([self.height, where[seen]])
        return Features(centres[None], np.concatenate([self.spread, extent[seen]])[None])

    def integrals(self, function: Function, u: np.ndarray, tolerance: float) -> np.ndarray:
        """∫ φ(z₁) f(z₁, u) dz₁ and its error, (n, 2), on the lines z₂ = u (n,)."""

        def inner(owner: np.ndarray, z: np.ndarray) -> np.ndarray:
            return (_normal(z) * function(np.stack([z, u[owner]], -1)))[:, None]

        # The outer integral weighs a line's error by φ(u): each may add an eighth of the tolerance per unit of u. 1e-30
        # stands for a φ that has underflowed.
        value, error, _ = integrate(inner, self.along(u), REACH, tolerance / np.maximum(8 * _normal(u), 1e-30))
        return np.stack([value[:, 0], error], -1)

    def along(self, u: np.ndarray) -> Features:
        """Where the integrands on the lines vary; a component far from its line there is not looked for."""
        offset = u[:, None] - self.height
        centres = self.centre + self.slope * offset
        faint = 0.5 * (offset / self.spread) ** 2 - 0.5 * (centres**2 + u[:, None] ** 2) > NEGLIGIBLE
        far = np.abs(centres) > REACH + 2 * REACH * self.width
        # A feature without end asks for no panels.
        return Features(centres, np.where(faint | far, np.inf, self.width))


def _normal(z: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
