"""Whitened coordinates: everything that needs the inverse of a covariance.

For each of K components `C⁻¹ = W Wᵀ`. Vectors δ of shape (K, n, d) become blocks `y = Wᵀ δ`, so that `δᵀ C⁻¹ δ = |y|²`
is a sum of squares and `C⁻¹ δ = W y`. A whitening also knows `½ log det C`, shape (K,).

For many states and well-conditioned covariances, one product with `C⁻¹` replaces the two with W and Wᵀ (`Precision`).
Its rounding error, ε cond(C) δᵀC⁻¹δ, is that of rounding x − μ in the first place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from oracles._arrays import Array, dot, eye, namespace, square, summed, transposed, weighted

Blocks = tuple[Array, ...]


class Whitening(ABC):
    """`C⁻¹ = W Wᵀ` of K components."""

    log_root_determinant: Array

    @abstractmethod
    def whiten(self, vectors: Array) -> Blocks:
        """Wᵀ δ for vectors (K, n, d)."""

    @abstractmethod
    def back(self, blocks: Blocks) -> Array:
        """W y, shape (K, n, d)."""

    @abstractmethod
    def average(self, weights: Array) -> Array:
        """`Σ_k w_kn C_k⁻¹` for weights (K, n), shape (n, d, d)."""

    @abstractmethod
    def trace(self) -> Array:
        """tr C⁻¹, shape (K,)."""

    def square(self, blocks: Blocks) -> Array:
        """δᵀ C⁻¹ δ = |y|², shape (K, n)."""
        squares = [square(block) for block in blocks]
        return sum(squares[1:], start=squares[0])

    def solve(self, vectors: Array) -> Array:
        """C⁻¹ δ for vectors (K, n, d) or (1, n, d)."""
        return self.back(self.whiten(vectors))

    def combine(self, weights: Array, blocks: Blocks) -> Array:
        """`Σ_k w_kn W_k y_kn` for weights (K, n), shape (n, d)."""
        shares = tuple(weights[:, :, None] * block for block in blocks)
        return namespace(weights).sum(self.back(shares), axis=0)


class Scaling(Whitening):
    """Isotropic or diagonal covariances: W is diagonal with roots of shape (K, 1) or (K, d)."""

    def __init__(self, variances: Array, dimension: int):
        xp = namespace(variances)
        self.roots, self.dimension = 1.0 / xp.sqrt(variances), dimension
        self.repeats = dimension // int(variances.shape[1])
        self.log_root_determinant = 0.5 * self.repeats * xp.sum(xp.log(variances), axis=-1)

    def whiten(self, vectors: Array) -> Blocks:
        return (vectors * self.roots[:, None, :],)

    def back(self, blocks: Blocks) -> Array:
        return blocks[0] * self.roots[:, None, :]

    def average(self, weights: Array) -> Array:
        diagonal = namespace(weights).matmul(weights.T, self.roots * self.roots)
        return diagonal[:, :, None] * eye(self.dimension, weights)

    def trace(self) -> Array:
        return self.repeats * namespace(self.roots).sum(self.roots * self.roots, axis=-1)


class Rotation(Whitening):
    """Full covariances: W of shape (K, d, d)."""

    def __init__(self, matrix: Array, log_root_determinant: Array):
        self.matrix, self.log_root_determinant = matrix, log_root_determinant

    def whiten(self, vectors: Array) -> Blocks:
        return (namespace(vectors).matmul(vectors, self.matrix),)

    def back(self, blocks: Blocks) -> Array:
        return namespace(self.matrix).matmul(blocks[0], transposed(self.matrix))

    def average(self, weights: Array) -> Array:
        return summed(weights, namespace(weights).matmul(self.matrix, transposed(self.matrix)))

    def trace(self) -> Array:
        return namespace(self.matrix).sum(self.matrix * self.matrix, axis=(-2, -1))


class Precision(Whitening):
    """Full covariances by P = C⁻¹ itself, shape (K, d, d): the blocks are δ and P δ."""

    def __init__(self, matrix: Array, log_root_determinant: Array):
        self.matrix, self.log_root_determinant = matrix, log_root_determinant

    def whiten(self, vectors: Array) -> Blocks:
        return vectors, namespace(vectors).matmul(vectors, self.matrix)

    def square(self, blocks: Blocks) -> Array:
        return dot(*blocks)

    def back(self, blocks: Blocks) -> Array:
        return blocks[1]

    def combine(self, weights: Array, blocks: Blocks) -> Array:
        return weighted(weights, blocks[1])

    def average(self, weights: Array) -> Array:
        return summed(weights, self.matrix)

    def trace(self) -> Array:
        return namespace(self.matrix).sum(namespace(self.matrix).linalg.diagonal(self.matrix), axis=-1)


class Split(Whitening):
    """Low rank plus isotropic: eigenvectors U (K, d, r), roots (K, r) along them and (K, 1) across them."""

    def __init__(self, basis: Array, eigenvalues: Array, rest: Array):
        xp = namespace(basis)
        self.basis, self.along, self.across = basis, 1.0 / xp.sqrt(eigenvalues), 1.0 / xp.sqrt(rest)
        self.repeats = int(basis.shape[1]) - int(basis.shape[2])
        logs = xp.sum(xp.log(eigenvalues), axis=-1) + self.repeats * xp.log(rest[:, 0])
        self.log_root_determinant = 0.5 * logs

    def whiten(self, vectors: Array) -> Blocks:
        xp = namespace(vectors)
        inside = xp.matmul(vectors, self.basis)
        outside = vectors - xp.matmul(inside, transposed(self.basis))
        return inside * self.along[:, None, :], outside * self.across[:, None, :]

    def back(self, blocks: Blocks) -> Array:
        inside = namespace(self.basis).matmul(blocks[0] * self.along[:, None, :], transposed(self.basis))
        return inside + blocks[1] * self.across[:, None, :]

    def average(self, weights: Array) -> Array:
        xp = namespace(weights)
        along, across = self.along * self.along, self.across * self.across
        excess = xp.matmul(self.basis * (along - across)[:, None, :], transposed(self.basis))
        rest = xp.matmul(weights.T, across)[:, :, None] * eye(int(self.basis.shape[1]), weights)
        return rest + summed(weights, excess)

    def trace(self) -> Array:
        along = namespace(self.along).sum(self.along * self.along, axis=-1)
        return along + self.repeats * self.across[:, 0] * self.across[:, 0]
