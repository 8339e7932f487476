"""Figures: outcomes against predictions with intervals, ranks and costs, a sample without its group, planted groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from studies.figures import colour, described, figure, image_strip, legend_below, listed, panels, spans
from studies.groups.config import Config
from studies.groups.reading import Pool, of, precision_at_top, rank, regimes

SHOWN = 4  # latents of a picture
WIDTH = "half of the interval"


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    """`coverage`, `ranks`, `planted` and a picture of each data set."""
    drawings = {"coverage": _coverage(rows, config), "ranks": _ranks(rows)}
    for regime in dict.fromkeys(of(rows, kind="picture").regime):
        drawings[f"without-{regime}"] = _pictures(rows, regime)
    if len(of(rows, kind="planted")):
        drawings["planted"] = _planted(rows)
    return drawings


def _coverage(rows: pd.DataFrame, config: Config) -> Figure:
    """Ink of one latent in each group outside the calibration: predicted with interval, and retrained."""
    names = regimes(rows)
    drawing, axes, _ = panels(len(names), panel=(2.9, 2.7))
    words = []
    for axis, regime in zip(axes, names, strict=True):
        pool = Pool.of(rows, regime, "real")
        some, others = np.arange(config.calibration), np.arange(config.calibration, len(pool))
        if not len(others):
            continue
        calibration = pool.rows(some)
        low, high = (each[:, 0].numpy() for each in calibration.interval(pool.predicted[others], pool.stretch[others]))
        place, actual = np.arange(len(others)), pool.retrained[others, 0].numpy()
        axis.vlines(place, low, high, color=colour(0), linewidth=4, alpha=0.35, label="90 % interval")
        axis.plot(place, pool.predicted[others, 0], "_", color=colour(0), markersize=7, label="predicted")
        axis.plot(place, actual, "o", color=colour(1), markersize=3.5, label="retrained")
        axis.set_title(regime)
        axis.set_xlabel("group outside the calibration")
        words.append(f"{regime} {int(((low <= actual) & (actual <= high)).sum())} of {len(others)}")
    axes[0].set_ylabel("ink of the first sample")
    legend_below(drawing)
    return described(drawing, f"Ink of one sample without each group, inside its interval: {', '.join(words)}.")


def _ranks(rows: pd.DataFrame) -> Figure:
    """Rank correlation and cost of every predictor."""
    methods = of(rows, kind="method")
    names, sets = list(dict.fromkeys(methods.method)), list(dict.fromkeys(methods.regime))
    drawing, axes = figure(1, 2, panel=(4.6, 0.9 + 0.33 * len(names)))
    values: dict[str, list[float]] = {}
    for k, regime in enumerate(sets):
        model = of(rows, kind="model", regime=regime).iloc[0]
        for _, row in of(methods, regime=regime).iterrows():
            place = names.index(row.method) + 0.12 * (k - (len(sets) - 1) / 2)
            score = rank(row)
            label = regime if row.method == names[0] else None
            axes[0].plot(score.interval, [place, place], color=colour(k), linewidth=1)
            axes[0].plot(score.value, place, "osD^v"[k % 5], color=colour(k), markersize=3.5, label=label)
            cost = row.seconds / model.retraining_seconds
            if cost > 0:
                axes[1].plot(cost, place, "osD^v"[k % 5], color=colour(k), markersize=3.5)
            values.setdefault(row.method, []).append(score.value)
    for axis in axes:
        listed(axis, names, named=axis is axes[0])
    axes[0].axvline(0.0, color="black", linewidth=0.8)
    axes[0].set_xlabel("rank correlation over groups with retraining")
    legend_below(drawing)
    axes[1].set_xscale("log")
    axes[1].set_xticks([0.03, 0.1, 0.3, 1, 3], ["0.03", "0.1", "0.3", "1", "3"])
    axes[1].minorticks_off()
    axes[1].axvline(1.0, color="0.45", linewidth=0.8)
    axes[1].set_xlabel("processor time over that of retraining")
    return described(
        drawing,
        "Left: rank correlation over groups of predicted with retrained class shares, mean over classes, with 95 % "
        "jackknife intervals over groups, a colour and marker for each data set. Right: processor time of each "
        "prediction over that of retraining, logarithmic; the grey line is the time of retraining, and what costs "
        f"nothing has no mark. Rank correlations, lowest to highest over data sets: {spans(values)}.",
    )


def _pictures(rows: pd.DataFrame, regime: str) -> Figure:
    """Samples, the same latents without a group as predicted and as retrained, the interval as a map."""
    pictures = of(rows, kind="picture", regime=regime)
    columns: dict[str, ArrayLike] = {}
    for _, row in pictures.iterrows():
        pixels = np.asarray(row.pixels, dtype=float)
        side = round((len(pixels) / SHOWN) ** 0.5)
        name = row.part
        if name == WIDTH:  # from black, none, to white, the widest
            name, pixels = f"{WIDTH},\nwhite {pixels.max():.2g}", 2 * pixels / pixels.max() - 1
        columns[name] = pixels.reshape(SHOWN, side, side)
    drawing = image_strip(columns)
    group = pictures.iloc[0].group
    listed = ", ".join(name.replace("\n", " ") for name in columns)
    return described(drawing, f"{regime}, without {group}: {listed}; one row for each, one column a latent.")


def _planted(rows: pd.DataFrame) -> Figure:
    kinds = list(dict.fromkeys(of(rows, kind="planted").plant))
    drawing, axes = figure(1, 2, panel=(3.6, 2.6))
    for k, how in enumerate(("harm", "training loss")):
        precisions = [precision_at_top(rows, kind, how) for kind in kinds]
        place = np.arange(len(kinds)) + 0.2 * (k - 0.5)
        axes[0].plot(place, [each.estimate for each in precisions], "os"[k], color=colour(k), label=how)
    axes[0].axhline(3 / 20, color="0.45", linewidth=0.8, linestyle=":", label="chance")
    axes[0].set_xticks(range(len(kinds)), kinds, fontsize=7)
    axes[0].set_ylabel("precision among the first three")
    axes[0].legend(frameon=False, fontsize=7)
    for k, kind in enumerate(kinds):
        row = of(rows, kind="planted", plant=kind, method="harm").iloc[0]
        values, which = np.asarray(row["values"], dtype=float), np.asarray(row.planted, dtype=bool)
        axes[1].plot(np.full((~which).sum(), k), values[~which], "o", color="0.6", markersize=3)
        axes[1].plot(np.full(which.sum(), k), values[which], "D", color=colour(1), markersize=4)
    axes[1].set_xticks(range(len(kinds)), kinds, fontsize=7)
    axes[1].set_ylabel("harm of each group, first draw")
    words = "; ".join(f"{kind} {precision_at_top(rows, kind, 'harm').estimate:.2f}" for kind in kinds)
    return described(
        drawing, f"Precision of the first three groups by harm: {words}. Planted groups are diamonds, others grey."
    )
