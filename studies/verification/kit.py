"""Builds a problem's fields in the chosen array library from named laws; all black boxes count on one meter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from studies.levels import Levels as NoisedLaws
from studies.verification.backends import Backend, to_numpy
from studies.verification.laws import Law, oracle
from studies.verification.problem import Anchor, BlackBox, Functional, Levels, Measure, Meter, Perturbation, karras

__all__ = ["Kit", "levelled"]


def levelled(mixture: Any, method: str) -> Callable[[Any, Any], Any]:
    """`f(x, sigma)` from a law's method, for scalar sigma and for sigma (n,) with one level a row.

    Rows of one level are evaluated together; a scalar that carries a trace (`vmap`, `grad`) passes through untouched.
    """

    laws = NoisedLaws(mixture)

    def function(x: Any, sigma: Any) -> Any:
        if np.ndim(sigma) == 0:
            return getattr(laws.at(sigma), method)(x)
        return _by_rows(mixture, method, x, sigma)

    return function


def _by_rows(mixture: Any, method: str, x: Any, sigma: Any) -> Any:
    if tuple(sigma.shape) != tuple(x.shape[:1]):
        raise ValueError(f"sigma has shape {tuple(sigma.shape)}, x {tuple(x.shape)}; give a scalar or one level a row.")
    values, first = np.unique(to_numpy(sigma), return_index=True)
    total: Any = 0.0
    for start in first[np.argsort(values)]:
        value = getattr(mixture.noised(sigma[int(start)]), method)(x)
        chosen = sigma == sigma[int(start)]
        total = total + value * (chosen[:, None] if value.ndim == 2 else chosen)
    return total


@dataclass
class Kit:
    """Converts a case's laws and arrays into the fields of a `Problem`.

    Attributes:
        backend: the array library.
        meter: counts the black boxes' calls.
    """

    backend: Backend
    meter: Meter
    _mixtures: dict[str, Any] = field(default_factory=dict)

    def array(self, value: np.ndarray) -> Any:
        """The array in the chosen library."""
        return self.backend.array(value)

    def parameters(self, law: Law) -> Law:
        """The law's parameters in the chosen library."""
        return law.map(self.backend.array)

    def mixture(self, law: Law) -> Any:
        """The exact law in the chosen library (kept: factorisations are done once)."""
        if law.name not in self._mixtures:
            self._mixtures[law.name] = oracle(self.parameters(law))
        return self._mixtures[law.name]

    def box(self, law: Law, method: str) -> Callable[[Any, Any], Any]:
        """A counted black box of one of the noised law's methods."""
        return self.meter.watch(levelled(self.mixture(law), method))

    def denoiser(self, law: Law) -> Callable[[Any, Any], Any]:
        """The counted posterior mean `E[X | X_σ = x]`."""
        mixture = self.mixture(law)
        return self.meter.watch(lambda x, sigma: mixture.posterior(x, sigma)[0])

    def tilted(self, law: Law, matrix: np.ndarray) -> Callable[[Any, Any], Any]:
        """A counted field like a network's: `s_σ(x) + B x/(1 + σ²)`, whose Jacobian is not symmetric."""
        plain, tilt = levelled(self.mixture(law), "score"), self.array(matrix)
        return self.meter.watch(lambda x, sigma: plain(x, sigma) + x @ tilt.T / (1.0 + _column(sigma) ** 2))

    def anchor(self, law: Law, sigma_max: float) -> Anchor:
        """The exact log density from `sigma_max` up, with the law's moments."""
        mixture = self.mixture(law)
        return Anchor(levelled(mixture, "log_density"), sigma_max, mixture.mean, mixture.covariance)

    def toward(self, law: Law) -> Perturbation:
        """The perturbation toward a law, known in full."""
        mixture, given = self.mixture(law), self.parameters(law)
        measure = Measure(
            weights=given.weights,
            means=given.means,
            form=given.form,
            full=given.full,
            variances=given.variances,
            factors=given.factors,
            dense=BlackBox(lambda: given.covariances),
            log_density=BlackBox(levelled(mixture, "log_density")),
            score=BlackBox(levelled(mixture, "score")),
        )
        return Perturbation("toward", measure)

    def levels(self, sigma_max: float, sigma_min: float, steps: int) -> Levels:
        """A proposal of noise levels."""
        return Levels(sigma_max, sigma_min, steps, self.array(karras(sigma_max, sigma_min, steps)))

    def functional(self, linear: np.ndarray, quadratic: np.ndarray) -> Functional:
        """A quadratic functional of samples."""
        return Functional(self.array(linear), self.array(quadratic))


def _column(sigma: Any) -> Any:
    return sigma if np.ndim(sigma) == 0 else sigma[:, None]
