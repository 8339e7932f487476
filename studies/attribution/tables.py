"""Tables of the study `attribution` for its page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import special

from oracles import flow
from studies.attribution import RETRAINED
from studies.attribution.problem import SIGMA_MAX, SIGMA_MIN, Setup
from studies.statistics import median_interval

__all__ = ["attainable", "concentration", "methods"]

JUDGES = {"truth": "with the true influence", "lds": "with retrained halves (LDS)"}


def methods(rows: pd.DataFrame, law: str) -> pd.DataFrame:
    """One line a method: medians over queries with intervals, the range of the draws' medians, seconds a draw."""
    part = rows[(rows["law"] == law) & (rows["method"] != RETRAINED)]
    lines = []
    for method, group in part.groupby("method", sort=False):
        line = {"method": method}
        for judge, title in JUDGES.items():
            line[title] = _median(group[judge])
            line[f"draws, {judge}"] = _range(group.groupby("draw")[judge].median())
        lines.append(line | {"seconds": f"{group.groupby('draw')['seconds'].first().mean():.1f}"})
    return pd.DataFrame(lines)


def attainable(rows: pd.DataFrame) -> pd.DataFrame:
    """Per law: how well two seeds of the same halves agree, and what their mean could be predicted to at best.

    If two measurements of a quantity correlate by ϱ, nothing can correlate with the mean of both by more than
    `√(2ϱ/(1 + ϱ))` (Spearman–Brown).
    """
    lines = []
    for law, group in rows[rows["method"] == RETRAINED].groupby("law", sort=False):
        agreement = float(group["lds"].median())
        lines.append(
            {"law": law, "two seeds": agreement, "ceiling of the LDS": np.sqrt(2 * agreement / (1 + agreement))}
        )
    return pd.DataFrame(lines)


def concentration(laws: Sequence[str], levels: Sequence[float] = (2.0, 1.0, 0.5, 0.3, SIGMA_MIN)) -> pd.DataFrame:
    """Share of queries (draw 0) for which one training point has 99 % of the weight, by level of the exact flow."""
    lines = []
    for law in laws:
        setup = Setup(law, 200, 32, 100)
        path = flow.trajectory(setup.exact, setup.latents.numpy(), [SIGMA_MAX, *levels], 1e-8)[1:]
        shares = {f"σ = {level:g}": _one_point(setup, x, level) for level, x in zip(levels, path, strict=True)}
        lines.append({"law": law, **shares})
    return pd.DataFrame(lines)


def _one_point(setup: Setup, x: np.ndarray, sigma: float) -> float:
    squares = ((x[:, None] - setup.data.numpy()) ** 2).sum(-1)
    return float((special.softmax(-squares / (2 * sigma**2), axis=1).max(axis=1) > 0.99).mean())


def _median(values: pd.Series) -> str:
    interval = median_interval(values.dropna())
    low, high = interval.bounds
    return f"{interval.estimate:.2f} [{low:.2f}, {high:.2f}]"


def _range(values: pd.Series) -> str:
    return f"{values.min():.2f} to {values.max():.2f}"
