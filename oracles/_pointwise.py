"""Everything that a flow asks of a law at one state, from one pass: log p, s, ∇s v and D²s[u, v].

A flow evaluates small blocks of states thousands of times, so that calls cost more than arithmetic. Gaussian mixtures
of moderate size are therefore evaluated here with plain NumPy, in the eigenbases of their clean covariances; other laws
through their own methods. The formulas are those of `oracles.mixture`; the two are tested against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from oracles._numeric import numpy_law
from oracles._protocols import Joint
from oracles.mixture import GaussianMixture

LARGEST = 4_000_000
"""Entries K d² of the eigenbases up to which they are formed."""


class Here(Protocol):
    """A law at noise level σ and states x (n, d)."""

    @property
    def log_density(self) -> np.ndarray: ...
    @property
    def score(self) -> np.ndarray: ...
    def product(self, v: np.ndarray) -> np.ndarray: ...
    def third_order(self, u: np.ndarray, v: np.ndarray) -> np.ndarray: ...


def local(law: Any) -> Callable[[float, np.ndarray], Here]:
    """The function (σ, x) → everything there."""
    law = numpy_law(law)
    if type(law) is GaussianMixture and law.size * law.dimension**2 <= LARGEST:
        return Fused(law).at
    return lambda sigma, x: _Own(law.noised(sigma), x)


class _Own:
    """By the law's own methods; what is not asked for is not evaluated."""

    def __init__(self, law: Any, x: np.ndarray) -> None:
        self.law, self.x = law, x

    @cached_property
    def log_density(self) -> np.ndarray:
        return self._both[0] if self._both else self.law.log_density(self.x)

    @cached_property
    def score(self) -> np.ndarray:
        return self._both[1] if self._both else self.law.score(self.x)

    @cached_property
    def _both(self) -> tuple[np.ndarray, np.ndarray] | None:
        return self.law.log_density_and_score(self.x) if isinstance(self.law, Joint) else None

    def product(self, v: np.ndarray) -> np.ndarray:
        return self.law.score_jacobian_product(self.x, v)

    def third_order(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return self.law.third_order(self.x, u, v)


class Fused:
    """A Gaussian mixture in its eigenbases: means in them (K, d), eigenvalues (K, d), bases (K, d, d)."""

    def __init__(self, law: GaussianMixture) -> None:
        # A component without weight has no logarithm of it.
        kept = law.weights > 0
        self.log_weights, self.means = np.log(law.weights[kept]), law.means[kept]
        values, self.bases = np.linalg.eigh(law.covariances[kept])
        # `eigh` rounds zero eigenvalues to either side of zero.
        self.values, self.transposed = np.maximum(values, 0.0), np.swapaxes(self.bases, 1, 2).copy()

    def at(self, sigma: float, x: np.ndarray) -> _FusedHere:
        return _FusedHere(self, sigma, x)


class _FusedHere:
    def __init__(self, law: Fused, sigma: float, x: np.ndarray) -> None:
        self.law = law
        levels = law.values + sigma**2
        self.inverse = (1 / levels)[:, None, :]
        y = (x - law.means[:, None, :]) @ law.bases
        pulled = y * self.inverse
        constants = law.log_weights - 0.5 * np.log(2 * np.pi * levels).sum(axis=1)
        terms = constants[:, None] - 0.5 * np.einsum("knd,knd->kn", y, pulled)
        top = terms.max(axis=0)
        shares = np.exp(terms - top)
        total = shares.sum(axis=0)
        self.log_density = top + np.log(total)
        self.shares = shares / total
        g = -pulled @ law.transposed
        self.score = self._mean(g)
        self.centred = g - self.score

    def product(self, v: np.ndarray) -> np.ndarray:
        """Σ_k γ_k [a_k (a_k·v) − C_k⁻¹ v]."""
        return self._mean(self.centred * self._along(v)[..., None] - self._solved(v))

    def third_order(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Σ_k γ_k [(a·u)(a·v) a − (a·u) C⁻¹v − (a·v) C⁻¹u − (uᵀC⁻¹v) a]."""
        a, solved_u = self.centred, self._solved(u)
        # C⁻¹ stands where `oracles.mixture` has C⁻¹ − Σ_k γ_k C_k⁻¹: the same, as Σ_k γ_k a_k = 0, and a pass less. The
        # flow asks for D²s[δ, δ] only.
        solved_v = solved_u if v is u else self._solved(v)
        along_u, along_v = self._along(u)[..., None], self._along(v)[..., None]
        between = np.einsum("nd,knd->kn", u, solved_v)[..., None]
        return self._mean(a * (along_u * along_v - between) - along_u * solved_v - along_v * solved_u)

    def _along(self, v: np.ndarray) -> np.ndarray:
        return np.einsum("knd,nd->kn", self.centred, v)

    def _solved(self, v: np.ndarray) -> np.ndarray:
        return ((v @ self.law.bases) * self.inverse) @ self.law.transposed

    def _mean(self, parts: np.ndarray) -> np.ndarray:
        return np.einsum("kn,knd->nd", self.shares, parts)
