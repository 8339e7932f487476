"""The studies whose questions need more networks than a processor trains: their own protocols, with networks trained
side by side on the device.

Nothing is defined anew here. Data, states, measures and claims are those of `studies.selective_underfitting.far` and
`studies.low_noise.length`; a job chooses how much of a configuration fits its seconds, from the time of a step that is
measured first, and leaves a row of every network beside the claims on what was finished.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from accelerator_parts.plan import Job, Setting
from accelerator_parts.store import Row, row
from accelerator_parts.together import train_together
from studies import data
from studies.low_noise import length
from studies.networks import Denoiser
from studies.selective_underfitting import far
from studies.selective_underfitting.config import Ladder, Rung
from studies.selective_underfitting.ladder import Bench, recipe
from studies.selective_underfitting.problem import LAWS
from studies.study import Claim, Context
from studies.training import Trained

TIMED = 20  # steps that are timed before the number of steps is chosen
SEEDS, REPLICATES = 8, 10
RESERVE = 0.15  # share of the time that measuring takes


@dataclass(frozen=True)
class Lent:
    """A network on the device for states on the host, where a study keeps its data and measures.

    Attributes:
        network: on the device.
    """

    network: Denoiser

    @property
    def scale(self) -> float:
        """τ."""
        return self.network.scale

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, σ), where x is."""
        place = self.network.centre.device
        return self.network(x.to(place), torch.as_tensor(sigma, dtype=x.dtype).to(place)).to(x.device)

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """s(x, σ), where x is."""
        place = self.network.centre.device
        return self.network.score(x.to(place), torch.as_tensor(sigma, dtype=x.dtype).to(place)).to(x.device)


class SideBySide(Bench):
    """A ladder whose networks of one rung, of any kind, are trained together on the device."""

    def __init__(self, ladder: Ladder, context: Context) -> None:
        super().__init__(ladder, context)
        self.made: dict[str, list[Trained]] = {}

    def trained(self, rung: Rung, seeds: int | None = None) -> list[Trained]:
        """The networks of a rung."""
        if rung.name not in self.made:
            count = self.ladder.seeds if seeds is None else seeds
            value, device = recipe(self.ladder, rung), self.context.device
            result = train_together(value, self.problem.train, range(count), device)
            lent = [cast("Denoiser", Lent(each.network.to(device))) for each in result]
            self.made[rung.name] = [replace(each, network=one) for each, one in zip(result, lent, strict=True)]
        return self.made[rung.name]


def step_seconds(step: Callable[[int], object], setting: Setting) -> float:
    """Seconds of one training step: `step(n)` takes n of them. The difference of two runs leaves their start out."""
    few = 2 if setting.tiny else TIMED
    step(few)
    times = []
    for count in (few, 3 * few):
        start = time.monotonic()
        step(count)
        if setting.device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.monotonic() - start)
    return max((times[1] - times[0]) / (2 * few), 1e-5)


def far_ladders(tiny: bool) -> tuple[Ladder, ...]:
    """What is asked first comes first: convolutional networks on 28×28 images, many and few; then perceptrons."""
    if tiny:
        many = Ladder("digits", "unet", 4, 2, 16, 64, 2, 8, capacity=False)
        return (many, replace(many, size=32))
    unets = [Ladder("mnist", "unet", 32, 3, 20_000, n, SEEDS, 64, capacity=False) for n in (1024, 64)]
    mlps = [Ladder("lowrank256", "mlp", 512, 3, 20_000, n, SEEDS, 64, capacity=False) for n in (2048, 128)]
    return (*unets, *mlps)


def selective(setting: Setting) -> Iterator[Row]:
    """Selective underfitting far outside the shells: all seeds of a rung together, each ladder a share of the time."""
    ladders = [each for each in far_ladders(setting.tiny) if each.problem in LAWS or data.available(each.problem)]
    done: list[dict[str, Any]] = []
    finished: list[Ladder] = []
    for index, ladder in enumerate(ladders):
        share = setting.left / (len(ladders) - index)
        result = _fitted(ladder, share, setting)
        if result is None:
            yield row(ladder.name, "left out, no time", 1, shown=True)
            continue
        context = Context(far.Config((result,)), setting.device)
        bench = SideBySide(result, context)
        rows = far.radii(bench)
        for rung in far.rungs(result):
            rows += far.run_rung(bench, rung)
        done += rows
        finished.append(result)
        yield row(result.name, "steps of the longest training", result.steps, "steps", shown=True)
        yield from _kept("far", rows)
        # After every ladder, so that what is stopped later has its claims.
        yield from _claims(result.name, far.claims(pd.DataFrame(rows), far.Config((result,))))
    pairs = far.few_and_many(far.Config(tuple(finished)))
    both = far.Config(tuple(finished))
    yield from _claims("few and many", [far.pulled(pd.DataFrame(done), few, many, both) for few, many in pairs])


