r"""Named data laws with seeds: the geometries of the studies and the test problems of the tests.

Every constructor returns a `GaussianMixture` in NumPy float64 that is a function of its arguments and
`seed` alone (NumPy's `default_rng`). Where a geometry is another paper's, the numbers known of it are used and the
unknown ones are chosen and said:

- `uniform`, `sharp`, `spiral`, `thin_manifold`: after Pavlova & Wei, arXiv 2506.07841 (K components, means in
  U(−3, 3)^d, Dirichlet(1) weights; what the paper leaves open, such as one rotation per component, is chosen here);
- `bimodal`, `isotropic`: the two laws of Scarvelis & Solomon, arXiv 2509.23092, in kind (two modes in d = 10, isotropic
  components in d = 100); their parameters are not published in a form that we could read, so these are ours;
- `anisotropic`: for tests, nothing in a null space (no symmetry, unequal weights, correlated coordinates).

`companion(law, seed)` makes a law ν to move mass toward: covered by ρ (ν_σ/p_σ bounded at every σ), so that weighted
averages over ν exist.

Example:
    >>> law = sharp(dimension=4, size=3, sharpness=1.0, seed=0)
    >>> law.size, law.dimension
    (3, 4)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oracles.mixture import GaussianMixture
from oracles.perturbation import AdditivePerturbation

FLOOR = 1e-6
"""Smallest eigenvalue of a sharp covariance."""


def uniform(dimension: int = 2, size: int = 10, seed: int = 0) -> GaussianMixture:
    """K = `size` components with covariance I/2, means in U(−3, 3)^d, Dirichlet(1) weights."""
    weights, means, _ = _scattered(dimension, size, seed)
    return GaussianMixture.isotropic(weights, means, 0.5)


def sharp(dimension: int = 2, size: int = 10, sharpness: float = 1.0, seed: int = 0) -> GaussianMixture:
    """As `uniform`, with covariances `Q_k diag(max(e^{−js}/2, 1e-6)) Q_kᵀ`, j = 0 … d−1, s = `sharpness`.

    The paper has s = 1 and 3. Q_k is uniform on the orthogonal group, one for each component.
    """
    if not sharpness >= 0:
        raise ValueError(f"sharpness = {sharpness!r} must not be negative: it is the decay of the eigenvalues")
    weights, means, rng = _scattered(dimension, size, seed)
    values = np.maximum(0.5 * np.exp(-sharpness * np.arange(dimension)), FLOOR)
    return GaussianMixture(weights, means, np.stack([_conjugated(_rotation(rng, dimension), values) for _ in weights]))


def spiral(size: int = 10, seed: int = 0) -> GaussianMixture:
    """Components along a spiral in the plane, narrower inward.

    Angles θ from 0 to 1.9π, radius R = 3.5 (1 − θ/2π), variances q/2 along the tangent and q/20 across, with
    q = max(.1, R/3.5); Dirichlet(1) weights.
    """
    rng = _checked_rng(2, size, seed)
    angles = np.linspace(0.0, 1.9 * np.pi, size)
    radii = 3.5 * (1 - angles / (2 * np.pi))
    points = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)
    # The curve R (cos θ, sin θ) has the derivative R′ (cos θ, sin θ) + R (−sin θ, cos θ), R′ = −3.5/2π.
    velocity = np.stack([-3.5 / (2 * np.pi) * np.cos(angles) - points[:, 1], points[:, 0]], -1)
    velocity[:, 1] -= 3.5 / (2 * np.pi) * np.sin(angles)
    tangents = velocity / np.linalg.norm(velocity, axis=1, keepdims=True)
    normals = np.stack([-tangents[:, 1], tangents[:, 0]], -1)
    q = np.maximum(0.1, radii / 3.5)[:, None, None]
    covariances = 0.5 * q * _outer(tangents) + 0.05 * q * _outer(normals)
    return GaussianMixture(rng.dirichlet(np.ones(size)), points, covariances)


def thin_manifold(
    dimension: int = 100, intrinsic: int = 2, size: int = 10, normal_variance: float = 0.01, seed: int = 0
) -> GaussianMixture:
    """A mixture near a random `intrinsic`-dimensional plane of R^d, with `normal_variance` < 1/2 across it.

    In the plane as `uniform`: means in U(−3, 3)^intrinsic, covariance I/2 (the tangential variance is ours),
    Dirichlet(1) weights. Low-rank representation: no d×d matrix is formed.
    """
    if not 1 <= intrinsic <= dimension:
        raise ValueError(f"intrinsic = {intrinsic!r} must lie between 1 and dimension = {dimension!r}")
    if not 0 <= normal_variance < 0.5:
        raise ValueError(f"normal_variance = {normal_variance!r} must be below 1/2, the variance along the plane")
    weights, inside, rng = _scattered(intrinsic, size, seed)
    plane = _rotation(rng, dimension)[:, :intrinsic]
    factors = np.broadcast_to(np.sqrt(0.5 - normal_variance) * plane, (size, dimension, intrinsic)).copy()
    return GaussianMixture.low_rank(weights, inside @ plane.T, factors, normal_variance)


def grid(side: int = 5, dimension: int = 2, spacing: float = 1.0, variance: float = 0.01) -> GaussianMixture:
    """`side`^d equal isotropic components on a centred grid."""
    _checked_rng(dimension, side, 0)
    axis = spacing * (np.arange(side) - 0.5 * (side - 1))
    means = np.stack(np.meshgrid(*[axis] * dimension, indexing="ij"), -1).reshape(-1, dimension)
    return GaussianMixture.isotropic(np.full(len(means), 1 / len(means)), means, variance)


def rotated_product(factors: Sequence[GaussianMixture], seed: int | None = 0) -> tuple[GaussianMixture, np.ndarray]:
    """The product of mixtures with d = 1, rotated, as one mixture of all their combinations, and the rotation Q (d, d).

    `x = Q y` with independent y_i ~ factors[i]; Q is uniform on the orthogonal group, the identity for `seed=None`.
    Its transport is that of `oracles.transport.ProductOracle` with `rotation=Q`.
    """
    if not factors or any(f.dimension != 1 for f in factors):
        raise ValueError("factors must be Gaussian mixtures with d = 1, at least one")
    d = len(factors)
    q = np.eye(d) if seed is None else _rotation(np.random.default_rng(seed), d)
    weights, means, variances = (
        np.stack([a.reshape(-1) for a in np.meshgrid(*[np.asarray(part).reshape(-1) for part in parts], indexing="ij")])
        for parts in zip(*[(f.weights, f.means, f.covariances) for f in factors], strict=True)
    )
    covariances = np.stack([_conjugated(q, v) for v in variances.T])
    return GaussianMixture(weights.prod(axis=0), means.T @ q.T, covariances), q


def bimodal(dimension: int = 10, distance: float = 4.0, weight: float = 0.3, seed: int = 0) -> GaussianMixture:
    """Two modes `distance` apart, of weights `weight` and 1 − `weight`, with different anisotropic covariances.

    The direction between the modes and the covariances (eigenvalues log-uniform in .1 … 1) come from the seed.
    """
    if not 0 < weight < 1:
        raise ValueError(f"weight = {weight!r} must lie between 0 and 1")
    rng = _checked_rng(dimension, 2, seed)
    axis = _rotation(rng, dimension)[0]
    covariances = [_conjugated(_rotation(rng, dimension), 10 ** rng.uniform(-1, 0, dimension)) for _ in range(2)]
    means = distance * np.stack([-(1 - weight) * axis, weight * axis])
    return GaussianMixture(np.array([weight, 1 - weight]), means, np.stack(covariances))


def isotropic(dimension: int = 100, size: int = 5, seed: int = 0) -> GaussianMixture:
    """Isotropic components of unequal variances (.1 … .5) and weights, means standard normal."""
    rng = _checked_rng(dimension, size, seed)
    weights = rng.uniform(0.5, 2.0, size)
    means = rng.standard_normal((size, dimension))
    return GaussianMixture.isotropic(weights / weights.sum(), means, rng.uniform(0.1, 0.5, size))


def anisotropic(dimension: int = 3, size: int = 3, seed: int = 0) -> GaussianMixture:
    """Correlated components of different shapes, unequal weights, no symmetry and no zero mean."""
    rng = _checked_rng(dimension, size, seed)
    weights = rng.uniform(0.5, 2.0, size)
    means = 0.3 + 1.5 * rng.standard_normal((size, dimension))
    values = 10 ** rng.uniform(-1.3, 0.2, (size, dimension))
    covariances = np.stack([_conjugated(_rotation(rng, dimension), v) for v in values])
    return GaussianMixture(weights / weights.sum(), means, covariances)


def companion(
    law: GaussianMixture, size: int = 2, shift: float = 0.5, shrink: float = 0.7, seed: int = 1
) -> GaussianMixture:
    """A law ν to move mass toward: `size` components of `law`, shifted by about `shift` of their own standard
    deviations, with covariances `shrink` < 1 times theirs, and new weights, so that ν_σ/p_σ is bounded.
    """
    if not 0 < shrink < 1:
        raise ValueError(f"shrink = {shrink!r} must lie between 0 and 1, or ν_σ/p_σ is unbounded")
    rng = _checked_rng(law.dimension, size, seed)
    chosen = rng.choice(law.size, size, replace=law.size < size, p=np.asarray(law.weights))
    covariances, noise = np.asarray(law.covariances)[chosen], rng.standard_normal((size, law.dimension))
    roots = np.stack([_root(c) for c in covariances])
    weights = rng.uniform(0.5, 2.0, size)
    means = np.asarray(law.means)[chosen] + shift * np.einsum("kij,kj->ki", roots, noise) / np.sqrt(law.dimension)
    return GaussianMixture(weights / weights.sum(), means, shrink * covariances)


def contamination(law: GaussianMixture, seed: int = 1) -> AdditivePerturbation:
    """The law and its `companion`, as a perturbation."""
    return AdditivePerturbation(law, companion(law, seed=seed))


def _scattered(dimension: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = _checked_rng(dimension, size, seed)
    return rng.dirichlet(np.ones(size)), rng.uniform(-3.0, 3.0, (size, dimension)), rng


def _checked_rng(dimension: int, size: int, seed: int) -> np.random.Generator:
    for name, value in (("dimension", dimension), ("size", size)):
        if not (isinstance(value, int) and value >= 1):
            raise ValueError(f"{name} = {value!r} must be an integer of at least 1")
    return np.random.default_rng(seed)


def _rotation(rng: np.random.Generator, dimension: int) -> np.ndarray:
    """Uniform on the orthogonal group: QR of a Gaussian matrix with the signs of R's diagonal undone."""
    q, r = np.linalg.qr(rng.standard_normal((dimension, dimension)))
    return q * np.sign(np.diag(r))


def _conjugated(q: np.ndarray, values: np.ndarray) -> np.ndarray:
    matrix = (q * values) @ q.T
    return (matrix + matrix.T) / 2


def _outer(vectors: np.ndarray) -> np.ndarray:
    return vectors[:, :, None] * vectors[:, None, :]


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
