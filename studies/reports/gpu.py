"""What was measured on a GPU, as the book shows it: rows of `tests/accelerator.py`, published like the studies' tables.

`studies/results/accelerator/` holds `rows.parquet` (job, case, quantity, value, low, high, unit, note), `truth.parquet`
(a row for each pair of networks, latent and predictor) and `origin.json`: card, driver, versions, commit, command.
They come from one machine and are never mixed with those of a processor.
"""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.errors import StudyError
from studies.reports.pages import Shown
from studies.results import FOLDER

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["measured", "origin", "rows"]

HOME = FOLDER / "accelerator"
HEAD = ("case", "quantity", "value", "interval", "unit", "")


def rows(name: str = "rows", home: Path = HOME) -> pd.DataFrame:
    """A published table, "rows" or "truth".

    Raises:
        StudyError: nothing was measured on a GPU, or it is not published.
    """
    import pandas as pd

    path = home / f"{name}.parquet"
    if not path.is_file():
        raise StudyError(
            f"no table {name!r} of a GPU is published; run 'python tests/accelerator.py --out DIR' where there is one."
        )
    return pd.read_parquet(path)


def origin(home: Path = HOME) -> str:
    """One sentence: card, driver, versions, commit and command of the published run, and what it left out."""
    if not (home / "origin.json").is_file():
        raise StudyError("nothing that was measured on a GPU is published.")
    known = json.loads((home / "origin.json").read_text())
    gpu, versions = known["gpu"], known["versions"]
    sentence = (
        f"{gpu['name']}, driver {gpu['driver']}, CUDA {gpu['cuda']}, torch {versions['torch']}, Python "
        f"{versions['python']}, commit {known['commit'][:12]}, begun {known['started']}. "
        f"Repeat it with: {known['command']}"
    )
    missing = [f"{job} ({verdict})" for job, verdict in known["jobs"].items() if verdict != "done"]
    return sentence + (f"\nNot measured: {'; '.join(missing)}." if missing else "")


def measured(*jobs: str, containing: str = "", home: Path = HOME) -> Shown:
    """The rows of some jobs as a table; `containing` keeps the quantities with these letters.

    Raises:
        StudyError: no such rows.
    """
    table = rows(home=home)
    chosen = table[table["job"].isin(jobs) & table["quantity"].str.contains(containing, regex=False)]
    if chosen.empty:
        raise StudyError(
            f"no rows of the jobs {', '.join(jobs)} are published; there are {', '.join(set(table['job']))}."
        )
    cells = [_cells(one) for one in chosen.itertuples()]
    body = "".join(f"<tr>{_line(cell, 'td')}</tr>" for cell in cells)
    text = "\n".join(" | ".join(cell) for cell in (HEAD, *cells))
    return Shown(f'<table class="dataframe"><tr>{_line(HEAD, "th")}</tr>{body}</table>', text)


def _cells(one: Any) -> tuple[str, ...]:
    interval = "" if math.isnan(one.low) else f"[{one.low:.3g}, {one.high:.3g}]"
    return one.case, one.quantity, f"{one.value:.4g}", interval, one.unit, one.note


def _line(values: tuple[str, ...], tag: str) -> str:
    return "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values)
