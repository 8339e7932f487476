"""What retraining does to samples, with networks that are trained: convolutional, over a million parameters, 28×28.

Pairs of networks, one on the data and one on the data with more (or less) mass of class 3, from scratch and fine-tuned
from the base network, with common parameters, order and noise; samples from common latents; predictions from the base
networks alone. Definitions, changes, noise levels, bandwidth and losses are those of the study `retraining`; there are
more pairs, more latents' rows and enough training that the networks beat a Gaussian and a kernel density on held-out
images, which is reported. The number of steps is what the time allows, the same for every network of a data set, fixed
after timing the recorded step and before anything is trained.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from accelerator_parts.checks import anchor_of, tf32
from accelerator_parts.plan import Job, Setting
from accelerator_parts.store import Row, row, save
from accelerator_parts.training import Feed, Trainer, vector_of
from sensitivity import (
    DenoisingLoss,
    KernelRatio,
    LocalResponse,
    ParameterResponse,
    Points,
    Toward,
    as_score,
    sample_sensitivity,
)
from sensitivity.scores.score import NetworkScore
from studies import data
from studies.networks import Architecture, Denoiser, build
from studies.retraining.bench import OBJECTIVE, Bench, LawDenoiser
from studies.retraining.config import MAIN, Config, Regime
from studies.retraining.measures import pearson
from studies.sampling import sample
from studies.study import Context

FINE_TUNING = 4  # fine-tuning takes one step for this many from scratch
RATES = {"scratch": 2e-3, "finetune": 1e-3}
ENOUGH = 4  # pairs that are trained in any case
WARM = 100  # steps over which the rate rises
LEAST = 8.0  # seconds without which no further predictor is begun
FEWEST = 2  # networks of which a mean answer is judged
GRADIENT, PATCHES = 10_000, 5000  # training images in the gradients of `parameters`, and whose patches are compared
TAIL = 0.35  # share of a job's budget kept for samples, predictions and losses


@dataclass(frozen=True)
class Size:
    """How much is trained and measured."""

    images: str
    count: int
    width: int
    depth: int
    pairs: int
    batch: int
    latents: int
    grid: int
    probes: int
    most: int  # steps


SIZES = {
    "mnist": Size("mnist", 0, 56, 3, 8, 128, 64, 32, 8, 6000),
    "fashion": Size("fashion", 20_000, 56, 3, 8, 128, 64, 32, 8, 6000),
}
TINY = Size("digits", 200, 8, 2, 2, 8, 3, 2, 1, 6)


class Regimen:
    """A data set with its laws, latents and networks to be trained."""

    def __init__(self, size: Size, setting: Setting) -> None:
        self.size, self.setting = size, setting
        regime = Regime(size.images, size.images, size.count, "unet", size.width, size.depth, latents=size.latents)
        config = Config((regime,), latents=size.latents, grid=size.grid, probes=size.probes)
        self.bench = Bench(regime, Context(config, setting.device, Path(setting.folder) / "unused"))
        self.change = self.bench.change(MAIN)
        self.pool = self.bench.train.images
        self.anchor = anchor_of(self.pool)

    def network(self, seed: int) -> Denoiser:
        """A freshly initialised network on the device."""
        architecture = Architecture("unet", self.size.width, self.size.depth)
        centre, scale = self.pool.mean(0).cpu(), float((self.pool - self.pool.mean(0)).square().mean().sqrt())
        shape = tuple(self.pool.shape[1:])
        return build(architecture, shape, centre=centre, scale=scale, seed=seed).to(self.setting.device)

    @cached_property
    def feed(self) -> Feed:
        """Base and changed data side by side."""
        return Feed(self.pool, [None, self.change.weights], self.size.batch, seed=0)

    def trainers(self, half: bool, last: bool, *, recorded: bool = True) -> list[Trainer]:
        """One for each law of the feed, recorded."""
        made = [Trainer(self.network(0), self.feed, law, OBJECTIVE, half=half, last=last) for law in range(2)]
        with searched():
            for trainer in made if recorded else ():
                trainer.capture()
        return made


@contextlib.contextmanager
def searched() -> Iterator[None]:
    """The convolutions' quickest algorithms are searched for: it takes a second, and training repeats one step."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def work(size: Size) -> Any:
    """The job of one data set."""

    def run(setting: Setting) -> Iterator[Row]:
        chosen = TINY if setting.tiny else size
        if not data.available(chosen.images):
            yield row(chosen.images, "not on this machine", 1, shown=True)
            return
        regimen = Regimen(chosen, setting)
        yield from _measured(regimen, size.images)

    return run


