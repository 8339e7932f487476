"""Training losses, as a response needs them: the loss of one example, the same at every call.

An example x₀ meets K draws (σ_k, ε_k), the same for every example, so that differences between examples are not noise.
The loss of the draw is ℓ(x₀, σ, ε; θ), that of the example its mean over the draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sensitivity._checks import check_positive_number, per_sample
from sensitivity.measures.points import whole

Loss = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class DenoisingLoss:
    """ℓ = w(σ) |D(x₀ + σε, σ) − x₀|²/d, averaged over stratified levels σ and fixed noise ε.

    With D = x + σ² s; D is the denoiser that the score stands for.

    Attributes:
        scale: c, the standard deviation of the data.
        weighting: w, a function of σ (batch,); None is that of Karras et al., (σ² + c²)/(σc)².
        quantile: the law of the noise levels as its quantile function, u in (0, 1) ↦ σ; None is their log-normal law,
            log σ ~ N(−1.2 + log 2c, 1.2²), which for c = ½ is the published one.
        draws: K, the number of draws; σ_k is the quantile at (k + ½)/K.
        seed: of the noise.

    Any `loss(score, x0, sigma, noise) -> (batch,)` may stand in its place, with sigma (batch,) and noise like x0: one
    that calls the score once, at any state made of these. If it has a method `draw(example) -> (sigma (K,), noise
    (K, *shape))`, its own draws are used, else those of `DenoisingLoss()`.

    Source: Karras et al. 2022, arXiv 2206.00364, table 1.

    Example:
        >>> loss = DenoisingLoss(draws=4)
        >>> sigma, noise = loss.draw(torch.zeros(2))
        >>> sigma.shape, noise.shape, bool((sigma.diff() > 0).all())
        (torch.Size([4]), torch.Size([4, 2]), True)
        >>> values = loss(lambda x, s: -x / s[:, None] ** 2, torch.zeros(4, 2), sigma, noise)  # D = 0 = x₀
        >>> bool((values.abs() < 1e-12).all())
        True
    """

    scale: float = 0.5
    weighting: Callable[[Tensor], Tensor] | None = None
    quantile: Callable[[Tensor], Tensor] | None = None
    draws: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive_number(self.scale, "scale")
        whole(self.draws, "draws")

    def __call__(self, score: Any, x0: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        """The loss of every row, (batch,)."""
        return self.residual(score, x0, sigma, noise).square().sum(1)

    def residual(self, score: Any, x0: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        """R, (batch, d), with ℓ = |R|²; what Kronecker factors are made of."""
        level = per_sample(sigma, x0)
        state = x0 + level * noise
        gap = (state + level**2 * score(state, sigma) - x0).flatten(1)
        return gap * (self.weight(sigma)[:, None] / gap.shape[1]).sqrt()

    def weight(self, sigma: Tensor) -> Tensor:
        """w(σ)."""
        if self.weighting is not None:
            return self.weighting(sigma)
        return (sigma**2 + self.scale**2) / (sigma * self.scale) ** 2

    def draw(self, example: Tensor) -> tuple[Tensor, Tensor]:
        """σ (K,) and ε (K, *shape) for examples of this shape, dtype and device; the same at every call."""
        u = (torch.arange(self.draws, dtype=torch.float64) + 0.5) / self.draws
        levels = self._levels(u)
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(self.draws, *example.shape, generator=generator, dtype=torch.float64)
        return levels.to(example), noise.to(example)

    def _levels(self, u: Tensor) -> Tensor:
        if self.quantile is not None:
            return self.quantile(u)
        return 2 * self.scale * torch.exp(-1.2 + 1.2 * torch.special.ndtri(u))


def draws_of(loss: Any, example: Tensor) -> tuple[Tensor, Tensor]:
    """The draws of a loss, checked.

    Raises:
        TypeError, ValueError: for something that is no loss, or draws of a wrong shape.
    """
    if not callable(loss):
        raise TypeError(
            f"loss is a {type(loss).__name__}; give DenoisingLoss(...) or loss(score, x0, sigma, noise) -> (batch,)."
        )
    draw = getattr(loss, "draw", None)
    sigma, noise = (draw if callable(draw) else DenoisingLoss().draw)(example)
    if sigma.ndim != 1 or noise.shape != (len(sigma), *example.shape) or len(sigma) == 0:
        raise ValueError(
            f"loss.draw gives levels {tuple(sigma.shape)} and noise {tuple(noise.shape)}; give (K,) and "
            f"{('K', *example.shape)} with K ≥ 1."
        )
    return sigma, noise


def checked(values: Any, rows: int) -> Tensor:
    """The values of a loss, one for every row."""
    if not isinstance(values, Tensor) or values.shape != (rows,):
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"loss returns {shape} for {rows} rows; it must give one number for each, ({rows},).")
    return values
