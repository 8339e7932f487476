"""Changes of the data measure and the exact change of the score.

Symbols: `ρ_η = (1 − η) ρ + η ν`; `r = ν_σ/p_σ`; s, s^ν the scores of the noised laws; `D = 1 − η + η r = p_σ^η/p_σ`.
The score moves along a fixed direction by a scalar gate (no linearisation):

    s^η = s + g (s^ν − s),    g(η) = η r / D,    ∂ⁿg/∂ηⁿ = n! (1 − r)^{n−1} r / D^{n+1}

so every derivative in η, at every η, is a number times `s^ν − s` (n = 1 at η = 0: Scarvelis & Solomon, arXiv
2509.23092).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from oracles import _arrays
from oracles._arrays import Array, namespace
from oracles._mixture.local import Group
from oracles.mixture import GaussianMixture


class Perturbation:
    """A path of laws η ↦ ρ_η through `base` at η = 0, with the samples that follow it.

    Subclasses define `base`, `at` and `score_derivative`.
    """

    base: GaussianMixture

    def at(self, eta: float) -> GaussianMixture:
        """The law ρ_η."""
        raise NotImplementedError(f"{type(self).__name__} does not define at(eta)")

    def score_derivative(self, x: Any, sigma: Any, order: int = 1, eta: float = 0.0) -> Array:
        """∂ⁿ s^η(x)/∂ηⁿ at noise level σ, shape (..., d)."""
        raise NotImplementedError(f"{type(self).__name__} does not define score_derivative")

    def numpy(self) -> Perturbation:
        """The same path of laws with parameters in NumPy float64."""
        raise NotImplementedError(f"{type(self).__name__} does not define numpy()")

    def sample(self, latents: Any, eta: float, sigma_max: float, sigma_min: float) -> Array:
        """Where the probability flow of ρ_η carries states (..., d) from σ_max down to σ_min, to about 1e-12.

        It is computed in NumPy float64 and returned in the kind of the latents, as constants for differentiation.
        """
        from oracles import flow

        latents, numbers = self._latents(latents)
        return _arrays.from_numpy(flow.sample(self.at(eta).numpy(), numbers, sigma_max, sigma_min), latents)

    def sample_sensitivity(
        self, latents: Any, sigma_max: float, sigma_min: float, order: int = 1
    ) -> tuple[Array, Array]:
        """Samples (..., d) of the base law and their derivative of order 1 or 2 in η at 0, with fixed latents."""
        from oracles import flow

        latents, numbers = self._latents(latents)
        samples, sensitivity = flow.sensitivity(self.numpy(), numbers, sigma_max, sigma_min, order=order)
        return _arrays.from_numpy(samples, latents), _arrays.from_numpy(sensitivity, latents)

    def _latents(self, latents: Any) -> tuple[Array, np.ndarray]:
        latents = _arrays.check_states(latents, self.base.groups[0].means, self.base.dimension, "latents")
        return latents, _arrays.concrete(latents, "sampling").astype(np.float64)


class AdditivePerturbation(Perturbation):
    """Contamination `ρ_η = (1 − η) ρ + η ν` of a base law by a law that receives mass.

    Args:
        base: ρ.
        toward: ν, of the same dimension, library, dtype and device.

    Raises:
        ValueError, TypeError: where the two laws cannot be mixed.

    Example:
        >>> base = GaussianMixture.isotropic([1.0], [[0.0]], 1.0)
        >>> toward = GaussianMixture.isotropic([1.0], [[1.0]], 1.0)
        >>> perturbation = AdditivePerturbation(base, toward)
        >>> perturbation.score_derivative([0.5], sigma=1.0)  # r = 1 halfway between the two
        array([0.5])
    """

    def __init__(self, base: GaussianMixture, toward: GaussianMixture):
        for name, law in (("base", base), ("toward", toward)):
            if not isinstance(law, GaussianMixture):
                raise TypeError(f"{name} must be a GaussianMixture, not {type(law).__name__}")
        _arrays.check_states(toward.groups[0].means, base.groups[0].means, base.dimension, "toward.means")
        self.base, self.toward = base, toward

    def __repr__(self) -> str:
        return f"AdditivePerturbation(base={self.base!r}, toward={self.toward!r})"

    def numpy(self) -> AdditivePerturbation:
        """The same two laws with parameters in NumPy float64."""
        return AdditivePerturbation(self.base.numpy(), self.toward.numpy())

    def at(self, eta: float) -> GaussianMixture:
        """ρ_η as a mixture, 0 ≤ η ≤ 1.

        Example:
            >>> law = GaussianMixture.isotropic([1.0], [[0.0]], 1.0)
            >>> AdditivePerturbation(law, law).at(0.25).weights
            array([0.75, 0.25])
        """
        known = _arrays.values(eta) if _arrays.is_array(eta) else eta
        if known is not None and not 0 <= known <= 1:
            raise ValueError(
                f"eta = {eta} leaves [0, 1], where the mixture is not a law; see score_derivative for others"
            )
        return GaussianMixture.from_groups((*_weighted(self.base, 1 - eta), *_weighted(self.toward, eta)))

    def conditioned(self, operator: Any, observation: Any, noise_covariance: Any) -> tuple[AdditivePerturbation, Array]:
        """The path that the posterior given y takes, and how fast: `ρ_η | y = (1 − η′) ρ | y + η′ ν | y`.

        With the evidences Z of `y = A X + n` under both laws, `η′ = η κ / (1 − η + η κ)` and `κ = Z_ν/Z_ρ`: a first
        derivative in η′ at 0, such as `sample_sensitivity` of the path returned, times κ is one in the prior's η.

        Args:
            operator: A (p, d), as `GaussianMixture.conditioned` takes it and the others.
            observation: y (p,).
            noise_covariance: R, or the law of the noise.

        Returns:
            The perturbation of `base` given y by `toward` given y, and κ, shape ().

        Example:
            >>> prior = AdditivePerturbation(*(GaussianMixture.isotropic([1.0], [[m]], 1.0) for m in (0.0, 2.0)))
            >>> posterior, speed = prior.conditioned([[1.0]], [2.0], 1.0)  # y speaks for the law around 2
            >>> round(float(speed), 6), round(float(posterior.toward.mean[0]), 6)  # e, and 2
            (2.718282, 2.0)
        """
        given = (operator, observation, noise_covariance)
        gain = self.toward.log_evidence(*given) - self.base.log_evidence(*given)
        path = AdditivePerturbation(self.base.conditioned(*given), self.toward.conditioned(*given))
        return path, namespace(gain).exp(gain)

    def log_ratio(self, x: Any, sigma: Any) -> Array:
        """log r = log ν_σ(x) − log p_σ(x), shape (...)."""
        return self.toward.noised(sigma).log_density(x) - self.base.noised(sigma).log_density(x)

    def score(self, x: Any, sigma: Any, eta: float = 0.0) -> Array:
        """s^η(x), shape (..., d), for every η at which `p_σ + η (ν_σ − p_σ)` is positive at x."""
        score, toward, log_ratio = self._ingredients(x, sigma)
        gate = _gate(log_ratio, float(eta))
        return score + gate[..., None] * (toward - score)

    def score_derivative(self, x: Any, sigma: Any, order: int = 1, eta: float = 0.0) -> Array:
        """∂ⁿ s^η(x)/∂ηⁿ at noise level σ, shape (..., d).

        Args:
            x: states, shape (..., d).
            sigma: σ > 0, in data units.
            order: n ≥ 1.
            eta: η ≤ 1; negative values (removal) as long as `p_σ + η (ν_σ − p_σ)` is positive at x.

        Raises:
            ValueError: for n < 1, η > 1, or where the removed mass exceeds the law at x.

        Source: the gate above; Scarvelis & Solomon, arXiv 2509.23092.
        """
        check_order(order)
        score, toward, log_ratio = self._ingredients(x, sigma)
        return gate_derivative(log_ratio, order, float(eta))[..., None] * (toward - score)

    def score_derivative_product(self, x: Any, sigma: Any, v: Any) -> Array:
        """∇ṡ(x) v = r [(s^ν−s)((s^ν−s)·v) + ∇s^ν v − ∇s v], first order in η at 0, shape (..., d)."""
        score, toward, log_ratio = self._ingredients(x, sigma)
        step, xp = toward - score, namespace(score)
        v = _arrays.check_states(v, score, self.base.dimension, "v")
        along = step * xp.sum(step * v, axis=-1, keepdims=True)
        curvature = self.toward.noised(sigma).score_jacobian_product(x, v)
        return xp.exp(log_ratio)[..., None] * (along + curvature - self.base.noised(sigma).score_jacobian_product(x, v))

    def _ingredients(self, x: Any, sigma: Any) -> tuple[Array, Array, Array]:
        """s, s^ν and log r."""
        log_density, score = self.base.noised(sigma).log_density_and_score(x)
        log_toward, toward = self.toward.noised(sigma).log_density_and_score(x)
        return score, toward, log_toward - log_density


def gate_derivative(log_ratio: Array, order: int, eta: float = 0.0) -> Array:
    """∂ⁿg/∂ηⁿ = n! (1 − r)^{n−1} r / D^{n+1} from log r, without overflow where the result is representable."""
    xp, log_total = namespace(log_ratio), _log_total(log_ratio, eta)
    inverse, share = xp.exp(-log_total), xp.exp(log_ratio - log_total)  # 1/D and r/D
    zero = xp.zeros_like(log_ratio)
    # (1 − r)/D: each form is exact on its side of r = 1 and zero on the other.
    deficit = share * xp.expm1(-xp.maximum(log_ratio, zero)) - inverse * xp.expm1(xp.minimum(log_ratio, zero))
    return math.factorial(order) * deficit ** (order - 1) * share * inverse


def check_order(order: int) -> None:
    """Raise unless the order of differentiation is a positive integer."""
    if not isinstance(order, int) or order < 1:
        raise ValueError(f"order = {order!r} must be a positive integer")


def _gate(log_ratio: Array, eta: float) -> Array:
    """g = η r / D."""
    return eta * namespace(log_ratio).exp(log_ratio - _log_total(log_ratio, eta))


def _log_total(log_ratio: Array, eta: float) -> Array:
    """log D = log(1 − η + η r)."""
    xp = namespace(log_ratio)
    if eta > 1:
        raise ValueError(f"eta = {eta} exceeds 1, where nothing of the base law is left; use 0 ≤ eta ≤ 1, or eta < 0")
    if eta < 0:
        return _log_remaining(log_ratio, -eta)
    if eta in (0.0, 1.0):
        return log_ratio if eta else xp.zeros_like(log_ratio)
    kept = xp.full_like(log_ratio, math.log1p(-eta))
    return xp.logaddexp(kept, math.log(eta) + log_ratio)


def _log_remaining(log_ratio: Array, removed: float) -> Array:
    """log(1 + h − h r) for mass h removed."""
    xp = namespace(log_ratio)
    # 1 + h − h r = (1 + h)(1 − e^a), a = log(h r/(1 + h)): what is left keeps its digits where a is nearly 0.
    exponent = math.log(removed) - math.log1p(removed) + log_ratio
    known = _arrays.values(exponent)
    if known is not None and np.any(known >= 0):
        raise ValueError(f"eta = {-removed} removes more mass than the base law has at some x; use a smaller |eta|")
    return math.log1p(removed) + xp.log(-xp.expm1(exponent))


def _weighted(law: GaussianMixture, factor: Any) -> tuple[Group, ...]:
    return tuple(Group(factor * group.weights, group.means, group.covariances) for group in law.groups)