def _measured(regimen: Regimen, name: str) -> Iterator[Row]:
    ways: list[Variant] = []
    yield from _variants(regimen, name, ways)
    best = min(ways, key=lambda way: way.seconds)
    with tf32(True):
        trainers = regimen.trainers(best.half, best.last, recorded=best.recorded)
    steps = steps_of(regimen.size, regimen.setting.left, best.seconds)
    yield row(name, "a step", 1e3 * best.seconds, "ms", shown=True, note=str(best))
    yield row(name, "steps from scratch", steps, "steps", shown=True)
    start = time.monotonic()
    networks = _trained(regimen, trainers, steps)
    yield row(name, "pairs", len(networks["base"]), "pairs", shown=True)
    yield row(name, "training of all networks", time.monotonic() - start, "s")
    yield row(name, "parameters", trainers[0].vector.numel())
    yield from _losses(regimen, name, networks["base"])
    with tf32(False):
        yield from _compared(regimen, name, networks)


@dataclass(frozen=True)
class Variant:
    """A way to take a step of two networks, and its seconds."""

    half: bool
    last: bool
    recorded: bool
    seconds: float = float("inf")

    def __str__(self) -> str:
        words = "bfloat16" if self.half else "TF32", "channels last" if self.last else "channels first"
        return ", ".join([*words, *([] if self.recorded else ["not recorded"])])


def _variants(regimen: Regimen, name: str, found: list[Variant]) -> Iterator[Row]:
    """Time every way; one that cannot be recorded or run says why, and the plain way remains."""
    ways = [Variant(half, last, True) for half in (False, True) for last in (False, True)]
    for way in [*ways, Variant(False, False, False)]:
        if not way.recorded and found:
            continue
        try:
            with tf32(True):
                trainers = regimen.trainers(way.half, way.last, recorded=way.recorded)
                seconds = _step_seconds(regimen, trainers)
            del trainers
        except RuntimeError as error:
            note = str(error).strip().splitlines()[0][:80]
            yield row(f"{name}, step of two networks", f"{way}: failed", 1, shown=True, note=note)
            continue
        found.append(replace(way, seconds=seconds))
        yield row(f"{name}, step of two networks", str(way), 1e3 * seconds, "ms")


def _step_seconds(regimen: Regimen, trainers: list[Trainer]) -> float:
    from accelerator_parts.clock import seconds

    turns = 2 if regimen.setting.tiny else 20

    def run() -> None:
        for step in range(turns):
            regimen.feed.draw(step, rate=0.0, kept=1.0)
            for trainer in trainers:
                trainer.step()

    run()
    return min(seconds(run, regimen.setting.device) for _ in range(2)) / turns


def steps_of(size: Size, left: float, per_step: float) -> int:
    """Steps from scratch of each network: both networks of a pair, then both again for a quarter, in the time left."""
    whole = size.pairs * (1 + 1 / FINE_TUNING) * per_step
    return max(FINE_TUNING, min(size.most, int(left * (1 - TAIL) / whole)))


