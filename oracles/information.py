"""Entropy and divergence of mixtures in one or two dimensions, by quadrature with an error estimate.

`h(p) = −E_p log p` and `KL(p‖q) = E_p log(p/q)`, in nats. The expectation over each component is an integral in its
whitened coordinates z, `x = μ_k + C_k^{1/2} z`, over |z_i| ≤ 12 (beyond lies less than 1e-32 of the mass), by
Gauss–Legendre panels (10 nodes each) that are halved until two successive values agree; the last change is the error.
NumPy float64; laws in other libraries are converted.

Source: Cover & Thomas, Elements of Information Theory, 2006, chapter 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from oracles.mixture import GaussianMixture

# Reach of the integral in standard deviations, nodes of a panel, and the numbers of panels that are tried.
REACH = 12.0
NODES = 10
PANELS = {1: (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096), 2: (6, 12, 24, 48, 96)}


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
    p = law.numpy()
    return expectation(p, lambda x: -p.log_density(x), tolerance)


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
    p, q = law.numpy(), other.numpy()
    return expectation(p, lambda x: p.log_density(x) - q.log_density(x), tolerance)


def expectation(
    law: GaussianMixture, function: Callable[[np.ndarray], np.ndarray], tolerance: float = 1e-10
) -> Quantity:
    """E_p f for a smooth function of states (n, d) with values (n,), d = 1 or 2."""
    if law.dimension not in PANELS:
        raise ValueError(f"quadrature needs a law of dimension 1 or 2; this one has dimension {law.dimension}")
    parts = [_component(function, *item, tolerance) for item in _components(law)]
    return Quantity(*(float(sum(column)) for column in zip(*parts, strict=True)))


def _components(law: GaussianMixture) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """Weight, mean (d,) and root (d, d) of the covariance of the components that have weight."""
    law = law.numpy()
    for weight, mean, matrix in zip(law.weights, law.means, law.covariances, strict=True):
        if weight > 0:
            values, vectors = np.linalg.eigh(matrix)
            yield float(weight), mean, vectors * np.sqrt(np.maximum(values, 0.0))


def _component(
    function: Callable[[np.ndarray], np.ndarray],
    weight: float,
    mean: np.ndarray,
    root: np.ndarray,
    tolerance: float,
) -> tuple[float, float]:
    """Weight times the expectation over one component, and its error."""
    counts = PANELS[len(mean)]
    values = [np.inf]
    for count in counts:
        z, w = _grid(count, len(mean))
        values.append(weight * float(w @ function(mean + z @ root.T)))
        if abs(values[-1] - values[-2]) <= weight * tolerance:
            break
    return values[-1], abs(values[-1] - values[-2])


def _grid(panels: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (n, d) in whitened coordinates and their weights (n,) under the standard normal density."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    half = REACH / panels
    centres = -REACH + half * (2 * np.arange(panels) + 1)
    line = (centres[:, None] + half * nodes).ravel()
    mass = np.tile(half * weights, panels) * np.exp(-0.5 * line * line) / np.sqrt(2 * np.pi)
    if dimension == 1:
        return line[:, None], mass
    return np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2), np.outer(mass, mass).ravel()
