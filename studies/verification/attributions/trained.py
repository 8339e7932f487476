"""The tier `trained`: the derivative of one real training run in its data's weights, and leave-out retrainings.

    python -m studies.verification.attributions.trained      # makes trained-digits.npz again, some minutes

A network is trained on N digits by Adam, and the run is kept (`studies.training.record`). Its truths are the derivative
of every output toward every image through all steps of that run (Ilyas & Engstrom 2025, arXiv 2504.16430), and what the
same run — seed, order and noise — says when the losses of a random tenth of the images are left out.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from studies.cache import Cache
from studies.networks import Architecture, Denoiser
from studies.training import Recipe
from studies.training.descent import Adam
from studies.training.loop import digest
from studies.training.record import TrainingRecord, record
from studies.verification.attributions.images import Setting
from studies.verification.attributions.outputs import Outputs, heun
from studies.verification.attributions.stored import Stored

__all__ = ["SETTING", "TrainedSetting", "by_differences", "derivative", "made"]

FUNCTIONALS = ("ink", "logit")
LEFT_OUT = 10


@dataclass(frozen=True)
class TrainedSetting(Setting):
    """As `Setting`, with subsets that leave a tenth out."""

    @property
    def recipe(self) -> Recipe:
        """How the network is trained; Adam's square root keeps off zero, so that the run has a derivative."""
        return Recipe(Architecture(width=self.width, depth=self.depth), steps=self.steps, batch=32, rate=4e-3)

    @cached_property
    def masks(self) -> np.ndarray:
        """Which images each retraining holds (subsets, N)."""
        rng = np.random.default_rng(31)
        return np.stack([rng.permutation(self.points) >= LEFT_OUT for _ in range(self.halves)])

    def recorded(self, weights: Tensor | None = None, cache: Cache | None = None) -> TrainingRecord:
        """The run on all images, or on weighted losses."""
        return record(self.recipe, self.data, weights=weights, seed=0, rule=Adam(inner=1e-6), cache=cache)

    def base(self, seed: int = 0, cache: Cache | None = None) -> Denoiser:
        """The network that the run ends with."""
        return self.recorded(cache=cache).module

    def outputs(self, cache: Cache | None = None) -> Outputs:
        """What is asked."""
        network = self.base(cache=cache)
        with torch.no_grad():
            reference = heun(network, self.latents, self.levels)
        scale = float((self.data.double() - self.data.double().mean(0)).square().mean().sqrt())
        return Outputs(self.latents, self.levels, reference, scale, *self.classifier())


SETTING = TrainedSetting("trained-digits", "digits", points=100, width=32, steps=200, halves=64, seeds=1, queries=16)


def made(setting: TrainedSetting, cache: Cache | None) -> Stored:
    """Outputs of the retrainings, and the derivative."""
    asked, run = setting.outputs(cache), setting.recorded(cache=cache)
    values = []
    for number, row in enumerate(setting.masks):
        # Mass is moved: the weights of the kept images rise, so that they sum to 1 again.
        network = setting.recorded(torch.from_numpy(row / row.sum()), cache).module
        with torch.no_grad():
            values.append(torch.stack([asked.of_network(name, network) for name in FUNCTIONALS]))
        print(f"retrained {number + 1} of {len(setting.masks)}", flush=True)
    return Stored(
        name=setting.name,
        digest=digest(setting.data, setting.latents),
        masks=setting.masks,
        functionals=FUNCTIONALS,
        values=torch.stack(values, 1)[:, None].numpy(),
        reference=asked.reference.numpy(),
        weights=asked.weights.numpy(),
        offsets=asked.offsets.numpy(),
        seeds=(0,),
        derivative=np.stack([derivative(run, asked, name) for name in FUNCTIONALS]),
    )


def derivative(run: TrainingRecord, asked: Outputs, functional: str) -> np.ndarray:
    """d output / dη toward every image (n, N): the output's gradient in the parameters, pulled back through the run."""
    network, names = run.module, [name for name, _ in run.module.named_parameters()]
    sizes = [value.shape for _, value in network.named_parameters()]
    theta = run.theta.clone().requires_grad_(True)
    parts = theta.split([size.numel() for size in sizes])
    given = {name: part.reshape(size) for name, part, size in zip(names, parts, sizes, strict=True)}
    output = asked.of_network(functional, lambda x, sigma: functional_call(network, given, (x, sigma)))
    rows = [torch.autograd.grad(value, theta, retain_graph=True)[0] for value in output]
    return run.pull(torch.stack(rows)).numpy()


def by_differences(step: float = 1e-3) -> np.ndarray:
    """The derivative toward the first image by symmetric differences of whole runs (functionals, n)."""
    slopes, setting = [], SETTING
    asked = setting.outputs()
    for sign in (1, -1):
        # η toward a point: (1 ∓ η) of the law and ±η of the datum, whose weight stays positive for η < 1/n.
        weights = torch.full((setting.points,), (1 - sign * step) / setting.points, dtype=torch.float64)
        weights[0] += sign * step
        with torch.no_grad():
            network = setting.recorded(weights).module
            slopes.append(torch.stack([asked.of_network(name, network) for name in FUNCTIONALS]))
    return ((slopes[0] - slopes[1]) / (2 * step)).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the truth of this tier again; a killed run goes on.")
    parser.add_argument("--cache", type=Path, default=Path("studies-out/attribution-truths"))
    cache = Cache(parser.parse_args().cache)
    made(SETTING, cache).save(Path(__file__).with_name(f"{SETTING.name}.npz"))


if __name__ == "__main__":
    main()
