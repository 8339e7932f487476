"""The tier `images`: networks on random halves of real images, many seeds, side by side.

    python -m studies.verification.attributions.images digits [--seeds 8] [--cache DIR]

trains `halves` networks on halves of N images for every seed (each beside the others in one stack, see
`studies.training.train_many`), asks all outputs of each, and writes `digits.npz` beside this file: outputs, masks,
latents, the reference samples, the classifier and digests; no weights. A killed run goes on where it was: networks are
cached and checkpointed. `remade` makes a part of it again, for the test that the shipped arrays are what it makes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sensitivity import Grid
from studies.cache import Cache
from studies.data import Images, load
from studies.networks import Architecture, Denoiser, stack
from studies.training import Recipe, train, train_many
from studies.training.loop import digest
from studies.verification.attributions.outputs import FUNCTIONALS, Outputs, heun
from studies.verification.attributions.stored import Stored

__all__ = ["SETTINGS", "Setting", "made", "remade"]

SIGMA_MAX, SIGMA_MIN, STEPS = 10.0, 0.1, 20
HELD_OUT = 340  # images that no network sees, for the classifier
GROUP = 16  # networks whose outputs are asked at once


@dataclass(frozen=True)
class Setting:
    """One set of images and how networks are trained on halves of it.

    Attributes:
        name: of the shipped file.
        images: as `studies.data.load` calls them.
        classes: those that are kept.
        points: N.
        kind, width, depth: of the network.
        steps: optimiser steps of 64.
        halves, seeds: how many subsets of N/2, and trainings of each.
        queries: latents.
        draw: of images, halves and latents; another for what may be tuned.
    """

    name: str
    images: str
    classes: tuple[int, ...] = (0, 1, 3)
    points: int = 200
    kind: str = "mlp"
    width: int = 96
    depth: int = 3
    steps: int = 1000
    halves: int = 128
    seeds: int = 8
    queries: int = 32
    draw: int = 0

    @property
    def recipe(self) -> Recipe:
        """How every network is trained."""
        kind: str = self.kind
        architecture = Architecture(kind, width=self.width, depth=self.depth)  # type: ignore[arg-type]
        return Recipe(architecture, steps=self.steps, batch=64, rate=4e-3)

    @cached_property
    def chosen(self) -> Images:
        """The images that are used: N for training, then those held out."""
        whole = load(self.images)
        kept = np.flatnonzero(np.isin(_labels(whole), self.classes))
        order = np.random.default_rng(11 + 100 * self.draw).permutation(kept)[: self.points + HELD_OUT]
        return whole.subset(torch.from_numpy(order))

    @cached_property
    def data(self) -> Tensor:
        """The N images (N, 1, h, w) in [−1, 1]."""
        return self.chosen.images[: self.points]

    @cached_property
    def masks(self) -> np.ndarray:
        """Which images each half holds (halves, N)."""
        rng = np.random.default_rng(12 + 100 * self.draw)
        return np.stack([rng.permutation(self.points) < self.points // 2 for _ in range(self.halves)])

    @cached_property
    def latents(self) -> Tensor:
        """States at σ_max (queries, 1, h, w)."""
        noise = torch.randn(
            self.queries, *self.data.shape[1:], generator=torch.Generator().manual_seed(13 + 100 * self.draw)
        )
        return self.data.mean(0) + SIGMA_MAX * noise

    @property
    def levels(self) -> Tensor:
        """The sampler's levels."""
        return Grid(SIGMA_MAX, SIGMA_MIN, STEPS).levels

    def base(self, seed: int = 0, cache: Cache | None = None) -> Denoiser:
        """The network on all data, trained here: some seconds."""
        return train(self.recipe, self.data, seed=seed, cache=cache).network

    def trained(self, halves: np.ndarray, seed: int, cache: Cache | None) -> list[Denoiser]:
        """Networks on halves, given as rows of a mask."""
        weights = [torch.from_numpy(row / row.sum()) for row in halves.astype(float)]
        networks = train_many(self.recipe, self.data, weights=weights, seeds=[seed] * len(weights), cache=cache)
        return [each.network for each in networks]

    def classifier(self) -> tuple[Tensor, Tensor]:
        """Weights and offsets of multinomial logistic regression on the images held out."""
        from sklearn.linear_model import LogisticRegression

        held = self.chosen.subset(torch.arange(self.points, len(self.chosen)))
        regression = LogisticRegression(C=0.1, max_iter=2000).fit(held.images.flatten(1).numpy(), _labels(held))
        return torch.tensor(regression.coef_).float(), torch.tensor(regression.intercept_).float()

    def outputs(self, cache: Cache | None = None) -> Outputs:
        """What is asked, with the reference samples of the network on all data."""
        network = self.base(cache=cache)
        with torch.no_grad():
            return self.asked(heun(network, self.latents, self.levels))

    def asked(self, reference: Tensor) -> Outputs:
        """What is asked, given the reference samples, on their device."""
        latents, classifier = self.latents.to(reference), (each.to(reference) for each in self.classifier())
        return Outputs(latents, self.levels, reference, _scale(self.data), *classifier)


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("digits", "digits"),
        Setting("mnist14", "mnist14"),
        Setting("fashion14", "fashion14"),
        Setting("digits-unet", "digits", kind="unet", width=16, depth=2, halves=64, seeds=2),  # hours on two cores
        # No problem of the task: what methods may be tuned on.
        Setting("digits-tuning", "digits", classes=(4, 6, 7), halves=48, seeds=2, queries=16, draw=1),
    )
}


