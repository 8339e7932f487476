"""Rich tables of reports."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from rich.table import Table

from studies.verification.judge import Verdict
from studies.verification.report import Report

__all__ = ["overview", "problem_table"]

STYLES = {"holds": "green", "falls short": "red", "could not run": "red", "declined": "dim"}


def _number(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.2g}"


def _state(verdict: Verdict) -> str:
    if not verdict.applicable:
        return "declined"
    return "holds" if verdict.holds else "falls short"


def problem_table(report: Report) -> Table:
    """One line per problem: verdict, median and 99 % error, bias, deviation, coverage, cost, and what fails."""
    task = report.task
    unit = "absolute" if task.absolute else "relative"
    table = Table(title=f"{report.estimator} on {task.name}: {report.status}", caption=_caption(report))
    for title in ("problem", "verdict", f"median {unit}", f"99 % {unit}", "bias", "sd", "coverage", "calls", "s"):
        table.add_column(title, justify="left" if title in ("problem", "verdict") else "right")
    table.add_column("what fails", overflow="fold")
    for verdict in report.verdicts:
        state, m = _state(verdict), verdict.measures
        numbers = (f"{unit}_median", f"{unit}_q99", "bias", "deviation", "coverage", "calls", "seconds")
        failing = " ".join(f"[bold]{c.name}[/bold]: {_escaped(c.sentence)}" for c in verdict.checks if not c.holds)
        cells = [_number(m.get(name)) for name in numbers]
        table.add_row(verdict.case.name, f"[{STYLES[state]}]{state}[/]", *cells, failing)
    return table


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _caption(report: Report) -> str:
    parts = [_escaped(report.summary)]
    for entry in report.orders:
        if entry["order"] is not None and np.isfinite(entry["order"]):
            parts.append(f"Observed order in {entry['in']} on {entry['problem']}: {entry['order']:.2f}.")
    if report.failing:
        parts.append(_escaped(f"Worst: {report.reproduce()}"))
    return "\n".join(parts)


def overview(reports: Iterable[Report]) -> Table:
    """One line per report."""
    table = Table(title="Estimators against the truth")
    for title in ("task", "estimator", "verdict", "problems", "largest error / limit", "seconds"):
        table.add_column(title, justify="right" if title in ("problems", "seconds") else "left")
    for report in reports:
        measured = [c.measured for v in report.judged for c in v.checks if c.name in ("accuracy", "bias")]
        top = float(np.max(measured, initial=0.0))
        good = sum(verdict.holds for verdict in report.judged)
        table.add_row(
            report.task.name,
            report.estimator,
            f"[{STYLES[report.status]}]{report.status}[/]",
            f"{good}/{len(report.judged)}",
            _number(top),
            f"{report.seconds:.1f}",
        )
    return table
