"""A denoiser D(y, σ; c) that is told a condition, and its training on fresh draws.

EDM preconditioning with unit scale (Karras et al. 2022, arXiv 2206.00364, table 1); the body sees the scaled state, the
condition and the noise features. The optimum at condition c is the posterior mean of the law of X given c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from studies.cache import Cache
from studies.networks.mlp import MLP
from studies.networks.precondition import noise_features
from studies.training.objectives import Objective

Draws = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
OBJECTIVE = Objective(mean=-0.5, spread=1.8)
BATCH = 512


class Conditional(nn.Module):
    """`D(y, σ; c)`; y (n, d), σ 0-d or (n,), c (n, k)."""

    def __init__(self, size: int, conditions: int, width: int, *, seed: int = 0) -> None:
        super().__init__()
        self.size = size
        generator = torch.Generator().manual_seed(seed)
        whole = size + conditions
        self.body = MLP(whole, width, 3, conditioned=True, dimensions=1, generator=generator)

    def forward(self, y: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        """The denoised state, like y."""
        level = sigma.to(y).expand(len(y))
        total = 1 + level.square()[:, None]
        inner = torch.cat([y * total.rsqrt(), condition], dim=1)
        out = self.body(inner, noise_features(level, 1.0))[:, : self.size]
        return y / total + level[:, None] * total.rsqrt() * out

    def score(self, y: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        """`(D − y)/σ²`."""
        level = sigma.to(y).expand(len(y))[:, None]
        return (self(y, level[:, 0], condition) - y) / level.square()


def train_conditional(
    name: str, size: int, conditions: int, width: int, steps: int, draws: Draws, cache: Cache | None
) -> Conditional:
    """A trained network in float64; `draws(n, generator)` gives (states (n, d), conditions (n, k))."""
    key = {"size": size, "conditions": conditions, "width": width, "steps": steps, "version": 1}
    network = Conditional(size, conditions, width)
    if cache is None:
        network.load_state_dict(_fit(network, steps, draws))
    else:
        network.load_state_dict(cache.tensors(f"conditional-{name}", key, lambda: _fit(network, steps, draws)))
    return network.double().requires_grad_(False)


def _fit(network: Conditional, steps: int, draws: Draws) -> dict[str, Tensor]:
    """Adam with cosine decay; the average of the last fifth of the parameters."""
    generator = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps)
    average = torch.optim.swa_utils.AveragedModel(network)
    for step in range(steps):
        loss = _loss(network, *draws(BATCH, generator), generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step >= 4 * steps // 5:
            average.update_parameters(network)
    state: dict[str, Any] = average.module.state_dict()
    return {name: value.detach().clone() for name, value in state.items()}


def _loss(network: Conditional, clean: Tensor, condition: Tensor, generator: torch.Generator) -> Tensor:
    u = torch.rand(len(clean), generator=generator)
    sigma = OBJECTIVE.quantile(u.clamp(1e-6, 1 - 1e-6), 1.0)
    noisy = clean + sigma[:, None] * torch.randn(clean.shape, generator=generator)
    weight = OBJECTIVE.weight(sigma, 1.0)[:, None]
    return (weight * (network(noisy, sigma, condition) - clean).square()).mean()