def _trained(regimen: Regimen, trainers: list[Trainer], steps: int) -> dict[str, list[Denoiser]]:
    """Networks by role, pair by pair: base, changed, and both trained on."""
    table: dict[str, list[Denoiser]] = {"base": [], "scratch": [], "control": [], "finetune": []}
    for pair in range(regimen.size.pairs):
        if pair >= ENOUGH and regimen.setting.left < TAIL / 2 * regimen.setting.budget:
            break  # slower than timed: the pairs that are complete count
        seed = 1000 * regimen.setting.seed + pair
        start = [vector_of(trainer, regimen.network(seed)) for trainer in trainers]
        base, changed = _pair(regimen, trainers, start, steps, "scratch", seed)
        again = [vector_of(trainer, base) for trainer in trainers]
        control, tuned = _pair(regimen, trainers, again, steps // FINE_TUNING, "finetune", seed + 500)
        for name, network in zip(table, (base, changed, control, tuned), strict=True):
            table[name].append(network)
    return table


def _pair(
    regimen: Regimen, trainers: list[Trainer], start: list[Tensor], steps: int, kind: str, seed: int
) -> list[Denoiser]:
    """Both networks after so many steps, their parameters averaged."""
    feed, halflife = regimen.feed, steps / 20
    feed.restart(seed)
    for trainer, vector in zip(trainers, start, strict=True):
        trainer.load(vector)
    with tf32(True):
        for step in range(steps):
            rising, falling = min(1.0, (step + 1) / min(WARM, steps)), 0.5 * (1 + np.cos(np.pi * step / steps))
            kept = 0.5 ** (1 / max(min(halflife, (step + 1) / 20), 1e-3))
            feed.draw(step, rate=RATES[kind] * rising * falling, kept=kept)
            for trainer in trainers:
                trainer.step()
    networks = [trainer.averaged() for trainer in trainers]
    if not all(bool(torch.isfinite(trainer.average).all()) for trainer in trainers):
        raise FloatingPointError(f"training of seed {seed} diverged: lower RATES.")
    return networks


def _losses(regimen: Regimen, name: str, networks: list[Denoiser]) -> Iterator[Row]:
    """Held-out denoising loss of the base networks, beside a Gaussian and a kernel density on the same draws."""
    bench = regimen.bench
    shown = bench.split[1].images[: 8 if regimen.setting.tiny else 400]
    laws = {"Gaussian": regimen.anchor, "kernel": Points(regimen.pool, bandwidth=bench.bandwidth)}
    with torch.no_grad():
        values = [bench.loss(network, shown) for network in networks]
        trained = [bench.loss(network, regimen.pool[: len(shown)]) for network in networks]
        others = {key: bench.loss(LawDenoiser(law, networks[0].scale), shown) for key, law in laws.items()}
    yield row(name, "held-out loss: networks", float(np.mean(values)), low=min(values), high=max(values), shown=True)
    yield row(name, "training loss: networks", float(np.mean(trained)), low=min(trained), high=max(trained))
    for key, value in others.items():
        yield row(name, f"held-out loss: {key}", value, shown=True)


def _compared(regimen: Regimen, name: str, networks: dict[str, list[Denoiser]]) -> Iterator[Row]:
    """Rows of every predictor against the change of every pair, and all changes in half precision."""
    bench = regimen.bench
    samples = {
        role: np.stack([_pixels(sample(as_score(n, "denoiser"), bench.latents, bench.grid)) for n in members])
        for role, members in networks.items()
    }
    changes = {"scratch": samples["scratch"] - samples["base"], "finetune": samples["finetune"] - samples["control"]}
    for kind, actual in changes.items():
        yield from _floor(name, kind, actual)
    made = Made(regimen, networks["base"], changes)
    MADE[name] = made
    kept = {**changes, "base": samples["base"]}
    yield save(regimen.setting.folder, f"changes-{name}", **kept)
    yield from _answered(made, name, regimen.setting, predictors(regimen))
    predicted = {f"predicted {key}": value for key, value in made.predictions.items()}
    yield save(regimen.setting.folder, f"changes-{name}", **kept, **predicted)


@dataclass
class Made:
    """What a job trained, for the jobs after it: base networks, changes by kind of truth, and what was predicted."""

    regimen: Regimen
    base: list[Denoiser]
    changes: dict[str, np.ndarray]
    predictions: dict[str, np.ndarray] = field(default_factory=dict)


MADE: dict[str, Made] = {}


def _answered(made: Made, name: str, setting: Setting, asked: dict[str, dict[str, Any]]) -> Iterator[Row]:
    """Rows of predictors against the changes, network by network until the time is up: two networks are enough."""
    for place, (predictor, options) in enumerate(asked.items()):
        share, start = setting.left / (len(asked) - place), time.monotonic()
        values: list[np.ndarray] = []
        try:
            for network in made.base:
                spent = time.monotonic() - start
                if len(values) >= FEWEST and spent * (1 + 1 / len(values)) > share:
                    break
                if not values and setting.left < LEAST and place:
                    break
                values.append(_predicted(made.regimen, network, options))
        except TimeoutError:  # the plan's own end of the job: the rows so far stay
            raise
        except Exception as error:  # a response that cannot be had here must not cost the others
            yield row(name, f"{predictor}: failed", 1, shown=True, note=f"{type(error).__name__}: {error}"[:90])
        if len(values) < FEWEST:
            yield row(name, f"{predictor}: left out, no time", 1, shown=True)
            continue
        made.predictions[predictor] = np.stack(values)
        yield row(name, f"{predictor}: networks", len(values), "networks")
        yield row(name, f"{predictor}: seconds a network", (time.monotonic() - start) / len(values), "s")
        for kind, actual in made.changes.items():
            yield from _rows(name, kind, predictor, made.predictions[predictor], actual[: len(values)])


def answer(name: str) -> Any:
    """The job that asks the responses of the networks that the truth of this name left."""

    def run(setting: Setting) -> Iterator[Row]:
        if name not in MADE:
            yield row(name, "no trained networks: run its truth first", 1, shown=True)
            return
        with tf32(False):
            yield from _answered(MADE[name], name, setting, responses(MADE[name].regimen))

    return run


def _pixels(x: Tensor) -> np.ndarray:
    return x.detach().flatten(1).double().cpu().numpy()


def predictors(regimen: Regimen) -> dict[str, dict[str, Any]]:
    """What the engine is asked for, by name: its default, a kernel ratio, and the responses that it has."""
    bench, change = regimen.bench, regimen.change
    random: dict[str, Any] = {"trace": "hutchinson", "probes": regimen.size.probes, "seed": 0}
    flow = {"perturbation": change.perturbation, "anchor": regimen.anchor, **random}
    return {
        "flow": flow,
        "kernel": {"perturbation": Toward(KernelRatio(change.added, regimen.pool, bench.bandwidth))},
    }


def responses(regimen: Regimen) -> dict[str, dict[str, Any]]:
    """The answers through the parameters and through patches, dearer than the predictors: a job of their own."""
    added = Toward(Points(regimen.change.added))
    return {
        "parameters": {"perturbation": added, "response": parameters},
        "parameters, little damping": {"perturbation": added, "response": slightly_damped},
        "patches": {"perturbation": added, "response": patches},
    }


def parameters(regimen: Regimen, score: NetworkScore, **options: Any) -> ParameterResponse:
    """The answer through the parameters, with the loss and the noise levels of the training."""
    scale = float(score.network.scale)

    def quantile(u: Tensor) -> Tensor:
        return scale * torch.exp(OBJECTIVE.mean + OBJECTIVE.spread * torch.special.ndtri(u))

    tiny = regimen.setting.tiny
    loss = DenoisingLoss(scale, quantile=quantile, draws=1 if tiny else 8)
    spent = {**options, "pairs": 16, "steps": 2} if tiny else options
    return ParameterResponse(score, loss, _spread(regimen.pool, GRADIENT), **spent)


def _spread(pool: Tensor, most: int) -> Tensor:
    """At most so many rows at even distances: data sets are sorted by class, and cost grows with the rows."""
    return pool[torch.linspace(0, len(pool) - 1, min(most, len(pool))).round().long().to(pool.device)]


def slightly_damped(regimen: Regimen, score: NetworkScore) -> ParameterResponse:
    """Twenty-five conjugate-gradient steps with damping 1e-5, whatever the curvature."""
    return parameters(regimen, score, damping=1e-5, steps=25)


def patches(regimen: Regimen, score: NetworkScore) -> LocalResponse:
    """The answer of a machine that compares patches with those of at most 5 000 training images."""
    del score
    return LocalResponse(_spread(regimen.pool, PATCHES))


def _predicted(regimen: Regimen, network: Denoiser, options: dict[str, Any]) -> np.ndarray:
    """η δ from one base network, (latents, pixels)."""
    known = dict(options)
    change, score = known.pop("perturbation"), as_score(network, "denoiser")
    response = known.pop("response", None)
    if response is not None:
        known["response"] = response(regimen, score)
    with torch.no_grad():
        result = sample_sensitivity(score, regimen.bench.latents, change, regimen.bench.grid, **known)
    return regimen.change.eta * _pixels(result.sensitivity)


def _floor(name: str, kind: str, actual: np.ndarray) -> Iterator[Row]:
    """How well the changes of two pairs agree: correlation of all two, and after the mean over latents is taken off."""
    pairs = [(i, j) for i in range(len(actual)) for j in range(i)]
    for label, values in (("", actual), ("centred ", centred(actual))):
        between = [float(np.median(pearson(values[i], values[j]))) for i, j in pairs]
        case = f"{name}, {kind}"
        yield row(
            case,
            f"{label}correlation of two pairs",
            float(np.median(between)),
            low=min(between),
            high=max(between),
            shown=not label,
        )
    yield row(f"{name}, {kind}", "size of a change", float(np.median(np.linalg.norm(actual, axis=-1))))


def centred(values: np.ndarray) -> np.ndarray:
    """(…, latents, pixels) less their mean over latents."""
    return values - values.mean(axis=-2, keepdims=True)


def _rows(name: str, kind: str, predictor: str, predicted: np.ndarray, actual: np.ndarray) -> Iterator[Row]:
    """One row a pair and latent: of each pair's own prediction with its change, and with all pairs' mean change."""
    medians = {"own": [], "own centred": [], "mean": [], "mean centred": []}
    mean = actual.mean(0)
    for pair, (p, a) in enumerate(zip(predicted, actual, strict=True)):
        measures = {
            "own": pearson(p, a),
            "own centred": pearson(centred(p), centred(a)),
            "mean": pearson(p, mean),
            "mean centred": pearson(centred(p), centred(mean)),
        }
        slopes = (p * a).sum(1) / np.maximum((p * p).sum(1), 1e-300)
        for key, values in measures.items():
            medians[key].append(float(np.median(values)))
        for latent in range(len(p)):
            yield {
                "table": "truth", "data": name, "truth": kind, "predictor": predictor, "pair": pair, "latent": latent,
                **{f"correlation {key}": float(values[latent]) for key, values in measures.items()},
                "slope": float(slopes[latent]),
                "predicted_norm": float(np.linalg.norm(p[latent])),
                "actual_norm": float(np.linalg.norm(a[latent])),
            }  # fmt: skip
    for key, values in medians.items():
        low, high = min(values), max(values)
        label = f"{predictor}: correlation, {key}"
        yield row(f"{name}, {kind}", label, float(np.median(values)), low=low, high=high, note="pairs' range")
    both = predicted.mean(0), mean
    yield row(f"{name}, {kind}", f"{predictor}: correlation, of means", float(np.median(pearson(*both))), shown=True)
    yield row(
        f"{name}, {kind}",
        f"{predictor}: centred, of means",
        float(np.median(pearson(centred(both[0]), centred(both[1])))),
        shown=True,
    )


JOBS = [
    Job("truth mnist", "studies", work(SIZES["mnist"]), 60, 140),
    Job("responses mnist", "studies", answer("mnist"), 30, 60),
    Job("truth fashion", "studies", work(SIZES["fashion"]), 60, 190),
]
