"""The claims, with thresholds fixed in the protocol: digits, mean change of the pairs, medians over latents."""

from __future__ import annotations

import numpy as np
import pandas as pd

from studies.retraining.config import MAIN, Config
from studies.statistics import median_interval, paired
from studies.study import Claim

PAPER = "arXiv 2509.23092, images (CelebA .46 retrained, .66 fine-tuned: other data, context only)"
SCRATCH, FINETUNE, OF_CEILING = 0.75, 0.85, 0.95
BASELINES = ("zero", "shuffled", "nearest", "empirical", "transport")


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """Every claim, for every regime; thresholds are those of the digits and are applied to all regimes alike."""
    found = []
    for regime in config.regimes:
        own = rows[rows.regime == regime.name]
        if MAIN in regime.compared:
            found += _main(own, regime.name)
        if len([c for c in regime.changes if c.startswith("class")]) > 1:
            found += _every_class(own, regime.name)
        if regime.halves:
            found.append(_influence(own, regime.name))
    return found


def correlations(rows: pd.DataFrame, predictor: str, truth: str, change: str = MAIN) -> np.ndarray:
    """Per-latent correlations of a predictor with the mean change of all pairs, (n,)."""
    chosen = rows[(rows.kind == "agreement") & (rows.predictor == predictor) & (rows.truth == truth)]
    chosen = chosen[chosen.change == change].sort_values("pairs")
    return np.asarray(chosen.iloc[-1].correlation, dtype=float)


def _main(rows: pd.DataFrame, name: str) -> list[Claim]:
    found = [_median(rows, name, "scratch", SCRATCH), _median(rows, name, "finetune", FINETUNE), _ceiling(rows, name)]
    return found + [_beats(rows, name, truth, other) for truth in ("scratch", "finetune") for other in BASELINES]


def _median(rows: pd.DataFrame, name: str, truth: str, threshold: float) -> Claim:
    interval = median_interval(correlations(rows, "flow", truth))
    words = "retraining from scratch" if truth == "scratch" else "fine-tuning"
    return Claim(
        f"{name}: the sensitivity predicts the change of samples under {words} (median correlation over pixels)",
        interval.estimate,
        (interval.low, interval.high),
        f"≥ {threshold}",
        PAPER,
        interval.estimate >= threshold,
    )


def _ceiling(rows: pd.DataFrame, name: str) -> Claim:
    floor = rows[(rows.kind == "floor") & (rows.change == MAIN) & (rows.truth == "scratch")].iloc[0]
    interval = median_interval(correlations(rows, "flow", "scratch"))
    share, limit = interval.estimate / max(floor.ceiling, 1e-9), max(floor.ceiling, 1e-9)
    return Claim(
        f"{name}: the prediction reaches the ceiling that the noise of retraining sets "
        f"({floor.ceiling:.2f} for {int(floor.pairs)} pairs)",
        share,
        (interval.low / limit, interval.high / limit),
        f"≥ {OF_CEILING}",
        "noise floor, Spearman–Brown",
        share >= OF_CEILING,
    )


def _beats(rows: pd.DataFrame, name: str, truth: str, other: str) -> Claim:
    difference = paired(correlations(rows, "flow", truth), correlations(rows, other, truth))
    return Claim(
        f"{name}, {truth}: the sensitivity correlates better than the baseline '{other}' (paired median difference)",
        difference.difference.estimate,
        difference.difference.bounds,
        "> 0",
        "baseline",
        difference.difference.low > 0,
    )


def _every_class(rows: pd.DataFrame, name: str) -> list[Claim]:
    known = rows[rows.kind == "agreement"].change.unique()
    names = sorted(change for change in known if change.startswith("class") and change.endswith("@0.1"))
    medians = np.array([np.median(correlations(rows, "flow", "scratch", change)) for change in names])
    floors = rows[(rows.kind == "floor") & (rows.truth == "scratch")].set_index("change").ceiling
    shares = medians / np.maximum([floors[change] for change in names], 1e-9)
    low = (float(medians.min()), float(medians.max())), (float(shares.min()), float(shares.max()))
    return [
        Claim(
            f"{name}: the same for each of {len(names)} classes (lowest median correlation; range)",
            low[0][0],
            low[0],
            f"≥ {SCRATCH}",
            "all classes, none chosen",
            low[0][0] >= SCRATCH,
        ),
        Claim(
            f"{name}: each class reaches its own ceiling (lowest share; range)",
            low[1][0],
            low[1],
            f"≥ {OF_CEILING}",
            "noise floor, Spearman–Brown; added after first results",
            low[1][0] >= OF_CEILING,
        ),
    ]


def _influence(rows: pd.DataFrame, name: str) -> Claim:
    lds = rows[rows.kind == "lds"].set_index("predictor").lds
    difference = paired(np.asarray(lds["influence"]), np.asarray(lds["empirical"]))
    interval = median_interval(np.asarray(lds["influence"]))
    return Claim(
        f"{name}: influences rank random halves better than the empirical score's (median LDS; paired difference "
        f"{difference.difference.estimate:+.2f})",
        interval.estimate,
        (interval.low, interval.high),
        "paired difference > 0",
        "LDS, arXiv 2303.14186; no tuning",
        difference.difference.low > 0,
    )
