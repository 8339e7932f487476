"""Cells: the exactly trained network, every change of every regime, random removals."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensitivity import Points, UnrolledResponse, as_score, influence
from studies import data
from studies.responses.answers import Answer, answers, baselines, clean, mean_of, unfinished
from studies.responses.bench import RecordedBench, as_trained
from studies.responses.config import Config
from studies.responses.exact import ExactBench
from studies.responses.reading import RETRAINED
from studies.retraining.bench import LawDenoiser
from studies.retraining.config import Regime
from studies.retraining.measures import pearson, short, significant
from studies.sampling import sample
from studies.statistics.trainings import centred, products
from studies.study import Cell, Context
from studies.training import Batches
from studies.training.batches import Draw
from studies.training.record import TrainingRecord

Rows = list[dict[str, Any]]
SHOWN = 4  # latents of a picture
DIGITS = 4  # of products and of what removals do
QUERIES = 6  # latents whose ink is followed under removals


def cells(config: Config) -> list[Cell]:
    """The study's independent pieces; networks that several need are trained by the first and kept in the cache."""
    listed = []
    for index, regime in enumerate(config.regimes):
        for change in regime.changes:
            safe = change.replace(":", "=").replace("@", "-")
            for part in ("scratch", "finetune"):
                shared = {"regime": index, "part": part, "change": change}
                listed.append(Cell(f"{regime.name}-{safe}-{part}", shared))
    if config.removals:
        listed.append(Cell("removals", {"regime": config.removed_from, "part": "removals"}))
    return [*listed, Cell("exact", {"part": "exact"})]


def run_cell(cell: Cell, context: Context) -> Rows:
    """Rows of one cell; of data that are optional and not on this machine, one row that says so."""
    if cell.parameters["part"] == "exact":
        return run_exact(context.config)
    regime: Regime = context.config.regimes[cell.parameters["regime"]]
    if not data.available(regime.images):
        return [{"kind": "skipped", "regime": regime.name, "reason": f"the images {regime.images!r} are not here"}]
    bench = RecordedBench(regime, context)
    if cell.parameters["part"] == "removals":
        return run_removals(bench)
    run = run_scratch if cell.parameters["part"] == "scratch" else run_tuned
    return run(bench, cell.parameters["change"])


def run_exact(config: Config) -> Rows:
    """Truth (a)."""
    bench = ExactBench(config)
    start = time.perf_counter()
    truth, answered = bench.truth(), bench.answers()
    shared = {"regime": "exact", "change": "class:3", "truth": "exact", "pairs": 1}
    predicted = _with_baselines(answered, "parameters")
    rows = [shared | _row(name, each, truth[None]) for name, each in predicted.items()]
    condition = max(bench.fitted.condition(level) for level in bench.grid.levels.tolist())
    rows.append({"kind": "model", "regime": "exact", "condition": condition, "seconds": time.perf_counter() - start})
    return rows + _pictures("exact", "class:3", "exact", {n: a.change for n, a in answered.items()}, truth)


def run_scratch(bench: RecordedBench, name: str) -> Rows:
    """Truths (b) and, from scratch, (c) of one change."""
    change = bench.change(name)
    per_run = [answers(bench, made, change) for made in bench.runs]
    rows = [*_of_runs(bench, name, per_run), _model(bench)]
    scratch = bench.samples(bench.changed(change)) - bench.samples(bench.base)
    rows += _against(bench, name, "scratch", mean_of(per_run), scratch) + _of_others(bench, name, per_run, scratch)
    shown = {n: a.change for n, a in mean_of(per_run).items()}
    return rows + _pictures(bench.regime.name, name, "scratch", shown, scratch.mean(0))


def run_tuned(bench: RecordedBench, name: str) -> Rows:
    """Truth (c) of one change after fine-tuning."""
    change = bench.change(name)
    tuned = [answers(bench, made, change) for made in bench.controls]
    control = bench.samples([as_trained(made) for made in bench.controls])
    return _against(bench, name, "finetune", mean_of(tuned), bench.samples(bench.retuned(change)) - control)


