"""Figures of the study `density_formula`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.density_formula.config import Config
from studies.density_formula.estimators import NAMES
from studies.figures import FONT, GREY, MARKERS, colour, described, figure, slopes

SHOWN = [name for name in NAMES if name != "kernel"]  # as many as there are colours


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    """Pictures by name."""
    del config
    return {
        "error-against-cost": error_against_cost(rows),
        "network": network(rows),
        "over-estimate": over_estimate(rows),
        "implications": implications(rows),
        "images": images(rows),
    }


def error_against_cost(rows: pd.DataFrame) -> Figure:
    """One panel for each law."""
    exact: Any = rows[rows.part == "exact"]
    laws = list(exact.groupby(["family", "dimension"], sort=True).groups)
    drawing, axes = figure(-(-len(laws) // 4), min(4, len(laws)), panel=(3.1, 2.9))
    for axis in axes[len(laws) :]:
        axis.set_visible(False)
    for axis, (family, dimension) in zip(axes, laws, strict=False):
        own = exact[(exact.family == family) & (exact.dimension == dimension) & exact.estimator.isin(SHOWN)]
        for name, group in own.groupby("estimator"):
            line = group.sort_values("evaluations")
            slopes(axis, line.evaluations, line.rms.clip(lower=1e-9), label=name, index=SHOWN.index(name))
        axis.set(title=f"{family}, d = {int(dimension)}", xlabel="evaluations a state", ylabel="rms error (nats)")
    handles = {text: line for axis in axes for line, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    names = [name for name in SHOWN if name in handles]
    drawing.legend([handles[n] for n in names], names, loc="outside lower center", ncols=5, fontsize=FONT - 1)
    best = _best(exact)
    return described(
        drawing,
        f"Root mean square error of log p against score evaluations for each estimator, exact scores. At the largest "
        f"budget, where only the formula was run, the least error is that of {best}. The kernel estimate is off the "
        f"scale: see the table.",
    )


def _best(exact: Any) -> str:
    top = exact[exact.budget == exact.budget.max()]
    found = []
    for (family, dimension), group in top.groupby(["family", "dimension"]):
        row = group.loc[group.rms.idxmin()]
        found.append(f"{row.estimator} ({family}, d = {int(dimension)}: {row.rms:.2g})")
    return ", ".join(found)


def network(rows: pd.DataFrame) -> Figure:
    """Errors of a trained network's density: against the truth and against its own flow."""
    own: Any = rows[rows.part == "network"]
    dimensions = sorted(own.dimension.unique())
    drawing, axes = figure(1, len(dimensions), panel=(4.2, 2.9))
    for axis, dimension in zip(axes, dimensions, strict=True):
        part = own[own.dimension == dimension]
        places = np.arange(len(part))
        axis.bar(places - 0.2, part.rms, 0.4, color=colour(0), label="against the exact law")
        axis.bar(places + 0.2, part.own_rms, 0.4, color=colour(1), label="against the network's own flow")
        axis.set(yscale="log", title=f"d = {int(dimension)}", ylabel="rms error (nats)")
        axis.set_ylim(1e-3, None)
        axis.set_xticks(places, list(part.estimator), rotation=40, ha="right")
    axes[0].legend(fontsize=FONT - 2)
    return described(
        drawing,
        "Trained networks on mixtures: rms error of every estimator at one budget against the exact log density and "
        "against the network's own flow with the exact trace.",
    )


def over_estimate(rows: pd.DataFrame) -> Figure:
    """Measured mean excess of −log p against the integral of the score's error."""
    own: Any = rows[rows.part == "excess"]
    drawing, axes = figure(1, 1, panel=(4.6, 3.2))
    axis = axes[0]
    for index, row in enumerate(own.itertuples()):
        axis.errorbar(
            row.theory, row.excess, xerr=1.96 * row.theory_error, yerr=1.96 * row.excess_error, capsize=2,
            color=colour(index), marker=MARKERS[index], markersize=5, linestyle="", label=row.score,
        )  # fmt: skip
    top = 1.15 * max(float(own.theory.max()), float(own.excess.max()), 0.05)
    axis.plot([0, top], [0, top], color=GREY, linewidth=0.8, linestyle=":")
    axis.set(xlabel="½ ∫ E|s_θ − s|² dv (nats)", ylabel="mean of log p − log p̂ (nats)")
    axis.legend(fontsize=FONT - 2)
    return described(
        drawing,
        "Mean over-estimate of −log p by wrong scores against the integrated squared error of the score, with 95 % "
        "intervals: points lie on the diagonal if the identity holds.",
    )


