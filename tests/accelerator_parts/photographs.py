"""The study `photographs` with a network that is trained to the end: d = 3 072, diffusers' UNet2DModel, exact traces.

Data, models, settings, quantities and claims are those of `studies.photographs`. The network is wider, trained by
replayed graphs, its parameters those of the point of the run, of ten, at which the held-out loss was lowest. What the
time allows is measured in the order of what it decides, each quantity with its rows as soon as it is there.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from accelerator_parts.checks import tf32
from accelerator_parts.clock import seconds
from accelerator_parts.plan import Job, Setting
from accelerator_parts.protocols import _claims, _kept
from accelerator_parts.store import Row, row
from accelerator_parts.training import Feed, Trainer
from accelerator_parts.truth import searched
from studies import photographs
from studies.cache import Cache
from studies.photographs import networks, training
from studies.photographs.cells import loss, network_row, quantity_rows
from studies.photographs.config import Config
from studies.photographs.models import Bench, Model
from studies.photographs.training import Plan
from studies.retraining.cells import spread
from studies.study import Context
from studies.training.loop import digest

SHARE, LONGEST = 0.42, 110.0  # of the time, for training, and seconds that it takes at most
MOST = 40_000  # steps
POINTS = 10  # of the run, at which the held-out loss is looked at
RISING = 500  # steps over which the rate rises
MARGIN = 1.3  # by which a quantity may take longer than expected of it
EXACT, EXACT_SECONDS = 2, 45.0  # states whose log density is taken with the exact trace, and seconds needed for it
# By model and quantity, what it takes in units of the first: a guided model asks the network twice. "more" is exact.
ORDER = (
    ("pixels", "density", 1.0), ("pixels", "kernel", 1.5), ("pixels", "more", 0.0), ("pixels", "flow", 3.0),
    ("pixels", "influence", 3.0), ("guided", "kernel", 2.0), ("guided", "influence", 4.0), ("guided", "flow", 4.0),
    ("guided", "density", 1.0),
)  # fmt: skip
# Packages that diffusers looks for and does not need: hidden where one of them keeps it from being imported.
OPTIONAL = ("transformers", "accelerate", "peft", "torchvision", "timm", "onnx", "onnxruntime", "flax", "cv2")


def config(tiny: bool) -> Config:
    """How much is trained and measured; the plan's steps are what the time allows."""
    if tiny:
        return Config(
            training=4, held_out=2, shape=networks.Shape(channels=(8, 16)), plan=Plan(4, 2), samples=2, steps=2,
            probes=2, loss_patches=9,
        )  # fmt: skip
    shape = networks.Shape(channels=(32, 64, 128, 128))
    return Config(shape=shape, plan=Plan(MOST, 128, 1e-3), samples=16, steps=32, probes=8, loss_patches=1080)


class Labelled(Feed):
    """A feed with a label for each datum, hidden as in the study.

    Attributes:
        labels: of the law's data, (batch,), where they stay.

    Args:
        pool: patches.
        groups: their labels (N,).
        null: the label that hides one.
    """

    def __init__(self, pool: Tensor, groups: Tensor, null: int, batch: int, seed: int) -> None:
        super().__init__(pool, [None], batch, seed)
        self.groups, self.null, self.labels = groups, null, groups[:1].repeat(batch)

    def draw(self, step: int, *, rate: float, kept: float) -> None:
        """Fill the tensors for a step."""
        super().draw(step, rate=rate, kept=kept)
        hidden = torch.rand(self.batch, generator=self.generator, device=self.pool.device) < training.DROPPED
        self.labels.copy_(torch.where(hidden, self.null, self.groups[self.rows[0]]))


class Learner(nn.Module):
    """The study's denoiser as a module, under labels that lie in one tensor.

    Args:
        network: a UNet2DModel.
        scale: τ.
        labels: (batch,), read at every call.
    """

    def __init__(self, network: nn.Module, scale: float, labels: Tensor) -> None:
        super().__init__()
        self.network, self.scale, self.labels = network, scale, labels
        self.made = networks.Denoiser(network, scale, labels)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, σ)."""
        return self.made(x, sigma)


@dataclass(frozen=True)
class LentBench(Bench):
    """The study's bench around a network that was trained here."""

    lent: nn.Module | None = None

    @cached_property
    def network(self) -> nn.Module:
        """On pixels, with labels."""
        return self.lent


