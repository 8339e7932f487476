"""Training of a noise-conditional ratio classifier, and a small network for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from sensitivity._checks import check_finite, check_positive_number, check_same_home, check_states, per_sample
from sensitivity.measures.classifier import RatioClassifier

__all__ = ["RatioNetwork", "TrainedRatio", "train_ratio_classifier"]


@dataclass(frozen=True)
class TrainedRatio:
    """A classifier and how it came about.

    Attributes:
        classifier: reads `r = ν_σ/p_σ` of the new law to the base law.
        losses: the loss of every step in nats, `(steps,)`; log 2 says nothing has been learned.
    """

    classifier: RatioClassifier
    losses: Tensor


class RatioNetwork(nn.Module):
    """A perceptron for the logit: states scaled to unit size, the level as `log σ` features.

    The output is multiplied by `(1 + σ²/c²)^{−1/2}`: ratios tend to 1 as the noise grows.

    Args:
        shape: the shape of one state.
        scale: c, the standard deviation of the data.
        width, depth: of the hidden layers.
    """

    def __init__(self, shape: tuple[int, ...], scale: float = 1.0, width: int = 128, depth: int = 3):
        super().__init__()
        self.scale = check_positive_number(scale, "scale")
        sizes = [math.prod(shape) + 2, *[width] * depth]
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The logit, `(batch,)`."""
        relative = sigma / self.scale
        size = self.scale * (1 + relative**2).sqrt()
        level = relative.log()[:, None] / 4
        features = torch.cat([x.flatten(1) / size[:, None], level, level.cos()], 1)
        return self.layers(features)[:, 0] / (1 + relative**2).sqrt()


def train_ratio_classifier(
    network: nn.Module,
    base: Tensor,
    new: Tensor,
    *,
    sigma_min: float,
    sigma_max: float,
    steps: int = 2000,
    batch: int = 256,
    rate: float = 5e-3,
    seed: int = 0,
) -> TrainedRatio:
    """Teach a network to tell noised new data from noised base data at every level.

    Each step draws as many states of either kind, at levels log-uniform in `[σ_min, σ_max]`, and descends the binary
    cross-entropy, whose optimum is `ℓ = log ν_σ − log p_σ` at every level.

    Args:
        network: `network(x, sigma) → logit`; trained in place, left frozen in evaluation mode.
        base: data of the base law, `(N, *shape)`: what the diffusion model was trained on, with or without the new.
        new: data of the new law, `(M, *shape)`.
        sigma_min, sigma_max: the levels of the sampler's grid.
        steps, batch, rate: optimiser steps (Adam, cosine decay), states of either kind in a step, learning rate.
        seed: seed of draws; the network's own initial state is the caller's.

    Raises:
        ValueError, TypeError: for data of unlike shape, dtype or device, or counts and levels that are not positive.
        RuntimeError: where the loss is not finite.

    Source: as `RatioClassifier`.

    Example:
        >>> draws = torch.Generator().manual_seed(0)
        >>> base, new = torch.randn(64, 2, generator=draws), 1 + torch.randn(64, 2, generator=draws)
        >>> network = RatioNetwork((2,), width=16, depth=1)
        >>> trained = train_ratio_classifier(network, base, new, sigma_min=0.1, sigma_max=10.0, steps=3, batch=8)
        >>> trained.losses.shape
        torch.Size([3])
    """
    _check(network, base, new, sigma_min, sigma_max, steps, batch)
    generator = torch.Generator(device=base.device).manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    labels = torch.cat([base.new_zeros(batch), base.new_ones(batch)])
    losses = base.new_zeros(steps)
    network.train()
    for step in range(steps):
        x, sigma = _noised(base, new, batch, (math.log(sigma_min), math.log(sigma_max)), generator)
        logits = network(x, sigma).reshape(-1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
        losses[step] = loss.detach()
    network.eval().requires_grad_(False)
    if not bool(torch.isfinite(losses).all()):
        raise RuntimeError("the classifier's loss is not finite: lower the learning rate or rescale the data.")
    return TrainedRatio(RatioClassifier(network, prior=0.5, base="old"), losses)


def _noised(
    base: Tensor, new: Tensor, batch: int, logs: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A batch of noised base states, then as many new ones, with their levels."""
    rows = (torch.randint(len(data), (batch,), generator=generator, device=base.device) for data in (base, new))
    clean = torch.cat([data[chosen] for data, chosen in zip((base, new), rows, strict=True)])
    share = torch.rand(2 * batch, generator=generator, dtype=base.dtype, device=base.device)
    sigma = (logs[0] + share * (logs[1] - logs[0])).exp()
    noise = torch.randn(clean.shape, generator=generator, dtype=base.dtype, device=base.device)
    return clean + per_sample(sigma, clean) * noise, sigma


def _check(
    network: nn.Module, base: Tensor, new: Tensor, sigma_min: float, sigma_max: float, steps: int, batch: int
) -> None:
    if not isinstance(network, nn.Module):
        raise TypeError(f"network is a {type(network).__name__}, not an nn.Module: only a module can be trained.")
    check_states(base, "base")
    check_states(new, "new", tuple(base.shape[1:]))
    check_same_home(new, base, "new", "base")
    for name, data in (("base", base), ("new", new)):
        check_finite(data, name)
        if data.shape[0] == 0:
            raise ValueError(f"{name} has no rows: pass at least one.")
    if check_positive_number(sigma_min, "sigma_min") >= check_positive_number(sigma_max, "sigma_max"):
        raise ValueError(f"sigma_min = {sigma_min} is not below sigma_max = {sigma_max}: exchange them.")
    if steps < 1 or batch < 1:
        raise ValueError(f"steps = {steps}, batch = {batch}: pass numbers ≥ 1.")
