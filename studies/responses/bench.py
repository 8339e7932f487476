"""One regime's networks, all from recorded runs: base, changed, fine-tuned."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import torch
from torch import Tensor

from studies.networks import Architecture
from studies.retraining.bench import FINE_TUNING, OBJECTIVE, Bench
from studies.retraining.changes import Change, parse
from studies.training import Recipe, Trained
from studies.training.descent import Adam
from studies.training.record import TrainingRecord, record

RULE = Adam(inner=1e-6)


@dataclasses.dataclass(frozen=True)
class RecordedBench(Bench):
    """`Bench` with recorded runs in the place of plain ones; a change multiplies the losses of drawn data."""

    @cached_property
    def runs(self) -> list[TrainingRecord]:
        """The base networks' runs."""
        return [self._record(seed, None, None) for seed in range(self.regime.pairs)]

    @cached_property
    def controls(self) -> list[TrainingRecord]:
        """Fine-tuning of the base networks on the base data."""
        return [self._record(seed, None, made) for seed, made in enumerate(self.runs)]

    @cached_property
    def base(self) -> list[Trained]:
        """The base networks."""
        return [as_trained(made) for made in self.runs]

    def changed(self, change: Change) -> list[Trained]:
        """Networks trained on the changed data from the same parameters, in the same order, with the same noise."""
        return [as_trained(self._record(seed, change, None)) for seed in range(self.regime.pairs)]

    def retuned(self, change: Change) -> list[Trained]:
        """The base networks fine-tuned on the changed data."""
        return [as_trained(self._record(seed, change, made)) for seed, made in enumerate(self.runs)]

    def sharp(self, name: str) -> Change:
        """The change with points that have no bandwidth, as training sees them."""
        return parse(name, self.train, 0.0)

    def _record(self, seed: int, change: Change | None, start: TrainingRecord | None) -> TrainingRecord:
        regime = self.regime
        steps = regime.steps if start is None else max(1, regime.steps // FINE_TUNING)
        recipe = Recipe(
            Architecture(regime.kind, width=regime.width, depth=regime.depth),
            OBJECTIVE,
            steps=steps,
            batch=regime.batch,
            rate=2e-3 if start is None else 1e-3,
            warmup=min(100, steps // 4),
            halflife=steps / 20,
        )
        pool, weights = self.train.images, None
        if change is not None:
            pool = pool if change.edited is None else change.edited
            weights = change.weights
        # Edited data must not move the network's own centre and scale, which are no parameters.
        network = self.runs[seed].network_at(self.runs[seed].saved[0][0]) if change is not None else None
        return record(
            recipe,
            pool,
            weights=weights,
            seed=seed,
            rule=RULE,
            start=network if start is None else start.module,
            cache=self.context.cache,
            device=self.context.device,
        )


def as_trained(made: TrainingRecord) -> Trained:
    """The network of a run."""
    return Trained(made.module, torch.zeros(1))


def flat(values: Tensor) -> Tensor:
    """(..., n, pixels) from (..., n, 1, height, width), float64 on the host."""
    return values.detach().flatten(-3).double().cpu()
