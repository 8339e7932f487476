"""The laws of the study: anisotropic, asymmetric mixtures with unequal weights, a fixed pair for each dimension.

ρ has three components (two where it is to be bimodal) and ν two that overlap it, so that the log-ratio varies along
a path without running to hundreds of nats. Below dimension 100 covariances are full; there they are diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oracles import AdditivePerturbation, GaussianMixture

SIGMA_MAX, SIGMA_MIN = 20.0, 0.05


@dataclass(frozen=True)
class Problem:
    """A perturbation ρ → (1 − η) ρ + η ν with latents.

    Attributes:
        perturbation: exact laws, NumPy float64.
        latents: states at SIGMA_MAX (n, d), drawn from ρ noised to it.
    """

    perturbation: AdditivePerturbation
    latents: np.ndarray

    @property
    def base(self) -> GaussianMixture:
        """ρ."""
        return self.perturbation.base

    @property
    def toward(self) -> GaussianMixture:
        """ν."""
        return self.perturbation.toward

    @property
    def dimension(self) -> int:
        """d."""
        return self.base.dimension


def problem(dimension: int, latents: int, seed: int = 0, *, components: int = 3) -> Problem:
    """The problem of a dimension, with latents of its own seed."""
    rng = np.random.default_rng([7, dimension, components])
    base = _mixture(rng, dimension, components, 1.6)
    toward = _mixture(rng, dimension, 2, 1.2)
    states = base.noised(SIGMA_MAX).sample(latents, seed)
    return Problem(AdditivePerturbation(base, toward), np.asarray(states))


def _mixture(rng: np.random.Generator, dimension: int, components: int, spread: float) -> GaussianMixture:
    raw = rng.uniform(0.6, 1.8, components)
    # Distances between means do not grow with d, or modes would be isolated and the ratio of densities extreme.
    means = spread * rng.standard_normal((components, dimension)) / np.sqrt(max(1, dimension / 2)) + 0.3
    variances = rng.uniform(0.2, 0.9, (components, dimension))
    if dimension >= 100:
        return GaussianMixture.diagonal(raw / raw.sum(), means, variances)
    turns = np.linalg.qr(rng.standard_normal((components, dimension, dimension)))[0]
    return GaussianMixture(raw / raw.sum(), means, (turns * variances[:, None, :]) @ turns.swapaxes(1, 2))
