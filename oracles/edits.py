"""Edits of a law's components: mass between them (reweighting, removal) and displacement of points (moving).

For `ρ_η` with weights `w + η c`, Σ c = 0: `χ = Σ_k c_k N(μ_k, Σ_k)`, and with `q = χ_σ/p_σ`, `m = ∇χ_σ/p_σ`

    s^η = (s + η m)/(1 + η q),    ∂ⁿs^η/∂ηⁿ = n! (−q)^{n−1} (m − q s)/(1 + η q)^{n+1}

Removing m of N equal points is `η = −m/(N − m)` toward the law of those points; multiplying one of N equal weights by
1 + ε is `η = ε/(N + ε)` toward it. (Hampel, J. Amer. Stat. Assoc. 69, 1974, for the influence of added mass.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from oracles import _arrays
from oracles._arrays import Array, namespace
from oracles._mixture.local import Group, total, weighted
from oracles.mixture import GaussianMixture
from oracles.parameters import ParameterPerturbation, Rates, _parts, _unweighted
from oracles.perturbation import Perturbation, check_order


class Reweighting(Perturbation):
    """The path of laws with weights `w + η c`, exact to any order in η and at any η that keeps a law.

    Args:
        base: the law at η = 0.
        rates: c, shape (K,), with sum zero.

    Example:
        >>> law = GaussianMixture.empirical([[0.0], [1.0]])
        >>> Reweighting(law, [-0.5, 0.5]).at(0.5).weights
        array([0.25, 0.75])
    """

    def __init__(self, base: GaussianMixture, rates: Any):
        self._path = ParameterPerturbation(base, weights=rates)
        self.base, self.rates = base, self._path.rates.weights

    def numpy(self) -> Reweighting:
        """The same path with parameters in NumPy float64."""
        return Reweighting(self.base.numpy(), _arrays.concrete(self.rates, "numpy()") * 1.0)

    def at(self, eta: float) -> GaussianMixture:
        """The law at η; an error where a weight would be negative."""
        return self._path.at(eta)

    def score_derivative(self, x: Any, sigma: Any, order: int = 1, eta: float = 0.0) -> Array:
        """∂ⁿ s^η(x)/∂ηⁿ at noise level σ for any n ≥ 1, shape (..., d)."""
        check_order(order)
        law = self.at(eta).noised(sigma)
        # At η itself the path starts anew, from the law there with the same rates.
        return law.over_blocks(lambda states: _derivative(law.groups, self._path.rates, states, order), x)

    def score_derivative_product(self, x: Any, sigma: Any, v: Any) -> Array:
        """∇ṡ(x) v, first order in η at 0, shape (..., d)."""
        return self._path.score_derivative_product(x, sigma, v)


def _derivative(groups: tuple[Group, ...], rates: Rates, x: Array, order: int) -> Array:
    at = _unweighted(groups, x)
    gained = [
        (part.weights[:, None] * relative, scores - at.score[None, :, :])
        for _, part, relative, _, scores in _parts(rates, at)
    ]
    # Weights are affine in η, and so are numerator and denominator of s^η: every order is a power of ṗ/p times ṡ.
    ratio = total(namespace(x).sum(rate, axis=0) for rate, _ in gained)
    push = total(weighted(rate, centred) for rate, centred in gained)
    return math.factorial(order) * ((-ratio) ** (order - 1))[:, None] * push


def removal(law: GaussianMixture, indices: Sequence[int]) -> tuple[Reweighting, float]:
    """The removal of components (points of an empirical law): the path toward them, and the η < 0 that removes them.

    With h the mass of the chosen components, `η = −h/(1 − h)`: −m/(N − m) for m of N equal points.

    Args:
        law: the law that loses components.
        indices: which of its K components, each once, not all.

    Example:
        >>> path, eta = removal(GaussianMixture.empirical([[0.0], [1.0], [3.0], [4.0]]), [1, 2])
        >>> eta, path.at(eta).weights
        (-1.0, array([0.5, 0. , 0. , 0.5]))
    """
    rates, eta = _removal_rates(law.weights, indices)
    return Reweighting(law, rates), eta


def _removal_rates(weights: Array, indices: Sequence[int]) -> tuple[Array, float]:
    """The rates c (K,) toward the chosen of K weights, and the η < 0 at which `w + η c` is without them."""
    known = _arrays.concrete(weights, "removal").astype(np.float64)
    chosen = _chosen(indices, len(known))
    mass = float(known[chosen].sum())
    if not 0 < mass < known.sum():
        raise ValueError(f"indices hold mass {mass} of the law; remove some of it, but not all")
    toward = np.where(np.isin(np.arange(len(known)), chosen), known / mass, 0.0)
    return _arrays.from_numpy(toward - known, weights), -mass / (1 - mass)


def _chosen(indices: Sequence[int], size: int) -> np.ndarray:
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or chosen.size == 0 or not np.issubdtype(chosen.dtype, np.integer):
        raise ValueError("indices must be a list of whole numbers, at least one; name the components to remove")
    if chosen.min() < 0 or chosen.max() >= size or len(np.unique(chosen)) < chosen.size:
        raise ValueError(f"indices must be distinct and between 0 and {size - 1}; these are {chosen.tolist()[:8]}")
    return chosen


def moving(law: GaussianMixture, displacements: Any) -> ParameterPerturbation:
    """The path of laws whose points (means) move by `η v_k`, displacements v of shape (K, d); orders 1 and 2.

    Example:
        >>> moving(GaussianMixture.empirical([[0.0], [1.0]]), [[0.0], [2.0]]).at(0.5).means
        array([[0.],
               [2.]])
    """
    return ParameterPerturbation(law, means=displacements)
