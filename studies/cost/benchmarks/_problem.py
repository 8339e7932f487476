"""The common setting of the benchmarks against public packages: a trained network with its flow, counted.

The path is the part in which images form, from σ = 2 to .3, where the Jacobian is far from a multiple of the identity
and a few steps integrate the log density to some nats; costs are those of any other levels. Latents are noised images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sensitivity import GaussianAnchor, Grid, as_score
from sensitivity.scores.score import NetworkScore
from studies.cost.benchmarks import _networks, _public
from studies.cost.timing import Counter

__all__ = ["RANK", "SIGMA_MAX", "SIGMA_MIN", "Problem"]

SIGMA_MAX, SIGMA_MIN = 2.0, 0.3
RANK = 32  # of the anchor, which matches the moments of the data and serves all alternatives


@dataclass
class Problem:
    """One network, grid and batch for packages and engine alike.

    Attributes:
        counter: the network, whose calls it counts.
        score: the same network as the engine's score.
        path: the same network as the packages' flow.
        anchor: log p at σ_max, for both.
        latents: states at σ_max, (batch, 1, side, side).
        data: the training images, for perturbations.
        moved: bytes of parameters, inputs and outputs of one network call.
    """

    counter: Counter
    score: NetworkScore
    path: _public.Path
    anchor: GaussianAnchor
    latents: Tensor
    data: Tensor
    moved: int

    @classmethod
    def of(cls, size: Mapping[str, Any], device: str, seed: int, *, count: int = 1024) -> Problem:
        """The problem of a size: the network's keys (see `_networks.trained`), `batch` and `steps`."""
        network = _networks.trained(size, device)
        data = _networks.images(size["data"], size["side"], count).to(device)
        counter = Counter(network)
        grid = Grid(SIGMA_MAX, SIGMA_MIN, size["steps"])
        shape = (1, size["side"], size["side"])
        anchor = GaussianAnchor.from_data(data[:1024], RANK)
        top = torch.tensor(SIGMA_MAX, device=device)
        path = _public.Path(counter, shape, grid, lambda x: anchor.log_density(x, top))
        generator = torch.Generator().manual_seed(seed)
        noise = SIGMA_MAX * torch.randn(size["batch"], *shape, generator=generator)
        latents = data[-size["batch"] :] + noise.to(device)
        moved = 4 * (_networks.parameters(network) + 2 * latents.numel())
        return cls(counter, as_score(counter, "denoiser"), path, anchor, latents, data, moved)

    @property
    def grid(self) -> Grid:
        """Levels from σ_max to σ_min."""
        return self.path.grid

    def samples(self) -> Tensor:
        """Samples of the flow, to which log densities are asked."""
        return _public.flow_matching_sample(self.path, self.latents)

    def public(self) -> dict[str, Callable[[], object]]:
        """For each package that samples too: its sampling, then its log density with one probe of the samples."""

        def both(name: str) -> Callable[[], object]:
            def run() -> Tensor:
                samples = _public.SAMPLERS[name](self.path, self.latents)
                return _public.LIKELIHOODS[name](self.path, samples, False)

            return run

        return {f"{name}: sampling + likelihood": both(name) for name in _public.SAMPLERS}
