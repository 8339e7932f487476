"""Figures of the study."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies.figures import colour, described, figure
from studies.retraining.claims import correlations
from studies.retraining.config import MAIN, Config, Regime

ORDER = (
    "flow",
    "probes",
    "finite",
    "kernel",
    "classifier",
    "one network",
    "empirical",
    "transport",
    "nearest",
    "shuffled",
)
SHOWN = 6


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    """By name: predictors of each regime, images, classes and masses, influential images."""
    found: dict[str, Figure] = {}
    for regime in config.regimes:
        own = rows[rows.regime == regime.name]
        if MAIN in regime.compared:
            found[f"{regime.name}-predictors"] = predictors(own, regime)
        found[f"{regime.name}-images"] = images(own, regime)
        if len(regime.changes) > 1:
            found[f"{regime.name}-changes"] = changes(own, regime)
        if regime.halves:
            found[f"{regime.name}-influential"] = influential(own, regime)
    return found


def predictors(rows: pd.DataFrame, regime: Regime) -> Figure:
    """Correlations per latent of every predictor, scratch and fine-tuning, with the ceiling."""
    drawing, axes = figure(1, 2, panel=(4.2, 3.6))
    for axis, truth in zip(axes, ("scratch", "finetune"), strict=True):
        known = set(rows[(rows.kind == "agreement") & (rows.truth == truth)].predictor)
        names = [name for name in ORDER if name in known][::-1]
        values = [correlations(rows, name, truth) for name in names]
        axis.boxplot(
            values, orientation="horizontal", tick_labels=names, showfliers=False, medianprops={"color": colour(1)}
        )
        floor = rows[(rows.kind == "floor") & (rows.change == MAIN) & (rows.truth == truth)].iloc[0]
        axis.axvline(floor.ceiling, color=colour(2), linestyle="--", label=f"ceiling, {int(floor.pairs)} pairs")
        axis.axvline(0, color="0.6", linewidth=0.6)
        axis.set(xlabel="correlation over pixels", xlim=(-0.75, 1.02), title=f"{truth}, class 3 at η = .1")
        axis.legend(fontsize=7, loc="lower left")
    return described(
        drawing,
        f"{regime.name}: box plots over latents of the correlation between predicted and actual change, one box a "
        "predictor, retraining from scratch on the left and fine-tuning on the right; a dashed line marks the ceiling "
        "set by seed noise.",
    )


def images(rows: pd.DataFrame, regime: Regime) -> Figure:
    """Sample, predicted change and actual change of the first latents."""
    change = MAIN if MAIN in regime.changes else regime.changes[0]
    shown = rows[(rows.kind == "shown") & (rows.change == change)].sort_values("latent").head(SHOWN)
    drawing, axes = figure(3, len(shown), panel=(1.1, 1.15))
    grid = axes.reshape(3, len(shown))
    for column, (_, row) in enumerate(shown.iterrows()):
        parts = [np.asarray(row[name]) for name in ("sample", "predicted", "actual")]
        side = round(len(parts[0]) ** 0.5)
        for line, part in enumerate(parts):
            limit = 1.0 if line == 0 else float(np.abs(part).max()) or 1.0
            axis = grid[line, column]
            axis.imshow(part.reshape(side, side), cmap="gray" if line == 0 else "RdBu_r", vmin=-limit, vmax=limit)
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            if column == 0:
                axis.set_ylabel(("sample", "predicted", "retrained")[line], fontsize=8)
    return described(
        drawing,
        f"{regime.name}, {change}: samples (top), predicted change (middle) and mean change of retrained networks "
        f"(bottom) of the first {len(shown)} latents; red is more ink, each picture of a change on its own scale.",
    )


def changes(rows: pd.DataFrame, regime: Regime) -> Figure:
    """Median correlation and ceiling of every change."""
    drawing, axes = figure(1, 1, panel=(7.0, 3.6))
    names = list(regime.changes)
    medians = [np.median(correlations(rows, "flow", "scratch", name)) for name in names]
    floors = rows[(rows.kind == "floor") & (rows.truth == "scratch")].set_index("change").ceiling
    position = np.arange(len(names))
    axes[0].plot(position, medians, "o", color=colour(0), label="flow, median over latents")
    axes[0].plot(
        position,
        [floors[name] for name in names],
        "_",
        markersize=14,
        color=colour(2),
        label="ceiling of the noise floor",
    )
    axes[0].set_xticks(position, names, rotation=60, ha="right", fontsize=7)
    axes[0].set(ylabel="correlation over pixels", ylim=(min(0.0, *medians) - 0.05, 1.02))
    axes[0].legend(fontsize=7)
    return described(
        drawing,
        f"{regime.name}: median correlation of predicted with retrained change for each change of the data, "
        "and its ceiling.",
    )


def influential(rows: pd.DataFrame, regime: Regime) -> Figure:
    """The first samples with the training images of largest and smallest influence on their ink."""
    shown = rows[rows.kind == "influential"].sort_values("latent")
    count = len(shown.iloc[0].influence)
    drawing, axes = figure(len(shown), count + 1, panel=(0.95, 1.1))
    grid = axes.reshape(len(shown), count + 1)
    for line, (_, row) in enumerate(shown.iterrows()):
        pixels = np.asarray(row["images"]).reshape(count, -1)
        side = round(pixels.shape[1] ** 0.5)
        titles = ["sample", *[f"{v:+.2f}" for v in row.influence]]
        for axis, picture, title in zip(grid[line], [np.asarray(row["sample"]), *pixels], titles, strict=True):
            axis.imshow(picture.reshape(side, side), cmap="gray", vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.set_title(title, fontsize=7)
            axis.grid(False)
    return described(
        drawing,
        f"{regime.name}: each row a sample and the training images that raise (left four) and lower (right four) its "
        "ink most, with dφ/dη above each.",
    )
