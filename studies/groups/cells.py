"""Cells: each data set, the exactly trained network, and each kind of planted groups."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensitivity import Calibration, Groups, UnrolledResponse, as_score, counterfactual
from studies import data
from studies.groups import predictors
from studies.groups.bench import BASE_SEED, FLOOR, FRESH, RANDOM, SECOND, GroupBench
from studies.groups.config import PLANTS, Config
from studies.groups.outcomes import Shares, looks
from studies.groups.planted import Plant, harm, planted, precision, training_loss
from studies.groups.predictors import Predicted, of_samples
from studies.groups.values import solved
from studies.responses.bench import RULE
from studies.responses.config import Config as ResponsesConfig
from studies.responses.exact import ExactBench, LevelNetwork, Solved
from studies.retraining.measures import short
from studies.study import Cell, Context
from studies.training.record import TrainingRecord, record

Rows = list[dict[str, Any]]
SHOWN = 4  # latents of a picture


def cells(config: Config) -> list[Cell]:
    """The study's independent pieces; networks are kept in the cache."""
    listed = [Cell(regime.name, {"part": "regime", "regime": k}) for k, regime in enumerate(config.regimes)]
    listed += [Cell(f"planted-{kind}", {"part": "planted", "kind": kind}) for kind in PLANTS if config.plants]
    return [*listed, Cell("exact", {"part": "exact"})]


def run_cell(cell: Cell, context: Context) -> Rows:
    """Rows of one cell; of data that are optional and not on this machine, one row that says so."""
    part = cell.parameters["part"]
    if part == "exact":
        return run_exact(context.config)
    if part == "planted":
        return run_planted(cell.parameters["kind"], context)
    regime = context.config.regimes[cell.parameters["regime"]]
    if not data.available(regime.images):
        return [{"kind": "skipped", "regime": regime.name, "reason": f"the images {regime.images!r} are not here"}]
    return run_regime(GroupBench(regime, context))


def run_regime(bench: GroupBench) -> Rows:
    """Predictions, retrainings and what they cost."""
    name, members, shares = bench.regime.name, bench.members, Shares(bench.images, bench.labels)
    base = bench.samples(bench.base.module)
    unrolled, seconds = predictors.unrolled(bench, members)
    others, _ = predictors.unrolled(bench, bench.random_groups)
    truths, costs = _truths(bench)
    base_shares = shares(base).double().cpu().numpy()
    predicted = {
        "unrolled": of_samples(shares, unrolled.samples, seconds),
        "unrolled, first order": of_samples(shares, unrolled.base + unrolled.first, seconds),
        "retraining, other seed": of_samples(shares, truths["second"], costs["second"]),
    }
    for method, call in predictors.SAMPLERS.items():
        start = time.process_time()
        samples = call(bench, members)
        predicted[method] = of_samples(shares, samples, time.process_time() - start)
    start = time.process_time()
    sums = predictors.projected(bench, members, shares, base_shares)
    predicted["projected gradients"] = Predicted(sums, None, time.process_time() - start)
    predicted["counting"] = Predicted(predictors.counting(bench, members, base_shares), None, 0.0)
    rows = group_rows(name, "real", unrolled, truths["fresh"], shares, members)
    rows += group_rows(name, "random", others, truths["random"], shares, bench.random_groups)
    rows += [floor_row(name, base, truths["floor"], shares)]
    rows += [method_row(name, method, each, shares, truths) for method, each in predicted.items()]
    rows += picture_rows(name, unrolled, truths["fresh"])
    return [*rows, model_row(bench, costs["fresh"])]


def _truths(bench: GroupBench) -> tuple[dict[str, Tensor], dict[str, float]]:
    weights: list[Tensor | None] = [*bench.without(bench.members)]
    asked: dict[str, tuple[list[Tensor | None], int]] = {
        "fresh": (weights, FRESH),
        "second": (weights, SECOND),
        "random": ([*bench.without(bench.random_groups)], RANDOM),
        "floor": ([None] * bench.config.floor, FLOOR),
    }
    truths, costs = {}, {}
    for name, (each, first) in asked.items():
        start = time.process_time()
        truths[name] = bench.retrained(each, first)
        costs[name] = time.process_time() - start
    return truths, costs


def group_rows(
    regime: str, pool: str, found: Any, retrained: Tensor, shares: Shares, members: dict[str, np.ndarray]
) -> Rows:
    """One row a group: predicted and retrained outcomes."""
    rows = []
    for k, name in enumerate(members):
        rows.append(
            {
                "kind": "group",
                "regime": regime,
                "pool": pool,
                "group": name,
                "size": len(members[name]),
                "eta": float(found.eta[k]),
                "departure": float(found.departure[k].median()),
                "stretch": float(found.stretch[k]),
                "finished": int(found.outcome.samples[k].finished.sum()),
                "predicted": short(looks(found.samples[k]).flatten().cpu().numpy(), 5),
                "retrained": short(looks(retrained[k]).flatten().cpu().numpy(), 5),
                "predicted_shares": short(shares(found.samples[k]).cpu().numpy(), 6),
                "retrained_shares": short(shares(retrained[k]).cpu().numpy(), 6),
            }
        )
    return rows


