"""What was measured on a GPU, as the book shows it: rows of `tests/accelerator.py`, published like the studies' tables.

`studies/results/accelerator/` holds `rows.parquet` (job, case, quantity, value, low, high, unit, note, run),
`truth.parquet` (a row for each pair of networks, latent and predictor), the rows of studies whose networks were trained
there (`far.parquet`, `length.parquet`, `photographs.parquet`) and `origin.json`: of each run card, driver, versions,
commit, command. They come from one kind of card and are never mixed with those of a processor.
"""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from studies.errors import StudyError
from studies.reports.pages import Shown
from studies.results import FOLDER

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["measured", "origin", "rows", "shares"]

HOME = FOLDER / "accelerator"
HEAD = ("case", "quantity", "value", "interval", "unit", "")


def rows(name: str = "rows", home: Path = HOME) -> pd.DataFrame:
    """A published table: "rows", "truth", "far", "length" or "photographs".

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
    """A sentence for each published run: card, driver, versions, commit and command, and what it left out."""
    if not (home / "origin.json").is_file():
        raise StudyError("nothing that was measured on a GPU is published.")
    return "\n".join(_run(known) for known in json.loads((home / "origin.json").read_text())["runs"])


def _run(known: dict[str, Any]) -> str:
    gpu, versions = known["gpu"], known["versions"]
    sentence = (
        f"{gpu['name']}, driver {gpu['driver']}, CUDA {gpu['cuda']}, torch {versions['torch']}, Python "
        f"{versions['python']}, commit {known['commit'][:12]}, begun {known['started']}. "
        f"Repeat it with: {known['command']}"
    )
    jobs = known["jobs"].items()
    missing = [f"{job} ({shorten(verdict, 100, placeholder=' …')})" for job, verdict in jobs if verdict != "done"]
    return sentence + (f"\nNot measured: {'; '.join(missing)}." if missing else "")


def shares(home: Path = HOME) -> pd.DataFrame:
    """How much of what retrainings share each predictor reaches, by data and kind of retraining.

    `two pairs` is the median correlation r of the changes of two pairs; the mean change of n pairs is then known up to
    the correlation `ceiling` = √(n r/(1 + (n − 1) r)) (Spearman–Brown), the most that any predictor can reach;
    `reached` is the predictor's correlation with the mean change, `share` their quotient. Medians over latents of the
    same pairs: no interval is given for want of independent repetitions of the whole.
    """
    import pandas as pd

    table = rows(home=home)
    table = table[table["job"].str.startswith("truth ")]
    value = table.set_index(["case", "quantity"])["value"]
    records = []
    for case in [each for each in table["case"].unique() if ", " in each and "step" not in each]:
        pairs = float(value[case.split(",")[0], "pairs"])
        for centred in ("", "centred "):
            between = float(value[case, f"{centred}correlation of two pairs"])
            ceiling = math.sqrt(pairs * between / (1 + (pairs - 1) * between))
            column = "centred, of means" if centred else "correlation, of means"
            for name, reached in value.xs(case, level="case").items():
                if str(name).endswith(column):
                    known = {"two pairs": between, "ceiling": ceiling, "reached": reached, "share": reached / ceiling}
                    who = {"case": case, "reading": centred.strip() or "plain", "predictor": str(name).split(":")[0]}
                    records.append(who | known)
    return pd.DataFrame(records)


def measured(*jobs: str, containing: str = "", case: str = "", home: Path = HOME) -> Shown:
    """The rows of some jobs as a table; `containing` keeps the quantities with these letters, `case` the cases.

    Raises:
        StudyError: no such rows.
    """
    table = rows(home=home)
    chosen = table[table["job"].isin(jobs) & table["quantity"].str.contains(containing, regex=False)]
    chosen = chosen[chosen["case"].str.contains(case, regex=False)]
    if chosen.empty:
        raise StudyError(
            f"no rows of the jobs {', '.join(jobs)} are published; there are {', '.join(set(table['job']))}."
        )
    cells = [_cells(one) for one in chosen.itertuples()]
    body = "".join(f"<tr>{_line(cell, 'td')}</tr>" for cell in cells)
    text = "\n".join(" | ".join(cell) for cell in (HEAD, *cells))
    return Shown(f'<table class="dataframe"><tr>{_line(HEAD, "th")}</tr>{body}</table>', text)


def _cells(one: Any) -> tuple[str, ...]:
    return one.case, one.quantity, f"{one.value:.4g}", _interval(one.low, one.high), one.unit, one.note


def _interval(low: float, high: float) -> str:
    """Both ends, or the largest value where only that is kept."""
    if math.isnan(high):
        return ""
    return f"at most {high:.2g}" if math.isnan(low) else f"[{low:.4g}, {high:.4g}]"


def _line(values: tuple[str, ...], tag: str) -> str:
    return "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values)
