"""Nested least squares on the exact denoising objective.

Random features `φ_0 = 1`, `φ_k = x_k` (coordinates), then `√2 cos(w_k·x + b_k)`, the same for every size: the first m
are a subset of the first m + 1. The denoising loss `E|f(Y) − X|²` of `f = Σ c_k φ_k` over `Y = x_i + σ ε` is integrated
exactly (to Gauss–Hermite order) and minimised by weighted least squares. Because the loss is `E|f − D⋆|² + const`, the
error to the empirical denoiser inside the supervision region cannot rise with m; nothing is said about it outside.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["RandomFeatures", "fit", "quadrature"]

Array = np.ndarray


class RandomFeatures:
    """`x (n, d) → φ(x) (n, 1 + d + size)`, nested in size for equal seeds.

    Args:
        dimension: d.
        size: number of cosines.
        scale: length over which they vary, > 0.
        seed: of w and b.
        view: the coordinates that the cosines see, x (n, d) → (n, q); all by default.

    Raises:
        ValueError: size < 0 or scale not positive.

    Example:
        >>> few, many = (RandomFeatures(2, size, seed=1) for size in (3, 5))
        >>> x = np.ones((4, 2))
        >>> bool((few(x) == many(x)[:, :6]).all())
        True
    """

    def __init__(
        self,
        dimension: int,
        size: int,
        *,
        scale: float = 1.0,
        seed: int = 0,
        view: Callable[[Array], Array] | None = None,
    ) -> None:
        if size < 0 or not scale > 0:
            raise ValueError(f"size={size}, scale={scale}: need size ≥ 0 and a positive length.")
        self.view = view or (lambda x: x)
        seen = self.view(np.ones((1, dimension))).shape[1]
        rng = np.random.default_rng(seed)
        draws = [(rng.standard_normal(seen), rng.uniform(0, 2 * np.pi)) for _ in range(size)]
        self.frequencies = np.array([w for w, _ in draws]).reshape(size, seen) / scale
        self.phases = np.array([b for _, b in draws])

    def __call__(self, x: Array) -> Array:
        """The features of x (n, d)."""
        waves = np.sqrt(2) * np.cos(self.view(x) @ self.frequencies.T + self.phases)
        return np.concatenate([np.ones((len(x), 1)), x, waves], axis=1)


def quadrature(points: Array, sigma: float, order: int = 12) -> tuple[Array, Array, Array]:
    """States x_i + σ z_q (N·order^d, d), their weights (sum 1) and the data they come from, in small dimension d.

    Example:
        >>> states, weights, origin = quadrature(np.array([[1.0], [2.0]]), 0.5, order=3)
        >>> states.shape, round(float(weights @ (states - origin)[:, 0] ** 2), 12)
        ((6, 1), 0.25)
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    d = points.shape[1]
    mesh = np.stack([part.ravel() for part in np.meshgrid(*[nodes] * d, indexing="ij")], axis=1)
    product = np.prod(np.stack(np.meshgrid(*[weights / weights.sum()] * d, indexing="ij")), axis=0).ravel()
    states = (points[:, None] + sigma * mesh).reshape(-1, d)
    return states, np.tile(product, len(points)) / len(points), np.repeat(points, len(mesh), axis=0)


def fit(features: RandomFeatures, states: Array, weights: Array, targets: Array) -> Callable[[Array], Array]:
    """The least-squares f over the span of the features, as a function of states."""
    root = np.sqrt(weights)[:, None]
    # Rows times √w, so that plain least squares minimise the weighted sum; by singular values, since many features and
    # few data are degenerate and the shortest solution is meant.
    coefficients = np.linalg.lstsq(root * features(states), root * targets, rcond=1e-12)[0]
    return lambda x: features(x) @ coefficients
