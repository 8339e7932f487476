"""The study's figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies.convergence.problems import problem
from studies.convergence.verdicts import select, stacked
from studies.figures import (
    colour,
    described,
    figure,
    image_strip,
    legend_below,
    log_ratio,
    score_field,
    sensitivity_arrows,
    slopes,
    trajectories,
)

EXTENT = (-4.5, 6.8, -6.6, 4.7)  # the longest arrow ends inside
ARROW = r"$\rightarrow$"
LEVELS, SHARE = (1.0, 0.05), 0.3  # noise levels of the fields, and the mass that arrows are drawn for


def figures(rows: pd.DataFrame) -> dict[str, Figure]:
    """All figures by name."""
    return {
        "order": order(rows),
        "fields": fields(rows),
        "log-ratio": ratios(rows),
        "solvers": solvers(rows),
        "robustness": robustness(rows),
        "learned": learned(rows),
        "digits": digits(rows),
        "digits-agreement": agreement(rows),
    }


def order(rows: pd.DataFrame) -> Figure:
    """Part (a): error against η."""
    exact = select(rows, "exact")
    drawing, axes = figure(1, 1, panel=(4.6, 3.4))
    for index, dimension in enumerate(sorted(exact["dimension"].unique())):
        chosen = exact[exact["dimension"] == dimension].sort_values("eta", ascending=False)
        line = {"upper": chosen["q99"], "label": f"d = {dimension:.0f}", "index": index}
        slopes(axes[0], chosen["eta"], chosen["median"], order=1 if index == 0 else None, **line)
    axes[0].set(xlabel="mass moved η", ylabel=r"relative error of $(x_η - x_0)/η$ against δ")
    axes[0].legend(frameon=False, fontsize=8)
    worst = float(exact[exact["eta"] == exact["eta"].min()]["median"].max())
    text = (
        "Median (solid) and 99 % quantile (dashed) of the error of the finite difference quotient against the "
        f"predicted sensitivity, falling in proportion to η in every dimension, to {worst:.0e} at the smallest η; "
        "dotted: slope 1."
    )
    return described(drawing, text)


def fields(rows: pd.DataFrame) -> Figure:
    """Score fields with trajectories and the sensitivities on them, d = 2, at two noise levels."""
    case = problem(2, 1)
    paths = select(rows, "path").sort_values("sigma", ascending=False)
    states = stacked(paths, "states").reshape(len(paths), -1, 2)
    arrows = select(rows, "arrows").sort_values("sigma", ascending=False)
    drawing, axes = figure(1, 3, panel=(3.5, 3.5))
    toward = []
    for axis, level in zip(axes[:2], LEVELS, strict=True):
        score_field(axis, case.base, level, extent=EXTENT)
        trajectories(axis, states, label="paths")
        chosen = arrows[np.isclose(arrows["sigma"], level)].iloc[0]
        points, delta = (np.asarray(chosen[name], dtype=float).reshape(-1, 2) for name in ("states", "arrows"))
        sensitivity_arrows(axis, points, delta, eta=SHARE)
        toward.append(int((((case.toward.weights @ case.toward.means - points) * delta).sum(axis=1) > 0).sum()))
        axis.set_title(f"ρ at σ = {level:g}", fontsize=9)
    score_field(axes[2], case.toward, 0.05, extent=EXTENT)
    axes[2].set_title("ν, toward which mass moves", fontsize=9)
    entries = ((".", colour(1), "states"), (ARROW, colour(1), f"{SHARE:g} δ"), (ARROW, "0.25", "score's direction"))
    for marker, shade, name in entries:
        axes[0].plot([], [], linestyle="", marker=marker, color=shade, markersize=9, label=name)
    legend_below(drawing)
    text = (
        "Density (from blue, low, to yellow; white below 2 % of its top) and direction of the score (grey arrows) of a "
        f"two-dimensional mixture ρ at two noise levels, {len(points)} sampling paths (blue), their states at the "
        f"level (orange dots) and {SHARE:g} times the sensitivity there (orange arrows) when mass moves toward a "
        f"second mixture ν, shown on the right. {toward[0]} and {toward[1]} of the arrows point toward the mean of ν; "
        "the longest, of the path that comes from beyond ν, reaches far past it or away from it."
    )
    return described(drawing, text)


def ratios(rows: pd.DataFrame) -> Figure:
    """log r and its error against σ, d = 10."""
    ratio = select(rows, "ratio")
    drawing, axes = figure(1, 2)
    for index, way in enumerate(ratio["way"].unique()):
        chosen = ratio[ratio["way"] == way].sort_values("sigma", ascending=False)
        log_ratio(
            list(axes), chosen["sigma"], stacked(chosen, "values"), stacked(chosen, "errors"), label=way, index=index
        )
    axes[1].legend(frameon=False, fontsize=7)
    text = (
        "Left: the log-ratio of added to base density along sampling paths, spreading as the noise level falls. "
        "Right: the error of its estimate, accumulated down the path: least with exact trace, most with random "
        "probes. Medians solid; bands 10 to 90 %, 90 % quantiles dashed."
    )
    return described(drawing, text)


def solvers(rows: pd.DataFrame) -> Figure:
    """Error of the sensitivity against the number of steps."""
    chosen = select(rows, "solvers")
    drawing, axes = figure(1, 1, panel=(4.4, 3.2))
    for index, solver in enumerate(chosen["solver"].unique()):
        line = chosen[chosen["solver"] == solver].sort_values("steps")
        slopes(axes[0], line["steps"], line["median"], upper=line["q99"], label=solver, index=index)
    axes[0].set(xlabel="steps", ylabel="relative error of δ")
    axes[0].legend(frameon=False, fontsize=8, loc="lower left")
    text = (
        "Error of the sensitivity against the number of sampler steps: Euler falls at order 1, Heun and the "
        "exponential step at order 2, RK4 at order 4. Medians solid, 99 % quantiles dashed."
    )
    return described(drawing, text)


def robustness(rows: pd.DataFrame) -> Figure:
    """Part (b): errors against η for errors added to log p and to the score, and the noise of probes."""
    errors = select(rows, "errors")
    finite = errors[errors["eta"] > 0]
    drawing, axes = figure(1, 3, panel=(2.9, 2.8))
    for axis, name, other, words in (
        (axes[0], "log_error", "score_error", "log p: sd {:g} nat"),
        (axes[1], "score_error", "log_error", "score: {:g}"),
    ):
        chosen = finite[finite[other] == 0]
        for index, size in enumerate(sorted(chosen[name].unique())):
            line = chosen[chosen[name] == size].sort_values("eta", ascending=False)
            slopes(axis, line["eta"], line["median"], label=words.format(size), index=index)
        axis.set(xlabel="mass moved η", ylabel=r"relative error against $(x_η - x_0)/η$")
        axis.legend(frameon=False, fontsize=7)
    probes = select(rows, "probes").sort_values("probes")
    slopes(axes[2], probes["probes"], probes["rms"], label="rms error of log p (nats)", order=-0.5)
    slopes(axes[2], probes["probes"], probes["median"], label="median relative error of δ", index=1)
    axes[2].set(xlabel="probes a stage", ylabel="error")
    axes[2].legend(frameon=False, fontsize=7)
    text = (
        "Left and middle: errors against η level off at a height set by the error added to the log density or to "
        "the score. Right: the noise of random probes falls as the inverse root of their number."
    )
    return described(drawing, text)


def learned(rows: pd.DataFrame) -> Figure:
    """Part (c): error against training size, the network's own path, agreement with retraining."""
    neural, by_path, retrained = (select(rows, part) for part in ("neural", "own", "retrained"))
    drawing, axes = figure(1, 3, panel=(2.9, 2.8))
    sizes = sorted(neural["size"].unique())
    medians = [float(neural[neural["size"] == n]["median"].median()) for n in sizes]
    scores = [float(np.median([_middle(each) for each in neural[neural["size"] == n]["score_errors"]])) for n in sizes]
    slopes(axes[0], sizes, medians, label="sensitivity")
    slopes(axes[0], sizes, scores, label="score at σ = 0.3", index=1)
    axes[0].set(xlabel="training samples", ylabel="relative error against the oracle")
    for index, size in enumerate(sorted(by_path["size"].unique())):
        line = by_path[by_path["size"] == size].sort_values("eta", ascending=False)
        slopes(
            axes[1], line["eta"], line["median"], label=f"{size:.0f} samples", index=index, order=None if index else 1
        )
    axes[1].set(xlabel="mass moved η", ylabel="error against the network's own path")
    last = retrained[retrained["size"] == retrained["size"].max()].iloc[0]
    _histogram(axes[2], last, ("linear", "shuffled"), ("δ", "δ of another latent"))
    axes[2].set(xlabel="cosine with the retrained change", ylabel="latents")
    for axis in axes:
        axis.legend(frameon=False, fontsize=7)
    text = (
        "Learned scores in ten dimensions: errors against the oracle fall with the training set, the sensitivity "
        "is the derivative of the network's own path, and it points where retrained networks go."
    )
    return described(drawing, text)


