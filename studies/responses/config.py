"""Sizes of the study."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from studies.retraining.config import Regime

MAIN = "class:3@0.1"
OTHERS = ("drop-class:3", "add-image:0@0.02", "blur-class:3@0.5")


@dataclass(frozen=True)
class Exact:
    """The exactly trained network: N digits, m cosine features of many lengths, L levels.

    Attributes:
        points: N.
        features: m, the first constant.
        ridge: λ.
        levels: L, of the sampler.
        draws: noises a level that stand for the expectation in `ParameterResponse`.
        steps: of conjugate gradients.
    """

    points: int = 100
    features: int = 24
    ridge: float = 1e-2
    levels: int = 14
    draws: int = 6
    steps: int = 50


@dataclass(frozen=True)
class Config:
    """What is trained, and what the responses may spend.

    Attributes:
        regimes: see `studies.retraining.config.Regime`; every change of a regime is compared.
        exact: the exactly trained network.
        latents: their number.
        grid: sampler steps.
        probes: of random traces.
        draws: noises an image in the gradients of `parameters`.
        solve: steps of conjugate gradients, products: (example, draw) in the Gauss–Newton matrix.
        levels, states: of the calibration of patches.
        removals: how many random removals of 1 % are trained (0: none).
        removed_from: their regime's number.
    """

    regimes: tuple[Regime, ...]
    exact: Exact = field(default_factory=Exact)
    latents: int = 64
    grid: int = 20
    probes: int = 8
    draws: int = 16
    solve: int = 25
    products: int = 1536
    levels: int = 12
    states: int = 16
    removals: int = 0
    removed_from: int = 0

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; nothing is learned."""
        shared = Regime(
            "digits-mlp", "digits", count=80, width=8, steps=6, batch=16, pairs=4, changes=(MAIN, OTHERS[2])
        )
        net = replace(shared, name="digits-unet", kind="unet", width=4, depth=2, pairs=2, changes=(MAIN,))
        exact = Exact(points=30, features=12, levels=4, draws=1, steps=5)
        return cls(
            (shared, net), exact, latents=4, grid=3, probes=1, draws=1, solve=2, products=16, levels=2, states=2,
            removals=3,
        )  # fmt: skip

    @classmethod
    def quick(cls) -> Config:
        """Two minutes on two cores: one change, small perceptrons on digits, four pairs."""
        digits = Regime("digits-mlp", "digits", width=48, steps=700, batch=64, pairs=4, changes=(MAIN,))
        return cls((digits,), latents=32, grid=16, draws=4, solve=15, products=768, levels=6, states=8, removals=12)

    @classmethod
    def full(cls) -> Config:
        """Convolutional networks that denoise better than a Gaussian, on digits and MNIST, to fit the hour."""
        regimes = (
            Regime(
                "digits-unet", "digits", kind="unet", width=28, depth=2, steps=500, batch=64, pairs=4, changes=(MAIN,)
            ),
            Regime(
                "mnist14-unet", "mnist14", count=1500, kind="unet", width=8, depth=2, steps=500, batch=32, pairs=4,
                changes=(MAIN,),
            ),
            Regime("digits-mlp", "digits", width=48, steps=700, batch=64, pairs=4, changes=()),
        )  # fmt: skip
        exact = Exact(points=300, features=64, levels=16, draws=32, steps=60)
        return cls(regimes, exact, latents=24, draws=8, products=1024, removals=40, removed_from=2)

    @classmethod
    def paper(cls) -> Config:
        """For a cluster: every change, wide and well trained U-Nets and transformers, many pairs."""
        every = (MAIN, *OTHERS)
        shared = Regime("", "digits", width=256, steps=10_000, pairs=16, changes=every)
        mlps = [replace(shared, name=f"{n}-mlp", images=n) for n in ("digits", "mnist14", "fashion14")]
        nets = [replace(m, name=f"{m.images}-unet", kind="unet", width=48, depth=2, batch=64) for m in mlps]
        attention = [replace(m, name=f"{m.images}-transformer", kind="transformer", width=128, depth=4) for m in mlps]
        exact = Exact(points=1500, features=512, levels=40, draws=16, steps=400)
        return cls((*mlps, *nets, *attention), exact, latents=256, grid=40, solve=100, products=8192, removals=400)