def implications(rows: pd.DataFrame) -> Figure:
    """The four implications, one panel each."""
    drawing, axes = figure(2, 2, panel=(4.2, 3.1))
    _evidence(axes[0], rows[rows.part == "evidence"].sort_values("steps"))
    _classifier(axes[1], rows[rows.part == "classifier-mixtures"])
    _tokens(axes[2], rows[(rows.part == "tokens") & (rows.score == "network")].iloc[0])
    _gradients(axes[3], rows[rows.part == "gradient"])
    return described(
        drawing,
        "Four panels: (a) the evidence bound's slack and the distance of its maximiser from the likelihood's fall with "
        "the number of steps; (b) agreement of diffusion classifiers with Bayes' rule against evaluations; (c) a "
        "sequence's diffusion loss against its negative log-likelihood; (d) cosine of generator gradients with the "
        "likelihood's.",
    )


def _evidence(axis: Axes, own: Any) -> None:
    slopes(axis, own.steps, own.gap, label="|θ(bound) − θ(likelihood)|", order=-1, index=0)
    slopes(axis, own.steps, own.slack, label="log-likelihood − bound", index=1)
    axis.set(title="(a) evidence bound", xlabel="steps N", ylabel="distance; nats")
    axis.legend(fontsize=FONT - 2)


def _classifier(axis: Axes, own: Any) -> None:
    for index, rule in enumerate(("weighted", "unweighted")):
        line = own[own.rule == rule].sort_values("budget")
        axis.semilogx(line.budget, line.agreement, color=colour(index), marker=MARKERS[index], label=rule)
    axis.set(title="(b) classifier on mixtures", xlabel="evaluations a class", ylabel="agreement with Bayes' rule")
    axis.set_ylim(0, 1.02)
    axis.legend(fontsize=FONT - 2, loc="lower right")


def _tokens(axis: Axes, row: Any) -> None:
    axis.plot(
        row.exact, row.weighted, ".", color=colour(0), markersize=4, label=f"weighted, Spearman {row['rank']:.3f}"
    )
    ends = [min(row.exact), max(row.exact)]
    axis.plot(ends, ends, color=GREY, linewidth=0.8, linestyle=":")
    axis.set(title="(c) sequences of 16 tokens", xlabel="−log p (nats)", ylabel="diffusion loss (nats)")
    axis.legend(fontsize=FONT - 2)


def _gradients(axis: Axes, own: Any) -> None:
    names = ("exact", "network", "unweighted, exact", "unweighted")
    rng = np.random.default_rng(0)
    for index, name in enumerate(names):
        values = own[own.score == name].cosine.to_numpy(dtype=float)
        axis.plot(
            index + rng.uniform(-0.15, 0.15, len(values)), values, MARKERS[index], color=colour(index), markersize=4
        )
    labels = ["weighted,\nexact score", "weighted,\nnetwork", "unweighted,\nexact score", "unweighted,\nnetwork"]
    axis.set_xticks(range(4), labels)
    axis.set(title="(d) generator", ylabel="cosine with the likelihood's gradient")


def images(rows: pd.DataFrame) -> Figure:
    """Difference from the reference and bits/dim."""
    own: Any = rows[rows.part == "images"]
    names = list(own.images.unique())
    drawing, axes = figure(1, len(names), panel=(4.2, 2.9))
    for axis, name in zip(axes, names, strict=True):
        part = own[own.images == name]
        axis.bar(range(1, len(part)), part.rms.iloc[1:], color=colour(0))
        axis.set(yscale="log", title=f"{name}: against {part.estimator.iloc[0]}", ylabel="rms difference (nats)")
        axis.set_xticks(range(1, len(part)), list(part.estimator.iloc[1:]), rotation=40, ha="right")
    return described(
        drawing, "Real images: rms difference of every estimator from the reference flow, upright and inverted images."
    )
