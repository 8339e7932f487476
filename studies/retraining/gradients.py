"""Gradient attribution for the images of this study: the methods of the study `attribution`, on flattened images.

The functional, its sampler and the network's training loss are those of this study; dampings, projections and noise
draws are the methods' own and nothing is chosen on queries.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from sensitivity import Grid
from studies.networks import Denoiser
from studies.retraining.bench import OBJECTIVE, Bench


class Flat(nn.Module):
    """A denoiser of images as one of vectors.

    Args:
        network: D on (batch, *shape).
    """

    def __init__(self, network: Denoiser) -> None:
        super().__init__()
        self.network, self.scale = network, network.scale

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D of vectors (batch, d)."""
        return cast(Tensor, self.network(x.unflatten(-1, self.network.shape), sigma)).flatten(-len(self.network.shape))


@dataclass(frozen=True)
class Problem:
    """What the gradient methods ask of a problem: data (N, d), latents (n, d), grid, seed and functional."""

    data: Tensor
    latents: Tensor
    grid: Grid
    seed: int = 0

    def functional(self, x: Tensor) -> Tensor:
        """The ink: mean pixel of each sample, (n,)."""
        return x.mean(-1)


def attributions(bench: Bench) -> dict[str, np.ndarray]:
    """Values (n, N) of every gradient method, from the first base network on the CPU."""
    from studies.attribution.gradients import GRADIENTS, Task

    problem = Problem(bench.train.images.flatten(1).cpu(), bench.latents.flatten(1).cpu(), bench.grid)
    network = Flat(copy.deepcopy(bench.base[0].network).cpu())
    values = {}
    for name, method in GRADIENTS.items():
        if name.startswith("influence function") and not bench.context.config.influence_functions:
            continue
        task = Task(cast(Any, problem), cast(Any, copy.deepcopy(network)), OBJECTIVE)
        values[name] = np.asarray(method(task))
    return values
