"""Sizes of the study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

SHORT = {"short": 4, "shorter": 16}  # the steps of these rungs are divided by this
RUNGS = ("base", "narrow", "shallow", *SHORT)
MANY = 1024  # training images: more than the longest training memorises, and some are left as held-out ones
FEW = 64  # so few that the longest training memorises


@dataclass(frozen=True)
class Rung:
    """One network of a ladder: its name and what distinguishes it."""

    name: str
    width: int
    depth: int
    steps: int


@dataclass(frozen=True)
class Ladder:
    """Networks of one kind on one problem, from small to large.

    Attributes:
        problem: "digits", "mnist14", "gaussian20" or "mixture20".
        kind, width, depth: of the base network.
        steps: of its training.
        size: N, of the training set.
        seeds: networks at each rung.
        batch: of training.
        capacity: whether the rungs *narrow* and *shallow* are there too.
    """

    problem: str
    kind: str
    width: int
    depth: int
    steps: int
    size: int = 256
    seeds: int = 2
    batch: int = 64
    capacity: bool = True

    @property
    def name(self) -> str:
        """Of the ladder."""
        return f"{self.problem}-{self.kind}-{self.size}"

    @property
    def data(self) -> str:
        """Of its training set."""
        return f"{self.problem}-{self.size}"

    def rungs(self) -> list[Rung]:
        """The networks: base, where asked for a quarter of the width and depth one, fewer steps.

        Example:
            >>> [rung.steps for rung in Ladder("digits", "mlp", 64, 2, 160).rungs()]
            [160, 160, 160, 40, 10]
        """
        base = Rung("base", self.width, self.depth, self.steps)
        smaller = [replace(base, name="narrow", width=self.width // 4), replace(base, name="shallow", depth=1)]
        smaller = smaller if self.capacity else []
        return [base, *smaller, *(replace(base, name=n, steps=max(1, self.steps // k)) for n, k in SHORT.items())]


class Ladders(Protocol):
    """What changes along ladders are computed from: the ladders, and the highest of the levels that count."""

    @property
    def ladders(self) -> tuple[Ladder, ...]: ...
    @property
    def low(self) -> float: ...


@dataclass(frozen=True)
class Freedom:
    """Networks of one kind with targets of D_score on inputs of D_region.

    Attributes:
        kind, width, depth, steps, seeds, batch: of the networks and their training.
        ratios: |D_region|/|D_score|.
        thickness: κ of the variant.
    """

    kind: str
    width: int
    depth: int
    steps: int
    seeds: int = 2
    ratios: tuple[int, ...] = (1, 2, 4, 8, 25)
    thickness: tuple[float, ...] = (8.0,)
    batch: int = 64


@dataclass(frozen=True)
class Config:
    """Ladders, freedom of extrapolation, guidance and the small exact experiments.

    Attributes:
        ladders, freedoms: see their classes.
        images: training images of the guidance experiment.
        score_size: |D_score|.
        guidance_steps: training of the class networks.
        latents: paths per network.
        levels: σ at which errors are measured, descending.
        low: bound of the low levels.
        substeps: Heun steps between two levels.
        features: sizes of the nested feature sets.
    """

    ladders: tuple[Ladder, ...]
    freedoms: tuple[Freedom, ...]
    images: int = 256
    score_size: int = 32
    guidance_steps: int = 1500
    latents: int = 128
    levels: tuple[float, ...] = (3.2, 1.6, 0.8, 0.4, 0.2, 0.1)
    low: float = 0.8
    substeps: int = 3
    features: tuple[int, ...] = (4, 8, 16, 32, 64, 128)

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; nothing is learned."""
        ladders = (Ladder("digits", "mlp", 16, 2, 16, 32), Ladder("gaussian20", "mlp", 16, 2, 16, 32, capacity=False))
        freedoms = (Freedom("unet", 4, 1, 4, 1, (1, 2), (2.0,)),)
        return cls(ladders, freedoms, 32, 16, 8, 12, (1.6, 0.4, 0.1), substeps=1, features=(4, 16))

    @classmethod
    def quick(cls) -> Config:
        """Two minutes on two cores: MLPs on digits and the two mixtures, a U-Net for freedom."""
        sizes = (("digits", 512), ("gaussian20", 100), ("mixture20", 100))
        ladders = tuple(Ladder(name, "mlp", 128, 3, 1600, size) for name, size in sizes)
        return cls(ladders, (Freedom("unet", 8, 2, 400, 1, (1, 4, 16), (8.0,)),), guidance_steps=400, latents=96)

    @classmethod
    def full(cls) -> Config:
        """All problems and kinds; widths, steps, seeds and ratios are cut to some twenty-five minutes of one core."""
        images = (
            Ladder("digits", "mlp", 256, 3, 6400, MANY, batch=32),
            Ladder("digits", "unet", 16, 2, 2400, MANY, batch=16),
            Ladder("digits", "transformer", 32, 2, 3200, MANY, batch=16),
            Ladder("mnist14", "mlp", 256, 3, 4800, MANY, batch=32),
            Ladder("mnist14", "unet", 8, 2, 1200, MANY, batch=16),
            Ladder("digits", "mlp", 256, 3, 6400, FEW, batch=32, capacity=False),
        )
        toys = (
            Ladder("gaussian20", "mlp", 128, 4, 10_000, 100, batch=32),
            Ladder("mixture20", "mlp", 128, 4, 10_000, 100, batch=32),
            Ladder("mixture20", "mlp", 128, 4, 10_000, 1000, batch=32, capacity=False),
        )
        freedoms = (Freedom("unet", 16, 2, 1000, batch=16), Freedom("transformer", 32, 2, 2000, batch=16))
        return cls((*images, *toys), freedoms, guidance_steps=1000, substeps=2)

    @classmethod
    def paper(cls) -> Config:
        """For a cluster: five seeds, every ratio of the paper, larger networks and longer training."""
        kinds = (("mlp", 1000, 4, 100_000), ("unet", 48, 3, 50_000), ("transformer", 192, 6, 50_000))
        images = tuple(Ladder(problem, *kind, MANY, 5) for problem in ("digits", "mnist14") for kind in kinds)
        few = tuple(replace(ladder, size=FEW, capacity=False) for ladder in images)
        toys = (("gaussian20", 100), ("mixture20", 100), ("mixture20", 1000), ("mixture20", 10_000))
        mixtures = tuple(Ladder(problem, "mlp", 1000, 10, 20_000, size, 5) for problem, size in toys)
        ratios, thick = (1, 2, 3, 4, 8, 25), (1.5, 2.0, 3.0, 8.0)
        freedoms = tuple(Freedom(*kind, 5, ratios, thick) for kind in kinds[1:])
        return cls(
            (*images, *few, *mixtures),
            freedoms,
            images=1024,
            score_size=64,
            guidance_steps=50_000,
            latents=512,
            substeps=8,
        )
