"""Laws of few directions in many dimensions: a small mixture in a subspace, one Gaussian across it.

Mixtures `Σ_k w_k N(μ_k, F_k F_kᵀ + v I)` on R^d with one `v` and few columns are a product. With Q (d, m) an
orthonormal basis that contains all μ_k and F_k, the coordinates `a = Qᵀx` have the law
`Σ_k w_k N(Qᵀμ_k, QᵀF_k (QᵀF_k)ᵀ + v I_m)`, independent of the rest `c = x − Qa`, which is `N(0, v I)` across Q. So
the probability flow moves `a` as the small law does, and shrinks `c` with its standard deviation:
`c(σ) = c(σ_max) √((v + σ²)/(v + σ_max²))`. A law toward which mass moves, of the same Q and v, has the same factor
across: ratios of densities and derivatives in the mass live in Q alone.

The truths of image-sized problems (d = 784, 3072) come from here: m is about twenty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oracles import AdditivePerturbation, GaussianMixture, flow
from studies.errors import StudyError
from studies.verification.laws import Law

__all__ = ["MANY", "Reduction", "is_reducible", "reduction"]

MANY = 200  # dimensions above which the flow of a low-rank law is taken apart


@dataclass(frozen=True)
class Reduction:
    """Laws of one subspace and one variance across it.

    Attributes:
        basis: Q (d, m), orthonormal columns.
        variance: `v`, of each direction across Q.
        laws: the small mixtures on R^m, in the order they were given.
    """

    basis: np.ndarray
    variance: float
    laws: tuple[GaussianMixture, ...]

    def split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`a = Qᵀx` (n, m) and the rest `c` (n, d)."""
        inner = x @ self.basis
        return inner, x - inner @ self.basis.T

    def log_density(self, x: np.ndarray, sigma: float, which: int = 0) -> np.ndarray:
        """`log p_σ(x)` (n,): that of the small law, plus a Gaussian's across."""
        inner, rest = self.split(x)
        d, m = self.basis.shape
        spread = self.variance + sigma**2
        across = -0.5 * (rest**2).sum(1) / spread - 0.5 * (d - m) * np.log(2 * np.pi * spread)
        return self.laws[which].noised(sigma).log_density(inner) + across

    def score(self, x: np.ndarray, sigma: float, which: int = 0) -> np.ndarray:
        """`s_σ(x)` (n, d)."""
        inner, rest = self.split(x)
        return self.laws[which].noised(sigma).score(inner) @ self.basis.T - rest / (self.variance + sigma**2)

    def sample(self, latents: np.ndarray, sigma_max: float, sigma_min: float) -> np.ndarray:
        """Ends (n, d) of the first law's probability flow."""
        inner, rest = self.split(latents)
        moved = flow.sample(self.laws[0], inner, sigma_max, sigma_min)
        shrunk = np.sqrt((self.variance + sigma_min**2) / (self.variance + sigma_max**2))
        return moved @ self.basis.T + shrunk * rest

    def sensitivity(self, latents: np.ndarray, sigma_max: float, sigma_min: float) -> np.ndarray:
        """`δ` (n, d) when mass moves from the first law toward the second: it lies in Q."""
        perturbation = AdditivePerturbation(self.laws[0], self.laws[1])
        return flow.sensitivity(perturbation, self.split(latents)[0], sigma_max, sigma_min)[1] @ self.basis.T


def is_reducible(*laws: Law) -> bool:
    """Whether the laws are of many dimensions and of a form that splits."""
    return laws[0].dimension > MANY and all(law.form in ("low-rank", "isotropic") for law in laws)


def reduction(*laws: Law) -> Reduction:
    """The common subspace of some laws, and the laws in it.

    Raises:
        StudyError: a law is neither low-rank nor isotropic, or the variances across differ.

    Example:
        >>> from studies.verification.laws import law
        >>> small = reduction(law("photo-3072"), law("photo-3072-toward"))
        >>> small.basis.shape[1] < 25, [len(each.weights) for each in small.laws]
        (True, [3, 2])
    """
    if any(law.form not in ("low-rank", "isotropic") for law in laws):
        raise StudyError(f"{[law.name for law in laws]} do not split; low-rank and isotropic laws do.")
    variances = np.concatenate([law.variances for law in laws])
    if np.ptp(variances) > 0:
        raise StudyError(f"{[law.name for law in laws]} have several variances across; give all components one.")
    basis = np.linalg.qr(np.concatenate([_columns(law) for law in laws], axis=1))[0]
    return Reduction(basis, float(variances[0]), tuple(_small(law, basis) for law in laws))


def _columns(law: Law) -> np.ndarray:
    """The means and the factors of every component, as columns (d, ...)."""
    factors = [] if law.factors is None else list(law.factors)
    return np.concatenate([law.means.T, *factors], axis=1)


def _small(law: Law, basis: np.ndarray) -> GaussianMixture:
    inner = law.variances[:, None, None] * np.eye(basis.shape[1])
    if law.factors is not None:
        projected = basis.T @ law.factors
        inner = inner + projected @ projected.swapaxes(-1, -2)
    return GaussianMixture(law.weights, law.means @ basis, inner)
