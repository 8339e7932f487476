"""Sizes of the study."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from studies.responses.config import Exact

PLANTS = ("blurred", "watermarked", "repeated", "mislabelled")


@dataclass(frozen=True)
class Regime:
    """One data set and its networks.

    Attributes:
        name: of the regime.
        images: of `studies.data`.
        count: training images, evenly from the classes.
        parts: clusters of a class; classes × parts is 20.
        width, depth: of the networks.
        steps, batch: of training.
        kind: of the networks.
    """

    name: str
    images: str
    count: int = 1000
    parts: int = 2
    width: int = 64
    depth: int = 3
    steps: int = 500
    batch: int = 64
    kind: Literal["mlp", "unet", "transformer"] = "mlp"


@dataclass(frozen=True)
class Config:
    """What is trained and asked.

    Attributes:
        regimes: the data sets.
        exact: the network that is trained by a solve.
        latents: their number.
        grid: steps of the sampler.
        calibration: groups of a calibration.
        divisions: drawn divisions of the groups.
        random: random groups.
        floor: networks with nothing changed.
        draws: noises an image in the gradients of `parameters`.
        solve: steps of conjugate gradients.
        products: pairs in the Gauss–Newton matrix.
        plants: draws of each kind of planted groups (0: none).
        planted: size and steps of their networks.
    """

    regimes: tuple[Regime, ...]
    exact: Exact = field(default_factory=Exact)
    latents: int = 48
    grid: int = 16
    calibration: int = 9
    divisions: int = 400
    random: int = 9
    floor: int = 9
    draws: int = 4
    solve: int = 15
    products: int = 768
    plants: int = 3
    planted: Regime = field(default_factory=lambda: Regime("planted", "digits", count=1000, steps=300))

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; nothing is learned."""
        small = Regime("digits", "digits", count=120, width=8, depth=2, steps=6, batch=16)
        return cls(
            (small,), Exact(points=60, features=12, levels=4, draws=1, steps=5), latents=4, grid=3, divisions=5,
            random=9, draws=1, solve=2, products=16, plants=1,
            planted=Regime("planted", "digits", count=100, width=8, depth=2, steps=6, batch=16),
        )  # fmt: skip

    @classmethod
    def quick(cls) -> Config:
        """Two minutes on two cores: digits alone, small networks, one draw of planted groups."""
        digits = Regime("digits", "digits", count=400, width=32, depth=2, steps=150)
        planted = Regime("planted", "digits", count=400, width=32, depth=2, steps=150)
        return cls((digits,), Exact(points=200, features=48, levels=12), latents=24, grid=12, plants=1, planted=planted)

    @classmethod
    def full(cls) -> Config:
        """Three data sets, to fit fifteen minutes of one core."""
        regimes = (
            Regime("digits", "digits"),
            Regime("unifont8", "unifont8", parts=1),
            Regime("fashion14", "fashion14"),
        )
        return cls(regimes, Exact(points=400, features=64, levels=16))

    @classmethod
    def paper(cls) -> Config:
        """For a cluster: wider networks, longer training, all images."""
        sizes = (("digits", 1600, 2), ("mnist14", 4000, 2), ("fashion14", 4000, 2), ("unifont8", 4000, 1))
        regimes = tuple(Regime(name, name, n, parts, width=256, steps=10_000, batch=128) for name, n, parts in sizes)
        planted = Regime("planted", "digits", count=1600, width=256, steps=4000)
        return cls(
            regimes, Exact(points=1500, features=512, levels=40), latents=256, grid=40, divisions=2000, draws=16,
            solve=60, products=8192, plants=20, planted=planted,
        )  # fmt: skip
