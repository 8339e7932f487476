"""Figures of the study `attribution`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.figures import MARKERS, colour, described, figure, legend_below, listed
from studies.statistics import median_interval

__all__ = ["draw"]

TITLES = {"truth": "rank correlation with the true influence", "lds": "LDS: rank correlation with retrained halves"}


def draw(rows: pd.DataFrame) -> dict[str, Figure]:
    """`correlations`: medians over queries with 95 % intervals, one panel per judge."""
    methods = list(dict.fromkeys(rows["method"]))
    laws = list(dict.fromkeys(rows["law"]))
    drawing, axes = figure(1, 2, panel=(4.6, 0.8 + 0.32 * len(methods)))
    for axis, (judge, title) in zip(axes, TITLES.items(), strict=True):
        for index, law in enumerate(laws):
            _column(axis, rows[rows["law"] == law], methods, judge, index, law)
        axis.axvline(0.0, color="black", linewidth=0.8)
        listed(axis, methods, named=axis is axes[0])
        axis.set_title(title, fontsize=8)
    if len(laws) > 1:
        legend_below(drawing)
    return {"correlations": described(drawing, _words(rows))}


def _column(axis: Axes, part: pd.DataFrame, methods: list[str], judge: str, index: int, law: str) -> None:
    places, middles, errors = [], [], []
    for place, method in enumerate(methods):
        values = part.loc[part["method"] == method, judge].dropna()
        if values.empty:
            continue
        interval = median_interval(values)
        ends = np.clip(np.nan_to_num(interval.bounds, nan=interval.estimate), -1.0, 1.0)  # few queries: no bound
        places.append(place + 0.15 * index)
        middles.append(interval.estimate)
        errors.append([interval.estimate - ends[0], ends[1] - interval.estimate])
    look: dict[str, Any] = {"fmt": MARKERS[index], "color": colour(index), "capsize": 2}
    axis.errorbar(middles, places, xerr=np.array(errors).T, label=f"law: {law}", **look)


def _words(rows: pd.DataFrame) -> str:
    medians = rows.groupby(["method", "law"])["truth"].median().dropna().unstack()
    order = medians.mean(axis=1).sort_values(ascending=False).index
    listed = "; ".join(f"{name} {', '.join(f'{value:.2f}' for value in medians.loc[name])}" for name in order)
    return (
        "Medians over queries with their 95 % intervals, a mark for each law: left, rank correlation with the true "
        "influence; right, of summed values with networks retrained on random halves (LDS), where one seed of the "
        "halves against the other shows what the luck of seeds leaves. Median rank correlations with the true "
        f"influence ({', '.join(medians.columns)}): {listed}."
    )
