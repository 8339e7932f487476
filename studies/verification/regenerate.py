"""Compute the stored truths and all digests anew: `python -m studies.verification.regenerate`.

Run it after a change of a law, a case or a definition. A truth is stored only if its error bar (`oracles.flow`: two
tolerances a factor ten apart) is below a thousandth of what the task allows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from oracles import AdditivePerturbation, flow
from studies.errors import StudyError
from studies.verification.laws import LAWS, law, oracle
from studies.verification.tasks import TASKS
from studies.verification.tasks.base import Arrays, Case, Task
from studies.verification.truths import DIGESTS, PROBLEMS, TABLE, computed, digest, stored_cases

__all__ = ["problem_digests", "regenerate"]

ALLOWED = 1e-3


def regenerate(table: Path = TABLE, digests: Path = DIGESTS) -> int:
    """Write the three files; returns the number of cases.

    Raises:
        StudyError: an error bar is too large.
    """
    import pandas as pd

    cases = stored_cases()
    records = [record for task, case in cases for record in _records(task, case)]
    pd.DataFrame(records).to_parquet(table, index=False, compression="zstd")
    digests.write_text(json.dumps({name: law(name).digest for name in LAWS}, indent=1) + "\n")
    digests.with_name(PROBLEMS.name).write_text(json.dumps(problem_digests(), indent=1) + "\n")
    return len(cases)


def problem_digests() -> dict[str, str]:
    """Every problem's digest, by `task/problem`."""
    return {f"{task.name}/{case.name}": digest(task, case) for task in TASKS.values() for case in task.cases}


def _records(task: Task, case: Case) -> list[dict[str, Any]]:
    inputs, truth = computed(task, case, 0)
    _check(task, case, inputs, truth)
    key = digest(task, case)
    return [
        {
            "task": task.name,
            "case": case.name,
            "digest": key,
            "field": field,
            "shape": list(array.shape),
            "values": array.ravel().tolist(),
        }
        for field, array in {**inputs, "truth": truth}.items()
    ]


def _check(task: Task, case: Case, inputs: Arrays, truth: np.ndarray) -> None:
    """Error bars of the flow for `sample` and `sample-sensitivity`; influences share their integrator."""
    if task.name not in ("sample", "sample-sensitivity"):
        return
    order = 0 if task.name == "sample" else 1
    base = oracle(case.base)
    what = base if order == 0 else AdditivePerturbation(base, oracle(case.other))
    bars = flow.error_bar(what, inputs["latents"], case.sigma_max, case.sigma, order)[order]
    worst = float(np.max(bars / task.limit(truth)))
    if worst > ALLOWED:
        raise StudyError(f"the truth of {task.name} on {case.name} is uncertain: {worst:.1e} of what is allowed.")


if __name__ == "__main__":
    print(f"{regenerate()} cases in {TABLE.name}, {TABLE.stat().st_size / 1e3:.0f} kB")
