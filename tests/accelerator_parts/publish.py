"""From a run's folder to a committed one: the tables and where they come from (`studies.reports.gpu` reads them)."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

TABLES = ("rows.parquet", "truth.parquet")
LARGEST = 2**20  # bytes of a committed file


def publish(source: Path, goal: Path) -> int:
    """Copy the tables of a run and its manifest; refused for a rehearsal, for one without a card or a commit.

    Returns:
        The exit status: 1 where it is refused, with a sentence.
    """
    manifest = json.loads((source / "manifest.json").read_text())
    if manifest.get("rehearsal") or not manifest.get("gpu"):
        return _refused("these rows were not measured on a GPU.")
    if manifest.get("commit") in (None, "unknown"):
        return _refused("the commit is not known: set ACCELERATOR_COMMIT for the run.")
    goal.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        if (source / name).exists():
            _single(pd.read_parquet(source / name)).to_parquet(goal / name, index=False, compression="zstd")
            if (goal / name).stat().st_size > LARGEST:
                (goal / name).unlink()
                return _refused(f"{name} has more than {LARGEST} bytes.")
    (goal / "origin.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(f"published in {goal}")
    return 0


def _single(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers in single precision: more digits were not measured."""
    return table.astype(dict.fromkeys(table.select_dtypes("float64").columns, "float32"))


def _refused(reason: str) -> int:
    print(f"not published: {reason}")
    return 1
