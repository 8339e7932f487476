"""Figures of the study."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies.figures import COLOURS, colour, described, figure, legend_below, panels
from studies.selective_underfitting.config import RUNGS, Config
from studies.selective_underfitting.lengths import held_out_parts, lengths
from studies.selective_underfitting.memorisation import THRESHOLDS
from studies.selective_underfitting.pictures import MARKS, PANEL, features, guidance, images, perception, pictured
from studies.selective_underfitting.summaries import AT, memorised_counts, networks
from studies.statistics import share_of_units

SETS = {
    "inside": "training states",
    "heldout": "held-out states",
    "trajectory": "trajectories",
    "memoriser": "memoriser",
}
COLUMNS = {"inside": "inside", "heldout": "held-out", "trajectory": "trajectory", "own": "own trajectory"}
TICKS = (1, 2, 4, 8)
Rows = pd.DataFrame


def figures(rows: Rows, config: Config) -> dict[str, Figure]:
    """By name: deviation, errors, return, freedom, thresholds, guidance, exact toys, quality, images."""
    figures = {
        "deviation": deviation(rows),
        "errors": errors(rows, config),
        "lengths": lengths(rows, config),
        "parts": held_out_parts(rows, config),
        "levels": by_level(rows, config),
        "return": returning(rows, config),
        "freedom": freedom(rows, config),
        "thresholds": thresholds(rows, config),
        "guidance": guidance(rows),
        "features": features(rows),
        "perception": perception(rows),
        "quality": quality(rows),
    }
    return figures | {f"images-{name}": images(rows, name) for name in pictured(rows)}


def deviation(rows: Rows) -> Figure:
    """r⋆ against σ for every problem and kind of state."""
    selected = rows[rows.kind == "deviation"].drop_duplicates(["data", "states", "sigma"])
    names = list(selected.data.unique())
    drawing, axes, _ = panels(len(names), panel=PANEL)
    for axis, name in zip(axes, names, strict=False):
        for index, (states, label) in enumerate(SETS.items()):
            part = selected[(selected.data == name) & (selected.states == states)].sort_values("sigma")
            middle = [float(np.median(v)) for v in part.deviation]
            axis.loglog(part.sigma, middle, marker=MARKS[index], markersize=4, color=colour(index), label=label)
        axis.axhline(1, color="0.6", linewidth=0.6)
        axis.invert_xaxis()
        axis.set_yticks(TICKS, [f"{tick}" for tick in TICKS])
        axis.set_yticks([], minor=True)
        axis.set(xlabel="σ", ylim=(0.85, 12))
        axis.set_title(name, fontsize=9)
    axes[0].set_ylabel("median r⋆")
    legend_below(drawing)
    return described(
        drawing,
        "Median radius ratio r⋆ against noise level, falling to the right, one panel a problem: training states stay "
        "at one; sampling trajectories and held-out states rise as the noise falls.",
    )


def errors(rows: Rows, config: Config) -> Figure:
    """Change of the log errors from each smaller rung to the base, by kind of state."""
    drawing, axes, _ = panels(len(config.ladders), panel=PANEL)
    for axis, ladder in zip(axes, config.ladders, strict=False):
        selected = rows[(rows.ladder == ladder.name) & (rows.kind == "level") & (rows.sigma <= config.low)]
        selected = selected[selected.rung.isin(RUNGS)]
        smaller = [rung for rung in RUNGS if rung != "base" and rung in set(selected.rung)]
        for index, (column, label) in enumerate(COLUMNS.items()):
            logs = np.log(selected.set_index(["rung", "seed", "sigma"])[f"{column}_empirical"].astype(float))
            for place, rung in enumerate(smaller):
                change = np.asarray((logs["base"] - logs[rung]).groupby("seed").mean(), dtype=float)
                spots = np.full(len(change), place + 0.18 * (index - 1.5))
                shown = label if place == 0 else None
                axis.plot(spots, change, MARKS[index], markersize=5, color=colour(index), label=shown)
        axis.axhline(0, color="0.4", linewidth=0.8)
        axis.set_xticks(range(len(smaller)), smaller, rotation=30)
        axis.set_title(ladder.name, fontsize=9)
    axes[0].set_ylabel("log error, base − rung")
    legend_below(drawing)
    return described(
        drawing,
        "Change of the logarithm of the error to the empirical score from each smaller network to the base network, on "
        "four kinds of states, one point a seed, one panel a ladder: below zero the base network is closer to "
        "the empirical score.",
    )


def by_level(rows: Rows, config: Config) -> Figure:
    """Errors of the base networks at every level."""
    drawing, axes, _ = panels(len(config.ladders), panel=PANEL)
    for axis, ladder in zip(axes, config.ladders, strict=False):
        selected = rows[(rows.ladder == ladder.name) & (rows.kind == "level")]
        for index, (column, label) in enumerate(COLUMNS.items()):
            for rung, style in (("shorter", ":"), ("base", "-")):
                means = selected[selected.rung == rung].groupby("sigma")[f"{column}_empirical"].mean().dropna()
                axis.loglog(
                    means.index,
                    means,
                    style,
                    marker=MARKS[index],
                    markersize=3,
                    color=colour(index),
                    label=f"{label}, {rung}",
                )
        axis.invert_xaxis()
        axis.set(xlabel="σ")
        axis.set_title(ladder.name, fontsize=9)
    axes[0].set_ylabel("error to the empirical score")
    legend_below(drawing)
    return described(
        drawing,
        "Mean squared error of the predicted noise against that of the empirical score, by noise level: base networks "
        "solid, those stopped after a sixteenth of the steps dotted; outside errors exceed inside errors at low noise.",
    )


def returning(rows: Rows, config: Config) -> Figure:
    """Share of training points that return from σ."""
    drawing, axes = figure(1, 1, panel=(4.6, 3.2))
    for index, ladder in enumerate(config.ladders):
        selected = rows[(rows.ladder == ladder.name) & (rows.kind == "level") & (rows.rung == "base")]
        shares = selected.groupby("sigma").returned.mean()
        again: dict[str, Any] = {"linestyle": "--"} if index >= len(COLOURS) else {}
        look = {"marker": MARKS[index % 7], "markersize": 4, "color": colour(index)} | again
        axes[0].semilogx(shares.index, shares, label=ladder.name, **look)
    control = rows[(rows.rung == "memoriser") & (rows.kind == "level")].groupby("sigma").returned.min()
    axes[0].semilogx(control.index, control, "k:", label="memoriser, least of all ladders")
    axes[0].set(xlabel="σ of the start", ylabel="share returned", ylim=(-0.03, 1.03))
    legend_below(drawing, columns=3)
    return described(
        drawing,
        "Share of training points that the flow takes back to themselves against the noise level of the start, one "
        "line a ladder's base network; dotted the exact memoriser, at each level its least share over all data sets.",
    )


def freedom(rows: Rows, config: Config) -> Figure:
    """Memorised share against |D_region|/|D_score|, and for thickened shells."""
    drawing, axes = figure(1, 2, panel=(3.6, 3.0))
    for index, f in enumerate(config.freedoms):
        variants = [(axes[0], [(r, 1.0) for r in f.ratios], 0), (axes[1], [(1, k) for k in (1.0, *f.thickness)], 1)]
        for axis, regions, key in variants:
            counts = [memorised_counts(rows, f.kind, *region) for region in regions]
            shares = [share_of_units(each.memorised, each.samples) for each in counts]
            x, y = [region[key] for region in regions], [interval.estimate for interval in shares]
            bars = np.clip([[i.estimate - i.low for i in shares], [i.high - i.estimate for i in shares]], 0, None)
            axis.errorbar(x, y, bars, marker=MARKS[index], markersize=4, color=colour(index), label=f.kind, capsize=2)
            axis.set(xscale="log", ylim=(-0.03, 1.03), ylabel="share memorised")
            axis.set_xticks(x, [f"{each:g}" for each in x])
            axis.set_xticks([], minor=True)
    axes[0].axhline(memoriser_share(rows), color="k", linestyle=":", label="memoriser")
    axes[0].set_xlabel("images in D_region over images in D_score")
    axes[1].set_xlabel("thickness of the shells κ")
    legend_below(drawing)
    return described(
        drawing,
        "Share of memorised samples with 95 % intervals over trainings for a U-Net and a transformer: left against the "
        "ratio of D_region to D_score, right against the thickness of the shells. Dotted (left): the exact memoriser.",
    )


def memoriser_share(rows: Rows) -> float:
    """Of the exact empirical score of D_score."""
    selected = rows[(rows.kind == "freedom") & (rows.network == "memoriser")]
    return float(selected.iloc[0].memorised[AT])


def thresholds(rows: Rows, config: Config) -> Figure:
    """Memorised share against the threshold: the verdict's sensitivity."""
    drawing, axes = figure(1, 1, panel=(4.6, 3.2))
    selected = rows[(rows.kind == "freedom") & (rows.thickness == 1.0)]
    for index, f in enumerate(config.freedoms):
        for ratio, style in ((min(f.ratios), ":"), (max(f.ratios), "-")):
            part = selected[(selected.network == f.kind) & (selected.ratio == ratio)]
            shares = np.mean([list(m) for m in part.memorised], axis=0)
            axes[0].semilogx(
                THRESHOLDS, shares, style, marker=MARKS[index], color=colour(index), label=f"{f.kind}, ratio {ratio}"
            )
    real = rows[(rows.kind == "network") & (rows.rung == "held-out") & (rows.problem == "digits")]
    real = real.sort_values("size")
    if len(real):
        axes[0].semilogx(THRESHOLDS, list(real.iloc[0].memorised), "k--", label="real held-out digits")
    axes[0].axvline(THRESHOLDS[AT], color="0.6", linewidth=0.8)
    axes[0].set_xticks(THRESHOLDS, [f"{each:g}" for each in THRESHOLDS])
    axes[0].set_xticks([], minor=True)
    axes[0].set(xlabel="threshold of the calibrated distance", ylabel="share below it", ylim=(-0.03, 1.03))
    axes[0].legend(fontsize=7)
    return described(
        drawing,
        "Share of samples below a threshold of the calibrated distance, for the smallest and largest ratio and for "
        "real held-out digits; a vertical line marks the threshold used.",
    )


def quality(rows: Rows) -> Figure:
    """Energy distance of the samples against loss, inside and outside error, one point a network."""
    table = networks(rows)
    shown = {"loss": "training loss", "inside_empirical": "inside error", "trajectory_empirical": "trajectory error"}
    drawing, axes = figure(1, len(shown), panel=(3.1, 2.9))
    for axis, (column, label) in zip(axes, shown.items(), strict=True):
        for index, (name, part) in enumerate(table.groupby("ladder")):
            axis.loglog(
                part[column],
                part.energy.clip(lower=1e-4),
                MARKS[index % 7],
                markersize=4,
                color=colour(index),
                label=name,
            )
        axis.set(xlabel=label, xscale="linear")
    axes[0].set_ylabel("energy distance to held-out images")
    legend_below(drawing)
    return described(
        drawing,
        "Energy distance between samples and held-out images against training loss, inside error and trajectory error, "
        "one point a network, colours for ladders.",
    )
