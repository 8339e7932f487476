"""Figures of the study `density_formula`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

from studies.density_formula.choice import regimes
from studies.density_formula.claims_implications import band_variances
from studies.density_formula.config import Config
from studies.density_formula.estimators import ESTIMATORS
from studies.figures import (
    FONT,
    GREY,
    MARKERS,
    colour,
    described,
    figure,
    leftmost,
    legend_below,
    listed,
    panels,
    slopes,
)

# the kernel estimate is off the scale beyond d = 2
SHOWN = (
    "published", "flat", "control", "antithetic", "formula", "ito",
    "flow", "hutchinson", "hutchinson, control", "hutch++",
)  # fmt: skip
LEAST, LEAST_NETWORK = 1e-5, 1e-4  # errors that are drawn; smaller ones are drawn there
VARIANT = ", one noise"  # of an estimator: in its colour, dotted
FLOWS = ("flow", "hutchinson", "hutchinson, control", "hutch++")


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    """Pictures by name."""
    del config
    return {
        "error-against-cost": error_against_cost(rows),
        "paths": paths(rows),
        "network": network(rows),
        "over-estimate": over_estimate(rows),
        "implications": implications(rows),
        "tokens": tokens(rows),
    }


def error_against_cost(rows: pd.DataFrame) -> Figure:
    """One panel for each law, network and set of images."""
    every: Any = regimes(rows)
    keys = list(every.groupby(["regime", "dimension"], sort=True).groups)
    drawing, axes, _ = panels(len(keys), panel=(3.0, 2.7))
    for axis, (regime, dimension) in zip(axes, keys, strict=True):
        selected = every[(every.regime == regime) & (every.dimension == dimension)]
        _cost_panel(axis, selected)
        axis.set_title(f"{regime}, d = {int(dimension)}", fontsize=FONT)
    for axis in leftmost(axes):
        axis.set_ylabel("rms error (nats)", fontsize=FONT)
    legend_below(drawing, SHOWN, columns=5)
    return described(
        drawing,
        "Root mean square error of log p against score evaluations for each estimator: exact scores against the exact "
        "law, networks and images against the density of the network's own flow. Formula and Itô solid, flows dashed. "
        "With an exact score the flow with the exact trace falls fastest, the formula about as the cost to the power "
        ".6 to 1; with a network the formula ends on another number than the flow. Errors below "
        f"{LEAST:g} are drawn at it.",
    )


def _look(name: str) -> dict[str, Any]:
    """Colour, marker and line style of an estimator, the same in every figure."""
    family = name.removesuffix(VARIANT)
    index = SHOWN.index(family)
    style = "--" if name in FLOWS else "-" if name == family else ":"
    marks = {"color": colour(index), "marker": (MARKERS + "<>")[index], "markersize": 4}
    return marks | {"linestyle": style, "linewidth": 1.2}


def _cost_panel(axis: Axes, selected: Any) -> None:
    for name in SHOWN:
        line = selected[selected.estimator == name].sort_values("evaluations")
        if len(line):
            axis.loglog(line.evaluations, line.rms.clip(lower=LEAST), label=name, **_look(name))
    axis.set_xlabel("evaluations a state", fontsize=FONT)
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.xaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf)))
    axis.xaxis.set_minor_formatter(NullFormatter())


def paths(rows: pd.DataFrame) -> Figure:
    """Error of log p along a path, and of the sensitivity at its end against evaluations."""
    selected: Any = rows[(rows.part == "path") & ~rows.estimator.str.startswith("planted", na=False)]
    dimensions = sorted(selected.dimension.unique())
    present = set(selected.estimator)
    names = [name for family in SHOWN for name in (family, family + VARIANT) if name in present]
    drawing, axes = figure(2, len(dimensions), panel=(3.6, 2.8))
    for column, dimension in enumerate(dimensions):
        part = selected[selected.dimension == dimension]
        for name in names:
            line = part[part.estimator == name].sort_values("budget")
            axes[column].loglog(line.iloc[-1].levels, line.iloc[-1].profile, label=name, **_look(name))
            axes[column + len(dimensions)].loglog(line.budget * line.nodes, line.relative, label=name, **_look(name))
        axes[column].set(title=f"d = {int(dimension)}", xlabel="σ", ylabel="rms error of log p (nats)")
        axes[column].invert_xaxis()
        axes[column + len(dimensions)].set(xlabel="evaluations a path", ylabel="relative error of δ (median)")
    legend_below(drawing)
    return described(
        drawing,
        "Top: rms error of log p along the path at the largest budget. Bottom: what it does to the sensitivity of the "
        "sample, against evaluations for the whole path. Flows dashed, the formula with one noise for all levels "
        "dotted; colours and markers are those of the errors against cost.",
    )


def network(rows: pd.DataFrame) -> Figure:
    """Errors of a trained network's density at the largest budget: against the truth, its flow and an own limit."""
    selected: Any = rows[(rows.part == "network") & (rows.estimator != "kernel")]
    dimensions = sorted(selected.dimension.unique())
    drawing, axes = figure(1, len(dimensions), panel=(3.4, 3.0))
    kinds = {"rms": "exact law", "own_rms": "network's own flow", "limit_rms": "what the estimator converges to"}
    for axis, dimension in zip(axes, dimensions, strict=True):
        part = selected[selected.dimension == dimension]
        part = part[part.budget == part.budget.max()]
        names = [name for name in ESTIMATORS if name in set(part.estimator)]
        table = part.set_index("estimator").loc[names]
        for index, column in enumerate(kinds):
            values = table[column].clip(lower=LEAST_NETWORK)
            axis.plot(
                values, np.arange(len(names)), MARKERS[index], color=colour(index), markersize=5, label=kinds[column]
            )
        axis.set(xscale="log", title=f"d = {int(dimension)}", xlabel="rms difference (nats)")
        listed(axis, names)
    legend_below(drawing)
    return described(
        drawing,
        "Trained networks on mixtures, largest budget: rms difference of every estimator from the exact log density, "
        "from the network's own flow with the exact trace, and from what the estimator itself converges to. "
        f"Differences below {LEAST_NETWORK:g} are drawn at it.",
    )


