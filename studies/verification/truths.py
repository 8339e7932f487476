"""Inputs and truth of a case: computed, or read from the stored table where computing takes long.

The table `truths.parquet` holds the inputs and truths of the published rows (seed 0) of slow tasks, each under the
digest of everything it depends on. `python -m studies.verification.regenerate` computes it anew; a record whose digest
does not match is not used.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np

from studies.verification.reduction import is_reducible
from studies.verification.tasks.base import Arrays, Case, Task

__all__ = ["DIGESTS", "PROBLEMS", "TABLE", "computed", "digest", "prepared", "stored_cases"]

TABLE = Path(__file__).with_name("truths.parquet")
DIGESTS = Path(__file__).with_name("laws.json")
PROBLEMS = Path(__file__).with_name("problems.json")
VERSION = 1


def digest(task: Task, case: Case) -> str:
    """Sixteen hexadecimal digits of the case, its laws' parameters and the version of the definitions."""
    other = None if case.toward is None else case.other.digest
    unset = () if case.operator else ("operator", "noise", "draws")  # names that most problems do not have
    left_out = ("tags", "suite", "steps", "probes", *unset)
    given = {key: value for key, value in asdict(case).items() if key not in left_out}
    text = json.dumps([VERSION, task.name, given, case.base.digest, other], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stored_cases() -> list[tuple[Task, Case]]:
    """Tasks and cases whose truths are stored: slow ones whose rows are judged, but for laws that split in a moment."""
    from studies.verification.tasks import TASKS

    slow = [(task, case) for task in TASKS.values() if task.slow for case in task.cases if case.judge == "rows"]
    return [(task, case) for task, case in slow if not is_reducible(case.base)]


def prepared(task: Task, case: Case, seed: int) -> tuple[Arrays, np.ndarray]:
    """The inputs (by name) and the truth of a case's rows for a seed."""
    if task.slow and seed == 0:
        stored = _stored().get(digest(task, case))
        if stored is not None:
            return {key: value for key, value in stored.items() if key != "truth"}, stored["truth"]
    return computed(task, case, seed)


def computed(task: Task, case: Case, seed: int) -> tuple[Arrays, np.ndarray]:
    inputs = task.draw(case, case.rng(task.name, seed))
    return inputs, task.truth(case, inputs)


@cache
def _stored() -> dict[str, Arrays]:
    import pandas as pd

    if not TABLE.exists():
        return {}
    records: dict[str, Arrays] = {}
    for row in pd.read_parquet(TABLE).to_dict("records"):
        array = np.asarray(row["values"], dtype=float).reshape([int(n) for n in row["shape"]])
        records.setdefault(row["digest"], {})[row["field"]] = array
    return records
