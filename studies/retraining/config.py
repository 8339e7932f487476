"""Sizes of the study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

MAIN = "class:3@0.1"
CLASSES = tuple(f"class:{k}@0.1" for k in range(10))
SWEEP = ("class:3@0.01", "class:3@0.03", "class:3@0.3")
EDITS = ("drop-class:3", "contrast-class:3@0.3", "blur-class:3@0.5")
SINGLE = tuple(f"{kind}-image:{k}{mass}" for kind, mass in (("drop", ""), ("add", "@0.02")) for k in range(2))


@dataclass(frozen=True)
class Regime:
    """One data set with one kind of network.

    Attributes:
        name: of the regime.
        images: name of the data set.
        count: N, so many of its training images (0: all of them).
        kind, width, depth: of the network.
        steps, batch: of training from scratch; fine-tuning takes a quarter of the steps.
        pairs: P of the compared changes.
        fewer: P of the others.
        changes: what is changed, see `studies.retraining.changes`.
        compared: changes for which all predictors, baselines and fine-tuning are computed.
        latents: their number (0: the configuration's).
        sigma_min: where samples end.
        halves: networks on random halves, each with two seeds, for the LDS (0: none).
        causes: whether the causes of failure are measured (for MAIN, which must be compared).
        factor: what a member of the one-factor-at-a-time design varies, "reference" for its centre, "" outside it.
            All of them take random traces.
    """

    name: str
    images: str
    count: int = 0
    kind: Literal["mlp", "unet", "transformer"] = "mlp"
    width: int = 256
    depth: int = 3
    steps: int = 3000
    batch: int = 128
    pairs: int = 8
    fewer: int = 3
    changes: tuple[str, ...] = (MAIN,)
    compared: tuple[str, ...] = (MAIN,)
    latents: int = 0
    sigma_min: float = 0.05
    halves: int = 0
    causes: bool = False
    factor: str = ""

    @property
    def varied(self) -> bool:
        """Whether this is a member of the design other than its centre."""
        return self.factor not in ("", "reference")

    def pairs_of(self, change: str) -> int:
        """How many pairs of networks tell the truth about a change."""
        return self.pairs if change in self.compared else min(self.pairs, self.fewer)


def design(reference: Regime, levels: dict[str, tuple[float, ...]]) -> tuple[Regime, ...]:
    """One factor at a time: the reference, and for each level of each factor the reference with that level alone.

    Example:
        >>> [r.name for r in design(Regime("small", "digits", factor="reference"), {"width": (32, 64)})]
        ['small', 'small-width=32', 'small-width=64']
    """
    varied = [_varied(reference, factor, level) for factor, values in levels.items() for level in values]
    return (reference, *varied)


def _varied(reference: Regime, factor: str, level: float) -> Regime:
    settings: dict[str, Any] = {factor: level}
    name = f"{reference.name}-{factor}={level:g}"
    return replace(reference, name=name, factor=factor, changes=(MAIN,), halves=0, **settings)


@dataclass(frozen=True)
class Config:
    """The regimes, and what they share.

    Attributes:
        regimes: see `Regime`.
        latents: number of latents.
        grid: sampler steps.
        probes: of random traces.
        classifier_steps: of the density-ratio classifier.
        formula: network calls a state for the density formula (0: it is left out).
        influence_functions: whether the LDS includes influence functions by conjugate gradients, which cost more than
            everything else together.
    """

    regimes: tuple[Regime, ...]
    latents: int = 128
    grid: int = 40
    probes: int = 8
    classifier_steps: int = 2000
    formula: int = 256
    influence_functions: bool = False

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; nothing is learned."""
        changes = (MAIN, "class:4@0.1", *EDITS, SINGLE[0], SINGLE[2])
        digits = Regime("digits-mlp", "digits", width=16, steps=20, pairs=2, causes=True)
        small = Regime(
            "digits-small", "digits", count=200, width=16, steps=20, pairs=2, changes=changes, compared=(), halves=4,
            factor="reference",
        )  # fmt: skip
        return cls(
            (digits, *design(small, {"steps": (10,)})), latents=12, grid=4, probes=2, classifier_steps=10, formula=128
        )

    @classmethod
    def quick(cls) -> Config:
        """Two minutes on two cores: digits, one class, three pairs."""
        return cls((Regime("digits-mlp", "digits", steps=2000, pairs=3),), latents=96, formula=0)

    @classmethod
    def full(cls) -> Config:
        """One class on every data set; every class, mass, removal and edit on small networks, to fit the hour."""
        digits = Regime("digits-mlp", "digits", causes=True)
        others = (
            Regime("gaussian-digits-mlp", "gaussian-digits", width=128, steps=1500, pairs=3),
            Regime("mnist14-mlp", "mnist14", steps=1500, pairs=3),
            Regime("fashion14-mlp", "fashion14", count=4500, steps=1000, pairs=2),
            Regime("faces-mlp", "faces", steps=600, pairs=2, changes=FACES, compared=(), latents=64),
            Regime("mnist28-mlp", "mnist", steps=1000, pairs=2, latents=64),
            Regime("mnist14-unet", "mnist14", kind="unet", width=8, depth=2, steps=600, batch=64, pairs=2, latents=64),
        )
        small = Regime(
            "digits-small", "digits", width=64, steps=1000, pairs=3, changes=(*CLASSES, *SWEEP, *EDITS, *SINGLE),
            compared=(), halves=24, factor="reference",
        )  # fmt: skip
        levels: dict[str, tuple[float, ...]] = {
            "steps": (250, 500, 4000),
            "width": (32, 128, 256),
            "count": (200, 400, 800),
            "sigma_min": (0.02, 0.1, 0.2),
        }
        return cls((digits, *others, *design(small, levels)))

    @classmethod
    def paper(cls) -> Config:
        """For a cluster: longer training, more pairs, wide U-Nets, every change on every data set."""
        every = (*CLASSES, *SWEEP, *EDITS, *SINGLE)
        shared = Regime(
            "", "digits", width=512, steps=20_000, pairs=16, fewer=16, changes=every, halves=64, causes=True
        )
        mlps = [replace(shared, name=f"{n}-mlp", images=n) for n in ("digits", "mnist14", "mnist", "fashion")]
        nets = [
            replace(shared, name=f"{n}-unet", images=n, kind="unet", width=48) for n in ("digits", "mnist14", "mnist")
        ]
        faces = replace(shared, name="faces-mlp", images="faces", changes=FACES, compared=(), halves=0, causes=False)
        small = replace(
            shared, name="digits-small", width=64, steps=1000, compared=(), causes=False, factor="reference",
        )  # fmt: skip
        levels: dict[str, tuple[float, ...]] = {
            "steps": (250, 500, 4000, 16_000),
            "width": (32, 128, 256, 512),
            "count": (200, 400, 800),
            "sigma_min": (0.02, 0.1, 0.2),
        }
        known = replace(shared, name="gaussian-digits-mlp", images="gaussian-digits", halves=0)
        regimes = (*mlps, *nets, known, faces, *design(small, levels))
        return cls(
            regimes, latents=512, grid=80, probes=16, classifier_steps=20_000, formula=1024, influence_functions=True
        )


FACES = ("add-image:0@0.1",)
