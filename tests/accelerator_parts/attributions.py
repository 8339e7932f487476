"""The tier `images` of attribution truths where the processor would take days: all halves and seeds side by side.

Data, halves, latents, recipe and outputs are those of `studies.verification.attributions.images`, and so is every
network's randomness, which is drawn on the processor. The networks of all seeds, and the one on all data whose samples
are the reference, step together; their outputs are asked where they lie. What is finished is written at once as the
file that the tier ships; where the time is short, fewer seeds are made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from accelerator_parts.plan import Job, Setting
from accelerator_parts.store import Row, row
from accelerator_parts.together import Together, TogetherRun
from studies import data
from studies.networks import Denoiser, stack
from studies.training.batches import Batches, Draw
from studies.training.loop import Report
from studies.verification.attributions import images
from studies.verification.attributions.outputs import FUNCTIONALS, OF_SAMPLES, Outputs, heun
from studies.verification.attributions.stored import Stored

NAMES = ("mnist14", "fashion14", "digits-unet")
TINY = (
    images.Setting("mlp", "digits", points=20, width=8, depth=1, steps=6, halves=3, seeds=2, queries=2),
    images.Setting("unet", "digits", points=20, kind="unet", width=4, depth=2, steps=6, halves=2, seeds=2, queries=2),
)
SETTLED, TIMED = 10, 50  # steps before the clock starts, and that it counts, after which a run knows how long it takes
ASKED = {"mlp": 128, "unet": 32}  # networks whose outputs are asked at once
TAIL = 4.0  # seconds for outputs
AGAIN = 2  # halves that are made again by the module itself


class Slow(Exception):
    """A run that would not end in its time; its argument is the seconds that it would take."""


class Batched(Batches):
    """The same draws: chosen for all networks at once, where the pool is, and drawn once for networks of a seed."""

    def __init__(self, pool: Tensor, weights: Sequence[Tensor | None], seeds: Sequence[int], batch: int) -> None:
        super().__init__(pool, weights, seeds, batch)
        self.different = list(dict.fromkeys(self.seeds))
        self.place = torch.tensor([self.different.index(seed) for seed in self.seeds], device=pool.device)
        plain = torch.linspace(0, 1, len(pool), dtype=torch.float64)
        self.kept = torch.stack([law.kept for law in self.laws]).to(pool.device)
        self.excess = torch.stack([plain if law.excess is None else law.excess for law in self.laws]).to(pool.device)
        self.changed = torch.tensor([law.excess is not None for law in self.laws], device=pool.device)[:, None]

    def draw(self, step: int) -> Draw:
        """The randomness of a step."""
        common = [self._common(seed, step) for seed in self.different]
        clean = self.pool[self.rows(step)]
        parts = (torch.stack(each).to(clean)[self.place] for each in zip(*common, strict=True))
        return Draw(clean, *parts)

    def rows(self, step: int) -> Tensor:
        """Which data a step draws, (members, batch)."""
        choices = zip(*(self._choice(seed, step) for seed in self.different), strict=True)
        visited, u, v = (torch.stack(each).to(self.pool.device)[self.place] for each in choices)
        other = torch.searchsorted(self.excess, v, right=True).clamp(max=len(self.pool) - 1)
        keeps = (u < self.kept.gather(1, visited)) | ~self.changed
        return torch.where(keeps, visited, other)


class HalvesRun(TogetherRun):
    """All networks of a setting, of any kind, as one."""

    @cached_property
    def starts(self) -> dict[int, Denoiser]:
        """Networks before training by seed."""
        return {seed: self._initial(seed).to(self._dtype) for seed in dict.fromkeys(self.seeds)}

    def joint(self, networks: Sequence[Denoiser]) -> Denoiser:
        """Networks as one."""
        kind = self.recipe.architecture.kind
        return stack(networks) if kind == "mlp" else cast("Denoiser", Together(networks, unfolded=True))

    def fresh(self) -> Denoiser:
        """All networks before training."""
        return self.joint([self.starts[s] for s in self.seeds]).to(self.device).train().requires_grad_(True)

    def batches(self) -> Batches:
        """The draws of the run."""
        pool = self.data.to(self.device, self._dtype)
        return Batched(pool, self.weights, self.seeds, self.recipe.batch)

    def part(self, averages: dict[str, Tensor], rows: slice) -> Denoiser:
        """Some of the trained networks, frozen."""
        joint = self.joint([self.starts[s] for s in self.seeds[rows]]).to(self.device)
        for name, parameter in joint.named_parameters():
            parameter.data = averages[name][rows]
        return joint.eval().requires_grad_(False)


def run_of(setting: images.Setting, seeds: int, device: str) -> HalvesRun:
    """The run of all halves of the first seeds, seed by seed, and of all data with seed 0 last."""
    halves = [torch.from_numpy(half / half.sum()) for half in setting.masks.astype(float)]
    order = [seed for seed in range(seeds) for _ in halves]
    return HalvesRun(setting.recipe, setting.data, (*(halves * seeds), None), (*order, 0), None, device)


def made(setting: images.Setting, seeds: int, device: str, seconds: float) -> tuple[Stored, float]:
    """The truth of the first seeds, and the seconds that training took.

    Raises:
        Slow: it would take more than so many seconds.
    """
    run, start = run_of(setting, seeds, device), time.monotonic()
    averages = run.result(None, _watch(device, start, seconds))
    _settle(device)
    spent = time.monotonic() - start
    with torch.no_grad():
        reference = heun(run.part(averages, slice(-1, None)), setting.latents.to(device)[None], setting.levels)[0]
        asked = setting.asked(reference)
        values = outputs(run, averages, asked)
    return images.stored_of(setting, asked, values.reshape(len(FUNCTIONALS), seeds, setting.halves, -1), device), spent


def outputs(run: HalvesRun, averages: dict[str, Tensor], asked: Outputs) -> np.ndarray:
    """All outputs of the networks on halves, (functionals, networks, queries)."""
    value, count = [], len(run.seeds) - 1
    for first in range(0, count, ASKED[run.recipe.architecture.kind]):
        last = min(first + ASKED[run.recipe.architecture.kind], count)
        joint = run.part(averages, slice(first, last))
        samples = asked.samples(joint, members=last - first)
        parts = [
            asked.of_samples(name, samples)
            if name in OF_SAMPLES
            else asked.of_network(name, joint, members=last - first)
            for name in FUNCTIONALS
        ]
        value.append(torch.stack(parts).cpu())
    return torch.cat(value, 1).numpy()


def _watch(device: str, start: float, seconds: float) -> Report:
    """Raise Slow from a run's progress where its end lies too late."""
    settled: list[float] = []

    def progress(done: int, steps: int) -> None:
        if done == SETTLED:
            _settle(device)
            settled.append(time.monotonic())
        if done == SETTLED + TIMED:
            _settle(device)
            whole = settled[0] - start + (time.monotonic() - settled[0]) * (steps - SETTLED) / TIMED
            if whole > seconds:
                raise Slow(whole)

    return progress


