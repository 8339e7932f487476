"""The three models, each ready to be measured: its score, latents, points, functional and change.

The change is the same for all: one photograph's patches are removed. Guided, both branches lose them: the one without
a label loses a ninth of its mass; the guided class is another photograph, whose branch stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from sensitivity import GaussianAnchor, Grid, KernelRatio, PerBranch, Points, Remove, guided
from studies.bandwidths import likeliest
from studies.photographs import networks, patches, training
from studies.photographs.autoencoder import Autoencoder, Coder
from studies.photographs.config import Config
from studies.study import Context
from studies.training.loop import digest

REMOVED = "retina"
CLASS = "coffee"
WEIGHT = 2.0
MODELS = ("pixels", "guided", "codes")
SIGMA_MAX, SIGMA_MIN = 80.0, 0.05
BANDWIDTHS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
Functional = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Bench:
    """Data and networks of a configuration; everything is made once."""

    context: Context

    @property
    def config(self) -> Config:
        """The configuration."""
        known: Config = self.context.config
        return known

    @cached_property
    def split(self) -> tuple[patches.Patches, patches.Patches]:
        """Training and held-out patches, on the device."""
        train, held = patches.load(self.config.training, self.config.held_out)
        return train.to(self.context.device), held.to(self.context.device)

    @cached_property
    def network(self) -> nn.Module:
        """On pixels, with labels."""
        train = self.split[0]
        return training.denoiser(self.config.shape, self.config.plan, train.images, train.groups, self.context.cache, 0)

    @cached_property
    def coder(self) -> Autoencoder:
        """The autoencoder."""
        return Coder(self.config.coder_plan, self.split[0].images, self.context.cache, 0).trained

    @cached_property
    def codes(self) -> tuple[Tensor, Tensor]:
        """Codes of the training and of the held-out patches."""
        train, held = (self.coder.encode(part.images) for part in self.split)
        return train, held

    @cached_property
    def code_network(self) -> nn.Module:
        """On codes."""
        config = self.config
        return training.denoiser(config.latent_shape, config.latent_plan, self.codes[0], None, self.context.cache, 0)

    def model(self, name: str) -> Model:
        """One of MODELS."""
        return Model(self, name)


@dataclass(frozen=True)
class Model:
    """One model. `name` is "pixels", "guided" or "codes"."""

    bench: Bench
    name: str

    @cached_property
    def data(self) -> tuple[Tensor, Tensor]:
        """Training and held-out data in the model's own space."""
        if self.name == "codes":
            return self.bench.codes
        train, held = self.bench.split
        return train.images, held.images

    @property
    def groups(self) -> Tensor:
        """The photograph of each training datum."""
        return self.bench.split[0].groups

    @cached_property
    def score(self) -> Any:
        """Through diffusers' adapter."""
        if self.name == "codes":
            return networks.score(self.bench.code_network)
        plain = networks.score(self.bench.network, self.bench.config.shape.labels)
        if self.name == "pixels":
            return plain
        return guided(networks.score(self.bench.network, patches.PHOTOGRAPHS.index(CLASS)), plain, WEIGHT)

    @property
    def branch(self) -> tuple[Any, GaussianAnchor]:
        """A score that is a density's, with its anchor; guided, the branch with the label."""
        if self.name != "guided":
            return self.score, self.plain
        return self.score.conditional, self.anchor.conditional

    @cached_property
    def plain(self) -> GaussianAnchor:
        """The Gaussian of all data's moments."""
        return self._anchor(self.data[0])

    def _anchor(self, data: Tensor) -> GaussianAnchor:
        """Kept in the cache: a decomposition of 5 040 × 3 072 numbers is not for every cell."""

        def build() -> dict[str, Tensor]:
            made = GaussianAnchor.from_data(data)
            return {"mean": made.mean, "values": made.eigenvalues, "vectors": made.eigenvectors, "tail": made.tail}

        kept = self.bench.context.cache.tensors("anchor", {"data": digest(data)}, build)
        factors = (kept[name].to(data.device) for name in ("mean", "values", "vectors", "tail"))
        return GaussianAnchor.from_factors(*factors)

    @cached_property
    def anchor(self) -> Any:
        """The moment-matched Gaussian; guided, one a branch."""
        if self.name != "guided":
            return self.plain
        return PerBranch(self.plain, self._anchor(self.data[0][self.in_class]))

    @property
    def in_class(self) -> Tensor:
        """Which data have the guided label."""
        return self.groups == patches.PHOTOGRAPHS.index(CLASS)

    @property
    def rates(self) -> Any:
        """How fast each point moves mass: in the guided branch [label = c]/π_c."""
        if self.name != "guided":
            return None
        inside = self.in_class.to(self.data[0].dtype)
        return PerBranch(torch.ones_like(inside), inside / inside.mean())

    @cached_property
    def latents(self) -> Tensor:
        """States at σ_max, (n, *shape)."""
        count = self.bench.config.samples if self.name == "pixels" else max(2, self.bench.config.samples // 2)
        noise = torch.randn((count, *self.data[0].shape[1:]), generator=torch.Generator().manual_seed(0))
        return self.data[0].mean(dim=0) + SIGMA_MAX * noise.to(self.data[0])

    def grid(self, steps: int) -> Grid:
        """Levels of Karras et al."""
        return Grid(SIGMA_MAX, SIGMA_MIN, steps)

    @cached_property
    def bandwidth(self) -> float:
        """The kernel bandwidth of highest held-out likelihood."""
        train, held = self.data

        def build() -> dict[str, Tensor]:
            return {"place": torch.tensor(BANDWIDTHS.index(likeliest(train, held[::6], BANDWIDTHS)))}

        key = {"data": digest(train, held), "bandwidths": list(BANDWIDTHS)}
        return BANDWIDTHS[int(self.bench.context.cache.tensors("bandwidth", key, build)["place"])]

    @cached_property
    def removed(self) -> Tensor:
        """The data of the photograph that is removed."""
        return self.data[0][self.groups == patches.PHOTOGRAPHS.index(REMOVED)]

    @property
    def mass(self) -> float:
        """η of the removal, −m/(N − m)."""
        return Remove(Points(self.removed)).mass(len(self.data[0]))

    def change(self, ratio: str) -> Any:
        """The removal per unit mass, its density ratio by the flow or by kernels."""
        measure = (
            KernelRatio(self.removed, self.data[0], self.bandwidth)
            if ratio == "kernel"
            else Points(self.removed, bandwidth=self.bandwidth)
        )
        return PerBranch(Remove(measure), None) if self.name == "guided" else Remove(measure)

    def functional(self, samples: Tensor) -> Tensor:
        """The mean brightness of the picture, (batch,)."""
        return self.pictures(samples).mean(dim=(1, 2, 3))

    def pictures(self, samples: Tensor) -> Tensor:
        """The pictures that samples stand for, (batch, 3, 32, 32)."""
        return self.bench.coder.decode(samples) if self.name == "codes" else samples
