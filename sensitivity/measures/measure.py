"""Measures: laws whose noised density and score are at hand at every level σ.

A measure ν gives `log_density(x, sigma) = log ν_σ(x)` in nats, `score(x, sigma) = ∇ log ν_σ(x)`, both at once, and
the product `∇s^ν(x) t`. A ratio gives the same of `r = ν_σ/p_σ` itself, and so needs no density of the base law.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sensitivity.measures.mixture import Mixture
from sensitivity.measures.points import Points

__all__ = ["Measure", "Mixture", "Points", "Ratio"]


class Measure(Protocol):
    """A law ν: x has shape `(batch, *shape)`, sigma is a number, 0-d or `(batch,)`."""

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor: ...

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor: ...

    def log_density_and_score(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]: ...

    def score_product(self, x: Tensor, sigma: Tensor | float, tangent: Tensor) -> Tensor: ...


class Ratio:
    """Marks a measure that is known only by its ratio to the base law.

    Its `log_density` is `log r`, its `score` is `∇ log r = s^ν − s`, its `score_product` `∇(s^ν − s) t`.
    """

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`log r_σ(x)`, shape `(batch,)`."""
        raise NotImplementedError

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`∇ log r_σ(x)`, like `x`."""
        return self.log_density_and_score(x, sigma)[1]

    def log_density_and_score(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """Both at once."""
        raise NotImplementedError

    def score_product(self, x: Tensor, sigma: Tensor | float, tangent: Tensor) -> Tensor:
        """`∇² log r_σ(x) t`, like `x`."""
        raise NotImplementedError