def _settle(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def work(setting: Setting) -> Iterator[Row]:
    """Setting by setting, each written as soon as it is there."""
    chosen = TINY if setting.tiny else [images.SETTINGS[name] for name in NAMES]
    finished: list[tuple[images.Setting, Stored]] = []
    for index, one in enumerate(chosen):
        if not data.available(one.images):
            yield row(one.name, "not on this machine", 1, shown=True)
            continue
        # Perceptrons take a small part of the time: what they leave is the convolutional networks'.
        share = setting.left if index == len(chosen) - 1 else setting.left / 2
        stored = yield from _fitted(one, share, setting)
        if stored is not None:
            finished.append((one, stored))
    for one, stored in finished:
        if one.kind == "mlp" and (setting.tiny or setting.left > 15):
            yield from _again(one, stored)


def _fitted(own: images.Setting, seconds: float, setting: Setting) -> Iterator[Row]:
    """The truth of as many seeds as fit, halved until they do."""
    seeds = own.seeds
    while seeds:
        try:
            stored, spent = made(own, seeds, setting.device, seconds - TAIL)
        except Slow as error:
            yield row(own.name, f"{seeds} seeds: too slow", float(error.args[0]), "s", shown=True)
            seeds, seconds = seeds // 2, min(seconds, setting.left)
            continue
        path = Path(setting.folder) / f"{own.name}.npz"
        stored.save(path)
        yield row(own.name, "seeds", seeds, shown=True)
        yield row(own.name, "training", spent, "s", shown=True)
        yield row(own.name, "file", path.stat().st_size, "bytes", shown=True)
        for name in FUNCTIONALS:
            yield row(own.name, f"{name}: correlation of two seeds", _between(stored.of(name)), shown=name == "ink")
        return stored
    yield row(own.name, "left out, no time", 1, shown=True)
    return None


def _between(values: np.ndarray) -> float:
    """Median over queries of the mean correlation over halves between seeds (seeds, halves, queries)."""
    if len(values) < 2:
        return float("nan")
    upper = np.triu_indices(len(values), 1)
    return float(np.median([np.corrcoef(values[..., q])[upper].mean() for q in range(values.shape[-1])]))


def _again(own: images.Setting, stored: Stored) -> Iterator[Row]:
    """How far the module's own run on the processor lies from what was made, in deviations between halves."""
    again = images.remade(own, stored, rows=AGAIN, seed=0)
    for index, name in enumerate(FUNCTIONALS):
        gap = np.abs(again[index] - stored.values[index, 0, :AGAIN]) / stored.values[index, 0].std(0)
        yield row(own.name, f"{name}: module on the processor", float(np.median(gap)), "deviations", high=gap.max())


JOBS = [Job("attribution truths", "studies", work, 40, 110)]
