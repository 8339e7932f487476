"""Study `retraining_pairs`: does the sensitivity predict retraining, judged by enough pairs of trained networks?

Source: Scarvelis & Solomon 2025, arXiv 2509.23092, section on images. The study `retraining` has two to eight pairs a
regime, and its perceptrons on MNIST and Fashion-MNIST have a larger held-out loss than a Gaussian.

Protocol, fixed before any result
---------------------------------
- As `retraining`, with the change *class 3 gets a tenth of the mass* alone: truths from scratch and by fine-tuning,
  predictors, baselines, measures, latents' seeds and sampler are those of that study.
- Regimes: residual perceptrons of width 256 on digits (3000 steps of 128), MNIST and Fashion-MNIST averaged to 14×14
  (6000 steps of 64); **16 pairs** each, trained side by side; 64 latents. U-Nets are left to `paper()` and to the
  accelerator's run (`tests/accelerator.py`): six pairs do not fit the hour of two cores beside these.
- *Trained*: a regime carries claims only where the base networks' mean held-out loss is below that of the
  moment-matched Gaussian **and** of the kernel density of best bandwidth; others are shown and fail the claim that
  they are trained.
- The unit is the pair. Shares of the ceiling resample pairs and latents jointly, on the changes and, second reading,
  after the mean change over latents is taken from both sides.
- Claims: per regime, trained (two); then those of `retraining` on the main change: the aims .75 and .85, at least .95
  of the ceiling in both readings, better than every baseline (paired over latents), and the rank of norms.
- Whether 6000 steps train the 14×14 perceptrons was not known: a regime that they do not train says so and carries no
  claim.

`full()` was run after that, once, on 27 and 28 November 2026 (two hours of one core), and nothing was changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.figure import Figure

from studies.retraining import config as parent
from studies.retraining import drawing
from studies.retraining.cells import cells, run_cell
from studies.retraining.claims import claims
from studies.retraining.config import Regime

__all__ = ["NAME", "QUESTION", "VERSION", "Config", "cells", "claims", "figures", "run_cell"]

NAME = "retraining_pairs"
QUESTION = "Does the sensitivity predict retraining, judged by sixteen pairs of networks that are trained?"
VERSION = 1
PAIRS = 16


@dataclass(frozen=True)
class Config(parent.Config):
    """As of `retraining`."""

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; nothing is learned."""
        regime = Regime("digits-mlp", "digits", count=200, width=16, steps=20, pairs=3)
        return cls((regime,), latents=12, grid=4, probes=2, classifier_steps=10, formula=0)

    @classmethod
    def quick(cls) -> Config:
        """Two minutes on two cores: digits, half the steps, four pairs."""
        return cls((Regime("digits-mlp", "digits", steps=1500, pairs=4),), latents=32, formula=0)

    @classmethod
    def full(cls) -> Config:
        """The protocol: some fifty minutes of two cores."""
        small = Regime("", "", steps=6000, batch=64, pairs=PAIRS, count=4500)
        others = (replace(small, name=f"{images}-mlp", images=images) for images in ("mnist14", "fashion14"))
        return cls((Regime("digits-mlp", "digits", pairs=PAIRS), *others), latents=64, formula=0)

    @classmethod
    def paper(cls) -> Config:
        """For a cluster or a GPU: wider, longer, every class, and six pairs of U-Nets."""
        shared = Regime("", "", width=512, steps=20_000, pairs=PAIRS, changes=parent.CLASSES)
        mlps = [replace(shared, name=f"{n}-mlp", images=n) for n in ("digits", "mnist14", "fashion14", "mnist")]
        nets = [
            replace(shared, name=f"{n}-unet", images=n, kind="unet", width=48, pairs=6, changes=(parent.MAIN,))
            for n in ("digits", "mnist14", "mnist", "fashion")
        ]
        return cls((*mlps, *nets), latents=256, grid=80, probes=16, classifier_steps=20_000, formula=0)


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    """Those of `retraining`, but for pictures of images."""
    return {name: each for name, each in drawing.figures(rows, config).items() if "-images" not in name}