def _of_runs(bench: RecordedBench, name: str, per_run: list[dict[str, Answer]]) -> Rows:
    """Truth (b): each network's answers against the derivative of its own run; the training is the unit."""
    rows = []
    for other in per_run[0]:
        pairs = [(clean(each[other].change), clean(each["unrolled"].change)) for each in per_run]
        rows.append(
            {
                "kind": "answer", "regime": bench.regime.name, "change": name, "truth": "run", "response": other,
                "pairs": len(per_run), **_by_units(pairs),
                "seconds": float(np.mean([each[other].seconds for each in per_run])),
                "evaluations": float(np.mean([each[other].evaluations for each in per_run])),
                "residual": float(np.mean([each[other].residual for each in per_run])),
                "unfinished": sum(unfinished(each[other].change) for each in per_run),
            }
        )  # fmt: skip
    return rows


def _of_others(bench: RecordedBench, name: str, per_run: list[dict[str, Answer]], changes: np.ndarray) -> Rows:
    """Each pair's change against the mean answer, or change (`retraining`), of all other pairs."""
    predictions = {other: np.stack([clean(each[other].change) for each in per_run]) for other in per_run[0]} | {
        RETRAINED: changes
    }
    return [_apart(bench, name, other, values, changes) for other, values in predictions.items()]


def _apart(bench: RecordedBench, name: str, other: str, values: np.ndarray, changes: np.ndarray) -> dict[str, Any]:
    pairs = [(np.delete(values, k, 0).mean(0), changes[k]) for k in range(len(changes))]
    return {
        "kind": "answer", "regime": bench.regime.name, "change": name, "truth": "others", "response": other,
        "pairs": len(changes), **_by_units(pairs), "seconds": math.nan, "evaluations": math.nan,
        "residual": math.nan, "unfinished": 0,
    }  # fmt: skip


def _by_units(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, list[float]]:
    """Median correlations, centred ones and slopes, one for each pair (predicted, actual)."""
    return {
        "correlations": short(np.array([np.median(pearson(p, t)) for p, t in pairs])),
        "centred": short(np.array([np.median(pearson(centred(p), centred(t))) for p, t in pairs])),
        "slopes": short(np.array([_slope(p, t) for p, t in pairs])),
    }


def _against(bench: RecordedBench, name: str, truth: str, answered: dict[str, Answer], changes: np.ndarray) -> Rows:
    shared = {"regime": bench.regime.name, "change": name, "truth": truth, "pairs": len(changes)}
    predicted = _with_baselines(answered, "unrolled")
    return [shared | _row(response, each, changes) for response, each in predicted.items()]


def _with_baselines(answered: dict[str, Answer], of: str) -> dict[str, Answer]:
    others = {name: Answer(change, 0.0, 0.0) for name, change in baselines(clean(answered[of].change)).items()}
    return answered | others


def _row(response: str, answer: Answer, changes: np.ndarray) -> dict[str, Any]:
    """One answer against P changes (P, n, pixels): per-latent correlations, slopes, products for the ceiling."""
    predicted, mean = clean(answer.change), changes.mean(0)
    centred_pair = centred(predicted), centred(changes)
    return {
        "kind": "answer",
        "response": response,
        "correlations": short(pearson(predicted, mean)),
        "centred": short(pearson(centred_pair[0], centred_pair[1].mean(0))),
        "slopes": short(np.array([_slope(predicted, each) for each in changes])),
        "products": significant(products(predicted, changes), DIGITS),
        "centred_products": significant(products(*centred_pair), DIGITS),
        "seconds": answer.seconds,
        "evaluations": answer.evaluations,
        "residual": answer.residual,
        "unfinished": unfinished(answer.change),
    }


