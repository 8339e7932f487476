"""Factorised covariances: one representation for full, diagonal, isotropic and low-rank matrices.

For each of K components the covariance is kept as `C = Σ_j Q_j diag(λ_j) Q_jᵀ`, where the `Q_j` are the orthogonal
projections of a representation on its eigenspaces and `λ_j` their eigenvalues:

============ ======================================== =========================================
isotropic    one block, the vector itself             λ = v, counted d times
diagonal     one block, the vector itself             λ = (v_1, …, v_d)
full         one block, Uᵀ δ (columns: eigenvectors)  λ = (λ_1, …, λ_d)
low rank     Uᵀ δ and the rest δ − U Uᵀ δ             λ = (λ_1, …, λ_r) and v, counted d − r times
============ ======================================== =========================================

Noising acts on eigenvalues alone, `λ → α² λ + σ²`, so that a new noise level costs no new factorisation, and a zero
eigenvalue (a singular covariance, a point of an empirical law) is an ordinary value. A function of the matrix is the
function of its eigenvalues; quadratic forms, solves, traces and determinants follow.

Arrays: δ has shape (K, n, d); a block has shape (K, n, ·); a spectrum is a tuple of arrays (K, ·), one per block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from oracles._arrays import Array, check_finite, compat, concrete, detached, namespace, values

Spectrum = tuple[Array, ...]

# A covariance matrix may miss symmetry, or have negative eigenvalues, by this many units of its own rounding.
ROUNDING = 1e3


class Covariances(ABC):
    """The covariances of K components of dimension d, factorised."""

    spectrum: Spectrum
    multiplicity: tuple[int, ...]
    dimension: int

    @property
    def size(self) -> int:
        """K, the number of components."""
        return int(self.spectrum[0].shape[0])

    @abstractmethod
    def project(self, vectors: Array) -> tuple[Array, ...]:
        """The blocks of vectors (K, n, d)."""

    @abstractmethod
    def expand(self, blocks: tuple[Array, ...]) -> Array:
        """The vectors (K, n, d) that have these blocks."""

    @abstractmethod
    def replaced(self, spectrum: Spectrum) -> Covariances:
        """The same eigenspaces with other eigenvalues."""

    @abstractmethod
    def dense(self, spectrum: Spectrum) -> Array:
        """Matrices (K, d, d) with the same eigenspaces and these eigenvalues."""

    @abstractmethod
    def rows(self, chosen: slice) -> Covariances:
        """The covariances of some of the components."""

    def coloured(self, noise: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """C_k^{1/2} times standard normal rows (n, d), of which the first counts[0] belong to component 0, and so on."""
        ends = np.cumsum(counts)
        pieces = [self._root(k, noise[ends[k] - counts[k] : ends[k], :]) for k in np.flatnonzero(counts)]
        return np.concatenate(pieces) if pieces else noise

    def _root(self, k: int, noise: np.ndarray) -> np.ndarray:
        """C_k^{1/2} times rows, in NumPy."""
        one = self.rows(slice(int(k), int(k) + 1)).numpy()
        return np.asarray(one.apply(tuple(np.sqrt(part) for part in one.spectrum), noise[None])[0])

    @abstractmethod
    def numpy(self) -> Covariances:
        """The same covariances as NumPy float64 arrays."""

    def constant(self) -> Covariances:
        """The same covariances, constant for automatic differentiation."""
        return self.replaced(tuple(detached(part) for part in self.spectrum))

    def average(self, weights: Array, spectrum: Spectrum) -> Array:
        """`Σ_k weights[k, b] F_k` as matrices (n, d, d), where F_k has these eigenvalues."""
        xp = namespace(weights)
        flat = xp.reshape(self.dense(spectrum), (self.size, self.dimension**2))
        return xp.reshape(xp.matmul(weights.T, flat), (weights.shape[1], self.dimension, self.dimension))

    def noised(self, sigma: Array, alpha: Array) -> Covariances:
        """α² C + σ² I."""
        return self.replaced(tuple(alpha * alpha * part + sigma * sigma for part in self.spectrum))

    def inverse(self) -> Spectrum:
        """The eigenvalues of C⁻¹."""
        return tuple(1.0 / part for part in self.spectrum)

    def apply(self, spectrum: Spectrum, vectors: Array) -> Array:
        """The matrices with these eigenvalues times vectors (K, n, d)."""
        return self.expand(scaled(spectrum, self.project(vectors)))

    def quadratic(self, spectrum: Spectrum, blocks: tuple[Array, ...]) -> Array:
        """`δᵀ F δ` of shape (K, n) for vectors given by their blocks."""
        xp = namespace(blocks[0])
        terms = [
            xp.sum(part[:, None, :] * block * block, axis=-1) for part, block in zip(spectrum, blocks, strict=True)
        ]
        return sum(terms[1:], start=terms[0])

    def trace(self, spectrum: Spectrum) -> Array:
        """The traces (K,) of the matrices with these eigenvalues."""
        xp = namespace(spectrum[0])
        terms = [count * xp.sum(part, axis=-1) for count, part in zip(self.multiplicity, spectrum, strict=True)]
        return sum(terms[1:], start=terms[0])

    def log_determinant(self) -> Array:
        """log det C, shape (K,)."""
        xp = namespace(self.spectrum[0])
        return self.trace(tuple(xp.log(part) for part in self.spectrum))

    def singular(self) -> bool:
        """Whether an eigenvalue is known to be zero."""
        known = [values(part) for part, count in zip(self.spectrum, self.multiplicity, strict=True) if count]
        return any(part is not None and bool(np.any(part <= 0)) for part in known)


class Isotropic(Covariances):
    """C_k = v_k I with variances of shape (K, 1)."""

    def __init__(self, variances: Array, dimension: int):
        self.spectrum, self.multiplicity, self.dimension = (variances,), (dimension,), dimension

    def project(self, vectors: Array) -> tuple[Array, ...]:
        return (vectors,)

    def expand(self, blocks: tuple[Array, ...]) -> Array:
        return blocks[0]

    def replaced(self, spectrum: Spectrum) -> Isotropic:
        return Isotropic(spectrum[0], self.dimension)

    def dense(self, spectrum: Spectrum) -> Array:
        return spectrum[0][:, :, None] * _eye(self.dimension, spectrum[0])

    def average(self, weights: Array, spectrum: Spectrum) -> Array:
        return namespace(weights).matmul(weights.T, spectrum[0])[:, :, None] * _eye(self.dimension, weights)

    def numpy(self) -> Isotropic:
        return Isotropic(_numpy(self.spectrum[0]), self.dimension)

    def coloured(self, noise: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return noise * np.repeat(np.sqrt(_numpy(self.spectrum[0])), counts, axis=0)

    def rows(self, chosen: slice) -> Isotropic:
        return Isotropic(self.spectrum[0][chosen, :], self.dimension)


class Diagonal(Covariances):
    """C_k = diag(v_k) with variances of shape (K, d)."""

    def __init__(self, variances: Array):
        self.spectrum, self.multiplicity, self.dimension = (variances,), (1,), int(variances.shape[1])

    def project(self, vectors: Array) -> tuple[Array, ...]:
        return (vectors,)

    def expand(self, blocks: tuple[Array, ...]) -> Array:
        return blocks[0]

    def replaced(self, spectrum: Spectrum) -> Diagonal:
        return Diagonal(spectrum[0])

    def dense(self, spectrum: Spectrum) -> Array:
        return spectrum[0][:, :, None] * _eye(self.dimension, spectrum[0])

    def average(self, weights: Array, spectrum: Spectrum) -> Array:
        return namespace(weights).matmul(weights.T, spectrum[0])[:, :, None] * _eye(self.dimension, weights)

    def numpy(self) -> Diagonal:
        return Diagonal(_numpy(self.spectrum[0]))

    def coloured(self, noise: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return noise * np.repeat(np.sqrt(_numpy(self.spectrum[0])), counts, axis=0)

    def rows(self, chosen: slice) -> Diagonal:
        return Diagonal(self.spectrum[0][chosen, :])


class Full(Covariances):
    """C_k = U_k diag(λ_k) U_kᵀ with eigenvectors (K, d, d) in columns and eigenvalues (K, d)."""

    def __init__(self, basis: Array, eigenvalues: Array):
        self.basis, self.spectrum, self.multiplicity = basis, (eigenvalues,), (1,)
        self.dimension = int(basis.shape[1])

    def project(self, vectors: Array) -> tuple[Array, ...]:
        return (namespace(vectors).matmul(vectors, self.basis),)

    def expand(self, blocks: tuple[Array, ...]) -> Array:
        return namespace(self.basis).matmul(blocks[0], _transposed(self.basis))

    def replaced(self, spectrum: Spectrum) -> Full:
        return Full(self.basis, spectrum[0])

    def dense(self, spectrum: Spectrum) -> Array:
        return _conjugated(self.basis, spectrum[0])

    def numpy(self) -> Full:
        return Full(_numpy(self.basis), _numpy(self.spectrum[0]))

    def rows(self, chosen: slice) -> Full:
        return Full(self.basis[chosen, :, :], self.spectrum[0][chosen, :])


class LowRank(Covariances):
    """C_k = U_k diag(λ_k) U_kᵀ + v_k (I − U_k U_kᵀ), orthonormal columns (K, d, r), r < d, v of shape (K, 1)."""

    def __init__(self, basis: Array, eigenvalues: Array, rest: Array):
        self.basis, self.spectrum, self.dimension = basis, (eigenvalues, rest), int(basis.shape[1])
        self.multiplicity = (1, self.dimension - int(basis.shape[2]))

    def project(self, vectors: Array) -> tuple[Array, ...]:
        coordinates = namespace(vectors).matmul(vectors, self.basis)
        return coordinates, vectors - self._inside(coordinates)

    def expand(self, blocks: tuple[Array, ...]) -> Array:
        return self._inside(blocks[0]) + blocks[1]

    def _inside(self, coordinates: Array) -> Array:
        return namespace(coordinates).matmul(coordinates, _transposed(self.basis))

    def replaced(self, spectrum: Spectrum) -> LowRank:
        return LowRank(self.basis, spectrum[0], spectrum[1])

    def dense(self, spectrum: Spectrum) -> Array:
        inside = _conjugated(self.basis, spectrum[0])
        outside = _eye(self.dimension, self.basis) - _conjugated(self.basis, namespace(inside).ones_like(spectrum[0]))
        return inside + spectrum[1][:, :, None] * outside

    def numpy(self) -> LowRank:
        return LowRank(_numpy(self.basis), _numpy(self.spectrum[0]), _numpy(self.spectrum[1]))

    def rows(self, chosen: slice) -> LowRank:
        return LowRank(self.basis[chosen, :, :], self.spectrum[0][chosen, :], self.spectrum[1][chosen, :])


def scaled(spectrum: Spectrum, blocks: tuple[Array, ...]) -> tuple[Array, ...]:
    """The blocks multiplied by the eigenvalues."""
    return tuple(part[:, None, :] * block for part, block in zip(spectrum, blocks, strict=True))


def full(covariances: Array) -> Full:
    """Factorise matrices (K, d, d); raise unless they are symmetric and positive semi-definite."""
    _check_symmetric(covariances)
    xp = namespace(covariances)
    eigenvalues, basis = xp.linalg.eigh(detached(covariances))
    _check_positive_semidefinite(eigenvalues)
    return Full(basis, xp.where(eigenvalues > 0, eigenvalues, xp.zeros_like(eigenvalues)))


def low_rank(factors: Array, variances: Array) -> Covariances:
    """Factorise F Fᵀ + v I for factors (K, d, r) and variances (K,); full when r ≥ d."""
    xp = namespace(factors)
    dimension, rank = int(factors.shape[1]), int(factors.shape[2])
    basis, sizes, _ = xp.linalg.svd(detached(factors), full_matrices=rank > dimension)
    eigenvalues = sizes * sizes + variances[:, None]
    return LowRank(basis, eigenvalues, variances[:, None]) if rank < dimension else Full(basis, eigenvalues)


def check_variances(variances: Array, name: str) -> None:
    """Raise where known variances are negative or not finite."""
    check_finite(variances, name)
    known = values(variances)
    if known is not None and np.any(known < 0):
        raise ValueError(f"{name} contains a negative value ({known.min()}); variances must be zero or positive")


def _check_symmetric(covariances: Array) -> None:
    known = values(covariances)
    if known is None:
        return
    miss = np.max(np.abs(known - np.swapaxes(known, -1, -2)), initial=0.0)
    if miss > _allowance(known):
        raise ValueError(
            f"covariances are not symmetric (they differ from their transposes by {miss}); symmetrise them"
        )


def _check_positive_semidefinite(eigenvalues: Array) -> None:
    known = values(eigenvalues)
    if known is not None and np.min(known, initial=0.0) < -_allowance(known):
        raise ValueError(f"covariances are not positive semi-definite (an eigenvalue is {known.min()}); correct them")


def _allowance(known: np.ndarray) -> float:
    return float(ROUNDING * np.finfo(known.dtype).eps * np.max(np.abs(known), initial=0.0))


def _numpy(array: Array) -> np.ndarray:
    return concrete(array, "sampling").astype(np.float64)


def _eye(dimension: int, like: Array) -> Array:
    return namespace(like).eye(dimension, dtype=like.dtype, device=compat.device(like))


def _transposed(matrices: Array) -> Any:
    return namespace(matrices).matrix_transpose(matrices)


def _conjugated(basis: Array, eigenvalues: Array) -> Array:
    return namespace(basis).matmul(basis * eigenvalues[:, None, :], _transposed(basis))
