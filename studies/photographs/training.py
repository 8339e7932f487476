"""Training of the networks: a pure function of what is written in its key, resumed after a kill, kept in the cache."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from studies.cache import Cache
from studies.photographs.networks import Denoiser, Shape, build
from studies.training import Batches, Objective, Recipe
from studies.training.batches import mixed
from studies.training.checkpoint import Checkpoint
from studies.training.loop import digest
from studies.training.optimiser import Optimiser

EVERY = 100  # steps between checkpoints; has no effect on the result
WINDOWS = 50  # points of the loss curve
DROPPED = 0.4  # share of the draws whose label is hidden: one network is unconditional and conditional


@dataclass(frozen=True)
class Plan:
    """How long a network is trained.

    Attributes:
        steps: of Adam.
        batch: data a step.
        rate: peak learning rate.
    """

    steps: int = 800
    batch: int = 32
    rate: float = 8e-4

    @property
    def recipe(self) -> Recipe:
        """Warm-up and average of the house at a constant rate, so that a shorter run is the beginning of a longer."""
        return Recipe(steps=self.steps, batch=self.batch, rate=self.rate, decay="constant")


def objective() -> Objective:
    """EDM's loss, its levels wider than for small images: the largest directions of patches have deviations of 25."""
    return Objective("edm", mean=0.0, spread=1.9)


def scale(data: Tensor) -> float:
    """τ: the standard deviation about the mean datum."""
    return float((data - data.mean(dim=0)).square().mean().sqrt())


def denoiser(shape: Shape, plan: Plan, data: Tensor, groups: Tensor | None, cache: Cache, seed: int) -> nn.Module:
    """A trained network, frozen.

    Args:
        shape: of the network.
        plan: of its training.
        data: (N, channels, size, size).
        groups: the labels (N,), hidden in four draws of ten; None for a network without labels.
        cache: where it is kept, finished or not.
        seed: of parameters, order, noise and hidden labels.
    """
    key = _key(shape, plan, data, groups, seed)
    network = build(shape, seed).to(data.device)
    partial = Checkpoint(cache.path("partial", key))
    labels = None if groups is None else Labels(groups, shape.labels, seed)
    losses = _losses(network, plan, data, labels, seed)
    tensors = cache.tensors("denoiser", key, lambda: descend(network, plan, losses, partial))
    partial.remove()
    tensors.pop("history")
    network.load_state_dict(tensors, strict=True)
    return network.requires_grad_(False)


@dataclass(frozen=True)
class Labels:
    """The labels of a step's data, some of them hidden behind the last label."""

    groups: Tensor
    null: int
    seed: int

    def at(self, step: int, rows: Tensor) -> Tensor:
        """Labels of the given rows, (batch,): a function of (seed, step)."""
        generator = torch.Generator().manual_seed(mixed(self.seed, step, 3))
        hidden = torch.rand(len(rows), generator=generator) < DROPPED
        return torch.where(hidden.to(rows.device), self.null, self.groups[rows])


def descend(network: nn.Module, plan: Plan, losses: Callable[[int], Tensor], partial: Checkpoint) -> dict[str, Tensor]:
    """The averaged parameters after the last step, and the loss curve as "history".

    Args:
        network: whose parameters are moved.
        plan: how long.
        losses: the mean loss (1,) of step 0, 1, ….
        partial: the file of the unfinished run.
    """
    optimiser, recipe = Optimiser(network.requires_grad_(True), 1), plan.recipe
    for step in range(partial.load(optimiser), plan.steps):
        optimiser.step(losses(step), recipe.rate_at(step), recipe.average_at(step))
        optimiser.record(step * WINDOWS // plan.steps)
        if (step + 1) % EVERY == 0 and step + 1 < plan.steps:
            partial.save(optimiser, step + 1)
    return optimiser.result()


def _losses(network: nn.Module, plan: Plan, data: Tensor, labels: Labels | None, seed: int) -> Callable[[int], Tensor]:
    batches, spread, aim = Batches(data, [None], [seed], plan.batch), scale(data), objective()

    def loss(step: int) -> Tensor:
        draw = batches.draw(step)
        one = type(draw)(*(part[0] for part in draw))
        known = None if labels is None else labels.at(step, batches.rows(step)[0])
        return aim.losses(Denoiser(network, spread, known), one).mean().reshape(1)

    return loss


def _key(shape: Shape, plan: Plan, data: Tensor, groups: Tensor | None, seed: int) -> dict[str, Any]:
    parts: dict[str, Any] = {"shape": shape, "plan": plan, "objective": objective()}
    plain: dict[str, Any] = json.loads(json.dumps({name: dataclasses.asdict(p) for name, p in parts.items()}))
    return plain | {"data": digest(data) if groups is None else digest(data, groups), "seed": seed, "hidden": DROPPED}