def floor_row(regime: str, base: Tensor, floor: Tensor, shares: Shares) -> dict[str, Any]:
    """Outcomes with nothing changed but the seed."""
    return {
        "kind": "floor",
        "regime": regime,
        "count": len(floor),
        "predicted": short(looks(base).flatten().cpu().numpy(), 5),
        "retrained": short(torch.stack([looks(each) for each in floor]).flatten().cpu().numpy(), 5),
        "predicted_shares": short(shares(base).cpu().numpy(), 6),
        "retrained_shares": short(torch.stack([shares(each) for each in floor]).flatten().cpu().numpy(), 6),
    }


def method_row(
    regime: str, method: str, predicted: Predicted, shares: Shares, truths: dict[str, Tensor]
) -> dict[str, Any]:
    """Predicted class shares beside those of the two fresh seeds."""
    names = ("fresh", "second") if "second" in truths else ("fresh",)
    actual = np.stack([np.stack([shares(x).double().cpu().numpy() for x in truths[t]]) for t in names])
    return {
        "kind": "method",
        "regime": regime,
        "method": method,
        "groups": len(predicted.shares),
        "classes": predicted.shares.shape[1],
        "seeds": len(actual),
        "seconds": predicted.seconds,
        "predicted_shares": short(predicted.shares.ravel(), 6),
        "retrained_shares": short(actual.ravel(), 6),
    }


def model_row(bench: GroupBench, seconds: float) -> dict[str, Any]:
    """Held-out denoising loss of the base network beside that of a Gaussian of the data's moments."""
    made, (network, gaussian) = bench.base, bench.losses()
    return {
        "kind": "model",
        "regime": bench.regime.name,
        "images": len(bench.images),
        "parameters": len(made.theta),
        "seed": BASE_SEED,
        "loss": network,
        "gaussian": gaussian,
        "retraining_seconds": seconds,
    }


def picture_rows(regime: str, found: Any, retrained: Tensor) -> Rows:
    """For the group of largest predicted change: base, predicted, retrained, and half the interval of each pixel."""
    k = int(found.change.flatten(1).norm(dim=1).argmax())
    rest = [j for j in range(len(found.names)) if j != k]
    calibration = Calibration(found.samples[rest], retrained[rest], 0.9, stretch=found.stretch[rest])
    parts = {
        "sample": found.base,
        "predicted": found.samples[k],
        "retrained": retrained[k],
        "half of the interval": calibration.margin * found.stretch[k],
    }
    shared = {"kind": "picture", "regime": regime, "group": str(found.names[k])}
    return [shared | {"part": part, "pixels": short(x[:SHOWN].flatten().cpu().numpy(), 3)} for part, x in parts.items()]


def run_exact(config: Config) -> Rows:
    """A network that is trained by a solve: no seeds, and every retraining exact."""
    bench = ExactBench(ResponsesConfig((), config.exact, latents=config.latents))
    start = time.process_time()
    labels = np.asarray(data.load("digits").labels)[: config.exact.points]
    members = _halved(labels)
    shares = Shares(bench.images, labels)
    network = LevelNetwork(bench.fitted, bench.grid.levels.tolist()).eval()
    groups = Groups(bench.images, {name: rows.tolist() for name, rows in members.items()})
    response = UnrolledResponse(Solved(bench, network))
    prediction = counterfactual(as_score(network, "denoiser"), bench.latents, groups, bench.grid, response=response)
    seconds, start = time.process_time() - start, time.process_time()
    retrained = torch.stack([_solved(bench, rows) for rows in members.values()])
    rows = group_rows("exact", "real", prediction, retrained, shares, members)
    predicted = {
        "unrolled": of_samples(shares, prediction.samples, seconds),
        "unrolled, first order": of_samples(shares, prediction.base + prediction.first, seconds),
    }
    rows += [method_row("exact", name, each, shares, {"fresh": retrained}) for name, each in predicted.items()]
    model = {"kind": "model", "regime": "exact", "images": len(labels), "parameters": network.readout.numel()}
    rows.append(model | {"retraining_seconds": time.process_time() - start})
    return rows + picture_rows("exact", prediction, retrained)


def _solved(bench: ExactBench, rows: np.ndarray) -> Tensor:
    weights = np.ones(len(bench.images))
    weights[rows] = 0.0
    return solved(bench, weights)


def _halved(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Every other image of each class."""
    halves: dict[str, np.ndarray] = {}
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        halves |= {f"{c}{part}": rows[k::2] for k, part in enumerate("ab")}
    return halves


def run_planted(kind: str, context: Context) -> Rows:
    """Precision at the top for several draws of one kind."""
    draws = range(context.config.plants)
    return [row for draw in draws for row in planted_rows(kind, draw, *planted_run(kind, draw, context))]


def planted_rows(kind: str, draw: int, plant: Plant, made: TrainingRecord) -> Rows:
    """Precision at the top of one draw, by each method."""
    rows = []
    for method, call in (("harm", harm), ("training loss", training_loss)):
        start = time.process_time()
        values = call(made, plant)
        rows.append(
            {
                "kind": "planted",
                "plant": kind,
                "draw": draw,
                "method": method,
                "precision": precision(values, plant.planted),
                "seconds": time.process_time() - start,
                "values": short(values / np.abs(values).max(), 5),
                "planted": plant.planted.astype(int).tolist(),
            }
        )
    return rows


def planted_run(kind: str, draw: int, context: Context) -> tuple[Plant, TrainingRecord]:
    """A draw of planted groups, and the recorded run on it."""
    plant = planted(kind, context.config.planted, draw)
    recipe = GroupBench(context.config.planted, context).recipe()
    return plant, record(recipe, plant.images, seed=100 + draw, rule=RULE, cache=context.cache)