def _middle(values: Any) -> float:
    return float(np.asarray(values, dtype=float)[2])


def _histogram(axes: Any, row: pd.Series, names: tuple[str, ...], labels: tuple[str, ...]) -> None:
    bins = np.linspace(-1, 1, 41)
    for index, (name, label) in enumerate(zip(names, labels, strict=True)):
        values = np.asarray(row[name], dtype=float)
        full = f"{label} (median {np.median(values):.2f})"
        axes.hist(
            values,
            bins=bins,
            histtype="stepfilled" if not index else "step",
            color=colour(index),
            alpha=0.8,
            label=full,
        )


def digits(rows: pd.DataFrame) -> Figure:
    """Part (d): sample, sensitivity, predicted and retrained images."""
    shown = select(rows, "shown").sort_values("latent")
    side = int(shown["side"].iloc[0])
    names = ("sample", "sensitivity", "predicted", "retrained")
    pixels = {name: stacked(shown, f"{name}_pixels").reshape(-1, side, side) for name in names}
    pixels["actual change"] = pixels["retrained"] - pixels["sample"]
    order_of_rows = ("sample", "sensitivity", "actual change", "predicted", "retrained")
    drawing = image_strip({name: pixels[name] for name in order_of_rows}, signed=("sensitivity", "actual change"))
    text = (
        "Eight generated digits: the sample, its sensitivity to more mass on one class, the actual change after "
        "retraining, the predicted new sample, and the sample of the retrained network from the same latent. In the "
        "two rows of changes red is brighter, blue darker and white no change, each image on its own scale."
    )
    return described(drawing, text)


def agreement(rows: pd.DataFrame) -> Figure:
    """Part (d): correlations over pixels and sizes of changes."""
    row = select(rows, "images", which="mean").iloc[0]
    drawing, axes = figure(1, 2)
    _histogram(axes[0], row, ("linear", "shuffled"), ("predicted", "of another latent"))
    axes[0].set(xlabel="correlation over pixels with retraining", ylabel="latents", xticks=(-1, -0.5, 0, 0.5, 1))
    axes[0].legend(frameon=False, fontsize=7, loc="upper left")
    predicted, actual = (np.asarray(row[name], dtype=float) for name in ("predicted_size", "actual_size"))
    axes[1].loglog(predicted, actual, "o", color=colour(0), markersize=3)
    both = [min(predicted.min(), actual.min()), max(predicted.max(), actual.max())]
    axes[1].plot(both, both, ":", color="0.45", linewidth=0.8)
    axes[1].set(xlabel="size of the predicted change η|δ|", ylabel="size of the actual change")
    text = (
        "Left: correlation over pixels of predicted and actual change of digits, against the control with another "
        "latent's prediction. Right: size of the actual change, which includes the luck of training, against "
        "that of the predicted one; on the dotted diagonal they are equal."
    )
    return described(drawing, text)
