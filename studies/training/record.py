"""Recorded training runs: what the derivative of a run needs, kept in one file.

A record holds the recipe, the rule of descent, the seed (of which batches and noise are pure functions), the data's
digest and weights, and the states of the run at checkpoints. `TrainingRecord` is what
`sensitivity.UnrolledResponse` takes.

Example:
    >>> import torch
    >>> from studies.networks import Architecture
    >>> data = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    >>> made = record(Recipe(Architecture(width=8, depth=1), steps=10, batch=16), data, seed=3)
    >>> made.pull(torch.ones(1, len(made.theta))).shape  # one functional of the parameters, 64 data
    torch.Size([1, 64])
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensitivity import Points
from studies.cache import Cache
from studies.errors import StudyError
from studies.files import make_folder, write
from studies.networks import Architecture, Denoiser, build
from studies.training.descent import RULES, Adam, Rule, State
from studies.training.loop import Recipe, TrainingRun, digest
from studies.training.objectives import Objective
from studies.training.unrolled import Descent, Report

VERSION = 1  # raise when the same run would give another record


@dataclass(frozen=True)
class TrainingRecord:
    """A training run that can be differentiated.

    Attributes:
        descent: the run as a map.
        theta: θ̄, the averaged parameters it ended with, (P,).
        saved: states by number of steps done, the first (0) and the last included.
    """

    descent: Descent
    theta: Tensor
    saved: dict[int, State]

    @cached_property
    def module(self) -> Denoiser:
        """The trained network: the one whose parameters answer."""
        network = copy.deepcopy(self.descent.network)
        torch.nn.utils.vector_to_parameters(self.theta, network.parameters())
        return network.eval().requires_grad_(False)

    @cached_property
    def points(self) -> Points:
        """The training data with their weights."""
        return Points(self.descent.pool, self.descent.weights)

    @property
    def passes(self) -> int:
        """Rows of data that one run evaluates."""
        return self.descent.recipe.steps * self.descent.recipe.batch

    def parameter_change(self, rates: Tensor, moves: Tensor | None = None) -> Tensor:
        """dθ̄/dη, (K, P), of K changes of the data, by one run in forward mode.

        Args:
            rates: rates of the data's weights w (which sum to 1), (K, N).
            moves: rates of the data themselves, (K, N, *shape), or None.
        """
        descent = self.descent
        a = len(descent.pool) * rates.to(self.theta)
        moves = None if moves is None else moves.to(descent.pool)
        return descent.push(self.saved[0][0], a, moves)

    def pull(self, cotangents: Tensor) -> Tensor:
        """Γ_k·dθ̄/dη toward each training point, (K, N), from cotangents Γ of θ̄, (K, P), by one pass back."""
        size = len(self.descent.pool)
        values = size * self.descent.pull(self.saved, cotangents.to(self.theta))
        return values - (values @ self.points.weights.to(values))[:, None]

    def retrained(self, weights: Tensor) -> Tensor:
        """θ̄ of the same run, seed and all, with other data weights w, (N,)."""
        other = dataclasses.replace(self.descent, weights=_relative(weights, self.descent.pool))
        return other.forward(self.saved[0][0])[0]

    def network_at(self, theta: Tensor) -> Denoiser:
        """The network with parameters θ."""
        network = copy.deepcopy(self.module)
        torch.nn.utils.vector_to_parameters(theta, network.parameters())
        return network

    def save(self, path: Path | str) -> None:
        """Write the record, whole or not at all."""
        from safetensors.torch import save

        content = save({k: v.detach().cpu().contiguous() for k, v in self._tensors().items()}, metadata=self._words())
        path = Path(path)
        make_folder(path.parent)
        write(path, hashlib.sha256(content).digest() + content)

    @classmethod
    def load(cls, path: Path | str, data: Tensor) -> TrainingRecord:
        """A saved record, with the data (N, *shape) it was made on.

        Raises:
            StudyError: for a file that is absent, damaged or no record.
            ValueError: for other data.
        """
        from safetensors.torch import load

        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise StudyError(
                f"the record {str(path)!r} cannot be read ({error.strerror}); give a saved one."
            ) from error
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise StudyError(f"the record {str(path)!r} is damaged or no record; record the run again.")
        size = int.from_bytes(content[32:40], "little")
        words = json.loads(content[40 : 40 + size])["__metadata__"]
        if words["data"] != digest(data):
            raise ValueError("data differ from those the record was made on; give the training data, in their order.")
        return _restored(load(content[32:]), words, data)

    def _tensors(self) -> dict[str, Tensor]:
        network = self.descent.network
        states = {f"state {done} {k}": part for done, state in self.saved.items() for k, part in enumerate(state)}
        return {"theta": self.theta, "weights": self.descent.weights, "centre": network.centre, **states}

    def _words(self) -> dict[str, str]:
        descent = self.descent
        rule: Any = descent.rule
        return {
            "version": str(VERSION),
            "recipe": json.dumps(dataclasses.asdict(descent.recipe)),
            "rule": json.dumps({"name": type(rule).__name__, **dataclasses.asdict(rule)}),
            "seed": str(descent.seed),
            "scale": repr(descent.network.scale),
            "data": digest(descent.pool),
        }


def record(
    recipe: Recipe,
    data: Tensor,
    *,
    weights: Tensor | None = None,
    seed: int = 0,
    rule: Rule | None = None,
    start: Denoiser | None = None,
    keep: int | None = None,
    cache: Cache | None = None,
    device: str = "cpu",
    progress: Report | None = None,
) -> TrainingRecord:
    """Train one network as `train` does and keep what the derivative of the run needs.

    Args:
        recipe: how; of "float32" or "float64" precision.
        data: (N, *shape).
        weights: (N,), which multiply the losses of drawn data (where `train` draws by them).
        seed: of parameters, order and noise, as of `train`.
        rule: of descent; None is the trainer's own, Adam with β = (.9, .99).
        start: a network to go on from, left as it is.
        keep: steps between checkpoints; None is √steps, where the checkpoints take as much memory as the part of the
            run that is computed again.
        cache: where the record is kept and found again.
        device: torch device.
        progress: is told of steps.

    Raises:
        ValueError: for data, weights or a recipe that do not fit.
    """
    descent, theta = _descent(recipe, data, weights, seed, rule or Adam(), start, device)
    spacing = max(1, math.isqrt(recipe.steps)) if keep is None else keep
    if spacing < 1:
        raise ValueError(f"keep={keep} is no number of steps between checkpoints; give one of at least 1, or None.")

    def build() -> dict[str, Tensor]:
        average, saved = descent.forward(theta, spacing, progress)
        return TrainingRecord(descent, average, saved)._tensors()

    if cache is None:
        tensors = build()
    else:
        made = TrainingRecord(descent, theta, {0: descent.start(theta)})
        key = {**made._words(), "start": digest(theta), "weights": digest(descent.weights), "keep": spacing}
        tensors = cache.tensors("records", {**key, "device": torch.device(device).type}, build)
    return TrainingRecord(descent, tensors["theta"].to(device), _states(tensors, device))


def _descent(
    recipe: Recipe,
    data: Tensor,
    weights: Tensor | None,
    seed: int,
    rule: Rule,
    start: Denoiser | None,
    device: str,
) -> tuple[Descent, Tensor]:
    if recipe.precision == "bfloat16":
        raise ValueError("precision='bfloat16' rounds too coarsely for a derivative; use 'float32' or 'float64'.")
    single = TrainingRun(recipe, data, (None,), (seed,), None if start is None else (start,), device)
    network = single.single()
    pool = data.to(network.centre)
    theta = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
    return Descent(recipe, rule, network, pool, _relative(weights, pool), seed), theta


def _relative(weights: Tensor | None, pool: Tensor) -> Tensor:
    """a_i = N w_i."""
    if weights is None:
        return torch.ones(len(pool)).to(pool)
    if weights.shape != pool.shape[:1]:
        raise ValueError(f"weights must be {len(pool)} numbers, one a datum, not of shape {tuple(weights.shape)}.")
    if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
        ends = f"from {weights.min():g} to {weights.max():g}"
        raise ValueError(f"weights must be {len(pool)} finite non-negative numbers; they go {ends}.")
    return (len(pool) * weights.double() / weights.double().sum()).to(pool)


def _states(tensors: dict[str, Tensor], device: str) -> dict[int, State]:
    numbered = sorted((int(done), int(k), name) for name in tensors if name.startswith("state ")
                      for _, done, k in [name.split()])  # fmt: skip
    states: dict[int, State] = {}
    for done, _, name in numbered:
        states[done] = (*states.get(done, ()), tensors[name].to(device))
    return states


def _restored(tensors: dict[str, Tensor], words: dict[str, str], data: Tensor) -> TrainingRecord:
    settings, rule = json.loads(words["recipe"]), json.loads(words["rule"])
    architecture, objective = Architecture(**settings["architecture"]), Objective(**settings["objective"])
    theta, weights = tensors["theta"], tensors["weights"]
    network = build(
        architecture, tuple(data.shape[1:]), centre=tensors["centre"], scale=float(words["scale"]),
        dtype=theta.dtype,
    )  # fmt: skip
    recipe = Recipe(**{**settings, "architecture": architecture, "objective": objective})
    made = Descent(recipe, RULES[rule.pop("name")](**rule), network, data.to(theta), weights, int(words["seed"]))
    return TrainingRecord(made, theta, _states(tensors, "cpu"))
