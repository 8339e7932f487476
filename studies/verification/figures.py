"""Figures of a report; each carries a text alternative in its attribute `alt`."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from studies.figures import colour, described, figure, listed, picture
from studies.verification.bars import ALLOWED
from studies.verification.findings import Findings
from studies.verification.judge import Verdict

__all__ = ["figures"]

GOOD, BAD = colour(0), colour(1)
MARKS = {True: ("o", GOOD), False: ("X", BAD)}


def figures(report: Findings) -> dict[str, Figure]:
    """`errors` always; `calibration` where standard errors were reported; `orders` where some were observed."""
    if report.retrained:
        return _attributed(report)
    drawn = {"errors": _errors(report)}
    if any(np.isfinite(verdict.measures.get("calibration", np.nan)) for verdict in report.judged):
        drawn["calibration"] = _calibration(report)
    if report.orders:
        drawn["orders"] = _orders(report)
    return drawn


def _attributed(report: Findings) -> dict[str, Figure]:
    """`scores`: with intervals and ceilings by problem; `worst`: the worst query's sample and the points it names."""
    verdicts = [verdict for verdict in report.judged if "lds" in verdict.measures]
    drawing, (axis, *_) = figure(panel=(6.5, 0.9 + 0.3 * max(len(verdicts), 1)))
    for place, verdict in enumerate(verdicts):
        numbers, (mark, shade) = verdict.measures, MARKS[verdict.holds]
        axis.plot([numbers["lds_low"], numbers["lds_high"]], [place, place], color=shade, linewidth=1.5)
        axis.plot(numbers["lds"], place, mark, color=shade)
        axis.plot(numbers["ceiling"], place, "|", color="black", markersize=12)
    axis.axvline(0.0, color="black", linewidth=0.8)
    listed(axis, [verdict.case.name for verdict in verdicts])
    axis.set_xlabel("score (LDS) with its 95 % interval; the stroke is the ceiling")
    words = ", ".join(f"{v.case.name} {v.measures['lds']:.2f}" for v in verdicts)
    drawn = {"scores": described(drawing, f"Scores by problem: {words}. {report.summary}")}
    worst = report.worst()
    if worst is not None and "lds" in worst.measures:
        drawn["worst"] = _worst_query(worst)
    return drawn


def _worst_query(verdict: Verdict) -> Figure:
    """The sample of the worst query, the four points said to raise its output most, and the four to lower it most."""
    from studies.verification.attributions.tiers import setting_of, shipped

    query, values = int(verdict.measures["worst_query"]), verdict.replies[0].value
    order = np.argsort(-values[query]) if values is not None else np.arange(8)
    data = setting_of(verdict.case.law).data.numpy()
    named = [("sample", shipped(verdict.case.law).reference[query])]
    named += [(f"+{rank + 1}", data[point]) for rank, point in enumerate(order[:4])]
    named += [(f"−{rank + 1}", data[point]) for rank, point in enumerate(order[::-1][:4])]
    drawing, axes = figure(1, len(named), panel=(0.9, 1.2))
    for axis, (title, image) in zip(axes, named, strict=True):
        picture(axis, image[0], title)
    return described(
        drawing,
        f"{verdict.case.name}, worst query {query} (score {verdict.measures['worst']:.2f}): sample, the four points "
        "said to raise the output most and the four said to lower it most.",
    )


def _by_problem(verdicts: list[Verdict], label: str) -> tuple[Figure, Any]:
    """Axes with one line per problem and a logarithmic scale; 1 is marked."""
    drawing, axes = figure(panel=(6.5, 0.9 + 0.3 * max(len(verdicts), 1)))
    axes[0].axvline(1.0, color="black", linewidth=1.0)
    listed(axes[0], [verdict.case.name for verdict in verdicts])
    axes[0].set_xscale("log")
    axes[0].set_xlabel(label)
    return drawing, axes[0]


def _errors(report: Findings) -> Figure:
    """Scaled errors of all rows by problem; crosses where the problem fails."""
    verdicts = [verdict for verdict in report.judged if verdict.scaled.size]
    drawing, axes = _by_problem(verdicts, "error / limit of each row (1 is just allowed)")
    for place, verdict in enumerate(verdicts):
        mark, shade = MARKS[verdict.holds]
        shown = np.clip(np.nan_to_num(verdict.scaled, nan=1e12), 1e-12, 1e12)
        axes.plot(shown, np.full(len(shown), place), mark, markersize=4, alpha=0.5, color=shade)
    axes.set_title(f"{report.estimator}: {report.task.name}", fontsize=9)
    return described(drawing, f"Error over limit of every row by problem. {report.summary}")


def _calibration(report: Findings) -> Figure:
    """Reported over observed standard deviation by problem, its interval, and the allowed band."""
    verdicts = [v for v in report.judged if np.isfinite(v.measures.get("calibration", np.nan))]
    drawing, axes = _by_problem(verdicts, "reported standard error / observed standard deviation")
    for place, verdict in enumerate(verdicts):
        axes.fill_betweenx([place - 0.5, place + 0.5], 1 / ALLOWED, ALLOWED, color="0.92", linewidth=0)
        mark, shade = MARKS["error bars" not in verdict.failed]
        ends = [verdict.measures["calibration_low"], verdict.measures["calibration_high"]]
        axes.plot(ends, [place, place], color=shade, linewidth=1.5)
        axes.plot(verdict.measures["calibration"], place, mark, color=shade)
    return described(
        drawing,
        "Reported over observed standard deviation by problem, with intervals; what is allowed is shaded.",
    )


def _orders(report: Findings) -> Figure:
    """Error or noise against steps, probes or η, with the observed order."""
    drawing, axes = figure(panel=(5.0, 3.2))
    for index, entry in enumerate(report.orders):
        fitted = "" if not np.isfinite(entry["order"]) else f", order {entry['order']:.2f}"
        axes[0].loglog(entry["sizes"], entry["errors"], "o-", color=colour(index), label=f"in {entry['in']}{fitted}")
    axes[0].set_xlabel("steps, probes or η")
    axes[0].set_ylabel("median error or noise")
    axes[0].legend(frameon=False, fontsize=8)
    words = ", ".join(f"{e['order']:.2f} in {e['in']}" for e in report.orders if np.isfinite(e["order"]))
    return described(drawing, f"Errors on logarithmic axes; observed orders: {words or 'at rounding'}.")
