"""From runs' folders to a committed one: the tables and where they come from (`studies.reports.gpu` reads them)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

TABLES = ("rows.parquet", "truth.parquet", "far.parquet", "length.parquet", "photographs.parquet")
LARGEST = 2**20  # bytes of a committed file
NAMING = ("level", "sigma")  # columns that say which rows belong together: they are compared, not measured


def publish(sources: Sequence[Path], goal: Path) -> int:
    """Add the tables of runs to those that are there; refused for a rehearsal, for one without a card or a commit.

    A case that was measured in several runs is kept from the last of them; so is a job whose rows have no cases.

    Returns:
        The exit status: 1 where it is refused, with a sentence.
    """
    manifests = [json.loads((source / "manifest.json").read_text()) for source in sources]
    for manifest in manifests:
        if manifest.get("rehearsal") or not manifest.get("gpu"):
            return _refused("these rows were not measured on a GPU.")
        if manifest.get("commit") in (None, "unknown"):
            return _refused("the commit is not known: set STUDIES_COMMIT for the run.")
    goal.mkdir(parents=True, exist_ok=True)
    earlier = json.loads((goal / "origin.json").read_text())["runs"] if (goal / "origin.json").exists() else []
    for name in TABLES:
        parts = [
            pd.read_parquet(source / name).assign(run=number)
            for number, source in enumerate(sources, start=len(earlier))
            if (source / name).exists()
        ]
        if parts:
            if earlier and (goal / name).exists():
                parts.insert(0, pd.read_parquet(goal / name))
            _latest(parts).to_parquet(goal / name, index=False, compression="zstd")
            if (goal / name).stat().st_size > LARGEST:
                (goal / name).unlink()
                return _refused(f"{name} has more than {LARGEST} bytes.")
    runs = [manifest | {"command": _anywhere(manifest["command"])} for manifest in manifests]
    (goal / "origin.json").write_text(json.dumps({"runs": [*earlier, *runs]}, indent=1) + "\n")
    print(f"published in {goal}")
    return 0


def _anywhere(command: str) -> str:
    """The command as one would type it on another machine."""
    quoted = re.sub(r"--only (.*?)(?= --|$)", r'--only "\1"', command)
    return re.sub(r"--out \S+", "--out DIR", quoted)


def _latest(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows; of equal cases those of the last run."""
    whole = pd.concat(parts, ignore_index=True)
    last = whole.groupby(["job", "case"] if "case" in whole else ["job"])["run"].transform("max")
    return _single(whole[whole["run"] == last])


def _single(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers in single precision, since more digits were not measured; noise levels keep all of theirs."""
    measured = table.select_dtypes("float64").columns.difference(NAMING)
    return table.astype(dict.fromkeys(measured, "float32"))


def _refused(reason: str) -> int:
    print(f"not published: {reason}")
    return 1