def over_estimate(rows: pd.DataFrame) -> Figure:
    """Measured mean excess of −log p against the integral of the score's error."""
    selected: Any = rows[rows.part == "excess"]
    drawing, axes = figure(1, 1, panel=(4.6, 3.2))
    axis = axes[0]
    for index, row in enumerate(selected.itertuples()):
        axis.errorbar(
            row.theory, row.excess, xerr=1.96 * row.theory_error, yerr=1.96 * row.excess_error, capsize=2,
            color=colour(index), marker=MARKERS[index], markersize=5, linestyle="", label=row.score,
        )  # fmt: skip
    top = 1.15 * max(float(selected.theory.max()), float(selected.excess.max()), 0.05)
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
    networks = rows[(rows.part == "tokens") & (rows.score == "network")]
    _tokens(axes[2], networks[networks.wide == 0].sort_values("steps").iloc[-1])
    _gradients(axes[3], rows[rows.part == "gradient"])
    return described(
        drawing,
        "Four panels: (a) the evidence bound's slack and the distance of its maximiser from the likelihood's fall with "
        "the number of steps; (b) agreement of diffusion classifiers with Bayes' rule against evaluations; (c) a "
        "sequence's diffusion loss against its negative log-likelihood; (d) cosine of generator gradients with the "
        "likelihood's.",
    )


def _evidence(axis: Axes, selected: Any) -> None:
    slopes(axis, selected.steps, selected.gap, label="|θ(bound) − θ(likelihood)|", order=-1, index=0)
    slopes(axis, selected.steps, selected.slack, label="log-likelihood − bound", index=1)
    axis.set(title="(a) evidence bound", xlabel="steps N", ylabel="distance; nats")
    axis.legend(fontsize=FONT - 2)


def _classifier(axis: Axes, selected: Any) -> None:
    for index, rule in enumerate(("weighted", "unweighted")):
        line = selected[selected.rule == rule].sort_values("budget")
        axis.semilogx(line.budget, line.agreement, color=colour(index), marker=MARKERS[index], label=rule)
    axis.set(title="(b) classifier on mixtures", xlabel="evaluations a class", ylabel="agreement with Bayes' rule")
    axis.set_ylim(0, 1.02)
    axis.legend(fontsize=FONT - 2, loc="lower right")


def _tokens(axis: Axes, row: Any) -> None:
    axis.plot(
        row.exact, row.weighted, ".", color=colour(0), markersize=4, label=f"weighted, Spearman {row['rank']:.3f}"
    )
    ends = [min(row.exact), max(row.exact)]
    axis.plot(ends, ends, color=GREY, linewidth=0.8, linestyle=":", label="equal")
    axis.set(title="(c) sequences of 16 tokens", xlabel="−log p (nats)", ylabel="diffusion loss (nats)")
    axis.legend(fontsize=FONT - 2)


def _gradients(axis: Axes, selected: Any) -> None:
    names = ("exact", "network", "unweighted, exact", "unweighted")
    rng = np.random.default_rng(0)
    for index, name in enumerate(names):
        values = selected[selected.score == name].cosine.to_numpy(dtype=float)
        axis.plot(
            index + rng.uniform(-0.15, 0.15, len(values)), values, MARKERS[index], color=colour(index), markersize=4
        )
    labels = ["weighted,\nexact score", "weighted,\nnetwork", "unweighted,\nexact score", "unweighted,\nnetwork"]
    axis.set_xticks(range(4), labels)
    axis.set(title="(d) generator", ylabel="cosine with the likelihood's gradient")


def tokens(rows: pd.DataFrame) -> Figure:
    """Ranks of the two losses against the range of scales, and where in σ a network's excess comes from."""
    selected: Any = rows[rows.part == "tokens"]
    drawing, axes = figure(1, 2, panel=(4.2, 3.0))
    for index, (score, style) in enumerate((("exact", "-"), ("network", "--"))):
        part = selected[selected.score == score]
        part = part[part.steps == part.steps.max()].sort_values("wide")
        for column, label in (("rank", "weighted"), ("unweighted_rank", "unweighted")):
            axes[0].plot(
                part.wide, part[column], linestyle=style, color=colour(0 if column == "rank" else 1), markersize=5,
                marker=MARKERS[index], label=f"{label}, {'exact score' if score == 'exact' else 'network'}",
            )  # fmt: skip
    axes[0].set(xlabel="range w of the tokens' scales", ylabel="rank correlation with −log p")
    for index, steps in enumerate(sorted(selected[selected.score == "network"].steps.unique())):
        lows, variances = zip(*band_variances(selected, 0.0, int(steps)), strict=True)
        places = np.arange(len(lows)) + 0.4 * index - 0.2
        axes[1].bar(places, variances, 0.4, color=colour(index), label=f"right: {int(steps)} steps")
        axes[1].set_xticks(np.arange(len(lows)), [f"from {low:g}" for low in lows])
    axes[1].set(xlabel="band of σ", ylabel="variance of the excess (nats²)")
    legend_below(drawing, columns=3)
    return described(
        drawing,
        "Left: rank correlation of a sequence's weighted and unweighted loss with its negative log-likelihood against "
        "the range of scales, exact score and network. Right: variance of what a network's score in one band of noise "
        "levels adds to the weighted loss.",
    )
