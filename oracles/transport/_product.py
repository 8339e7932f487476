"""Laws with independent coordinates and their exact transport (see `oracles.transport`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from oracles._numeric import numpy_states, restored
from oracles.lines import Shape, as_line
from oracles.transport._quantile import QuantileOracle


class ProductLaw:
    """The law ρ_1 ⊗ … ⊗ ρ_d of independent coordinates, with the methods of a law in R^d (x of shape (..., d)).

    Example:
        >>> from oracles.lines import Laplace, Uniform
        >>> law = ProductLaw([Uniform(0.0, 1.0), Laplace(0.0, 1.0)]).noised(0.5)
        >>> law.score(np.zeros((3, 2))).shape
        (3, 2)
    """

    def __init__(self, factors: Sequence[Any]) -> None:
        if not len(factors):
            raise ValueError("factors must name at least one law on the line")
        self.factors = tuple(as_line(f) for f in factors)
        self._seen: tuple[np.ndarray, list[Shape]] | None = None  # a flow asks for several things at the same states

    @property
    def dimension(self) -> int:
        """d, the number of factors."""
        return len(self.factors)

    def noised(self, sigma: float, alpha: float = 1.0) -> ProductLaw:
        """The law of αX + σε."""
        return ProductLaw([f.noised(sigma, alpha) for f in self.factors])

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """log p(x), shape (...)."""
        return self._each("log_density", x).sum(axis=-1)

    def score(self, x: np.ndarray) -> np.ndarray:
        """∇ log p(x), shape (..., d)."""
        return self._each("score", x)

    def score_jacobian(self, x: np.ndarray) -> np.ndarray:
        """∇s(x), diagonal, shape (..., d, d)."""
        return self._each("slope", x)[..., None] * np.eye(self.dimension)

    def score_jacobian_product(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        """∇s(x) v, shape (..., d)."""
        return self._each("slope", x) * v

    def score_divergence(self, x: np.ndarray) -> np.ndarray:
        """div s(x), shape (...)."""
        return self._each("slope", x).sum(axis=-1)

    def third_order(self, x: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """D²s(x)[u, v], shape (..., d)."""
        return self._each("curvature", x) * u * v

    def sample(self, n: int, seed: int) -> np.ndarray:
        """`n` independent draws (n, d), a function of `seed` alone."""
        seeds = np.random.default_rng(seed).integers(2**63, size=self.dimension)
        return np.stack([f.sample(n, int(k)) for f, k in zip(self.factors, seeds, strict=True)], -1)

    def _each(self, method: str, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, dtype=float)
        if x.ndim == 0 or x.shape[-1] != self.dimension:
            raise ValueError(f"x of shape {x.shape} must have shape (..., {self.dimension}): one column a factor")
        if self._seen is None or not np.array_equal(self._seen[0], x):
            self._seen = x.copy(), [f.evaluate(x[..., i]) for i, f in enumerate(self.factors)]
        return np.stack([getattr(shape, method) for shape in self._seen[1]], -1)


class ProductOracle:
    """Exact transport of `rotation @ X`, X with independent coordinates, some of them contaminated.

    `bases` and `towards` are laws on the line, one a coordinate; `None` in `towards` leaves the factor alone.
    With one factor contaminated this is the contamination of the product toward `toward`. With several, each
    factor moves on its own, ρ_1^η ⊗ ρ_2^η: to first order the contaminations add, beyond that it is another path.
    `rotation` (d, d) is orthogonal, identity by default.
    """

    def __init__(self, bases: Sequence[Any], towards: Sequence[Any | None], rotation: np.ndarray | None = None) -> None:
        if len(bases) != len(towards):
            raise ValueError(f"towards has {len(towards)} entries for {len(bases)} bases: give one (or None) for each")
        d = len(bases)
        self.base = ProductLaw(bases)
        self.oracles = [None if t is None else QuantileOracle(b, t) for b, t in zip(bases, towards, strict=True)]
        self.rotation = np.eye(d) if rotation is None else np.asarray(rotation, dtype=float)
        if self.rotation.shape != (d, d) or not np.allclose(self.rotation @ self.rotation.T, np.eye(d), atol=1e-12):
            raise ValueError(f"rotation must be an orthogonal matrix of shape ({d}, {d})")

    @property
    def toward(self) -> ProductLaw:
        """The product with each contaminated factor replaced by its ν, in the unrotated coordinates."""
        return ProductLaw([f if o is None else o.toward for f, o in zip(self.base.factors, self.oracles, strict=True)])

    def sample(self, latents: np.ndarray, eta: float, sigma_max: float, sigma_min: float) -> np.ndarray:
        """Samples x_η(σ_min), shape (..., d)."""
        z = self._unrotated(latents)
        columns = [
            self._oracle(i).sample(z[..., i], self._eta(i, eta), sigma_max, sigma_min) for i in self._coordinates
        ]
        return restored(np.stack(columns, -1) @ self.rotation.T, latents)

    def sensitivity(
        self, latents: np.ndarray, sigma_max: float, sigma_min: float, order: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Samples and their derivative of `order` 1 or 2 in η at 0, both (..., d)."""
        z = self._unrotated(latents)
        pairs = [self._oracle(i).sensitivity(z[..., i], sigma_max, sigma_min, order) for i in self._coordinates]
        moving = np.array([o is not None for o in self.oracles])
        x, delta = (np.stack(columns, -1) for columns in zip(*pairs, strict=True))
        moved = np.where(moving, delta, 0.0)
        return tuple(restored(a @ self.rotation.T, latents) for a in (x, moved))

    @property
    def _coordinates(self) -> range:
        return range(len(self.oracles))

    def _oracle(self, i: int) -> QuantileOracle:
        law = self.base.factors[i]
        return self.oracles[i] or QuantileOracle(law, law)

    def _eta(self, i: int, eta: float) -> float:
        return 0.0 if self.oracles[i] is None else eta

    def _unrotated(self, latents: np.ndarray) -> np.ndarray:
        return numpy_states(latents) @ self.rotation