def made(setting: Setting, seeds: int, cache: Cache | None) -> Stored:
    """The truth of one setting, of the first seeds."""
    asked = setting.outputs(cache)
    outputs = []
    for seed in range(seeds):
        outputs.append(_of_seed(setting, asked, seed, cache))
        print(f"{setting.name}: seed {seed} of {seeds}", flush=True)
    return stored_of(setting, asked, np.stack(outputs, 1))


def stored_of(setting: Setting, asked: Outputs, values: np.ndarray, device: str = "cpu") -> Stored:
    """What is shipped, given the outputs (functionals, seeds, halves, queries) of the first seeds."""
    return Stored(
        name=setting.name,
        digest=digest(setting.data, setting.latents),
        masks=setting.masks,
        functionals=FUNCTIONALS,
        values=values,
        reference=asked.reference.cpu().numpy(),
        weights=asked.weights.cpu().numpy(),
        offsets=asked.offsets.cpu().numpy(),
        seeds=tuple(range(values.shape[1])),
        device=device,
    )


def _of_seed(setting: Setting, asked: Outputs, seed: int, cache: Cache | None) -> np.ndarray:
    """Outputs of all halves of a seed, kept with the networks: neither is made twice after a kill."""

    def build() -> dict[str, Tensor]:
        return {"outputs": torch.from_numpy(asked_of(asked, setting.trained(setting.masks, seed, cache)))}

    if cache is None:
        return build()["outputs"].numpy()
    key = {"setting": repr(setting), "seed": seed, "asked": digest(asked.reference, asked.weights, asked.levels)}
    return cache.tensors("outputs", key, build)["outputs"].numpy()


def remade(setting: Setting, stored: Stored, rows: int, seed: int) -> np.ndarray:
    """Outputs of the first halves of one seed, trained again (functionals, rows, queries)."""
    return asked_of(stored.outputs(setting), setting.trained(setting.masks[:rows], seed, None))


def asked_of(asked: Outputs, networks: list[Denoiser]) -> np.ndarray:
    """All outputs of networks, (functionals, networks, queries)."""
    parts = []
    for first in range(0, len(networks), GROUP):
        group = networks[first : first + GROUP]
        parts.append(torch.stack([_of_group(asked, name, group) for name in FUNCTIONALS]))
    return torch.cat(parts, 1).numpy()


def _of_group(asked: Outputs, name: str, group: list[Denoiser]) -> Tensor:
    with torch.no_grad():
        if group[0].body.__class__.__name__ != "MLP":
            return torch.stack([asked.of_network(name, network) for network in group])
        return asked.of_network(name, stack(group), members=len(group))


def _labels(images: Images) -> np.ndarray:
    return np.zeros(len(images)) if images.labels is None else images.labels.numpy()


def _scale(data: Tensor) -> float:
    return float((data.double() - data.double().mean(0)).square().mean().sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the truth of a setting again.")
    parser.add_argument("setting", choices=sorted(SETTINGS))
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--cache", type=Path, default=Path("studies-out/attribution-truths"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    setting = SETTINGS[given.setting]
    made(setting, given.seeds or setting.seeds, Cache(given.cache)).save(given.out / f"{setting.name}.npz")


if __name__ == "__main__":
    main()
