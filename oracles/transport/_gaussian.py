"""The probability flow of one Gaussian in closed form, with its derivatives (see `oracles.transport`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from oracles._numeric import check_levels, numpy_states, restored


class GaussianOracle:
    """The probability flow of N(μ, Σ), `mean` (d,), `covariance` (d, d), singular allowed.

    Raises:
        ValueError: for wrong shapes and covariances that are not symmetric positive semi-definite.

    Example:
        >>> oracle = GaussianOracle(np.zeros(2), np.diag([3.0, 0.0]))
        >>> oracle.sample(np.array([[1.0, 1.0]]), sigma_max=1.0, sigma_min=0.5).round(4).tolist()
        [[0.9014, 0.5]]
    """

    def __init__(self, mean: ArrayLike, covariance: ArrayLike) -> None:
        self.mean, self.covariance = np.asarray(mean, dtype=float), np.asarray(covariance, dtype=float)
        _check_moments(self.mean, self.covariance)
        values, self._basis = np.linalg.eigh((self.covariance + self.covariance.T) / 2)
        if values.min() < -1e-12 * abs(values).max():
            raise ValueError(f"covariance must be positive semi-definite; an eigenvalue is {values.min():.3g}")
        self._eigenvalues = np.maximum(values, 0)

    def sample(self, latents: Any, sigma_max: float, sigma_min: float) -> Any:
        """x(σ_min) from x(σ_max) = `latents` (..., d)."""
        u, z = self._basis, self._states(latents)
        x = self.mean + ((z - self.mean) @ u * self._shrink(sigma_max, sigma_min)) @ u.T
        return restored(x, latents)

    def sensitivity_mean(self, latents: Any, direction: np.ndarray, sigma_max: float, sigma_min: float) -> Any:
        """dx(σ_min)/dμ · `direction` (d,), of the shape of `latents` (the same for every latent)."""
        u = self._basis
        moved = direction - u @ (self._shrink(sigma_max, sigma_min) * (u.T @ direction))
        return restored(np.broadcast_to(moved, self._states(latents).shape).copy(), latents)

    def sensitivity_covariance(self, latents: Any, direction: np.ndarray, sigma_max: float, sigma_min: float) -> Any:
        """dx(σ_min)/dΣ · `direction` (d, d, symmetric), of the shape of `latents`."""
        u, f = self._basis, self._shrink(sigma_max, sigma_min)
        # K with its difference of squares divided out: as it is defined it would be 0/0 at repeated eigenvalues.
        top = self._eigenvalues + sigma_max**2
        divided = (sigma_max**2 - sigma_min**2) / (np.outer(top, top) * (f[:, None] + f))
        matrix = u @ (divided * (u.T @ direction @ u)) @ u.T
        return restored((self._states(latents) - self.mean) @ matrix.T, latents)

    def _states(self, latents: Any) -> np.ndarray:
        z = numpy_states(latents)
        if z.ndim == 0 or z.shape[-1] != self.mean.size:
            raise ValueError(f"latents of shape {z.shape} must have shape (..., {self.mean.size})")
        return z

    def _shrink(self, sigma_max: float, sigma_min: float) -> np.ndarray:
        check_levels(sigma_max, sigma_min)
        return np.sqrt((self._eigenvalues + sigma_min**2) / (self._eigenvalues + sigma_max**2))


def _check_moments(mean: np.ndarray, covariance: np.ndarray) -> None:
    if mean.ndim != 1 or not mean.size or covariance.shape != (mean.size, mean.size):
        raise ValueError(f"mean must have shape (d,) and covariance (d, d), not {mean.shape} and {covariance.shape}")
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(covariance))):
        raise ValueError("mean and covariance must be finite")
    if not np.allclose(covariance, covariance.T, rtol=0, atol=1e-12 * np.abs(covariance).max()):
        raise ValueError("covariance must be symmetric: pass (C + C.T)/2")
