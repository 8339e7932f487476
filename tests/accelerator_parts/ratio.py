"""The log ratio of two known laws, where a perturbation needs no density of the network."""

from __future__ import annotations

from torch import Tensor

from sensitivity.measures.measure import Measure, Ratio


class TwoLaws(Ratio):
    """log r = log ν_σ − log ρ_σ of two measures.

    Args:
        new: ν.
        base: ρ.
    """

    def __init__(self, new: Measure, base: Measure) -> None:
        self.new, self.base = new, base

    def log_density_and_score(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """log r (batch,) and ∇ log r, like x."""
        (log_new, new), (log_base, base) = (law.log_density_and_score(x, sigma) for law in (self.new, self.base))
        return log_new - log_base, new - base

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """log r, (batch,)."""
        return self.log_density_and_score(x, sigma)[0]

    def score_product(self, x: Tensor, sigma: Tensor | float, tangent: Tensor) -> Tensor:
        """∇² log r · tangent, like x."""
        return self.new.score_product(x, sigma, tangent) - self.base.score_product(x, sigma, tangent)
