"""The training loop: Adam with warm-up and cosine decay, an exponential average of the parameters, resumption.

A run is a pure function of (recipe, data, weights, seeds, start): every step's randomness comes from (seed, step)
alone, so a run killed at any moment and started again from its last checkpoint ends in the same bits as an
undisturbed one. Networks trained together (`train_many`) are one unit: they are stored, resumed and found again
together.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from studies.cache import Cache
from studies.networks import Architecture, Denoiser, build, split, stack
from studies.training.batches import Batches
from studies.training.checkpoint import Checkpoint
from studies.training.objectives import Objective, check_noise
from studies.training.optimiser import Optimiser

VERSION = 1  # raise when the same recipe would give other networks
WINDOWS = 50  # points of the loss curve


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; JSON-able.

    Attributes:
        architecture, objective: the network and what it minimises.
        steps: optimiser steps.
        batch: data a step.
        rate: peak learning rate of Adam, reached after `warmup` steps, cosine to zero at the end (or constant).
        halflife: of the exponential average of the parameters, in steps, at most a twentieth of the steps taken; 0:
            none.
        precision: "float32", "float64" or "bfloat16" (float32 with bfloat16 products).
        decay: "cosine" or "constant".
    """

    architecture: Architecture = field(default_factory=Architecture)
    objective: Objective = field(default_factory=Objective)
    steps: int = 2000
    batch: int = 128
    rate: float = 2e-3
    warmup: int = 100
    halflife: float = 200.0
    precision: Literal["float32", "float64", "bfloat16"] = "float32"
    decay: Literal["cosine", "constant"] = "cosine"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not self.rate > 0 or self.warmup < 0 or self.halflife < 0:
            raise ValueError(f"a recipe needs steps, batch ≥ 1, rate > 0 and warmup, halflife ≥ 0, not {self}.")
        if self.precision not in ("float32", "float64", "bfloat16"):
            raise ValueError(f"precision={self.precision!r}: choose 'float32', 'float64' or 'bfloat16'.")
        if self.decay not in ("cosine", "constant"):
            raise ValueError(f"decay={self.decay!r}: choose 'cosine' or 'constant'.")
        check_noise(self.objective, self.architecture.conditioned)

    def rate_at(self, step: int) -> float:
        """The learning rate of step 0, 1, …."""
        rising = min(1.0, (step + 1) / max(self.warmup, 1))
        falling = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.decay == "cosine" else 1.0
        return self.rate * rising * falling

    def average_at(self, step: int) -> float:
        """The weight of the new parameters in the average after step 0, 1, …."""
        halflife = min(self.halflife, (step + 1) / 20)
        return 1.0 if halflife <= 0 else 1 - 0.5 ** (1 / halflife)


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        network: the averaged network, frozen, in eval mode.
        history: mean loss in each part of the run, (windows,).
    """

    network: Denoiser
    history: Tensor


Report = Callable[[int, int], None]


def train(
    recipe: Recipe,
    data: Tensor,
    *,
    weights: Tensor | None = None,
    seed: int = 0,
    start: Denoiser | None = None,
    cache: Cache | None = None,
    device: str = "cpu",
    progress: Report | None = None,
) -> Trained:
    """Train one network; see `train_many`."""
    one = [start] if start is not None else None
    return train_many(
        recipe, data, weights=[weights], seeds=[seed], start=one, cache=cache, device=device, progress=progress
    )[0]


def train_many(
    recipe: Recipe,
    data: Tensor,
    *,
    weights: Sequence[Tensor | None],
    seeds: Sequence[int],
    start: Sequence[Denoiser] | None = None,
    cache: Cache | None = None,
    device: str = "cpu",
    progress: Report | None = None,
) -> list[Trained]:
    """Train several networks on weightings of one pool of data: MLPs side by side, others one after the other.

    Networks with equal seeds start from equal parameters and see the same data and noise wherever their weights agree
    (`Batches`). All are preconditioned with the mean and standard deviation of the unweighted pool, so that they
    differ by training alone.

    Args:
        recipe: how.
        data: the pool (N, *shape).
        weights: for each network the data's weights (N,), or None for equal ones.
        seeds: for each network, of its parameters, order and noise.
        start: networks to go on from (fine-tuning).
        cache: where finished networks are looked up and kept, and unfinished ones checkpointed.
        device: of training.
        progress: called with (steps done, steps).

    Raises:
        ValueError: for weights, seeds or start that do not fit.
        FloatingPointError: if the loss stops being finite.
    """
    _check(data, weights, seeds, start)
    if recipe.architecture.kind != "mlp" and len(seeds) > 1:
        starts: Sequence[Denoiser | None] = [None] * len(seeds) if start is None else start
        parts = zip(weights, seeds, starts, strict=True)
        return [
            train(recipe, data, weights=w, seed=s, start=n, cache=cache, device=device, progress=progress)
            for w, s, n in parts
        ]
    run = TrainingRun(recipe, data, tuple(weights), tuple(seeds), None if start is None else tuple(start), device)
    if cache is None:
        tensors = run.result(None, progress)
    else:
        key = run.key()
        partial = Checkpoint(cache.path("partial", key))
        tensors = cache.tensors("networks", key, lambda: run.result(partial, progress))
        partial.remove()
    return run.finished(tensors)


@dataclass(frozen=True)
class TrainingRun:
    """One unit of training: the networks of a stack, or a single network."""

    recipe: Recipe
    data: Tensor
    weights: tuple[Tensor | None, ...]
    seeds: tuple[int, ...]
    start: tuple[Denoiser, ...] | None
    device: str

    def key(self) -> dict[str, Any]:
        """Everything the result depends on, JSON-able."""
        initial = None if self.start is None else [digest(*n.state_dict().values()) for n in self.start]
        return {
            "trainer": VERSION,
            "recipe": json.loads(json.dumps(dataclasses.asdict(self.recipe))),
            "data": digest(self.data),
            "weights": [None if w is None else digest(w) for w in self.weights],
            "seeds": list(self.seeds),
            "start": initial,
            "device": torch.device(self.device).type,
        }

    def fresh(self) -> Denoiser:
        """The network or stack before training, on the device."""
        networks = self._before()
        network = stack(networks) if self.recipe.architecture.kind == "mlp" else networks[0]
        return network.to(self.device).train().requires_grad_(True)

    def single(self) -> Denoiser:
        """The only network before training, on the device, not stacked."""
        (network,) = self._before()
        return network.to(self.device)

    def batches(self) -> Batches:
        """The draws of the run, on its device."""
        return Batches(self.data.to(self.device, self._dtype), self.weights, self.seeds, self.recipe.batch)

    def _before(self) -> list[Denoiser]:
        networks = list(self.start) if self.start is not None else [self._initial(seed) for seed in self.seeds]
        return [copy.deepcopy(network).to(self._dtype) for network in networks]

    def result(self, partial: Checkpoint | None, progress: Report | None) -> dict[str, Tensor]:
        """The averaged parameters and the loss curve after the last step."""
        network, recipe, batches = self.fresh(), self.recipe, self.batches()
        optimiser = Optimiser(network, len(self.seeds))
        first = 0 if partial is None else partial.load(optimiser)
        for step in range(first, recipe.steps):
            optimiser.step(self._losses(network, batches, step), recipe.rate_at(step), recipe.average_at(step))
            optimiser.record(step * WINDOWS // recipe.steps)
            if partial is not None and partial.due(step + 1, recipe.steps):
                partial.save(optimiser, step + 1)
            if progress is not None:
                progress(step + 1, recipe.steps)
        return optimiser.result()

    def on_the_way(self, steps: Sequence[int]) -> list[dict[str, Tensor]]:
        """The averaged parameters of the single network of this run after each of the given numbers of steps."""
        network, recipe, batches, states = self.fresh(), self.recipe, self.batches(), []
        optimiser = Optimiser(network, 1)
        for step in range(max(steps)):
            optimiser.step(self._losses(network, batches, step), recipe.rate_at(step), recipe.average_at(step))
            if step + 1 in steps:
                values = {name: value.clone() for name, value in optimiser.average.items()}
                states.append(self.finished({**values, "history": torch.zeros(1, 1)})[0].network.state_dict())
        return states

    def _losses(self, network: Denoiser, batches: Batches, step: int) -> Tensor:
        """The mean loss of each member, (members,)."""
        draw = batches.draw(step)
        if self.recipe.architecture.kind != "mlp":
            draw = type(draw)(*(part[0] for part in draw))
        with torch.autocast(
            torch.device(self.device).type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"
        ):
            losses = self.recipe.objective.losses(network, draw)
        return losses.mean(dim=-1).reshape(-1)

    def finished(self, tensors: dict[str, Tensor]) -> list[Trained]:
        """The networks that hold the given averaged parameters."""
        network, history = self.fresh().cpu(), tensors.pop("history")
        network.load_state_dict(tensors, strict=False)
        members = split(network) if self.recipe.architecture.kind == "mlp" else [network]
        return [Trained(n.eval().requires_grad_(False), h) for n, h in zip(members, history, strict=True)]

    def _initial(self, seed: int) -> Denoiser:
        centre = self.data.double().mean(dim=0)
        scale = float((self.data.double() - centre).square().mean().sqrt())
        shape = tuple(self.data.shape[1:])
        return build(self.recipe.architecture, shape, centre=centre, scale=scale or 1.0, seed=seed, dtype=self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if self.recipe.precision == "float64" else torch.float32


def digest(*tensors: Tensor) -> str:
    """Sixteen hexadecimal digits that change with any bit, shape or type of the tensors."""
    hasher = hashlib.sha256()
    for tensor in tensors:
        hasher.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        hasher.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()[:16]


def _check(
    data: Tensor, weights: Sequence[Tensor | None], seeds: Sequence[int], start: Sequence[Denoiser] | None
) -> None:
    if data.ndim < 2 or not data.dtype.is_floating_point or not bool(torch.isfinite(data).all()):
        raise ValueError(
            f"data of shape {tuple(data.shape)}, {data.dtype}: need finite floating-point data (N, *shape)."
        )
    if not seeds or len(weights) != len(seeds) or (start is not None and len(start) != len(seeds)):
        raise ValueError(
            f"{len(weights)} weightings and {len(seeds)} seeds: give one of each, and one start, for every network."
        )
    if start is not None and any(n.shape != tuple(data.shape[1:]) for n in start):
        raise ValueError(
            f"start was made for other data than shape {tuple(data.shape[1:])}: fine-tune on data of its own shape."
        )
