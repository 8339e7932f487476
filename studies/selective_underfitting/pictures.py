"""Figures of the small experiments, and pictures of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies.figures import colour, described, figure, image_strip
from studies.selective_underfitting.exact import TOY

MARKS = "osD^vPX"
Rows = pd.DataFrame
PANEL = (2.7, 2.5)  # inches, of one ladder


def guidance(rows: Rows) -> Figure:
    """Gaps of conditional and unconditional denoisers, and accuracy with and without guidance."""
    drawing, axes = figure(1, 2, panel=(3.8, 3.0))
    gaps = rows[rows.kind == "gap"]
    index = 0
    for states, style in (("training", "-"), ("trajectory", "--")):
        for pair in ("learned", "empirical", "seeds"):
            medians = gaps[gaps.states == states].groupby("sigma")[pair].median().clip(lower=1e-8)
            axes[0].loglog(
                medians.index,
                medians,
                style,
                marker=MARKS[index],
                markersize=4,
                color=colour(index % 3),
                label=f"{pair}, {states}",
            )
            index += 1
    levels = sorted(gaps.sigma.unique())
    axes[0].set_xticks(levels, [f"{each:g}" for each in levels])
    axes[0].set_xticks([], minor=True)
    axes[0].invert_xaxis()
    axes[0].set(xlabel="σ", ylabel="median gap (at least 1e-8)")
    axes[0].legend(fontsize=6)
    selected = rows[rows.kind == "guided"].sort_values("label")
    axes[1].plot(selected.label, selected.unguided_accuracy, "o", color=colour(0), label="class network")
    axes[1].plot(selected.label, selected.accuracy, "s", color=colour(1), label="guided, weight 2")
    axes[1].set(xlabel="class", ylabel="accuracy of the samples", ylim=(-0.03, 1.03))
    axes[1].legend(fontsize=7)
    return described(
        drawing,
        "Left: median gap between conditional and unconditional denoisers against noise level, learned, empirical and "
        "between two seeds, on training states and on trajectories. Right: classifier accuracy of samples by class.",
    )


def features(rows: Rows) -> Figure:
    """Inside and outside errors of nested least squares."""
    drawing, axes = figure(1, 1, panel=(4.2, 3.0))
    selected = rows[rows.kind == "features"]
    for index, column in enumerate(("inside", "outside")):
        for seed, part in selected.groupby("seed"):
            part = part.sort_values("size")
            label = column if seed == selected.seed.min() else None
            axes[0].loglog(
                part["size"], part[column], marker=MARKS[index], markersize=4, color=colour(index), label=label
            )
    axes[0].set(xlabel="random features", ylabel="error to the empirical score")
    axes[0].legend(fontsize=7)
    return described(
        drawing,
        "Errors to the empirical score of nested least-squares fits against the number of features, five seeds: the "
        "inside error never rises; the outside error is the median over fresh states.",
    )


def perception(rows: Rows) -> Figure:
    """Ends of the toy's samples."""
    selected = rows[rows.kind == "perception"]
    selected = selected[selected.seed == selected.seed.min()]
    drawing, axes = figure(1, len(selected), panel=(3.2, 2.6))
    for axis, (_, row) in zip(axes, selected.iterrows(), strict=True):
        ends = np.asarray(row.ends).reshape(-1, 2)
        axis.plot(*ends.T, ".", color=colour(0), markersize=4, alpha=0.6)
        axis.plot(*TOY.T, "x", color=colour(1), markersize=8)
        axis.set(xlim=(-1.5, 1.5), ylim=(-1.0, 1.0), xlabel="$x_1$")
        axis.set_title(row.features, fontsize=9)
    axes[0].set_ylabel("$x_2$")
    return described(
        drawing,
        "Samples of the four-point toy (crosses are the data) from least-squares denoisers on plain and on "
        "angle-aligned features, and from the empirical denoiser.",
    )


def pictured(rows: Rows) -> list[str]:
    """Problems with pictures."""
    selected = rows[(rows.kind == "network") & (rows.rung == "base") & rows.shown.notna()]
    return list(selected.problem.unique())


def label(row: pd.Series) -> str:
    """Of a strip of images: the network, or what stands in for it, and the number of training images."""
    return f"{row.network}, N = {int(row['size'])}"


def images(rows: Rows, name: str) -> Figure:
    """Samples of the base networks and of the memoriser."""
    selected = rows[(rows.kind == "network") & (rows.problem == name) & rows.shown.notna()]
    sets: dict[str, Any] = {}
    for _, row in selected.iterrows():
        side = round((len(row.shown) / 8) ** 0.5)
        sets.setdefault(label(row), np.asarray(row.shown).reshape(8, side, side))
    return described(
        image_strip(sets),
        f"{name}: eight samples each of the base networks, of the exact memoriser, and held-out images.",
    )
