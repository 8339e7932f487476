"""Sizes of the study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAIN = "class:3@0.1"
CLASSES = tuple(f"class:{k}@0.1" for k in range(10))
SWEEP = ("class:3@0.01", "class:3@0.03", "class:3@0.3")
EDITS = ("drop-class:3", "drop-image:0", "add-image:0@0.02", "edit-class:3@0.3")


@dataclass(frozen=True)
class Regime:
    """One data set with one kind of network.

    Attributes:
        name: of the regime. images: name of the data set.
        kind, width, depth: of the network. steps: of training from scratch; fine-tuning takes a quarter.
        pairs: P of the compared changes. fewer: P of the others.
        changes: what is changed, see `studies.retraining.changes`. compared: changes for which all predictors,
        baselines
        and fine-tuning are computed. halves: networks on random halves for the LDS (0: none).
    """

    name: str
    images: str
    kind: Literal["mlp", "unet", "transformer"] = "mlp"
    width: int = 256
    depth: int = 3
    steps: int = 3000
    pairs: int = 8
    fewer: int = 3
    changes: tuple[str, ...] = (MAIN,)
    compared: tuple[str, ...] = (MAIN,)
    halves: int = 0

    def pairs_of(self, change: str) -> int:
        """How many pairs of networks tell the truth about a change."""
        return self.pairs if change in self.compared else min(self.pairs, self.fewer)


@dataclass(frozen=True)
class Config:
    """The regimes, and what they share.

    Attributes:
        regimes: see `Regime`. latents: number of latents. grid: sampler steps. probes: of random traces.
        classifier_steps: of the density-ratio classifier.
    """

    regimes: tuple[Regime, ...]
    latents: int = 128
    grid: int = 40
    probes: int = 8
    classifier_steps: int = 2000

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; nothing is learned."""
        regime = Regime("digits-mlp", "digits", width=32, steps=40, pairs=2, changes=(MAIN, *EDITS), halves=4)
        return cls((regime,), latents=12, grid=6, probes=2, classifier_steps=20)

    @classmethod
    def quick(cls) -> Config:
        """Two minutes on two cores: digits, one class, three pairs."""
        return cls((Regime("digits-mlp", "digits", steps=2000, pairs=3),), latents=96)

    @classmethod
    def full(cls) -> Config:
        """All ten classes of the digits; the larger images with fewer pairs, so that the whole fits the hour."""
        digits = Regime("digits-mlp", "digits", changes=(*CLASSES, *SWEEP, *EDITS), halves=24)
        others = (
            Regime("mnist14-mlp", "mnist14", steps=3000, pairs=4),
            Regime("mnist28-mlp", "mnist", width=384, steps=3000, pairs=2),
            Regime("faces-mlp", "faces", width=384, steps=2000, pairs=2, changes=("add-image:0@0.1",), compared=()),
        )
        return cls((digits, *others))

    @classmethod
    def paper(cls) -> Config:
        """For a cluster: longer training, more pairs, U-Nets, Fashion-MNIST."""
        every = (*CLASSES, *SWEEP, *EDITS)
        names = ("digits", "mnist14", "mnist", "fashion")
        mlps = tuple(
            Regime(f"{n}-mlp", n, width=512, steps=20_000, pairs=16, fewer=16, changes=every, halves=64) for n in names
        )
        nets = tuple(
            Regime(
                f"{n}-unet",
                n,
                kind="unet",
                width=48,
                depth=3,
                steps=20_000,
                pairs=16,
                fewer=16,
                changes=every,
                halves=64,
            )
            for n in names[:3]
        )
        faces = Regime(
            "faces-mlp", "faces", width=512, steps=20_000, pairs=16, changes=("add-image:0@0.1",), compared=()
        )
        return cls((*mlps, *nets, faces), latents=512, grid=80, probes=16, classifier_steps=20_000)
