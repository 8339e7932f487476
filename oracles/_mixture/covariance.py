"""Factorised covariances: one representation for full, diagonal, isotropic and low-rank matrices.

Each of K covariances is kept by its eigenspaces and eigenvalues:

============ ================================================ =========================================
isotropic    `v I`                                            one eigenvalue v, repeated d times
diagonal     `diag(v)`                                        v_1, …, v_d
full         `U diag(λ) Uᵀ`                                   λ_1, …, λ_d
low rank     `U diag(λ) Uᵀ + v (I − U Uᵀ)`, U of shape (d, r) λ_1, …, λ_r, and v repeated d − r times
============ ================================================ =========================================

Noising acts on eigenvalues alone, `λ → α² λ + σ²`: a new noise level costs no new factorisation, and a zero eigenvalue
(a singular covariance, a point of an empirical law) is an ordinary value.

The factorisation is constant for automatic differentiation, whose rule for eigenvectors divides by differences of
eigenvalues. Where derivatives in a full covariance are wanted, the difference `E = Uᵀ Σ U − sg(Uᵀ Σ U)` (sg stops
gradients), whose value is zero, is carried along: `C = U (diag(λ) + E) Uᵀ` has Σ's own derivatives of every order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from oracles._arrays import Array, check_finite, concrete, detached, eye, namespace, summed, tracked, transposed, values
from oracles._mixture.whitening import Precision, Rotation, Scaling, Split, Whitening

# A covariance matrix may miss symmetry, or have negative eigenvalues, by this many units of its own rounding.
ROUNDING = 1e3
# Up to this condition number the inverse itself is as accurate as its factors.
CONDITION = 1e3


class Covariances(ABC):
    """The covariances C_k of K components of dimension d, factorised.

    `spectrum` holds the distinct eigenvalues as arrays (K, ·); the representation says how often each is repeated.
    """

    spectrum: tuple[Array, ...]
    dimension: int

    @property
    def size(self) -> int:
        """K, the number of components."""
        return int(self.spectrum[0].shape[0])

    @abstractmethod
    def replaced(self, spectrum: tuple[Array, ...]) -> Covariances:
        """The same eigenspaces with other eigenvalues."""

    @abstractmethod
    def rows(self, chosen: slice) -> Covariances:
        """The covariances of some of the components."""

    @abstractmethod
    def numpy(self) -> Covariances:
        """The same covariances as NumPy float64 arrays."""

    @abstractmethod
    def matrices(self) -> Array:
        """C_k as dense matrices (K, d, d)."""

    @abstractmethod
    def apply(self, vectors: Array) -> Array:
        """C_k δ_k for vectors (K, n, d)."""

    @abstractmethod
    def whitening(self, rows: int) -> Whitening:
        """The factorised inverses, as suits a number of states."""

    def noised(self, sigma: Array, alpha: Array) -> Covariances:
        """α² C + σ² I."""
        return self.replaced(tuple(alpha * alpha * part + sigma * sigma for part in self.spectrum))

    def shrinkage(self, sigma: Array) -> Covariances:
        """`C (C + σ² I)⁻¹`, which maps x − μ to the posterior mean's distance from μ."""
        # Not 1 − σ²/(λ + σ²), of which small λ would keep no digit.
        return self.replaced(tuple(part / (part + sigma * sigma) for part in self.spectrum))

    def average(self, weights: Array) -> Array:
        """`Σ_k w_kn C_k` for weights (K, n), shape (n, d, d)."""
        return summed(weights, self.matrices())

    def constant(self) -> Covariances:
        """The same covariances, constant for automatic differentiation."""
        return self.replaced(tuple(detached(part) for part in self.spectrum))

    def singular(self) -> bool:
        """Whether an eigenvalue is known to be zero."""
        known = [values(part) for part in self.spectrum]
        return any(part is not None and bool(np.any(part <= 0)) for part in known)

    def coloured(self, noise: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """C_k^{1/2} times standard normal rows (n, d), counts[0] of component 0 first, and so on."""
        roots = self.numpy().replaced(tuple(np.sqrt(_numpy(part)) for part in self.spectrum))
        ends = np.cumsum(counts)
        chosen = [(slice(k, k + 1), slice(ends[k] - counts[k], ends[k])) for k in np.flatnonzero(counts).tolist()]
        return np.concatenate([noise[:0], *(roots.rows(k).apply(noise[None, rows])[0] for k, rows in chosen)])


class Isotropic(Covariances):
    """C_k = v_k I with variances of shape (K, 1)."""

    def __init__(self, variances: Array, dimension: int):
        self.spectrum, self.dimension = (variances,), dimension

    def replaced(self, spectrum: tuple[Array, ...]) -> Isotropic:
        return Isotropic(spectrum[0], self.dimension)

    def rows(self, chosen: slice) -> Isotropic:
        return Isotropic(self.spectrum[0][chosen, :], self.dimension)

    def numpy(self) -> Isotropic:
        return Isotropic(_numpy(self.spectrum[0]), self.dimension)

    def matrices(self) -> Array:
        return self.spectrum[0][:, :, None] * eye(self.dimension, self.spectrum[0])

    def apply(self, vectors: Array) -> Array:
        return self.spectrum[0][:, None, :] * vectors

    def average(self, weights: Array) -> Array:
        return namespace(weights).matmul(weights.T, self.spectrum[0])[:, :, None] * eye(self.dimension, weights)

    def whitening(self, rows: int) -> Whitening:
        return Scaling(self.spectrum[0], self.dimension)

    def coloured(self, noise: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return noise * np.repeat(np.sqrt(_numpy(self.spectrum[0])), counts, axis=0)


class Diagonal(Isotropic):
    """C_k = diag(v_k) with variances of shape (K, d)."""

    def __init__(self, variances: Array):
        super().__init__(variances, int(variances.shape[1]))

    def replaced(self, spectrum: tuple[Array, ...]) -> Diagonal:
        return Diagonal(spectrum[0])

    def rows(self, chosen: slice) -> Diagonal:
        return Diagonal(self.spectrum[0][chosen, :])

    def numpy(self) -> Diagonal:
        return Diagonal(_numpy(self.spectrum[0]))


class Full(Covariances):
    """C_k = U_k diag(λ_k) U_kᵀ with eigenvectors (K, d, d) in columns and eigenvalues (K, d)."""

    def __init__(self, basis: Array, eigenvalues: Array):
        self.basis, self.spectrum, self.dimension = basis, (eigenvalues,), int(basis.shape[1])

    def replaced(self, spectrum: tuple[Array, ...]) -> Full:
        return Full(self.basis, spectrum[0])

    def rows(self, chosen: slice) -> Full:
        return Full(self.basis[chosen, :, :], self.spectrum[0][chosen, :])

    def numpy(self) -> Full:
        return Full(_numpy(self.basis), _numpy(self.spectrum[0]))

    def matrices(self) -> Array:
        return _conjugated(self.basis, self.spectrum[0])

    def apply(self, vectors: Array) -> Array:
        xp = namespace(vectors)
        return xp.matmul(xp.matmul(vectors, self.basis) * self.spectrum[0][:, None, :], transposed(self.basis))

    def whitening(self, rows: int) -> Whitening:
        xp, eigenvalues = namespace(self.basis), self.spectrum[0]
        matrix = self.basis / xp.sqrt(eigenvalues)[:, None, :]
        log_root_determinant = 0.5 * xp.sum(xp.log(eigenvalues), axis=-1)
        # Forming P costs d³, which d states earn back; beyond `CONDITION` its rounding, ε cond(C), would show.
        if rows < self.dimension or not _well_conditioned(eigenvalues):
            return Rotation(matrix, log_root_determinant)
        return Precision(xp.matmul(matrix, transposed(matrix)), log_root_determinant)


class TrackedFull(Full):
    """C_k = U_k (diag(λ_k) + E_k) U_kᵀ, where E_k (K, d, d) is zero in value and carries the derivatives of C_k."""

    def __init__(self, basis: Array, eigenvalues: Array, residual: Array):
        super().__init__(basis, eigenvalues)
        self.residual = residual

    def constant(self) -> Full:
        return Full(self.basis, detached(self.spectrum[0]))

    def numpy(self) -> Full:
        concrete(self.residual, "reading covariances")  # an error, not a constant, where derivatives are being traced
        return super().numpy()

    def rows(self, chosen: slice) -> TrackedFull:
        return TrackedFull(self.basis[chosen, :, :], self.spectrum[0][chosen, :], self.residual[chosen, :, :])

    def noised(self, sigma: Array, alpha: Array) -> TrackedFull:
        eigenvalues = alpha * alpha * self.spectrum[0] + sigma * sigma
        return TrackedFull(self.basis, eigenvalues, alpha * alpha * self.residual)

    def shrinkage(self, sigma: Array) -> TrackedFull:
        xp, square = namespace(self.basis), sigma * sigma
        # C (C + σ² I)⁻¹ = I − σ² (C + σ² I)⁻¹: the value from the eigenvalues, every derivative from the inverse.
        tail = -square * xp.linalg.inv(self._core() + square * eye(self.dimension, self.basis))
        return TrackedFull(self.basis, detached(self.spectrum[0] / (self.spectrum[0] + square)), tail - detached(tail))

    def matrices(self) -> Array:
        return namespace(self.basis).matmul(namespace(self.basis).matmul(self.basis, self._core()), self._inverse())

    def apply(self, vectors: Array) -> Array:
        xp = namespace(vectors)
        return xp.matmul(xp.matmul(xp.matmul(vectors, self.basis), self._core()), self._inverse())

    def whitening(self, rows: int) -> Whitening:
        # The core is diagonal in value; Cholesky's derivative is right at repeated eigenvalues, that of eigh is not.
        xp = namespace(self.basis)
        lower = xp.linalg.cholesky(self._core())
        matrix = xp.matmul(self.basis, transposed(xp.linalg.inv(lower)))
        return Rotation(matrix, xp.sum(xp.log(xp.linalg.diagonal(lower)), axis=-1))

    def _core(self) -> Array:
        return self.spectrum[0][:, :, None] * eye(self.dimension, self.basis) + self.residual

    def _inverse(self) -> Array:
        return transposed(self.basis)


class LowRank(Covariances):
    """C_k = U_k diag(λ_k) U_kᵀ + v_k (I − U_k U_kᵀ), orthonormal columns (K, d, r), r < d, v of shape (K, 1)."""

    def __init__(self, basis: Array, eigenvalues: Array, rest: Array):
        self.basis, self.spectrum, self.dimension = basis, (eigenvalues, rest), int(basis.shape[1])

    def replaced(self, spectrum: tuple[Array, ...]) -> LowRank:
        return LowRank(self.basis, spectrum[0], spectrum[1])

    def rows(self, chosen: slice) -> LowRank:
        return LowRank(self.basis[chosen, :, :], self.spectrum[0][chosen, :], self.spectrum[1][chosen, :])

    def numpy(self) -> LowRank:
        return LowRank(_numpy(self.basis), _numpy(self.spectrum[0]), _numpy(self.spectrum[1]))

    def matrices(self) -> Array:
        excess = _conjugated(self.basis, self.spectrum[0] - self.spectrum[1])
        return excess + self.spectrum[1][:, :, None] * eye(self.dimension, self.basis)

    def apply(self, vectors: Array) -> Array:
        xp = namespace(vectors)
        inside = xp.matmul(vectors, self.basis)
        outside = vectors - xp.matmul(inside, transposed(self.basis))
        along = xp.matmul(inside * self.spectrum[0][:, None, :], transposed(self.basis))
        return along + self.spectrum[1][:, None, :] * outside

    def whitening(self, rows: int) -> Whitening:
        return Split(self.basis, self.spectrum[0], self.spectrum[1])


def full(covariances: Array) -> Full:
    """Factorise matrices (K, d, d); raise unless they are symmetric and positive semi-definite."""
    check_symmetric(covariances, "covariances")
    xp = namespace(covariances)
    eigenvalues, basis = xp.linalg.eigh(detached(covariances))
    check_positive_semidefinite(eigenvalues, "covariances")
    # Rounding may leave −ε |C|: with noise below its root the noised variance would be negative.
    eigenvalues = xp.where(eigenvalues > 0, eigenvalues, xp.zeros_like(eigenvalues))
    if not tracked(covariances):
        return Full(basis, eigenvalues)
    # C = U (Uᵀ C U) Uᵀ for any fixed orthogonal U: the eigenvectors are constants, and Uᵀ C U carries all derivatives.
    symmetric = 0.5 * (covariances + transposed(covariances))
    inside = xp.matmul(xp.matmul(transposed(basis), symmetric), basis)
    return TrackedFull(basis, eigenvalues, inside - detached(inside))


def low_rank(factors: Array, variances: Array) -> Covariances:
    """Factorise F Fᵀ + v I for factors (K, d, r) and variances (K,).

    The result is full when r ≥ d, and where derivatives in the factors are wanted: they move the eigenspaces.
    """
    xp = namespace(factors)
    dimension, rank = int(factors.shape[1]), int(factors.shape[2])
    if tracked(factors):
        return full(xp.matmul(factors, transposed(factors)) + variances[:, None, None] * eye(dimension, factors))
    # Singular values of F, not eigenvalues of F Fᵀ: small ones keep digits that their squares lose beside large ones.
    basis, sizes, _ = xp.linalg.svd(factors, full_matrices=False)
    eigenvalues = sizes * sizes + variances[:, None]
    return LowRank(basis, eigenvalues, variances[:, None]) if rank < dimension else Full(basis, eigenvalues)


def check_variances(variances: Array, name: str) -> None:
    """Raise where known variances are negative or not finite."""
    check_finite(variances, name)
    known = values(variances)
    if known is not None and np.any(known < 0):
        raise ValueError(f"{name} contains a negative value ({known.min()}); variances must be zero or positive")


def check_symmetric(covariances: Array, name: str) -> None:
    """Raise where known matrices are not symmetric."""
    known = values(covariances)
    if known is None:
        return
    miss = np.max(np.abs(known - np.swapaxes(known, -1, -2)), initial=0.0)
    if miss > _allowance(known):
        raise ValueError(f"{name} are not symmetric (they differ from their transposes by {miss}); symmetrise them")


def check_positive_semidefinite(eigenvalues: Array, name: str) -> None:
    """Raise where known eigenvalues are negative beyond rounding."""
    known = values(eigenvalues)
    if known is not None and np.min(known, initial=0.0) < -_allowance(known):
        raise ValueError(f"{name}: not positive semi-definite (an eigenvalue is {known.min()}); correct it")


def _well_conditioned(eigenvalues: Array) -> bool:
    known = values(eigenvalues)
    return known is not None and bool(np.all(np.max(known, axis=-1) <= CONDITION * np.min(known, axis=-1)))


def _allowance(known: np.ndarray) -> float:
    return float(ROUNDING * np.finfo(known.dtype).eps * np.max(np.abs(known), initial=0.0))


def _numpy(array: Array) -> np.ndarray:
    return concrete(array, "reading covariances").astype(np.float64)


def _conjugated(basis: Array, eigenvalues: Array) -> Any:
    return namespace(basis).matmul(basis * eigenvalues[:, None, :], transposed(basis))
