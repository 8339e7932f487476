"""What claims and figures both need: changes between networks, shares, differences, rank correlations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from studies.selective_underfitting.config import Ladders
from studies.selective_underfitting.memorisation import THRESHOLD, THRESHOLDS
from studies.statistics import Interval, mean_of_units

AT = THRESHOLDS.index(THRESHOLD)
EMPTY = Interval(float("nan"), float("nan"), float("nan"))


def changes(
    rows: pd.DataFrame, config: Ladders, smaller: tuple[str, ...], column: str, scale: Callable[[Any], Any] = np.log
) -> pd.Series:
    """log error (or another scale) of *base* minus that of the smaller rungs, by rung, seed and low level."""
    levels = rows[(rows.kind == "level") & (rows.sigma <= config.low) & rows.rung.isin(("base", *smaller))]
    levels = scale(levels.set_index(["rung", "seed", "sigma"])[column].astype(float))
    return pd.concat({rung: levels["base"] - levels[rung] for rung in smaller}).dropna()


def over_trainings(values: pd.Series) -> Interval:
    """Mean over seeds of the mean over all else, Student's interval; empty without values.

    Rungs and levels of one seed share initial parameters, data and order: the training is the unit.

    Args:
        values: indexed by seed among others.
    """
    kept = values[np.isfinite(values.to_numpy(dtype=float))]
    return mean_of_units(kept.groupby(level="seed").mean().to_numpy(dtype=float)) if len(kept) else EMPTY


def memorised_counts(rows: pd.DataFrame, kind: str, ratio: int, thickness: float) -> pd.DataFrame:
    """By seed, how many of its samples a network memorised, and how many it has: the training is the unit."""
    selected = rows[(rows.kind == "freedom") & (rows.network == kind) & (rows.ratio == ratio)]
    selected = selected[selected.thickness == thickness].set_index("seed").sort_index()
    shares = selected.memorised.map(lambda m: float(m[AT]))
    return pd.DataFrame({"memorised": shares * selected.samples, "samples": selected.samples})


def networks(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a network trained on the most images: its quality, and geometric means of its errors over the levels."""
    keys = ["ladder", "rung", "seed"]
    images = rows[rows.problem.isin(["digits", "mnist14"]) & rows.seed.notna()]
    images = images[images["size"] == images.groupby("problem")["size"].transform("max")]
    levels = images[images.kind == "level"]
    columns = ["inside_empirical", "trajectory_empirical", "heldout_empirical", "own_empirical"]
    logs = levels.set_index(keys)[columns].astype(float).apply(np.log)
    errors = logs.groupby(level=keys).mean().apply(np.exp)
    quality_rows = images[images.kind == "network"].set_index(keys)[
        ["energy", "confidence", "loss", "excess", "optimum"]
    ]
    return quality_rows.join(errors).reset_index()


def spearman(x: pd.Series, y: pd.Series) -> Interval:
    """Spearman's correlation with Fisher's interval and the variance 1.06/(n − 3) (Fieller et al. 1957)."""
    kept = x.notna() & y.notna()
    n, value = int(kept.sum()), float("nan")
    if n > 4:
        value = float(stats.spearmanr(x[kept], y[kept]).statistic)
    if not math.isfinite(value):
        return EMPTY
    centre, width = math.atanh(max(-0.999999, min(0.999999, value))), 1.96 * math.sqrt(1.06 / (n - 3))
    return Interval(value, math.tanh(centre - width), math.tanh(centre + width))
