"""Training length: how errors and the loss move from rung to rung, and what the held-out error is made of."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies.figures import colour, described, legend_below, panels
from studies.selective_underfitting.config import SHORT, Config
from studies.selective_underfitting.pictures import MARKS, PANEL

Rows = pd.DataFrame
RATIOS = (0.1, 0.2, 0.5, 1, 2)
LENGTHS = (*SHORT, "base")
SETS = {"inside": "inside", "heldout": "held-out", "trajectory": "trajectory", "own": "own trajectory"}


def excesses(rows: Rows, config: Config) -> pd.DataFrame:
    """One line a rung: steps, the loss, its optimum and the excess on the training set, the held-out loss, memorised
    share of the samples; means over seeds."""
    selected = rows[(rows.kind == "network") & rows.seed.notna()].copy()
    selected["memorised"] = [share[2] for share in selected.memorised]
    columns = ["steps", "loss", "optimum", "excess", "held_out_loss", "memorised", "energy"]
    means = selected.groupby(["ladder", "rung"], sort=False)[columns].mean()
    order = [(ladder.name, rung.name) for ladder in config.ladders for rung in ladder.rungs()]
    return means.loc[[key for key in order if key in means.index]].reset_index()


def lengths(rows: Rows, config: Config) -> Figure:
    """Errors and excess loss against the steps, relative to those of the shortest training."""
    drawing, axes, _ = panels(len(config.ladders), panel=PANEL)
    table = excesses(rows, config)
    for axis, ladder in zip(axes, config.ladders, strict=False):
        levels = rows[(rows.ladder == ladder.name) & (rows.kind == "level") & (rows.sigma <= config.low)]
        for index, (column, label) in enumerate(SETS.items()):
            steps, values = curve(levels, f"{column}_empirical")
            axis.loglog(steps, values, marker=MARKS[index], markersize=4, color=colour(index), label=label)
        selected = table[(table.ladder == ladder.name) & table.rung.isin(LENGTHS)].sort_values("steps")
        axis.loglog(selected.steps, selected.excess / selected.excess.iloc[0], "k--", marker=".", label="excess loss")
        axis.axhline(1, color="0.6", linewidth=0.6)
        axis.set_xticks(selected.steps, [f"{int(steps)}" for steps in selected.steps])
        axis.set_yticks(RATIOS, [f"{ratio:g}" for ratio in RATIOS])
        axis.set_xticks([], minor=True)
        axis.set_yticks([], minor=True)
        axis.set(xlabel="steps", ylim=(0.1, 2.0))
        axis.set_title(ladder.name, fontsize=9)
    axes[0].set_ylabel("error, relative to the shortest")
    legend_below(drawing, columns=5)
    return described(
        drawing,
        "Errors to the empirical score at the low noise levels against training steps, relative to the shortest "
        "training (geometric mean over levels and seeds), one panel a ladder; dashed the excess loss (mean over "
        "seeds), relative to the shortest likewise; the grey line is no change.",
    )


def curve(levels: Rows, column: str) -> tuple[list[float], list[float]]:
    """Steps, and the geometric mean over levels and seeds of the error over that of the shortest training."""
    levels = levels[levels.rung.isin(LENGTHS)]
    logs = np.log(levels.set_index(["rung", "seed", "sigma"])[column].astype(float))
    first = logs["shorter"]
    steps = [float(levels[levels.rung == rung].steps.iloc[0]) for rung in LENGTHS]
    order = np.argsort(steps)
    values = [float(np.exp((logs[rung] - first).mean())) for rung in LENGTHS]
    return [steps[k] for k in order], [values[k] for k in order]


def held_out_parts(rows: Rows, config: Config) -> Figure:
    """What the held-out error's change is made of, by level: the network's own error, and its pull."""
    drawing, axes, _ = panels(len(config.ladders), panel=PANEL)
    for axis, ladder in zip(axes, config.ladders, strict=False):
        split = parts_of(rows[rows.ladder == ladder.name], config)
        places = np.arange(len(split))
        axis.bar(places - 0.2, split.own, 0.38, color=colour(0), label="own error")
        axis.bar(places + 0.2, split.pull, 0.38, color=colour(1), label="pull")
        axis.plot(places, split.own + split.pull, "kD", markersize=4, label="both")
        axis.axhline(0, color="0.4", linewidth=0.8)
        axis.set_xticks(places, [f"{sigma:g}" for sigma in split.index])
        axis.set(xlabel="σ")
        axis.set_title(ladder.name, fontsize=9)
    axes[0].set_ylabel("change / error of the shortest")
    legend_below(drawing, columns=5)
    return described(
        drawing,
        "Change of the held-out error to the empirical score from the shortest to the longest training, over the "
        "error of the shortest, by noise level: the part from the network's own denoising error and the part from its "
        "pull toward the empirical denoiser.",
    )


def parts_of(rows: Rows, config: Config) -> pd.DataFrame:
    """By low level, descending: changes `own` and `pull` = −2 gap Δpull, over the error of the shortest training."""
    levels = rows[(rows.kind == "level") & (rows.sigma <= config.low) & rows.rung.isin(("base", "shorter"))]
    means = levels.groupby(["rung", "sigma"])[["heldout_own", "heldout_gap", "heldout_pull"]].mean()
    base, start = means.loc["base"], means.loc["shorter"]
    error = start.heldout_own + start.heldout_gap * (1 - 2 * start.heldout_pull)
    by_itself = (base.heldout_own - start.heldout_own) / error
    pull = -2 * start.heldout_gap * (base.heldout_pull - start.heldout_pull) / error
    return pd.DataFrame({"own": by_itself, "pull": pull}).dropna().sort_index(ascending=False)
