"""Networks of the study: one on all points, and one on each of many random halves of them.

All are trained by denoising (EDM loss) from equal initial parameters, with the same order and noise wherever their data
agree; a second seed of every half says how much of a retrained network's output is luck.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sensitivity import as_score
from studies.attribution.gradients import Checkpoint
from studies.attribution.problem import Setup
from studies.cache import Cache
from studies.networks import Architecture, Denoiser
from studies.sampling import sample
from studies.training import Objective, Recipe, train_many
from studies.training.loop import TrainingRun

__all__ = ["Halves", "checkpoints", "halves", "recipe"]

PARTS = 6


def recipe(width: int, steps: int) -> Recipe:
    """How every network is trained."""
    return Recipe(Architecture(width=width, depth=3), Objective(mean=-0.3, spread=1.6), steps=steps, rate=3e-3)


@dataclass(frozen=True)
class Halves:
    """What retraining showed.

    Attributes:
        base: the network on all points.
        members: which points are in each half (M, N).
        outputs: φ of the retrained networks (seeds, M, n).
        base_outputs: φ of the base network (n,).
    """

    base: Denoiser
    members: np.ndarray
    outputs: np.ndarray
    base_outputs: np.ndarray


def checkpoints(setup: Setup, width: int, steps: int) -> list[Checkpoint]:
    """The base network's averaged parameters in the middle of equal parts of its training, with the mean rate there.

    The run is the base network's own, up to rounding: it is alone here, and beside the halves' networks there.
    """
    run = TrainingRun(recipe(width, steps), setup.data.float(), (None,), (0,), None, "cpu")
    length = steps // PARTS
    states = run.on_the_way([length * part + length // 2 for part in range(PARTS)])
    rates = [run.recipe.rate_at(step) for step in range(PARTS * length)]
    return [(state, float(np.mean(part))) for state, part in zip(states, np.split(np.array(rates), PARTS), strict=True)]


def halves(setup: Setup, count: int, seeds: int, width: int, steps: int, cache: Cache | None) -> Halves:
    """Train the base network and `count` halves with each seed."""
    rng, n = np.random.default_rng([setup.seed, 4]), setup.points
    members = np.stack([rng.permutation(n) < n // 2 for _ in range(count)])
    weights: list[Tensor | None] = [None]
    weights += [torch.tensor(row / row.sum()) for _ in range(seeds) for row in members.astype(float)]
    chosen = [0] + [seed for seed in range(seeds) for _ in range(count)]
    trained = train_many(recipe(width, steps), setup.data.float(), weights=weights, seeds=chosen, cache=cache)
    outputs = np.stack([_outputs(setup, each.network) for each in trained])
    return Halves(
        base=trained[0].network,
        members=members,
        outputs=outputs[1:].reshape(seeds, count, -1),
        base_outputs=outputs[0],
    )


def _outputs(setup: Setup, network: Denoiser) -> np.ndarray:
    score = as_score(network, "denoiser")
    with torch.no_grad():
        return setup.functional(sample(score, setup.latents.float(), setup.grid)).double().numpy()
