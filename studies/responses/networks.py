"""Study `responses_networks`: which answer is a network's, on other images, with attention, and for other changes?

Sources are those of `responses`, whose full run has one change on two data sets.

Protocol, fixed before any result
---------------------------------
- As `responses`, whose truths, responses, baselines, measures, latents, sampler and claims these are; no network here
  is trained exactly and no one per cent of the data is removed, since both are there.
- Regimes, four pairs each, from scratch and fine-tuned: the U-Net of 103 321 parameters on 1 500 images of MNIST and of
  Fashion-MNIST averaged to 14×14 (class 3 gets a tenth of the mass); a transformer on the digits (the same change); the
  U-Net on the digits, when class 3 is removed, one image gets η = .02, class 3 is blurred by half.
- *Trained*: a regime whose networks denoise held-out images worse than a Gaussian or a kernel density carries no claim.
  Sizes and lengths of training were chosen by the held-out losses of single trainings alone, to fit two hours of two
  cores (Gaussian, kernel): Fashion-MNIST .444 (.556, .625), digits by the transformer of 226 948 parameters .677
  (.706, .739); MNIST in the same number of steps by a narrower network .49 (.61), see `responses`.
- Expectations are those of `responses`: the best response reaches ≥ 90 % of the ceiling after fine-tuning and ≥ 80 %
  from scratch with a slope in .7–1.4, and `unrolled` is better than every other. From scratch on MNIST a smaller
  network had a derivative of its run that did not reach a tenth of the mass; whether this one does was not known.

`full()` was run after that, once, on 28 November 2026 (two hours of two cores), and nothing was changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from studies.responses import config as parent
from studies.responses.cells import cells as every_cell
from studies.responses.cells import run_cell
from studies.responses.config import MAIN, OTHERS
from studies.responses.drawing import figures
from studies.responses.verdicts import claims
from studies.retraining.config import Regime
from studies.study import Cell

__all__ = ["NAME", "QUESTION", "VERSION", "Config", "cells", "claims", "figures", "run_cell"]

NAME = "responses_networks"
QUESTION = "Which answer is a trained network's, on other images, with attention, and for removals and edits?"
VERSION = 1
DIGITS = Regime("digits-unet", "digits", kind="unet", width=28, depth=2, steps=500, batch=64, pairs=4, changes=OTHERS)


@dataclass(frozen=True)
class Config(parent.Config):
    """As of `responses`."""

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; nothing is learned."""
        shared = replace(DIGITS, count=80, width=4, steps=6, batch=16, pairs=2, changes=OTHERS[:1])
        attention = replace(shared, name="digits-transformer", kind="transformer", width=8, depth=1, changes=(MAIN,))
        return cls((shared, attention), latents=4, grid=3, probes=1, draws=1, solve=2, products=16, levels=2, states=2)

    @classmethod
    def quick(cls) -> Config:
        """Two minutes on two cores: class 3 removed from the digits of a small U-Net, four pairs."""
        small = replace(DIGITS, width=8, steps=300, batch=32, changes=OTHERS[:1])
        return cls((small,), latents=16, grid=12, draws=4, solve=10, products=512, levels=6, states=8)

    @classmethod
    def full(cls) -> Config:
        """The protocol."""
        images = replace(DIGITS, count=1500, batch=32, changes=(MAIN,))
        nets = [replace(images, name=f"{name}-unet", images=name) for name in ("fashion14", "mnist14")]
        attention = Regime(
            "digits-transformer", "digits", kind="transformer", width=64, depth=3, steps=1500, batch=32, pairs=4
        )
        return cls((*nets, attention, DIGITS), latents=24, draws=8, products=1024)

    @classmethod
    def paper(cls) -> Config:
        """For a cluster: that of `responses`."""
        return cls(parent.Config.paper().regimes, latents=256, grid=40, solve=100, products=8192)


def cells(config: Config) -> list[Cell]:
    """Those of the regimes, from scratch first: fine-tuning then finds its base networks in the cache."""
    parts = ("scratch", "finetune")
    return [cell for part in parts for cell in every_cell(config) if cell.parameters["part"] == part]
