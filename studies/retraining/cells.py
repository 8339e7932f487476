"""Cells: one for each regime's model, one for each change, one for the influence of random halves."""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.retraining import predictors
from studies.retraining.bench import Bench
from studies.retraining.changes import Change
from studies.retraining.config import Config, Regime
from studies.retraining.halves import run_halves
from studies.retraining.measures import agreement, noise_floor
from studies.study import Cell, Context
from studies.training import Trained

Rows = list[dict[str, Any]]
SHOWN = 8


def cells(config: Config) -> list[Cell]:
    """The study's independent pieces; networks that several need are trained by the first and kept in the cache."""
    found = []
    for index, regime in enumerate(config.regimes):
        shared = {"regime": index}
        found.append(Cell(f"{regime.name}-model", shared | {"part": "model"}))
        for change in regime.changes:
            safe = change.replace(":", "=").replace("@", "-")
            found.append(Cell(f"{regime.name}-{safe}", shared | {"part": "change", "change": change}))
        if regime.halves:
            found.append(Cell(f"{regime.name}-halves", shared | {"part": "halves"}))
    return found


def run_cell(cell: Cell, context: Context) -> Rows:
    """Rows of one cell."""
    regime: Regime = context.config.regimes[cell.parameters["regime"]]
    bench = Bench(regime, context)
    if cell.parameters["part"] == "model":
        return [_model(bench)]
    if cell.parameters["part"] == "halves":
        return run_halves(bench)
    return run_change(bench, bench.change(cell.parameters["change"]))


def _model(bench: Bench) -> dict[str, Any]:
    train, held_out = bench.split
    losses = np.array([[bench.loss(t, images.images) for images in (train, held_out)] for t in bench.base])
    return {
        "kind": "model",
        "regime": bench.regime.name,
        "train_loss": float(losses[:, 0].mean()),
        "held_out_loss": float(losses[:, 1].mean()),
        "bandwidth": bench.bandwidth,
        "samples": bench.samples(bench.base[:1])[0][:SHOWN].ravel().tolist(),
    }


def run_change(bench: Bench, change: Change) -> Rows:
    """All comparisons of one change."""
    compared = change.name in bench.regime.compared
    base = bench.samples(bench.base[: bench.regime.pairs_of(change.name)])
    found = _predictions(bench, change, base, compared)
    networks = bench.scratch(change)
    changed = bench.samples(networks)
    informed = {"transport": _transport(bench, base, networks)} if compared else {}
    rows = _against("scratch", bench, change, changed - base, found | informed)
    if compared:
        networks, control = bench.tuned(change), bench.samples(bench.tuned(None))
        informed = {"transport": _transport(bench, control, networks)}
        rows += _against("finetune", bench, change, bench.samples(networks) - control, found | informed)
    return rows + _shown(bench, change, base.mean(0), found, (changed - base).mean(0))


def _predictions(bench: Bench, change: Change, base: np.ndarray, compared: bool) -> dict[str, np.ndarray]:
    """Predicted changes (n, pixels) by name."""
    names = list(bench.regime.changes)
    changes, index = [bench.change(name) for name in names], names.index(change.name)
    exact = predictors.use_exact(bench)
    each = np.stack([predictors.linear(bench, t, changes, exact=exact)[index] for t in bench.base[: len(base)]])
    found = {"flow": each.mean(0), "one network": each[0]}
    found["shuffled"] = np.roll(found["flow"], 1, axis=0)
    found["zero"] = np.zeros_like(found["flow"])
    found["nearest"] = np.mean([predictors.nearest(x, change) for x in base], axis=0)
    gated = [predictors.finite(bench, t, change, x) for t, x in zip(bench.base, base, strict=False)]
    if gated[0] is not None:
        found["finite"] = np.mean(np.stack([g for g in gated if g is not None]), axis=0)
    return found | (_others(bench, change) if compared else {})


def _others(bench: Bench, change: Change) -> dict[str, np.ndarray]:
    ratios = {"kernel": predictors.kernel(bench, change), "classifier": predictors.classifier(bench, change)}
    means = {
        name: np.mean([predictors.by_ratio(bench, t, change, ratio) for t in bench.base], axis=0)
        for name, ratio in ratios.items()
    }
    if predictors.use_exact(bench):
        random = [predictors.linear(bench, t, [change], exact=False)[0] for t in bench.base]
        means["probes"] = np.mean(random, axis=0)
    return means | {"empirical": predictors.empirical(bench, change)}


def _transport(bench: Bench, base: np.ndarray, networks: list[Trained]) -> np.ndarray:
    """Optimal transport from base samples to samples of the retrained networks, from other latents than the truth's."""
    targets = bench.samples(networks, bench.others)
    return np.mean([predictors.transport(x, y) for x, y in zip(base, targets, strict=True)], axis=0)


def _against(truth: str, bench: Bench, change: Change, changes: np.ndarray, found: dict[str, np.ndarray]) -> Rows:
    """Rows of every predictor against the mean change of P pairs, and against that of the first pair alone."""
    shared = {"regime": bench.regime.name, "change": change.name, "eta": change.eta, "truth": truth}
    rows: Rows = [shared | {"kind": "floor", "pairs": len(changes)} | noise_floor(changes)]
    for name, predicted in found.items():
        own = shared | {"kind": "agreement", "predictor": name}
        rows.append(own | {"pairs": len(changes)} | agreement(predicted, changes.mean(0)))
    first = agreement(found["one network"], changes[0])
    return [*rows, shared | {"kind": "agreement", "predictor": "one network", "pairs": 1} | first]


def _shown(bench: Bench, change: Change, base: np.ndarray, found: dict[str, np.ndarray], actual: np.ndarray) -> Rows:
    """Pixels of the first latents, for pictures."""
    shared = {"kind": "shown", "regime": bench.regime.name, "change": change.name}
    return [
        shared
        | {
            "latent": k,
            "sample": base[k].tolist(),
            "predicted": found["flow"][k].tolist(),
            "actual": actual[k].tolist(),
        }
        for k in range(min(SHOWN, len(base)))
    ]
