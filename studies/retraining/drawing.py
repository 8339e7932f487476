"""Figures of the study; pictures of images are in `studies.retraining.pictures`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.figures import colour, described, figure, leftmost, legend_below, listed, panels
from studies.retraining.causes import CAUSES
from studies.retraining.claims import SWAPS, TRUTHS
from studies.retraining.config import MAIN, Config, Regime
from studies.retraining.measures import explained
from studies.retraining.pictures import images, influential, models
from studies.retraining.reading import changes_of, correlations, floor, of
from studies.statistics import Interval, median_interval, paired

PREDICTORS = {
    "flow": "log density along the flow",
    "probes": "the same by random probes",
    "finite": "the path under the finite mass",
    "kernel": "log-ratio of kernel densities",
    "classifier": "log-ratio of a classifier",
    "formula": "one network with the density formula",
    "population": "the known law",
    "one network": "flow, from the first base network alone",
    "empirical": "sensitivity of the kernel density itself",
    "transport": "optimal transport to samples of the changed networks",
    "nearest": "toward the nearest image of the added mass",
    "shuffled": "the prediction for another latent",
}
"""Names in the order of their boxes, and what they are."""
FACTORS = {"steps": "training steps", "width": "width", "count": "training images N", "sigma_min": "σ_min"}


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    """By name: an overview, predictors of each regime, before and after, changes, the design, causes, influence."""
    present = [r for r in config.regimes if len(of(rows, regime=r.name)) and not _skipped(rows, r)]
    figures: dict[str, Figure] = {}
    compared = [regime for regime in present if MAIN in regime.compared]
    if compared:
        figures["overview"] = overview(rows, compared)
    figures["models"] = models(rows, [regime for regime in present if not regime.varied])
    for regime in present:
        selected = of(rows, regime=regime.name)
        if MAIN in regime.compared:
            figures[f"{regime.name}-predictors"] = predictors(selected, regime)
        for change in dict.fromkeys(of(selected, kind="shown").change):
            figures[f"{regime.name}-images{_suffix(change)}"] = images(selected, regime, change)
        if len(regime.changes) > 2 and not regime.varied:
            figures[f"{regime.name}-changes"] = changes(selected, regime)
        if regime.causes:
            figures[f"{regime.name}-causes"] = causes(selected, regime)
        if regime.halves:
            figures[f"{regime.name}-influential"] = influential(selected, regime)
            figures[f"{regime.name}-lds"] = halves(selected, regime)
    if any(regime.factor == "reference" for regime in present):
        figures["design"] = design(rows, [regime for regime in present if regime.factor])
    return figures


def _suffix(change: str) -> str:
    """Names the pictures of a change other than the main one: "-drop-class"."""
    return "" if change == MAIN or change.startswith("add-image") else f"-{change.partition(':')[0]}"


def _skipped(rows: pd.DataFrame, regime: Regime) -> bool:
    return "skipped" in set(of(rows, regime=regime.name).kind)


def _point(axis: Axes, x: float, value: Interval, index: int, marker: str = "o", label: str | None = None) -> None:
    low, high = np.clip(value.bounds, -1.0, 1.2)
    spread = [[max(value.estimate - low, 0.0)], [max(high - value.estimate, 0.0)]]
    axis.errorbar([x], [value.estimate], yerr=spread, fmt=marker, color=colour(index), capsize=2, label=label)


def overview(rows: pd.DataFrame, regimes: list[Regime]) -> Figure:
    """Medians with intervals beside ceilings and the best baseline, regime by regime."""
    drawing, axes = figure(1, 2, panel=(4.8, 3.8))
    for axis, truth in zip(axes, TRUTHS, strict=True):
        for place, regime in enumerate(regimes):
            selected, first = of(rows, regime=regime.name), place == 0
            noise = floor(selected, truth)
            ceiling = Interval(noise.ceiling, noise.ceiling_low, noise.ceiling_high)
            _point(
                axis, place - 0.2, median_interval(correlations(selected, "flow", truth)), 0, "o", _once("flow", first)
            )
            _point(axis, place, ceiling, 2, "_", _once("ceiling of the noise floor", first))
            best = max((correlations(selected, b, truth) for b in ("empirical", "nearest", "transport")), key=np.median)
            _point(axis, place + 0.2, median_interval(best), 1, "s", _once("best of three baselines", first))
        axis.set_xticks(range(len(regimes)), [f"{r.name}\n{r.pairs} pairs" for r in regimes], rotation=60, fontsize=7)
        axis.set(ylabel="median correlation over pixels", ylim=(-0.1, 1.05), title=f"{truth}, class 3 at η = .1")
    legend_below(drawing)
    words = "; ".join(
        f"{r.name} {np.median(correlations(of(rows, regime=r.name), 'flow', 'scratch')):.2f} of "
        f"{floor(of(rows, regime=r.name), 'scratch').ceiling:.2f}"
        for r in regimes
    )
    return described(
        drawing,
        "Median correlation of predicted and actual change (circles), what the noise of retraining allows (horizontal "
        "bars) and the best of transport, nearest image and empirical score (squares), each with its 95 % interval, "
        f"after retraining from scratch (left) and fine-tuning (right). Scratch, median of ceiling: {words}.",
    )


def _once(label: str, first: bool) -> str | None:
    return label if first else None


def predictors(rows: pd.DataFrame, regime: Regime) -> Figure:
    """Correlations per latent of every predictor, scratch and fine-tuning, with the ceiling."""
    drawing, axes = figure(1, 2, panel=(4.2, 3.6))
    shown: set[str] = set()
    for axis, truth in zip(axes, TRUTHS, strict=True):
        known = set(of(rows, kind="agreement", truth=truth, change=MAIN).predictor)
        names = [name for name in PREDICTORS if name in known][::-1]
        shown |= set(names)
        values = [correlations(rows, name, truth) for name in names]
        axis.boxplot(
            values, orientation="horizontal", tick_labels=names, showfliers=False, medianprops={"color": colour(1)}
        )
        noise = floor(rows, truth)
        axis.axvline(noise.ceiling, color=colour(2), linestyle="--", label=f"ceiling, {int(noise.pairs)} pairs")
        axis.axvspan(noise.ceiling_low, noise.ceiling_high, color=colour(2), alpha=0.15, linewidth=0)
        axis.axvline(0, color="0.6", linewidth=0.6)
        axis.set(xlabel="correlation over pixels", xlim=(-0.75, 1.02), title=f"{truth}, class 3 at η = .1")
    legend_below(drawing)
    words = "; ".join(f"{name}: {said}" for name, said in PREDICTORS.items() if name in shown)
    if "finite" in shown:
        words += (
            ". Where the path of 'finite' is halted, the sample stays where it is and its correlation counts as 0, to "
            "which its box or median may fall"
        )
    return described(
        drawing,
        f"{regime.name}: correlation between predicted and actual change, one box a predictor, retraining from scratch "
        "on the left and fine-tuning on the right. Boxes are quartiles over latents with the median (orange), whiskers "
        "reach to the last value within 1.5 box lengths, values beyond are not shown; the grey line is 0. A dashed "
        f"line marks the ceiling set by seed noise, a band its 95 % interval. {words}.",
    )


def changes(rows: pd.DataFrame, regime: Regime) -> Figure:
    """Median correlation and ceiling of every change."""
    drawing, axes = figure(1, 1, panel=(7.4, 3.8))
    for place, change in enumerate(changes_of(rows)):
        noise = floor(rows, "scratch", change)
        ceiling = Interval(noise.ceiling, noise.ceiling_low, noise.ceiling_high)
        shuffled = median_interval(correlations(rows, "shuffled", "scratch", change))
        value = median_interval(correlations(rows, "flow", "scratch", change))
        _point(axes[0], place - 0.2, value, 0, "o", _once("flow", place == 0))
        _point(axes[0], place, ceiling, 2, "_", _once("ceiling of the noise floor", place == 0))
        _point(axes[0], place + 0.2, shuffled, 1, "s", _once("prediction for another latent", place == 0))
    axes[0].set_xticks(range(len(changes_of(rows))), changes_of(rows), rotation=60, ha="right", fontsize=7)
    axes[0].set(ylabel="median correlation over pixels", ylim=(-0.25, 1.05))
    axes[0].legend(fontsize=7)
    return described(
        drawing,
        f"{regime.name}: median correlation of predicted with retrained change for each change of the data, its "
        "ceiling and the prediction for another latent, each with its interval.",
    )


def design(rows: pd.DataFrame, regimes: list[Regime]) -> Figure:
    """One factor at a time: the mass, the training steps, the width, the number of images, where samples end."""
    reference = next(regime for regime in regimes if regime.factor == "reference")
    varied = {f: [r for r in regimes if r.factor == f] for f in FACTORS}
    shown = {f: estimates for f, estimates in varied.items() if estimates}
    drawing, axes = figure(1, 1 + len(shown), panel=(2.5, 2.9))
    selected = of(rows, regime=reference.name)
    masses = sorted((float(c.partition("@")[2]), c) for c in changes_of(selected) if c.startswith("class:3@"))
    _line(axes[0], [(eta, selected, change) for eta, change in masses], "mass η")
    for axis, (factor, estimates) in zip(axes[1:], shown.items(), strict=True):
        points = [(_level(rows, r, factor), of(rows, regime=r.name), MAIN) for r in (reference, *estimates)]
        _line(axis, sorted(points, key=lambda point: point[0]), FACTORS[factor])
    axes[0].set_ylabel("median correlation")
    axes[0].legend(fontsize=7)
    return described(
        drawing,
        f"Small digit networks, {reference.pairs} pairs, retrained from scratch: median correlation of prediction and "
        "change (circles) and ceiling (squares), with 95 % intervals, against the mass and, at η = .1, one factor at a "
        "time; logarithmic axes.",
    )


def _level(rows: pd.DataFrame, regime: Regime, factor: str) -> float:
    if factor == "count":
        return float(of(rows, kind="model", regime=regime.name).iloc[0]["count"])
    return float(getattr(regime, factor))


def _line(axis: Axes, points: list[tuple[float, pd.DataFrame, str]], label: str) -> None:
    for index, (marker, name) in enumerate((("o", "flow"), ("s", "ceiling"))):
        values = []
        for _, selected, change in points:
            noise = floor(selected, "scratch", change)
            ceiling = Interval(noise.ceiling, noise.ceiling_low, noise.ceiling_high)
            values.append(ceiling if index else median_interval(correlations(selected, "flow", "scratch", change)))
        y, ends = np.array([v.estimate for v in values]), np.clip([v.bounds for v in values], -1.0, 1.0)
        errors = np.maximum([y - ends[:, 0], ends[:, 1] - y], 0.0)
        x = [level for level, _, _ in points]
        axis.errorbar(x, y, yerr=errors, marker=marker, color=colour(2 * index), capsize=2, label=name)
    axis.set_xscale("log")
    axis.set_xticks([], minor=True)
    axis.set_xticks(x, [f"{level:g}" for level in x])
    axis.set(xlabel=label, ylim=(-0.1, 1.05))


def causes(rows: pd.DataFrame, regime: Regime) -> Figure:
    """Correlation against each cause, the shares that causes explain, and exchanged ingredients."""
    drawing, axes, _ = panels(8, panel=(2.9, 2.6))
    row = of(rows, kind="causes", truth="scratch").iloc[0]
    response = np.asarray(row.response, dtype=float)
    table = {cause: np.asarray(row[cause], dtype=float) for cause in CAUSES}
    shares = explained(response, table)
    for axis, cause in zip(axes, CAUSES, strict=False):
        axis.plot(table[cause], response, ".", color=colour(0), markersize=4)
        alone, added = shares[cause]
        axis.set_title(f"{cause}: alone {alone.estimate:.2f}, adds {added.estimate:.2f}", fontsize=8)
        axis.locator_params(axis="x", nbins=5)
        axis.set(xlabel=LABELS[cause])
    for axis in leftmost(axes[: len(CAUSES)]):
        axis.set_ylabel("correlation")
    _bars(axes[6], shares)
    _exchanged(axes[7], rows)
    axes[7].locator_params(axis="x", nbins=4)
    return described(
        drawing,
        f"{regime.name}, retrained from scratch: the correlation of each latent against six possible causes, with the "
        "share of its variance in ranks that each explains alone and adds to the others, which the bars repeat; all "
        f"together explain {shares['all'][0].estimate:.2f} [{shares['all'][0].low:.2f}, {shares['all'][0].high:.2f}]. "
        "Last, how the median correlation moves when one ingredient of the prediction is exchanged; the grey line is "
        "no change. Error bars are 95 % intervals.",
    )


LABELS = {
    "noise": "1 − correlation of two pairs",
    "size": "log norm of the prediction",
    "boundary": "class entropy along the path",
    "log-ratio": "gap of the new mass's share",
    "population": "gap of the denoisers, over σ",
    "curvature": "|finite − first order| / |first order|",
}


def _bars(axis: Axes, shares: dict[str, tuple[Interval, Interval]]) -> None:
    names = list(shares)
    for offset, (index, label) in zip((-0.17, 0.17), enumerate(("alone", "beside the others")), strict=True):
        values = [shares[name][index] for name in names]
        y = np.array([v.estimate for v in values])
        errors = np.maximum([y - [v.low for v in values], np.array([v.high for v in values]) - y], 0.0)
        axis.barh(np.arange(len(names)) + offset, y, 0.32, xerr=errors, color=colour(index), label=label)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="share of the variance")
    axis.legend(fontsize=6, loc="center right", bbox_to_anchor=(1, 0.64))  # beside the shortest bar


def _exchanged(axis: Axes, rows: pd.DataFrame) -> None:
    names = []
    for before, after, _ in SWAPS:
        for index, truth in enumerate(TRUTHS):
            if not {before, after} <= set(of(rows, kind="agreement", truth=truth, change=MAIN).predictor):
                continue
            value = paired(correlations(rows, after, truth), correlations(rows, before, truth)).difference
            if index == 0:
                names.append(f"{before} → {after}")
            low, high = np.clip(value.bounds, -1.0, 1.0)
            ends = [[max(value.estimate - low, 0.0)], [max(high - value.estimate, 0.0)]]
            axis.errorbar(
                [value.estimate], [len(names) - 1 + 0.25 * index], xerr=ends, fmt="os"[index], color=colour(index),
                capsize=2, label=truth if len(names) == 1 else None,
            )  # fmt: skip
    axis.axvline(0.0, color="0.6", linewidth=0.6)
    axis.set_yticks(range(len(names)), names, fontsize=6)
    axis.set(xlabel="change of the correlation")
    axis.legend(fontsize=6)


def halves(rows: pd.DataFrame, regime: Regime) -> Figure:
    """LDS of every attribution with intervals."""
    selected = rows[rows.kind == "lds"]
    drawing, axes = figure(1, 1, panel=(5.2, 0.8 + 0.3 * len(selected)))
    medians = []
    for place, (_, row) in enumerate(selected.iterrows()):
        value = median_interval(np.asarray(row.lds, dtype=float))
        low, high = np.clip(value.bounds, -1.0, 1.0)
        axes[0].errorbar(
            [value.estimate], [place], xerr=[[value.estimate - low], [high - value.estimate]], fmt="o",
            color=colour(2 if row.predictor == "second seed" else 0), capsize=2,
        )  # fmt: skip
        medians.append(f"{row.predictor} {value.estimate:.2f}")
    axes[0].axvline(0.0, color="0.6", linewidth=0.6)
    listed(axes[0], list(selected.predictor))
    axes[0].set(xlabel=f"LDS over {int(selected.halves.max())} random halves, median over latents")
    return described(
        drawing,
        f"{regime.name}: rank correlation of summed attributions with networks retrained on random halves, medians "
        f"over latents with intervals; a second seed of the halves shows what is attainable: {', '.join(medians)}.",
    )