def _slope(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Through the origin, of actual on predicted change; 0 where nothing is predicted."""
    size = float((predicted**2).sum())
    return float((predicted * actual).sum()) / size if size > 0 else 0.0


def _model(bench: RecordedBench) -> dict[str, Any]:
    """Denoising losses of the base networks, of a Gaussian and of a kernel density on the same held-out draws."""
    _, held_out = bench.split
    losses = [bench.loss(t.network, held_out.images) for t in bench.base]
    laws = (bench.anchor, Points(bench.train.images, bandwidth=bench.bandwidth))
    gaussian, kernel = (bench.loss(LawDenoiser(law, bench.base[0].network.scale), held_out.images) for law in laws)
    return {
        "kind": "model",
        "regime": bench.regime.name,
        "parameters": len(bench.runs[0].theta),
        "count": len(bench.train),
        "steps": bench.regime.steps,
        "held_out_loss": float(np.mean(losses)),
        "gaussian_loss": gaussian,
        "kernel_loss": kernel,
        "bandwidth": bench.bandwidth,
    }


def _pictures(regime: str, change: str, truth: str, answered: dict[str, np.ndarray], actual: np.ndarray) -> Rows:
    """Predicted changes beside the true one, for the figure."""
    every = {**{name: clean(values) for name, values in answered.items()}, "truth": actual}
    shared = {"kind": "picture", "regime": regime, "change": change, "truth": truth}
    return [shared | {"response": n, "pixels": short(v[:SHOWN].ravel())} for n, v in every.items()]


def run_removals(bench: RecordedBench) -> Rows:
    """1 % of the data removed at random: trained again at the same seed, and predicted by one pass back."""
    made, config = bench.runs[0], bench.context.config
    start = time.perf_counter()
    values = _values(bench, made)
    back = time.perf_counter() - start
    size, rng, uniform = len(bench.train), np.random.default_rng(0), made.points.weights.double().cpu()
    rows = []
    for number in range(config.removals):
        weights = torch.ones(size, dtype=torch.float64)
        weights[rng.choice(size, max(1, size // 100), replace=False)] = 0
        weights = weights / weights.sum()
        start = time.perf_counter()
        outputs = _outputs(bench, made, made.retrained(weights)) - _outputs(bench, made, made.theta)
        rows.append(
            {
                "kind": "removal", "regime": bench.regime.name, "number": number,
                "predicted": significant((values @ (weights - uniform)).numpy(), DIGITS),
                "actual": significant(outputs.numpy(), DIGITS),
                "pass_seconds": back, "seconds": time.perf_counter() - start,
            }
        )  # fmt: skip
    return rows


def _values(bench: RecordedBench, made: TrainingRecord) -> Tensor:
    """Influence of every image on the held-out loss and on the ink of samples, (1 + QUERIES, N)."""
    draw = _held_out(bench)
    gradient = torch.func.grad(lambda theta: made.descent.losses(theta, draw).mean())(made.theta)
    result = influence(
        as_score(made.module, "denoiser"),
        bench.latents[:QUERIES],
        lambda x: x.flatten(1).mean(1),
        Points(bench.train.images),
        bench.grid,
        response=UnrolledResponse(made),
    )
    return torch.cat([made.pull(gradient[None]), result.values]).double().cpu()


def _outputs(bench: RecordedBench, made: TrainingRecord, theta: Tensor) -> Tensor:
    """The same outputs of the network with parameters θ, (1 + QUERIES,)."""
    score = as_score(made.network_at(theta), "denoiser")
    ink = sample(score, bench.latents[:QUERIES], bench.grid).flatten(1).mean(1)
    loss = made.descent.losses(theta, _held_out(bench)).mean()
    return torch.cat([loss.reshape(1), ink]).detach().double().cpu()


def _held_out(bench: RecordedBench) -> Draw:
    """Four noises for every held-out image."""
    many = bench.split[1].images.repeat(4, 1, 1, 1)
    return Draw(*(part[0] for part in Batches(many, [None], [5], len(many)).draw(0)))
