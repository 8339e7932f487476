"""A result as one HTML page that needs nothing else: no network, no scripts, pictures inside."""

from __future__ import annotations

import base64
import json
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from studies.claim_bounds import Tally, Verdict
from studies.files import write
from studies.running.progress import duration, measured
from studies.running.summary import Summary
from studies.running.tables import frame

__all__ = ["html", "write_report"]

ROWS_SHOWN = 40
WORDS = {Verdict.HOLDS: "holds", Verdict.FAILS: "does not hold", Verdict.OPEN: "open"}


def write_report(summary: Summary, path: Path) -> None:
    """Write the page."""
    write(path, html(summary).encode())


def html(summary: Summary) -> str:
    """The page as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files("studies.reports").joinpath("report.html.j2").read_text("utf-8"))
    return template.render(
        summary=summary,
        verdict=verdict(summary),
        claims=[claim_fields(claim) for claim in summary.claims],
        figures=[
            {"name": name, "alt": picture.alt, "data": base64.b64encode(picture.png).decode()}
            for name, picture in summary.figures.items()
        ],
        table=_table(summary),
        rerun=rerun(summary),
        config=json.dumps(summary.setting["config"], indent=2),
        duration=duration(summary.origin["seconds"]),
        memory=f"{summary.origin['peak_memory_bytes'] / 2**20:.0f} MiB",
    )


def verdict(summary: Summary) -> str:
    """The result in one sentence."""
    text = str(Tally.of(claim.verdict for claim in summary.claims)) if summary.claims else "No claims were judged"
    if summary.failures:
        text += f"; {len(summary.failures)} cells failed"
    if not summary.complete:
        text += f"; {summary.origin['finished']} of {summary.origin['cells']} cells are finished"
    return text + "."


def claim_fields(claim: Any) -> dict[str, Any]:
    return {
        "verdict": claim.verdict.value,
        "word": WORDS[claim.verdict],
        "reason": claim.judgement.reason,
        "statement": claim.statement,
        "measured": measured(claim),
        "expected": claim.expected,
        "source": claim.source,
    }


def rerun(summary: Summary) -> str:
    """The command that makes this result again."""
    setting = summary.setting
    command = f"studies run {summary.origin['run_as']} --{setting['level']}"
    if setting["seed"]:
        command += f" --seed {setting['seed']}"
    return command + ("" if setting["device"] == "cpu" else f" --device {setting['device']}")


def _table(summary: Summary) -> dict[str, Any]:
    rows = frame(summary.rows.slice(0, ROWS_SHOWN))
    return {
        "columns": list(rows.columns),
        "rows": [[_cell(value) for value in row] for row in rows.itertuples(index=False)],
        "total": summary.rows.num_rows,
    }


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
