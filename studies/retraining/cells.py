"""Cells: one for each regime's model, one for each change, one for the causes of failure, one for random halves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensitivity import GaussianAnchor, Points
from studies import data
from studies.retraining import predictors, synthetic
from studies.retraining.bench import Bench, LawDenoiser
from studies.retraining.causes import run_causes
from studies.retraining.changes import Change
from studies.retraining.config import MAIN, Config, Regime
from studies.retraining.halves import run_halves
from studies.retraining.measures import agreement, noise_floor, short, trained_products
from studies.study import Cell, Context
from studies.training import Trained

Rows = list[dict[str, Any]]
SHOWN = 8


def cells(config: Config) -> list[Cell]:
    """The study's independent pieces; networks that several need are trained by the first and kept in the cache."""
    cells = []
    for index, regime in enumerate(config.regimes):
        shared = {"regime": index}
        cells.append(Cell(f"{regime.name}-model", shared | {"part": "model"}))
        for change in regime.changes:
            safe = change.replace(":", "=").replace("@", "-")
            cells.append(Cell(f"{regime.name}-{safe}", shared | {"part": "change", "change": change}))
        if regime.causes:
            cells.append(Cell(f"{regime.name}-causes", shared | {"part": "causes"}))
        if regime.halves:
            cells.append(Cell(f"{regime.name}-halves", shared | {"part": "halves"}))
    return cells


def run_cell(cell: Cell, context: Context) -> Rows:
    """Rows of one cell; of data that are optional and not on this machine, one row that says so."""
    regime: Regime = context.config.regimes[cell.parameters["regime"]]
    if regime.images != synthetic.NAME and not data.available(regime.images):
        return [{"kind": "skipped", "regime": regime.name, "reason": _reason(regime.images)}]
    bench = Bench(regime, context)
    part = cell.parameters["part"]
    if part == "model":
        return [_model(bench)]
    if part == "halves":
        return run_halves(bench)
    if part == "causes":
        return run_causes(bench)
    predictors.optimal_transport()  # what is missing is said before an hour of training
    return run_change(bench, bench.change(cell.parameters["change"]))


def _reason(images: str) -> str:
    try:
        data.load(images)
    except (ImportError, FileNotFoundError) as error:
        return str(error)
    return ""


def _model(bench: Bench) -> dict[str, Any]:
    """Denoising losses of the base networks and, on the same draws, of a Gaussian and of the kernel density."""
    train, held_out = bench.split
    networks = [t.network.to(bench.context.device) for t in bench.base]
    laws: dict[str, GaussianAnchor | Points] = {
        "gaussian": bench.anchor,
        "kernel": Points(train.images, bandwidth=bench.bandwidth),
    }
    shown, other = (spread(part.images, LOSS_IMAGES) for part in (train, held_out))
    losses = np.array([[bench.loss(n, images) for images in (shown, other)] for n in networks])
    return {
        "kind": "model",
        "regime": bench.regime.name,
        "count": len(train),
        "train_loss": float(losses[:, 0].mean()),
        "held_out_loss": float(losses[:, 1].mean()),
        **{f"{name}_loss": bench.loss(LawDenoiser(law, networks[0].scale), other) for name, law in laws.items()},
        "bandwidth": bench.bandwidth,
        "pixels": train.images[0].numel(),
        "samples": short(bench.samples(bench.base[:1])[0][:SHOWN].ravel(), 2),
        "data": short(spread(train.images, SHOWN).cpu().numpy().ravel(), 2),
    }


LOSS_IMAGES = 500


def spread(images: Tensor, count: int) -> Tensor:
    """So many images at even distances: some data sets are sorted by class.

    Example:
        >>> spread(torch.arange(10.0), 4).tolist()
        [0.0, 3.0, 6.0, 9.0]
    """
    return images[torch.linspace(0, len(images) - 1, min(count, len(images))).round().long()]


def run_change(bench: Bench, change: Change) -> Rows:
    """All comparisons of one change."""
    compared = change.name in bench.regime.compared
    base = bench.samples(bench.base[: bench.regime.pairs_of(change.name)])
    predictions, errors = _predictions(bench, change, base, compared)
    networks = bench.scratch(change)
    changed = bench.samples(networks)
    informed = {"transport": _transport(bench, base, networks)} if compared else {}
    rows = _against("scratch", bench, change, changed - base, predictions | informed)
    if compared:
        networks, control = bench.tuned(change), bench.samples(bench.tuned(None))
        informed = {"transport": _transport(bench, control, networks)}
        rows += _against("finetune", bench, change, bench.samples(networks) - control, predictions | informed)
    if not bench.regime.varied:
        rows += _shown(bench, change, base, predictions, changed)
    shared = {"regime": bench.regime.name, "change": change.name}
    return rows + [shared | {"kind": "formula", "sigma": s, "error": e} for s, e in errors]