def importable() -> None:
    """Import diffusers, if need be without what it only looks for."""
    try:
        networks.build(networks.Shape(channels=(8, 16)), 0)
    except (ImportError, RuntimeError, AttributeError):
        for name in [name for name in sys.modules if name.split(".")[0] in ("diffusers", *OPTIONAL)]:
            del sys.modules[name]
        sys.modules.update(dict.fromkeys(OPTIONAL))
        networks.build(networks.Shape(channels=(8, 16)), 0)


def chosen(tiny: bool) -> tuple[tuple[str, str, float], ...]:
    """Models and quantities in their order; the exact trace of 3 072 directions is no rehearsal's."""
    return tuple(each for each in ORDER if each[2] or not tiny)


def work(setting: Setting) -> Iterator[Row]:
    """Train, then measure."""
    importable()
    result = config(setting.tiny)
    with tempfile.TemporaryDirectory() as folder:
        context = Context(result, setting.device, Path(folder) / "run")
        bench = Bench(context)
        values: list[tuple[nn.Module, int]] = []
        yield from _trained(bench, setting, values)
        network, steps = values[0]
        # The rows name the steps that were taken, not those that were planned.
        taken = replace(result, plan=replace(result.plan, steps=steps))
        bench = LentBench(replace(context, config=taken), network)
        moments(bench.split[0].images, context.cache)
        # The composite kernel of attention can be taken for many directions at once.
        with tf32(False), sdpa_kernel(SDPBackend.MATH):
            yield from _measured(bench, setting)


def moments(data: Tensor, cache: Cache) -> None:
    """Leave the study the moments of its data, by a decomposition of the covariance in double precision: that of all
    data, as the study takes it where nothing is left for it, is a matter of minutes on a processor.

    Args:
        data: (N, *shape) with N beyond the dimension; fewer are left to the study.
        cache: of the study.
    """
    if len(data) <= data[0].numel():
        return

    def build() -> dict[str, Tensor]:
        mean = data.mean(0)
        flat = (data - mean).flatten(1).double()
        values, vectors = (part.flip(-1).to(data) for part in torch.linalg.eigh(flat.T @ flat / len(flat)))
        return {"mean": mean, "values": values.clamp(min=0.0), "vectors": vectors, "tail": mean.new_zeros(())}

    cache.tensors("anchor", {"data": digest(data)}, build)


def _trained(bench: Bench, setting: Setting, found: list[tuple[nn.Module, int]]) -> Iterator[Row]:
    values, train = bench.config, bench.split[0]
    network = networks.build(values.shape, setting.seed).to(setting.device)
    feed = Labelled(train.images, train.groups, values.shape.labels, values.plan.batch, setting.seed)
    with tf32(True), searched():
        trainer, reason = _trainer(network, feed, training.scale(train.images))
        each = _step_seconds(trainer, feed, setting)
        steps = 4 if setting.tiny else min(MOST, int(min(LONGEST, SHARE * setting.left) / each))
        yield row("photographs", "a step", 1e3 * each, "ms", shown=True, note=reason)
        start = time.monotonic()
        curve, best = _descend(trainer, feed, steps, values.plan.rate, lambda: _held_out(bench, trainer))
    taken = time.monotonic() - start
    yield row("photographs", "steps of training", steps, "steps", shown=True, note=f"{taken:.0f} s")
    for step, value in curve:
        kept = value == min(v for _, v in curve)
        note = "these parameters are kept" if kept else ""
        yield row("photographs, training", f"held-out loss after {step} steps", value, shown=kept, note=note)
    trainer.average.copy_(best)
    found.append((trainer.averaged().network, min(curve, key=lambda point: point[1])[0]))


def _trainer(network: nn.Module, feed: Labelled, scale: float) -> tuple[Trainer, str]:
    """A recorded step; one that cannot be recorded is taken as it is."""
    made = Trainer(Learner(network, scale, feed.labels), feed, 0, training.objective())
    start = made.vector.clone()
    try:
        made.capture()
    except RuntimeError as error:
        made.graph = None
        made.load(start)
        return made, f"not recorded: {str(error).strip().splitlines()[0]}"[:80]
    return made, "TF32, recorded"


