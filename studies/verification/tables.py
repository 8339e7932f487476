"""Rich tables of reports, narrow enough for 80 columns."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from studies.verification.findings import Findings
from studies.verification.judge import Verdict, two_digits

__all__ = ["overview", "problem_table"]

STYLES = {"holds": "green", "falls short": "red", "could not run": "red", "no value": "red", "declined": "dim"}
LDS = {"LDS": "lds", "low": "lds_low", "high": "lds_high", "ceiling": "ceiling", "slope": "slope", "worst": "worst"}


def problem_table(report: Findings) -> Table:
    """One line per problem: verdict, median and 99 % error; bias, deviation and coverage where there are any; cost."""
    columns = _columns(report) | {"calls": "calls", "s": "seconds"}
    title = f"{escape(report.estimator)} on {report.task.name}"
    table = Table(title=title, caption=_caption(report), box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("problem", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for verdict in report.verdicts:
        state = _state(verdict)
        cells = [_cell(name, verdict.measures.get(name)) for name in columns.values()]
        table.add_row(verdict.case.name, f"[{STYLES[state]}]{state}[/]", *cells)
    return table


def _columns(report: Findings) -> dict[str, str]:
    if report.retrained:
        return LDS
    unit = "absolute" if report.task.absolute else "relative"
    return {"median": f"{unit}_median", "99 %": f"{unit}_q99"} | _stochastic(report)


def _stochastic(report: Findings) -> dict[str, str]:
    measures = [verdict.measures for verdict in report.judged]
    columns = {"bias": "bias", "sd": "deviation"} if any(m.get("repeats", 1) > 1 for m in measures) else {}
    return columns | ({"cover": "coverage"} if any("coverage" in m for m in measures) else {})


def _cell(name: str, value: float | None) -> str:
    if name == "seconds" and value is not None:
        return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
    return _number(value)


def _number(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return ""
    return f"{value:.0f}" if value >= 100 and value == int(value) < 1e6 else two_digits(value)


def _state(verdict: Verdict) -> str:
    if not verdict.applicable:
        return "declined"
    if verdict.failed == ("runs",):
        return "no value"
    return "holds" if verdict.holds else "falls short"


def _caption(report: Findings) -> str:
    if report.retrained:
        return f"{report.status} (rank correlation with retraining, its 95 % interval, and what is attainable)"
    unit = "absolute errors" if report.task.absolute else "relative errors"
    noisy = "" if report.task.absolute or not _stochastic(report) else "; bias and sd absolute"
    return f"{report.status} ({unit}{noisy})"


def overview(reports: Iterable[Findings]) -> Table:
    """One line per report."""
    table = Table(title="Estimators against the truth", box=SIMPLE_HEAD, pad_edge=False)
    for title in ("task", "estimator", "verdict", "problems", "error / limit", "s"):
        table.add_column(title, justify="right" if title in ("problems", "error / limit", "s") else "left")
    for report in reports:
        measured = [c.measured for v in report.judged for c in v.checks if c.name in ("accuracy", "bias")]
        good = sum(verdict.holds for verdict in report.judged)
        table.add_row(
            report.task.name,
            escape(report.estimator.split(": ")[-1]),
            f"[{STYLES[report.status]}]{report.status}[/]",
            f"{good}/{len(report.judged)}",
            _number(float(np.max(measured, initial=0.0))),
            f"{report.seconds:.1f}",
        )
    return table
