"""The report of one estimator on one task: its findings as tables, figures, files."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.errors import StudyError
from studies.files import make_folder, write
from studies.running import records
from studies.verification.findings import Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

__all__ = ["SCHEMA", "Report", "check_folder"]

FILES = ("report.json", "report.html", "problems.parquet", "rows.parquet")
SCHEMA = 1  # version of `report.schema.json`: raised when a field changes its meaning or goes


@dataclass(frozen=True)
class Report(Findings):
    """What `verify` found, with its table, figures, page and files."""

    def table(self) -> Table:
        """The verdicts as a Rich table."""
        from studies.verification.tables import problem_table

        return problem_table(self)

    def figures(self) -> dict[str, Figure]:
        """Figures by name: errors per problem; calibration where standard errors were reported; orders."""
        from studies.verification.figures import figures

        return figures(self)

    def to_html(self) -> str:
        """The report as one self-contained page."""
        from studies.verification.page import page

        return page(self, self.figures())

    def to_json(self) -> dict[str, Any]:
        """Everything but the single rows, JSON-able (NaN becomes null), as `report.schema.json` says."""
        problems = json.loads(self.problems().to_json(orient="records"))
        checks = {v.case.name: [vars(check) for check in v.checks] for v in self.judged}
        return _clean(
            {
                "schema": SCHEMA,
                "task": self.task.name,
                "estimator": self.estimator,
                "suite": self.suite,
                "backend": self.backend,
                "seed": self.seed,
                "slack": self.slack,
                "chosen": self.chosen,
                "status": self.status,
                "summary": self.summary,
                "seconds": self.seconds,
                "worst": self.reproduce(),
                "worst_command": self.command(),
                "problems": problems,
                "checks": checks,
                "orders": list(self.orders),
                "sees": self.sees,
                "beside": self.beside(),
                "traces": {v.case.name: reply.trace for v in self.judged for reply in v.replies if reply.trace},
            }
        )

    def save(self, folder: str | Path) -> Path:
        """Write `report.json`, `report.html`, `problems.parquet`, `rows.parquet` and PNGs; returns the folder.

        Raises:
            StudyError: it holds something else, or cannot be written to.
        """
        path = make_folder(Path(folder))
        check_folder(path)
        page = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        write(path / "report.json", page.encode())
        write(path / "report.html", self.to_html().encode())
        for name, frame in (("problems", self.problems()), ("rows", self.rows())):
            write(path / f"{name}.parquet", frame.to_parquet(index=False))
        for name, figure in self.figures().items():
            content = io.BytesIO()
            figure.savefig(content, format="png", dpi=120)
            write(path / f"{name}.png", content.getvalue())
        return path


def check_folder(path: Path) -> None:
    """Refuse a folder where the files of a report would overwrite something else, such as a study's rows.

    Raises:
        StudyError: it holds files that a report has as well, and no report.
    """
    taken = [name for name in FILES if (path / name).exists()]
    if taken and not _is_report(path / "report.json"):
        raise StudyError(f"{path} holds {taken[0]!r} of something else, such as a study's result; name another folder.")


def _is_report(path: Path) -> bool:
    try:
        content = records.parse(path)
    except StudyError:
        return False
    return isinstance(content, dict) and {"task", "estimator", "suite", "checks"} <= set(content)


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