def _predictions(
    bench: Bench, change: Change, base: np.ndarray, compared: bool
) -> tuple[dict[str, np.ndarray], list[tuple[float, float]]]:
    """Predicted changes (n, pixels) by name, and the standard errors of the density formula where it was used."""
    names = list(bench.regime.changes)
    changes, index = [bench.change(name) for name in names], names.index(change.name)
    exact = predictors.use_exact(bench)
    each = np.stack([predictors.linear(bench, t, changes, exact=exact)[index] for t in bench.base[: len(base)]])
    predictions = {"flow": each.mean(0), "one network": each[0]}
    predictions["shuffled"] = np.roll(predictions["flow"], 1, axis=0)
    if bench.regime.varied:
        return predictions, []
    predictions["zero"] = np.zeros_like(predictions["flow"])
    predictions["mean"] = np.broadcast_to(
        predictions["flow"].mean(axis=0), predictions["flow"].shape
    )  # one direction for all latents
    predictions["nearest"] = np.mean([predictors.nearest(x, change) for x in base], axis=0)
    gated = [predictors.finite(bench, t, change, x) for t, x in zip(bench.base, base, strict=False)]
    if gated[0] is not None:
        predictions["finite"] = np.mean(np.stack([g for g in gated if g is not None]), axis=0)
    if not compared:
        return predictions, []
    others, errors = _others(bench, change)
    return predictions | others, errors


def _others(bench: Bench, change: Change) -> tuple[dict[str, np.ndarray], list[tuple[float, float]]]:
    ratios = {"kernel": predictors.kernel(bench, change), "classifier": predictors.classifier(bench, change)}
    means = {
        name: np.mean([predictors.by_ratio(bench, t, change, ratio) for t in bench.base], axis=0)
        for name, ratio in ratios.items()
    }
    if predictors.use_exact(bench):
        random = [predictors.linear(bench, t, [change], exact=False)[0] for t in bench.base]
        means["probes"] = np.mean(random, axis=0)
    known = predictors.population(bench, change)
    if known is not None:
        means["population"] = known
    errors: list[tuple[float, float]] = []
    if bench.regime.causes and bench.context.config.formula:
        formula = predictors.FormulaRatio(bench, bench.base[0], change)
        means["formula"] = predictors.by_ratio(bench, bench.base[0], change, formula)
        errors = formula.errors
    return means | {"empirical": predictors.empirical(bench, change)}, errors


def _transport(bench: Bench, base: np.ndarray, networks: list[Trained]) -> np.ndarray:
    """Optimal transport from base samples to samples of the retrained networks, from other latents than the truth's."""
    targets = bench.samples(networks, bench.others)
    return np.mean([predictors.transport(x, y) for x, y in zip(base, targets, strict=True)], axis=0)


def _against(truth: str, bench: Bench, change: Change, changes: np.ndarray, predictions: dict[str, np.ndarray]) -> Rows:
    """Rows of every predictor against the mean change of P pairs, and against that of the first pair alone."""
    shared = {"regime": bench.regime.name, "change": change.name, "eta": change.eta, "truth": truth}
    floor = {"kind": "floor", "pairs": len(changes)} | noise_floor(changes)
    rows: Rows = [shared | floor | trained_products(predictions["flow"], changes)]
    for name, predicted in predictions.items():
        row = shared | {"kind": "agreement", "predictor": name}
        rows.append(row | {"pairs": len(changes)} | agreement(predicted, changes.mean(0)))
    first = agreement(predictions["one network"], changes[0])
    return [*rows, shared | {"kind": "agreement", "predictor": "one network", "pairs": 1} | first]


def _shown(
    bench: Bench, change: Change, base: np.ndarray, predictions: dict[str, np.ndarray], changed: np.ndarray
) -> Rows:
    """Pixels of the first latents, for pictures; the sample before and after is that of the first pair."""
    if change.name not in PICTURED:
        return []
    shared = {"kind": "shown", "regime": bench.regime.name, "change": change.name}
    actual = (changed - base).mean(0)
    return [
        shared
        | {
            "latent": k,
            "sample": short(base[0, k], 2),
            "after": short(changed[0, k], 2),
            "predicted": short(predictions["flow"][k]),
            "actual": short(actual[k]),
        }
        for k in range(min(SHOWN, base.shape[1]))
    ]


PICTURED = (MAIN, "drop-class:3", "blur-class:3@0.5", "add-image:0@0.1")
