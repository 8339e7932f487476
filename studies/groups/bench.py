"""One data set in groups, its recorded base network, and networks trained again without each group."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sensitivity import GaussianAnchor, Grid, Groups, as_score
from studies import data
from studies.data import Images
from studies.groups.config import Config, Regime
from studies.networks import Architecture, Denoiser
from studies.responses.bench import RULE
from studies.retraining.bench import OBJECTIVE, LawDenoiser
from studies.sampling import sample
from studies.study import Context
from studies.training import Batches, Recipe, train_many
from studies.training.batches import Draw
from studies.training.objectives import Predictor
from studies.training.record import TrainingRecord, record

SIGMA_MAX, SIGMA_MIN = 20.0, 0.1
PAGES = (0x04, 0x20)  # of code points that unifont's groups are taken from: scripts with an alphabet
FRESH, SECOND, RANDOM, FLOOR = 1000, 2000, 3000, 4000  # where seeds begin; the base's is 0
BASE_SEED = 0
FINE_TUNING = 4  # steps from scratch for one of fine-tuning
STACK = 24  # networks side by side


@dataclass(frozen=True)
class GroupBench:
    """One regime, ready to be asked."""

    regime: Regime
    context: Context

    @property
    def config(self) -> Config:
        """The study's configuration."""
        known: Config = self.context.config
        return known

    @cached_property
    def split(self) -> tuple[Images, Images]:
        """Training images, evenly from the classes, and a tenth of the others."""
        whole = _chosen(data.load(self.regime.images))
        rows = shuffled(np.asarray(whole.labels))
        each = self.regime.count // len(rows)
        train = np.sort(np.concatenate([one[:each] for one in rows]))
        held_out = np.sort(np.concatenate([one[each : each + max(1, each // 10)] for one in rows]))
        return whole.subset(torch.from_numpy(train)), whole.subset(torch.from_numpy(held_out))

    @property
    def images(self) -> Tensor:
        """The training images (N, 1, h, w)."""
        return self.split[0].images.to(self.context.device)

    @cached_property
    def labels(self) -> np.ndarray:
        """Their classes, numbered from 0, (N,)."""
        return np.unique(np.asarray(self.split[0].labels), return_inverse=True)[1]

    @cached_property
    def of_group(self) -> np.ndarray:
        """The number of each image's group, (N,): clusters of its class."""
        from sklearn.cluster import KMeans

        parts, flat = self.regime.parts, self.images.flatten(1).cpu().numpy().astype(float)
        numbers = np.zeros(len(flat), dtype=int)
        for c in np.unique(self.labels):
            rows = np.flatnonzero(self.labels == c)
            clusters = KMeans(parts, n_init=4, random_state=0).fit_predict(flat[rows]) if parts > 1 else 0
            numbers[rows] = parts * c + clusters
        return numbers

    @cached_property
    def random_groups(self) -> dict[str, np.ndarray]:
        """Random groups of the sizes of the real ones."""
        rng, sizes = np.random.default_rng(2), np.bincount(self.of_group)
        return {
            f"random {k}": rng.choice(len(self.labels), int(sizes[k % len(sizes)]), replace=False)
            for k in range(self.config.random)
        }

    @cached_property
    def members(self) -> dict[str, np.ndarray]:
        """Indices of every real group."""
        groups = range(int(self.of_group.max()) + 1)
        return {f"group {g}": np.flatnonzero(self.of_group == g) for g in groups}

    def groups(self, members: dict[str, np.ndarray]) -> Groups:
        """Groups that are to be removed."""
        return Groups(self.images, {name: rows.tolist() for name, rows in members.items()})

    @cached_property
    def latents(self) -> Tensor:
        """States at σ_max."""
        shape = (self.config.latents, *self.images.shape[1:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(5))
        return self.images.mean(0) + SIGMA_MAX * noise.to(self.images)

    @property
    def grid(self) -> Grid:
        """The sampler's levels."""
        return Grid(SIGMA_MAX, SIGMA_MIN, self.config.grid)

    def recipe(self, tuned: bool = False) -> Recipe:
        """Training from scratch, or fine-tuning."""
        steps = max(1, self.regime.steps // FINE_TUNING) if tuned else self.regime.steps
        return Recipe(
            Architecture(self.regime.kind, width=self.regime.width, depth=self.regime.depth),
            OBJECTIVE,
            steps=steps,
            batch=self.regime.batch,
            rate=1e-3 if tuned else 2e-3,
            warmup=min(100, steps // 4),
            halflife=steps / 20,
        )

    @cached_property
    def base(self) -> TrainingRecord:
        """The base network's run."""
        return record(self.recipe(), self.images, seed=BASE_SEED, rule=RULE, cache=self.context.cache)

    def without(self, members: dict[str, np.ndarray]) -> list[Tensor]:
        """Weights of the data without each group."""
        return [_left(len(self.labels), rows) for rows in members.values()]

    def retrained(self, weights: list[Tensor | None], first: int) -> Tensor:
        """Samples of networks trained from scratch on each weighting, seeds first, first + 1, …, (n_weights, n, …)."""
        return self._trained(weights, [first + k for k in range(len(weights))], None)

    def tuned(self, weights: list[Tensor | None]) -> Tensor:
        """Samples of the base network fine-tuned on each weighting."""
        network = self.base.network_at(self.base.theta)
        return self._trained(weights, [BASE_SEED] * len(weights), network)

    def same_seed(self, members: dict[str, np.ndarray]) -> Tensor:
        """Samples of networks trained without each group from the base's parameters, with its order and noise."""
        weights: list[Tensor | None] = [*self.without(members)]
        return self._trained(weights, [BASE_SEED] * len(weights), None)

    def _trained(self, weights: list[Tensor | None], seeds: list[int], start: Denoiser | None) -> Tensor:
        samples = []
        for first in range(0, len(weights), STACK):
            rows = slice(first, first + STACK)
            begun = None if start is None else [start] * len(weights[rows])
            networks = train_many(
                self.recipe(start is not None), self.images, weights=weights[rows], seeds=seeds[rows], start=begun,
                cache=self.context.cache, device=self.context.device,
            )  # fmt: skip
            samples += [self.samples(each.network) for each in networks]
        return torch.stack(samples)

    def losses(self) -> tuple[float, float]:
        """The denoising loss on held-out images, of the base network and of a Gaussian with the data's moments."""
        network = self.base.module
        law = LawDenoiser(GaussianAnchor.from_data(self.images), network.scale)
        held_out = self.split[1].images
        return held_out_loss(network, held_out), held_out_loss(law, held_out)

    def samples(self, network: Denoiser) -> Tensor:
        """From the common latents."""
        return sample(as_score(network, "denoiser"), self.latents, self.grid)


def held_out_loss(denoiser: Predictor, images: Tensor) -> float:
    """The mean denoising loss of a network or law on images (n, 1, h, w), four noises each."""
    many = images.repeat(4, 1, 1, 1)
    draw = Draw(*(part[0] for part in Batches(many, [None], [5], len(many)).draw(0)))
    with torch.no_grad():
        return float(OBJECTIVE.losses(denoiser, draw).mean())


def _left(count: int, rows: np.ndarray) -> Tensor:
    weights = torch.ones(count, dtype=torch.float64)
    weights[rows.tolist()] = 0.0
    return weights / weights.sum()


def shuffled(labels: np.ndarray) -> list[np.ndarray]:
    """The rows of each class in random order, the same in every call."""
    rng = np.random.default_rng(1)
    return [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]


def _chosen(images: Images) -> Images:
    """All of them, or, of glyphs, 20 pages of 256 code points with the most glyphs among scripts with an alphabet."""
    if not images.name.startswith("unifont") or images.labels is None:
        return images
    pages = images.labels.bincount()
    pages[: PAGES[0]] = 0
    pages[PAGES[1] :] = 0
    kept = pages.argsort(descending=True, stable=True)[:20]
    return images.subset(torch.isin(images.labels, kept))
