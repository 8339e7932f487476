"""What the cells of one regime share: data, latents, and networks trained once and kept in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sensitivity import GaussianAnchor, Grid, Points, Score, as_score
from sensitivity._checks import per_sample
from studies import data
from studies.bandwidths import likeliest
from studies.data import Images
from studies.networks import Architecture, Denoiser
from studies.retraining import synthetic
from studies.retraining.changes import Change, parse
from studies.retraining.config import Regime
from studies.sampling import sample
from studies.study import Context
from studies.training import Batches, Objective, Recipe, Trained, train_many
from studies.training.batches import Draw
from studies.training.objectives import Predictor

SIGMA_MAX = 20.0
OBJECTIVE = Objective(mean=-0.5, spread=1.5)
FINE_TUNING = 4  # fine-tuning takes one step for this many from scratch


@dataclass(frozen=True)
class Bench:
    """One regime, ready to be measured.

    Attributes:
        regime: what is trained.
        context: device, cache, configuration.
    """

    regime: Regime
    context: Context

    @cached_property
    def split(self) -> tuple[Images, Images]:
        """Training images (the first N in a random order, where the regime asks for fewer) and held-out images."""
        train, held_out = (self._on_device(part) for part in self._load().split(0.1, seed=0))
        if not self.regime.count:
            return train, held_out
        if self.regime.count > len(train):
            raise ValueError(
                f"count={self.regime.count} of regime {self.regime.name!r} exceeds the {len(train)} training images: "
                "give fewer, or 0 for all."
            )
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
        return train.subset(order[: self.regime.count].sort().values), held_out

    def _on_device(self, images: Images) -> Images:
        device = self.context.device
        labels = None if images.labels is None else images.labels.to(device)
        return Images(images.name, images.images.to(device), labels)

    def _load(self) -> Images:
        if self.regime.images == synthetic.NAME:
            return synthetic.draw(len(data.load("digits")), seed=0)
        return data.load(self.regime.images)

    @property
    def train(self) -> Images:
        """The training images."""
        return self.split[0]

    @cached_property
    def bandwidth(self) -> float:
        """The kernel bandwidth of highest held-out likelihood."""
        train, held_out = self.split
        return likeliest(train.images, held_out.images)

    @cached_property
    def latents(self) -> Tensor:
        """States at σ_max, seed 0, on the device."""
        return self._states(self.count, seed=0)

    @cached_property
    def others(self) -> Tensor:
        """Twice as many states of another seed, for what must not know the latents of the truth."""
        return self._states(2 * self.count, seed=1)

    @property
    def count(self) -> int:
        """The number of latents."""
        return self.regime.latents or int(self.context.config.latents)

    def _states(self, count: int, seed: int) -> Tensor:
        noise = torch.randn((count, *self.train.images.shape[1:]), generator=torch.Generator().manual_seed(seed))
        return self.train.images.mean(0) + SIGMA_MAX * noise.to(self.context.device)

    @property
    def grid(self) -> Grid:
        """The sampler's noise levels."""
        return Grid(SIGMA_MAX, self.regime.sigma_min, self.context.config.grid)

    @cached_property
    def anchor(self) -> GaussianAnchor:
        """The moment-matched Gaussian."""
        return GaussianAnchor.from_data(self.train.images)

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

    def tuned(self, change: Change | None, seed: int = 0) -> list[Trained]:
        """The base networks trained on, on changed data or (None: the control) on the base data.

        Another first seed gives another order and other noise from the same base networks.
        """
        edited, weights = (None, None) if change is None else (change.edited, change.weights)
        return self._trained(edited, [weights] * self.regime.pairs, [t.network for t in self.base], seed)

    def parts(self, weights: list[Tensor | None], seed: int) -> list[Trained]:
        """Networks of one seed on weightings of the data."""
        return self._trained(None, weights, None, seed, same=True)

    def _trained(
        self,
        pool: Tensor | None,
        weights: list[Tensor | None],
        start: list[Denoiser] | None,
        seed: int = 0,
        *,
        same: bool = False,
    ) -> list[Trained]:
        regime = self.regime
        steps = regime.steps if start is None else max(1, regime.steps // FINE_TUNING)
        recipe = Recipe(
            Architecture(regime.kind, width=regime.width, depth=regime.depth),
            OBJECTIVE,
            steps=steps,
            batch=regime.batch,
            rate=2e-3 if start is None else 1e-3,
            halflife=steps / 20,
        )
        images = self.train.images if pool is None else pool
        return train_many(
            recipe,
            images,
            weights=weights,
            seeds=[seed if same else seed + k for k in range(len(weights))],
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
        samples = [sample(self.score(t), start, self.grid) for t in networks]
        return np.stack([x.flatten(1).double().cpu().numpy() for x in samples])

    def loss(self, denoiser: Predictor, images: Tensor) -> float:
        """The denoising loss of a network, or of the denoiser of a law, four noise draws an image."""
        many = images.repeat(4, 1, 1, 1)
        draw = Batches(many, [None], [5], len(many)).draw(0)
        return float(OBJECTIVE.losses(denoiser, Draw(*(part[0] for part in draw))).mean())


@dataclass(frozen=True)
class LawDenoiser:
    """`D = x + σ² s` of a law, as the objective takes it.

    Attributes:
        law: with `score(x, sigma)`.
        scale: the networks' τ, which sets the noise levels of the loss.
    """

    law: GaussianAnchor | Points
    scale: float

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, σ)."""
        return x + per_sample(sigma, x) ** 2 * self.score(x, sigma)

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """s(x, σ)."""
        return self.law.score(x, sigma)
