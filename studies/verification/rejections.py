"""Why each planted fault is rejected, in the report's own words: `python -m studies.verification.rejections`.

Every fault is verified on the first problem of its task's quick suite on which it must show (and in at most 40
dimensions); the checks that fail and the first sentence are kept in `rejections.json` beside this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from studies.verification.faults import FAULTS, Fault
from studies.verification.session import verify
from studies.verification.tasks import TASKS
from studies.verification.tasks.base import Case

__all__ = ["TABLE", "rejection", "rejections", "shows"]

TABLE = Path(__file__).with_name("rejections.json")
LARGEST = 40


def shows(fault: Fault) -> list[Case]:
    """The problems of the quick suite on which the fault must be caught."""
    return [case for case in TASKS[fault.task].suite("quick") if fault.where(case)]


def rejection(fault: Fault) -> dict[str, Any]:
    """Task, mistake, problem, failed checks and the report's first sentence.

    Example:
        >>> from studies.verification.faults import FAULTS
        >>> rejection(FAULTS["noise_as_score"])["checks"]
        ['accuracy']
    """
    small = [case for case in shows(fault) if case.base.dimension <= LARGEST]
    case = small[0]
    report = verify(fault.estimator, fault.task, problems=[case.name], orders=False)
    failed = [check for verdict in report.judged for check in verdict.checks if not check.holds]
    return {
        "fault": fault.name,
        "task": fault.task,
        "mistake": fault.reason,
        "problem": case.name,
        "caught on": f"{len(shows(fault))} of {len(TASKS[fault.task].suite('quick'))}",
        "checks": [check.name for check in failed],
        "sentence": failed[0].sentence if failed else "",
    }


def rejections(faults: Iterable[Fault] = tuple(FAULTS.values()), table: Path = TABLE) -> int:
    """Write the table; returns how many faults were not rejected."""
    findings = []
    for fault in faults:
        findings.append(rejection(fault))
        print(json.dumps(findings[-1], ensure_ascii=False), flush=True)
    table.write_text(json.dumps(findings, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return sum(not entry["checks"] for entry in findings)


if __name__ == "__main__":
    raise SystemExit(min(1, rejections()))
