"""From a run's folder to a committed one: the tables and where they come from, nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

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
    shutil.copy(source / "manifest.json", goal)
    for name in TABLES:
        if (source / name).exists():
            if (source / name).stat().st_size > LARGEST:
                return _refused(f"{name} has more than {LARGEST} bytes.")
            shutil.copy(source / name, goal)
    print(f"published in {goal}")
    return 0


def _refused(reason: str) -> int:
    print(f"not published: {reason}")
    return 1
