"""The density ratio of two sets of points by kernels of one bandwidth: for any dimension, without a density.

With kernel densities at τ² = σ² + b², b the bandwidth and ν the new points among, or beside, the base points,

    log r_σ(x) = log Σ_j c_j N(x; y_j, τ²I) − log Σ_i w_i N(x; x_i, τ²I),    ∇ log r = s^ν − s^base.

Errors that both densities have in common cancel. Where the new points belong to the base and hold the share c of its
mass, r ≤ 1/c: nothing can explode, whereas the error of a log density along the flow grows with the dimension and
enters exp.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sensitivity.measures.measure import Ratio
from sensitivity.measures.points import Points

__all__ = ["KernelRatio"]


class KernelRatio(Ratio):
    """The ratio `r_σ(x)` of new points to base points by kernels of one bandwidth; goes where a measure goes.

    Args:
        new: the new points, `(n, *shape)`, or `Points` with weights.
        base: the points of the base law, `(N, *shape)`, or `Points`; usually all training points, `new` among
            them.
        bandwidth: b ≥ 0, in the units of the points; it replaces that of given `Points`. 0 is the noised empirical
            measure itself, which memorises: at small σ a state sees its nearest point only.

    Raises:
        ValueError, TypeError: for points that are not floating, have no rows or differ in shape, dtype or device; a
            bandwidth that is negative or not finite.

    Source: kernel estimates of a density ratio, Sugiyama et al. 2012, *Density Ratio Estimation in Machine Learning*,
    chapter 2; the score derivative that takes the ratio, Scarvelis & Solomon 2025, arXiv 2509.23092.

    Example:
        >>> import torch
        >>> base = torch.tensor([[-1.0], [0.0], [1.0], [2.0]])
        >>> ratio = KernelRatio(base[2:], base, bandwidth=0.5)
        >>> ratio.log_density(torch.tensor([[9.0]]), 0.1)  # far on the side of the new half: log(1/½)
        tensor([0.6931])
    """

    def __init__(self, new: Tensor | Points, base: Tensor | Points, bandwidth: float = 0.0):
        self.new, self.base = _points(new, bandwidth, "new"), _points(base, bandwidth, "base")
        if self.new.shape != self.base.shape:
            raise ValueError(f"new has points of shape {self.new.shape} and base of {self.base.shape}: give one shape.")
        if (self.new.data.dtype, self.new.data.device) != (self.base.data.dtype, self.base.data.device):
            raise ValueError("new and base differ in dtype or device: move one of them with .to(other).")
        self.bandwidth = self.new.bandwidth

    def log_density_and_score(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """`log r_σ(x)`, `(batch,)`, and `∇ log r`, like `x`."""
        new, new_score = self.new.log_density_and_score(x, sigma)
        base, base_score = self.base.log_density_and_score(x, sigma)
        return new - base, new_score - base_score

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`log r_σ(x)`, `(batch,)`."""
        return self.new.log_density(x, sigma) - self.base.log_density(x, sigma)

    def score_product(self, x: Tensor, sigma: Tensor | float, tangent: Tensor) -> Tensor:
        """`∇² log r_σ(x) t`, like `x`."""
        return self.new.score_product(x, sigma, tangent) - self.base.score_product(x, sigma, tangent)


def _points(given: Tensor | Points, bandwidth: float, name: str) -> Points:
    if isinstance(given, Points):
        return Points(given.data, given.weights, bandwidth, block=given.block)
    if not isinstance(given, torch.Tensor):
        raise TypeError(f"{name} is a {type(given).__name__}: give a tensor (N, *shape) or Points.")
    return Points(given, bandwidth=bandwidth)