def _step_seconds(trainer: Trainer, feed: Labelled, setting: Setting) -> float:
    turns = 2 if setting.tiny else 30

    def run() -> None:
        for step in range(turns):
            feed.draw(step, rate=0.0, kept=1.0)
            trainer.step()

    start = trainer.vector.clone()
    run()
    each = min(seconds(run, setting.device) for _ in range(2)) / turns
    trainer.load(start)
    feed.restart(setting.seed)
    return each


def _descend(
    trainer: Trainer, feed: Labelled, steps: int, peak: float, held_out: Callable[[], float]
) -> tuple[list[tuple[int, float]], Tensor]:
    """The held-out losses along the run, and the averaged parameters of the lowest."""
    curve: list[tuple[int, float]] = []
    best = trainer.average.clone()
    for step in range(steps):
        rising, falling = min(1.0, (step + 1) / min(RISING, steps)), 0.5 * (1 + np.cos(np.pi * step / steps))
        halflife = max(min(steps / 20, (step + 1) / 20), 1e-3)
        feed.draw(step, rate=peak * rising * falling, kept=0.5 ** (1 / halflife))
        trainer.step()
        if (step + 1) * POINTS // steps > step * POINTS // steps:
            curve.append((step + 1, held_out()))
            if curve[-1][1] <= min(value for _, value in curve):
                best.copy_(trainer.average)
    if not bool(torch.isfinite(best).all()):
        raise FloatingPointError("the training of the network on photographs diverged: lower its rate.")
    return curve, best


def _held_out(bench: Bench, trainer: Trainer) -> float:
    """The loss of the averaged parameters on held-out patches with hidden labels, the study's own draws."""
    held = spread(bench.split[1].images, bench.config.loss_patches)
    result = trainer.averaged()
    null = torch.full((2 * len(held),), bench.config.shape.labels, device=held.device)
    return loss(networks.Denoiser(result.network, result.scale, null), held)


def _measured(bench: LentBench, setting: Setting) -> Iterator[Row]:
    """The quantities that fit, in their order, then claims on what there is."""
    done = [network_row(bench, "pixels")]
    yield from _kept("photographs", done)
    yield from (
        row("photographs", name.replace("_", " "), done[0][name], shown=True)
        for name in ("parameters", "held_out_loss", "train_loss", "gaussian_loss", "kernel_loss")
    )
    unit, exactly = 0.0, replace(bench.config, exact=EXACT)
    exact = replace(bench, context=replace(bench.context, config=exactly))
    models = {name: bench.model(name) for name in ("pixels", "guided")}
    for name, quantity, size in chosen(setting.tiny):
        if (unit * size * MARGIN if size else EXACT_SECONDS) > setting.left and not setting.tiny:
            yield row(f"{name}, {quantity}", "left out, no time", 1, shown=True)
            continue
        start, rows = time.monotonic(), []
        yield from _of(models[name] if size else exact.model(name), quantity, rows)
        spent = time.monotonic() - start
        unit = max(unit, spent / size if size else 0.0)
        yield row(f"{name}, {quantity}", "seconds", spent, "s", shown=True)
        yield from _kept("photographs", rows)
        yield from _agreements(rows)
        done += rows
    yield from _claims("photographs", photographs.claims(pd.DataFrame(done), bench.config))


def _of(model: Model, quantity: str, rows: list[dict[str, Any]]) -> Iterator[Row]:
    """One quantity in its settings; one that fails says so and does not cost the others."""
    try:
        rows += quantity_rows(model, quantity)
    except TimeoutError:  # the plan's own end of the job
        raise
    except Exception as error:
        if model.latents.is_cuda:
            torch.cuda.empty_cache()
        note = f"{type(error).__name__}: {error}".replace("\n", " ")[:90]
        yield row(f"{model.name}, {quantity}", "failed", 1, shown=True, note=note)


def _agreements(rows: list[dict[str, Any]]) -> Iterator[Row]:
    """Medians of sizes, differences of settings and stated errors."""
    for one in rows:
        case = f"{one.get('model')}, {one.get('quantity')}"
        if one["kind"] == "run" and one["setting"] == "base":
            note = one["outcomes"]
            yield row(case, "size", float(np.median(np.abs(one["sizes"]))), shown=True, note=note)
        if one["kind"] == "agreement":
            difference, stated = (float(np.median(one[name])) for name in ("differences", "errors"))
            yield row(case, f"{one['setting']}: difference", difference, shown=True, note=f"stated {stated:.3g}")


JOBS = [Job("photographs", "studies", work, 90, 260)]
