"""Sizes of the study."""

from __future__ import annotations

from dataclasses import dataclass, field

from studies.photographs.networks import Shape
from studies.photographs.training import Plan

LATENT = Shape(channels=(48, 96), size=8, inputs=4, labels=0)


@dataclass(frozen=True)
class Config:
    """What is trained and what is measured.

    Attributes:
        training, held_out: patches of each of the nine photographs.
        shape, plan: the network on pixels and its training.
        latent_shape, latent_plan: that on codes.
        coder_plan: of the autoencoder.
        samples: latents on pixels; guided and codes take half of them.
        steps: N, of the coarse grid; the fine has 2N.
        probes: of random traces.
        loss_patches: held-out patches of the loss.
        exact: samples whose log density is taken with the exact trace too (3 072 products a node); 0 for none.
    """

    training: int = 560
    held_out: int = 120
    shape: Shape = field(default_factory=Shape)
    plan: Plan = field(default_factory=lambda: Plan(steps=3000))
    latent_shape: Shape = LATENT
    latent_plan: Plan = field(default_factory=lambda: Plan(steps=400, batch=64, rate=2e-3))
    coder_plan: Plan = field(default_factory=lambda: Plan(steps=200, batch=32, rate=2e-3))
    samples: int = 8
    steps: int = 16
    probes: int = 4
    loss_patches: int = 180
    exact: int = 0

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; nothing is learned."""
        return cls(
            training=4, held_out=2, shape=Shape(channels=(8, 16)), plan=Plan(2, 2), latent_plan=Plan(2, 2),
            latent_shape=Shape(channels=(8, 16), size=8, inputs=4, labels=0), coder_plan=Plan(2, 2), samples=2,
            steps=2, probes=2, loss_patches=9,
        )  # fmt: skip

    @classmethod
    def quick(cls) -> Config:
        """Two minutes: a network of a million parameters, hardly trained."""
        return cls(
            training=60, held_out=20, plan=Plan(40, 16), latent_plan=Plan(150, 32), coder_plan=Plan(60, 32), samples=2,
            steps=6, probes=2, loss_patches=90,
        )  # fmt: skip

    @classmethod
    def full(cls) -> Config:
        """5 040 patches, half an hour of training on an idle core: better than a Gaussian, far from the end."""
        return cls()

    @classmethod
    def paper(cls) -> Config:
        """For a GPU: a wide network, trained to the end, and the exact trace."""
        return cls(
            shape=Shape(channels=(64, 128, 256)), plan=Plan(100_000, 128, 2e-4), latent_plan=Plan(50_000, 128, 2e-4),
            coder_plan=Plan(20_000, 128, 1e-3), samples=64, steps=64, probes=16, loss_patches=1080, exact=8,
        )  # fmt: skip
