"""Groups that something was done to: are they found first?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from studies import data
from studies.errors import StudyError
from studies.groups.config import Regime
from studies.retraining.bench import OBJECTIVE
from studies.training.batches import Batches, Draw
from studies.training.record import TrainingRecord

GROUPS, PLANTED = 20, 3
REPEATS, REPEATED = 50, 5  # copies of each image of a repeated group, and how many images these are
CLASS, INTRUDER = 3, 8


@dataclass(frozen=True)
class Plant:
    """Images in groups, some of which are not what the others are.

    Attributes:
        images: (N, 1, h, w).
        of_group: (N,), the group of each.
        planted: (GROUPS,), which were planted.
        clean: held-out images of the kind that the data are said to be.
    """

    images: Tensor
    of_group: np.ndarray
    planted: np.ndarray
    clean: Tensor


def planted(kind: str, regime: Regime, seed: int) -> Plant:
    """A draw of planted groups.

    Args:
        kind: "blurred": means over 3×3 pixels; "watermarked": a white square in a corner; "repeated": five images, 50
            times each; "mislabelled": digits 8 among digits 3.

    Raises:
        StudyError: for another kind.

    Example:
        >>> images = planted("watermarked", Regime("planted", "digits", count=100), 0)
        >>> images.images.shape, int(images.planted.sum())
        (torch.Size([100, 1, 8, 8]), 3)
    """
    rng, whole = np.random.default_rng([31, seed]), data.load(regime.images)
    labels = np.asarray(whole.labels)
    own = np.flatnonzero(labels == CLASS) if kind == "mislabelled" else np.arange(len(labels))
    own = rng.permutation(own)
    count = min(regime.count, GROUPS * (int(0.8 * len(own)) // GROUPS))
    images = whole.images[own[:count]].clone()
    clean = whole.images[own[count : count + max(20, count // 5)]]
    of_group = np.arange(count) % GROUPS
    which = np.zeros(GROUPS, dtype=bool)
    which[rng.choice(GROUPS, PLANTED, replace=False)] = True
    rows = np.flatnonzero(which[of_group])
    if kind == "blurred":
        images[rows] = functional.avg_pool2d(functional.pad(images[rows], (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    elif kind == "watermarked":
        images[rows, :, :2, :2] = 1.0
    elif kind == "mislabelled":
        others = rng.permutation(np.flatnonzero(labels == INTRUDER))
        images[rows] = whole.images[others[: len(rows)]]
    elif kind == "repeated":
        return _repeated(Plant(images, of_group, which, clean))
    else:
        raise StudyError(f"there are no planted groups of the kind {kind!r}; choose one of config.PLANTS.")
    return Plant(images, of_group, which, clean)


def _repeated(plain: Plant) -> Plant:
    """The first images of each planted group, many times, in the place of the group."""
    kept = [np.flatnonzero(plain.of_group == g) for g in range(GROUPS)]
    kept = [np.repeat(rows[:REPEATED], REPEATS) if plain.planted[g] else rows for g, rows in enumerate(kept)]
    rows = np.concatenate(kept)
    return Plant(plain.images[rows], plain.of_group[rows], plain.planted, plain.clean)


def harm(made: TrainingRecord, plant: Plant) -> np.ndarray:
    """How much the held-out loss would fall, to first order, if each group were removed, (GROUPS,).

    One pass back through the run, from the gradient of the held-out loss in the parameters.
    """
    vector = made.theta.clone().requires_grad_()
    loss = made.descent.losses(vector, _draw(plant.clean, 4)).mean()
    toward = made.pull(torch.autograd.grad(loss, vector)[0][None])[0].double().cpu().numpy()
    return np.bincount(plant.of_group, weights=toward / len(toward), minlength=GROUPS)


def training_loss(made: TrainingRecord, plant: Plant) -> np.ndarray:
    """The mean training loss of each group, (GROUPS,)."""
    draw = _draw(plant.images, 4)
    with torch.no_grad():
        losses = OBJECTIVE.losses(made.module, draw).double().cpu().numpy().reshape(4, -1).mean(0)
    return np.bincount(plant.of_group, weights=losses) / np.bincount(plant.of_group)


def precision(values: np.ndarray, which: np.ndarray) -> float:
    """The share of planted groups among the first, as many as were planted.

    Example:
        >>> precision(np.array([3.0, 1.0, 2.0]), np.array([True, False, False]))
        1.0
    """
    first = np.argsort(-values, kind="stable")[: int(which.sum())]
    return float(which[first].mean())


def _draw(images: Tensor, noises: int) -> Draw:
    """The same images with several noises each, in order."""
    many = images.repeat(noises, 1, 1, 1)
    drawn = Batches(many, [None], [9], len(many)).draw(0)
    return Draw(many, *(part[0] for part in drawn[1:]))