def _fitted(ladder: Ladder, seconds: float, setting: Setting) -> Ladder | None:
    """The ladder with as many steps as fit; None where not even a sixteenth of a thousand does."""
    if setting.tiny:
        return ladder
    bench = SideBySide(ladder, Context(far.Config((ladder,)), setting.device))

    def step(count: int) -> None:
        result = replace(recipe(ladder, ladder.rungs()[0]), steps=count)
        train_together(result, bench.problem.train, range(ladder.seeds), setting.device)

    each = step_seconds(step, setting)
    whole = sum(rung.steps for rung in far.rungs(ladder)) / ladder.steps
    steps = int((1 - RESERVE) * seconds / (each * whole))
    return None if steps < 1000 else replace(ladder, steps=min(steps, ladder.steps))


def length_settings(tiny: bool) -> tuple[str, ...]:
    """Settings in the order of what they decide."""
    few = ("spiral/edm/20",)
    return few if tiny else ("spiral/edm/1000", "uniform/edm/1000", "mnist14/edm/200", "spiral/blind/1000")


def low_noise(setting: Setting) -> Iterator[Row]:
    """Low noise at three lengths of training: all replicates' four networks of a setting together."""
    replicates = 2 if setting.tiny else REPLICATES
    settings = length_settings(setting.tiny)
    done: list[dict[str, Any]] = []
    for index, text in enumerate(settings):
        if not length_available(text):
            continue
        share = setting.left / (len(settings) - index)
        config = _lengthened(text, replicates, share, setting)
        if config is None:
            yield row(text, "left out, no time", 1, shown=True)
            continue
        rows: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory() as folder:
            for cell in length.cells(config):
                result = length.run_cell(cell, Context(config, setting.device, Path(folder) / "run"))
                rows += result
                yield from _kept("length", result)
        yield row(text, "steps of the longest training", config.steps * max(config.lengths), "steps", shown=True)
        done += rows
        yield from _claims(text, length.claims(pd.DataFrame(rows), config))
    if len({(one["geometry"], one["objective"], one["N"]) for one in done}) > 1:
        yield from _claims("all settings, bounds at once", length.claims(pd.DataFrame(done), length.Config(settings)))


def length_available(text: str) -> bool:
    """Whether the geometry's images, if it has any, are on this machine."""
    geometry = text.split("/")[0]
    return geometry not in length.parent.IMAGES or data.available(geometry)


def _lengthened(text: str, replicates: int, seconds: float, setting: Setting) -> length.Config | None:
    """The setting with as many steps as fit three lengths of training; None for fewer than a hundred."""
    config = replace(length.Config.smoke() if setting.tiny else length.Config.full(), grid=(text,))
    config = replace(config, replicates=replicates)
    if setting.tiny:
        return config

    def step(count: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            result = replace(config, steps=count, lengths=(1,))
            cell = length.cells(result)[0]
            _ = length.bench_of(cell, Context(result, setting.device, Path(folder) / "run")).networks

    each = step_seconds(step, setting)
    steps = int((1 - RESERVE) * seconds / (each * sum(config.lengths)))
    return None if steps < 100 else replace(config, steps=min(steps, 5000))


def _kept(table: str, rows: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """The study's own rows, in a table of their own."""
    for one in rows:
        yield {"table": table, **one}


def _claims(case: str, claims: Sequence[Claim]) -> Iterator[Row]:
    """A row a claim: what was measured, its interval, the bound and the verdict."""
    for claim in claims:
        low, high = claim.interval or (math.nan, math.nan)
        value = float(claim.measured) if isinstance(claim.measured, int | float | np.floating) else math.nan
        note = f"{claim.verdict}: expected {claim.expected}"
        yield row(
            case, claim.statement, value, low=low, high=high, note=note, shown="named beforehand" in claim.statement
        )


JOBS = [
    Job("selective underfitting", "studies", selective, 60, 130),
    Job("low noise", "studies", low_noise, 50, 100),
]
