"""What the cells of one regime share: data, latents, and networks trained once and kept in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sensitivity import GaussianAnchor, Grid, Points, Score, as_score
from studies import data
from studies.data import Images
from studies.networks import Architecture, Denoiser
from studies.retraining.changes import Change, parse
from studies.retraining.config import Regime
from studies.sampling import sample
from studies.study import Context
from studies.training import Batches, Objective, Recipe, Trained, train_many
from studies.training.batches import Draw

SIGMA_MAX, SIGMA_MIN = 20.0, 0.05
BANDWIDTHS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)
OBJECTIVE = Objective(mean=-0.5, spread=1.5)
FINE_TUNING = 4  # fine-tuning takes one step for this many from scratch


@dataclass(frozen=True)
class Bench:
    """One regime, ready to be measured.

    Attributes:
        regime: what is trained. context: device, cache, configuration.
    """

    regime: Regime
    context: Context

    @cached_property
    def split(self) -> tuple[Images, Images]:
        """Training and held-out images."""
        return data.load(self.regime.images).split(0.1, seed=0)

    @property
    def train(self) -> Images:
        """The training images."""
        return self.split[0]

    @cached_property
    def bandwidth(self) -> float:
        """The kernel bandwidth of highest held-out likelihood."""
        train, held_out = self.split
        found = [Points(train.images, bandwidth=b).log_density(held_out.images, 1e-4).mean() for b in BANDWIDTHS]
        return BANDWIDTHS[int(torch.stack(found).argmax())]

    @cached_property
    def latents(self) -> Tensor:
        """States at σ_max, seed 0, on the device."""
        return self._states(self.context.config.latents, seed=0)

    @cached_property
    def others(self) -> Tensor:
        """Twice as many states of another seed, for what must not know the latents of the truth."""
        return self._states(2 * self.context.config.latents, seed=1)

    def _states(self, count: int, seed: int) -> Tensor:
        noise = torch.randn((count, *self.train.images.shape[1:]), generator=torch.Generator().manual_seed(seed))
        return (self.train.images.mean(0) + SIGMA_MAX * noise).to(self.context.device)

    @property
    def grid(self) -> Grid:
        """The sampler's noise levels."""
        return Grid(SIGMA_MAX, SIGMA_MIN, self.context.config.grid)

    @cached_property
    def anchor(self) -> GaussianAnchor:
        """The moment-matched Gaussian."""
        return GaussianAnchor.from_data(self.train.images.to(self.context.device))

    def change(self, name: str) -> Change:
        """The change of this name."""
        return parse(name, self.train, self.bandwidth)

    @cached_property
    def base(self) -> list[Trained]:
        """The base networks of all pairs."""
        return self._trained(None, [None] * self.regime.pairs, None)

    def scratch(self, change: Change) -> list[Trained]:
        """The networks trained on the changed data from the same initial parameters."""
        return self._trained(change.edited, [change.weights] * self.regime.pairs_of(change.name), None)

    def tuned(self, change: Change | None) -> list[Trained]:
        """The base networks trained on, on changed data or (None: the control) on the base data."""
        edited, weights = (None, None) if change is None else (change.edited, change.weights)
        return self._trained(edited, [weights] * self.regime.pairs, [t.network for t in self.base])

    def half(self, weights: Tensor) -> Trained:
        """A network of seed 0 on a part of the data."""
        return self._trained(None, [weights], None)[0]

    def _trained(
        self, pool: Tensor | None, weights: list[Tensor | None], start: list[Denoiser] | None
    ) -> list[Trained]:
        regime = self.regime
        steps = regime.steps if start is None else max(1, regime.steps // FINE_TUNING)
        recipe = Recipe(
            Architecture(regime.kind, width=regime.width, depth=regime.depth),
            OBJECTIVE,
            steps=steps,
            rate=2e-3 if start is None else 1e-3,
            halflife=steps / 20,
        )
        images = self.train.images if pool is None else pool
        return train_many(
            recipe,
            images,
            weights=weights,
            seeds=list(range(len(weights))),
            start=start,
            cache=self.context.cache,
            device=self.context.device,
        )

    def score(self, trained: Trained) -> Score:
        """The score of a trained network."""
        return as_score(trained.network.to(self.context.device), "denoiser")

    def samples(self, networks: list[Trained], latents: Tensor | None = None) -> np.ndarray:
        """Samples of the networks from the common latents, or from others, (P, n, pixels)."""
        start = self.latents if latents is None else latents
        found = [sample(self.score(t), start, self.grid) for t in networks]
        return np.stack([x.flatten(1).double().cpu().numpy() for x in found])

    def loss(self, trained: Trained, images: Tensor) -> float:
        """The denoising loss, four noise draws an image."""
        many = images.repeat(4, 1, 1, 1)
        draw = Batches(many, [None], [5], len(many)).draw(0)
        return float(OBJECTIVE.losses(trained.network.cpu(), Draw(*(part[0] for part in draw))).mean())
