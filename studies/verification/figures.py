"""Figures of a report; each carries a text alternative in its attribute `alt`."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from studies.verification.judge import Verdict
from studies.verification.report import Report

__all__ = ["figures"]

GOOD, BAD = "#2a7f62", "#b3361c"


def figures(report: Report) -> dict[str, Figure]:
    """`errors` always; `calibration` where standard errors were reported; `orders` where some were observed."""
    drawn = {"errors": _errors(report)}
    if any("calibration" in verdict.measures for verdict in report.judged):
        drawn["calibration"] = _calibration(report)
    if report.orders:
        drawn["orders"] = _orders(report)
    return drawn


def _figure(height: float, alt: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7.0, height), layout="constrained")
    figure.alt = alt  # type: ignore[attr-defined]  # Matplotlib has no field for it; pages read it from here
    return figure, figure.subplots()


def _errors(report: Report) -> Figure:
    """Scaled errors of all rows by problem; the limit is at 1."""
    verdicts = [verdict for verdict in report.judged if verdict.scaled.size]
    figure, axes = _figure(1.2 + 0.32 * max(len(verdicts), 1), f"Error over limit by problem. {report.summary}")
    for place, verdict in enumerate(verdicts):
        _strip(axes, place, verdict)
    axes.axvline(1.0, color="black", linewidth=1.0)
    axes.set_yticks(range(len(verdicts)), [verdict.case.name for verdict in verdicts])
    axes.set_ylim(len(verdicts) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlabel("error / limit (rows; 1 is just allowed)")
    axes.set_title(f"{report.estimator}: {report.task.name}", fontsize=10)
    return figure


def _strip(axes: Any, place: int, verdict: Verdict) -> None:
    shown = np.maximum(np.nan_to_num(verdict.scaled, nan=1e12, posinf=1e12), 1e-12)
    colour = GOOD if verdict.holds else BAD
    axes.plot(shown, np.full(len(shown), place), "o", markersize=4, alpha=0.5, color=colour, markeredgewidth=0)


def _calibration(report: Report) -> Figure:
    """Reported over observed standard deviation by problem, with the accepted band."""
    from studies.verification.judge import CALIBRATION

    verdicts = [v for v in report.judged if np.isfinite(v.measures.get("calibration", np.nan))]
    figure, axes = _figure(1.2 + 0.32 * max(len(verdicts), 1), "Reported over observed standard deviation by problem.")
    axes.axvspan(*CALIBRATION, color="0.9")
    axes.axvline(1.0, color="black", linewidth=1.0)
    for place, verdict in enumerate(verdicts):
        failed = "error bars" in verdict.failed
        axes.plot(verdict.measures["calibration"], place, "o", color=BAD if failed else GOOD)
    axes.set_yticks(range(len(verdicts)), [verdict.case.name for verdict in verdicts])
    axes.set_ylim(len(verdicts) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlabel("reported standard error / observed standard deviation")
    return figure


def _orders(report: Report) -> Figure:
    """Error against steps or η, with the fitted slope."""
    figure, axes = _figure(3.2, "Errors against steps or η on logarithmic axes.")
    for entry in report.orders:
        fitted = "" if not np.isfinite(entry["order"]) else f", order {entry['order']:.2f}"
        axes.loglog(entry["sizes"], entry["errors"], "o-", label=f"in {entry['in']}{fitted}")
    axes.set_xlabel("size")
    axes.set_ylabel("median error")
    axes.legend(frameon=False)
    return figure
