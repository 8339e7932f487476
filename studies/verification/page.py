"""A report as one HTML page that refers to nothing outside itself."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.verification.findings import Findings
from studies.verification.judge import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["page"]

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;font-size:13px}td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;"
    "text-align:right}td:first-child,th:first-child,td.text{text-align:left}"
    ".holds{color:#2a7f62}.falls{color:#b3361c}img{max-width:100%}code{background:#f4f4f4;padding:.1rem .3rem}"
)


def page(report: Findings, drawings: Mapping[str, Figure]) -> str:
    """The page: verdict, table of problems, what fails and how to see it again, orders, figures."""
    state = "holds" if report.holds else "falls"
    name = html.escape(f"{report.estimator} on {report.task.name}")
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>{name}</title><style>{STYLE}</style></head>",
        f"<body><h1>{name}: <span class='{state}'>{report.status}</span></h1>",
        f"<p>{html.escape(report.summary)}</p>",
        f"<p>Asked: {html.escape(report.task.question)}. Truth: {html.escape(report.task.qualifies)}. "
        f"Suite {report.suite}, backend {report.backend}, seed {report.seed}, slack {report.slack:g}, "
        f"{report.seconds:.1f} s.</p>",
        f"<p>{html.escape(report.sees)}</p>" if report.sees else "",
        _table(report),
        _failures(report),
        _orders(report),
        *[_image(name, figure) for name, figure in drawings.items()],
        "</body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _table(report: Findings) -> str:
    if report.retrained:
        scores = ("lds", "lds_low", "lds_high", "ceiling", "share", "slope", "rank", "removal", "worst", "seconds")
        return _filled(report, ("problem", "verdict", "d", *scores), scores)
    unit = "absolute" if report.task.absolute else "relative"
    columns = (f"{unit}_median", f"{unit}_q99", "bias", "deviation", "coverage", "calls", "seconds", "megabytes")
    titles = ("problem", "verdict", "d", f"{unit}_median", f"{unit}_99 %", "bias, abs.", "sd, abs.", *columns[4:])
    return _filled(report, titles, columns)


def _filled(report: Findings, titles: tuple[str, ...], columns: tuple[str, ...]) -> str:
    head = "".join(f"<th>{title.replace('_', ' ')}</th>" for title in titles)
    rows = "".join(_row(verdict, columns) for verdict in report.verdicts)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(verdict: Verdict, columns: tuple[str, ...]) -> str:
    state = "declined" if not verdict.applicable else "holds" if verdict.holds else "falls short"
    numbers = "".join(f"<td>{_number(verdict.measures.get(name))}</td>" for name in columns)
    first = f"<td>{html.escape(verdict.case.name)}</td><td class='{state.split()[0]}'>{state}</td>"
    return f"<tr>{first}<td>{verdict.case.dimension}</td>{numbers}</tr>"


def _number(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.3g}"


def _failures(report: Findings) -> str:
    lines = [
        f"<li><b>{html.escape(verdict.case.name)}</b>, {html.escape(check.name)}: {html.escape(check.sentence)}</li>"
        for verdict in report.failing
        for check in verdict.checks
        if not check.holds
    ]
    if not lines:
        return ""
    again = [line for line in (report.command(), report.reproduce()) if line]
    worst = "".join(f"<br><code>{html.escape(line)}</code>" for line in again)
    return f"<h2>What fails</h2><ul>{''.join(lines)}</ul><p>The worst problem again:{worst}</p>"


def _orders(report: Findings) -> str:
    lines = [
        f"<li>in {entry['in']} on {html.escape(entry['problem'])}: {_number(entry['order']) or 'at rounding'}</li>"
        for entry in report.orders
    ]
    return f"<h2>Observed orders</h2><ul>{''.join(lines)}</ul>" if lines else ""


def _image(name: str, figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    alt = html.escape(figure.alt, quote=True)
    return f"<h2>{name.capitalize()}</h2><img alt='{alt}' src='data:image/png;base64,{data}'>"
