"""What is asked of a network: numbers of the samples it makes from given latents, or of its denoiser itself.

With `x_q` the end of the flow from latent q by Heun's steps and `x*_q` the sample of the network on all data:

- `ink`: mean over pixels of `x_q`;
- `contrast`: mean of the upper half of `x_q` less that of the lower;
- `logit`: log-odds of the class of `x*_q` at `x_q`, of a fixed linear classifier;
- `distance`: `|x_q − x*_q|²/d`, whose first derivative is zero at the network on all data;
- `loss`: `E (σ² + τ²)/(στ)² |D(x*_q + σε, σ) − x*_q|²/d`, the training loss at the sample, fixed draws;
- `density`: `−½ ∫ E|x*_q − D(x*_q + σε, σ)|² dσ^{−2}` by the trapezoidal rule over the sampler's levels, fixed draws:
  the network's own log density at the sample, but for a constant (Kong et al. 2023, arXiv 2302.03792).

Images are (..., n, 1, height, width), levels (..., n).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["FUNCTIONALS", "OF_NETWORKS", "OF_SAMPLES", "Denoise", "Outputs", "heun"]

OF_SAMPLES = ("ink", "contrast", "logit", "distance")
OF_NETWORKS = ("loss", "density")
FUNCTIONALS = OF_SAMPLES + OF_NETWORKS
LOSS_DRAWS, DENSITY_DRAWS = 32, 4
MEAN, SPREAD = -0.5, 1.4  # of log(σ/τ) in the loss, as in training
Denoise = Callable[[Tensor, Tensor], Tensor]


def heun(denoise: Denoise, latents: Tensor, levels: Tensor) -> Tensor:
    """Ends of the flow `dx/dσ = (x − D)/σ` from latents (..., n, 1, h, w), by Heun's method on descending levels.

    Example:
        >>> levels, start = torch.linspace(10.0, 0.1, 200), torch.full((1, 1, 1, 1), 10.0)
        >>> x = heun(lambda x, sigma: x / (1 + sigma[..., None, None, None] ** 2), start, levels)
        >>> bool((x - 10 * (1.01 / 101) ** 0.5).abs() < 0.05)  # N(0, 1) scales by its standard deviations
        True
    """
    x, rows = latents, latents.shape[:-3]
    for high, low in pairwise(levels.to(latents)):
        first = (x - denoise(x, high.expand(rows))) / high
        ahead = x + (low - high) * first
        second = (ahead - denoise(ahead, low.expand(rows))) / low
        x = x + 0.5 * (low - high) * (first + second)
    return x


@dataclass(frozen=True)
class Outputs:
    """The outputs asked of networks on one set of images.

    Attributes:
        latents: states at the first level (n, 1, h, w).
        levels: of the sampler, descending (L,).
        reference: `x*` (n, 1, h, w).
        scale: τ, the data's standard deviation.
        weights, offsets: of the classifier (classes, d), (classes,).
    """

    latents: Tensor
    levels: Tensor
    reference: Tensor
    scale: float
    weights: Tensor
    offsets: Tensor

    def samples(self, denoise: Denoise, *, members: int = 0) -> Tensor:
        """Samples (n, 1, h, w), or (members, n, 1, h, w) of a stack of networks."""
        start = self.latents.expand(members, *self.latents.shape) if members else self.latents
        return heun(denoise, start, self.levels)

    def of_samples(self, name: str, x: Tensor) -> Tensor:
        """A functional of samples: (..., n, 1, h, w) to (..., n)."""
        if name == "ink":
            return x.mean((-3, -2, -1))
        if name == "contrast":
            half = x.shape[-2] // 2
            return x[..., :half, :].mean((-3, -2, -1)) - x[..., half:, :].mean((-3, -2, -1))
        if name == "distance":
            return (x - self.reference.to(x)).square().mean((-3, -2, -1))
        return self._log_odds(self._logits(x))

    def of_network(self, name: str, denoise: Denoise, *, members: int = 0) -> Tensor:
        """Any functional of a denoiser: (n,), or (members, n) of a stack."""
        if name in OF_SAMPLES:
            return self.of_samples(name, self.samples(denoise, members=members))
        return self._loss(denoise, members) if name == "loss" else self._density(denoise, members)

    @cached_property
    def classes(self) -> Tensor:
        """The classifier's class of every `x*` (n,)."""
        return self._logits(self.reference).argmax(-1)

    def _logits(self, x: Tensor) -> Tensor:
        return x.flatten(-3) @ self.weights.to(x).T + self.offsets.to(x)

    def _log_odds(self, logits: Tensor) -> Tensor:
        chosen = torch.nn.functional.one_hot(self.classes, logits.shape[-1]).bool().expand(logits.shape)
        others = logits.masked_fill(chosen, -torch.inf).logsumexp(-1)
        return logits.masked_fill(~chosen, 0.0).sum(-1) - others

    def _loss(self, denoise: Denoise, members: int) -> Tensor:
        u = (torch.arange(LOSS_DRAWS, dtype=torch.float64) + 0.5) / LOSS_DRAWS
        levels = self.scale * torch.exp(MEAN + SPREAD * torch.special.ndtri(u))
        errors = self._errors(denoise, levels, 1, members)
        weight = (levels**2 + self.scale**2) / (levels * self.scale) ** 2
        return (errors * weight.to(errors)).mean(-1)

    def _density(self, denoise: Denoise, members: int) -> Tensor:
        size = self.reference[0].numel()
        errors = size * self._errors(denoise, self.levels.double(), DENSITY_DRAWS, members)
        return -0.5 * torch.trapezoid(errors, self.levels.to(errors) ** -2, dim=-1)

    def _errors(self, denoise: Denoise, levels: Tensor, draws: int, members: int) -> Tensor:
        """Mean squared errors a pixel at `x*`, (members?, n, levels), over noises and their opposites."""
        given = self.reference
        half = torch.randn(
            len(levels), max(1, draws // 2), *given.shape[1:], generator=torch.Generator().manual_seed(7)
        )
        noise = torch.cat([half, -half], 1).to(given)  # (levels, draws, 1, h, w)
        sigma = levels.to(given)[:, None].expand(noise.shape[:2])
        x = given[:, None, None] + sigma[..., None, None, None] * noise
        flat, spread = x.flatten(0, 2), sigma.expand(x.shape[:3]).flatten()
        lead = (members,) if members else ()
        denoised = denoise(flat.expand(*lead, *flat.shape), spread.expand(*lead, *spread.shape))
        gap = denoised.reshape(*lead, *x.shape) - given[:, None, None]
        return gap.square().mean((-3, -2, -1)).mean(-1)
