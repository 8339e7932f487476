"""A table of attributors by the tiers of the task `attribution`.

    python -m studies.attribution.leaderboard --out studies/attribution/leaderboard.json

asks every attributor of `studies.attribution.attributors` every problem once and keeps score, interval, ceiling, slope,
worst query, seconds (of this machine, loaded or not), and the paired difference to the best of the problem with its
interval over subsets and seeds. Finished problems are kept, so that a killed run goes on; `--again` asks them anew, and
`--method NAME` that method alone (of problems chosen by `--problem`), beside the rows of the others.
Hyperparameters are those of the module, no query was looked at; attributors that do not answer a problem are absent
from it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.attribution.attributors import ATTRIBUTORS
from studies.datamodelling import paired
from studies.files import as_json, write
from studies.verification.attributions.judge import judge_attribution
from studies.verification.attributions.tiers import truth
from studies.verification.replies import Reply
from studies.verification.session import reproduce
from studies.verification.tasks.attribution import TASK, RetrainedCase

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TABLE", "answers", "asked", "board", "entries", "joined", "table"]

TABLE = Path(__file__).with_name("leaderboard.json")
KEPT = ("lds", "lds_low", "lds_high", "ceiling", "share", "slope", "rank", "removal", "worst", "seconds")


def entries(path: Path = TABLE) -> list[dict[str, Any]]:
    """The published rows."""
    published: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return published


def asked(case: RetrainedCase, methods: Sequence[str] = tuple(ATTRIBUTORS)) -> list[dict[str, Any]]:
    """Rows of one problem, best first."""
    rows, values = answers(case, methods)
    rows.sort(key=_order)
    return _behind(case, rows, values, values[rows[0]["method"]])


def joined(case: RetrainedCase, methods: Sequence[str], kept: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one problem, best first, of which those of other methods are kept as they are.

    Differences to the best need its numbers: it is asked again. Where it is a new one, or no longer has the score that
    was kept, all are asked again.
    """
    others = [row for row in kept if row["method"] not in methods]
    rows, values = answers(case, methods)
    best = min([*rows, *others], key=_order)
    if best in others:
        ((again,), its) = answers(case, [best["method"]])
        if again["lds"] == best["lds"]:
            return sorted([*_behind(case, rows, values, its[best["method"]]), *others], key=_order)
    return asked(case, [name for name in ATTRIBUTORS if name in methods or name in {row["method"] for row in others}])


def _order(row: dict[str, Any]) -> float:
    return -float(row.get("lds", -1.0))


def answers(case: RetrainedCase, methods: Sequence[str]) -> tuple[list[dict[str, Any]], dict[str, np.ndarray | None]]:
    """Rows and numbers of the methods that answer."""
    rows: list[dict[str, Any]] = []
    values: dict[str, np.ndarray | None] = {}
    for name in methods:
        problem, _ = reproduce(TASK.name, case.name)
        start = time.perf_counter()
        answer = ATTRIBUTORS[name](problem)
        if answer is NotImplemented:
            continue
        reply = Reply(value=np.asarray(answer, dtype=np.float64), seconds=time.perf_counter() - start)
        verdict = judge_attribution(case, [reply])
        measured = {key: round(float(value), 4) for key, value in verdict.measures.items() if key in KEPT}
        rows.append({"problem": case.name, "method": name, "failed": list(verdict.failed), **measured})
        values[name] = reply.value
    return rows, values


def _behind(
    case: RetrainedCase, rows: list[dict[str, Any]], values: dict[str, np.ndarray | None], best: np.ndarray | None
) -> list[dict[str, Any]]:
    """The rows with their paired differences to the best."""
    known = truth(case.setting, case.functional)
    for row in rows:
        rival = values[row["method"]]
        if rival is not None and best is not None and np.isfinite(rival).all():
            gap = paired(known.masks, known.values, rival, best)
            row["behind"] = [round(float(each), 4) for each in (gap.estimate, *gap.bounds)]
    return rows


def board(path: Path, problems: Sequence[str], again: bool = False, methods: Sequence[str] = ()) -> None:
    """Ask what is not yet in the file, or all again, or the named methods alone."""
    rows = entries(path) if path.exists() else []
    order = [case.name for case in TASK.cases]
    for name in problems:
        kept = [row for row in rows if row["problem"] == name]
        if kept and not again and not methods:
            continue
        case = TASK.case(name)
        rows = [row for row in rows if row not in kept] + (joined(case, methods, kept) if methods else asked(case))
        rows.sort(key=lambda row: order.index(row["problem"]))
        write(path, as_json({"rows": rows}))
        print(name, {row["method"]: row.get("lds") for row in rows if row["problem"] == name}, flush=True)


def table(prefix: str = "", path: Path = TABLE) -> pd.DataFrame:
    """Methods by problems whose names begin with `prefix`: score and interval, a star where not told from the best."""
    import pandas as pd

    rows = [row for row in entries(path) if row["problem"].startswith(prefix) and "lds" in row]
    cells = {(row["method"], row["problem"]): _cell(row) for row in rows}
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    # By the first problem: a mean over what each was asked would favour those asked of the easy ones alone.
    first = {row["method"]: row["lds"] for row in rows if row["problem"] == problems[0]}
    order = sorted(dict.fromkeys(name for name, _ in cells), key=lambda name: -first.get(name, -2.0))
    lines = [{"method": name, **{each: cells.get((name, each), "") for each in problems}} for name in order]
    return pd.DataFrame(lines)


def _cell(row: dict[str, Any]) -> str:
    star = "*" if row.get("behind", [0, 0, -1])[2] >= 0 else ""
    return f"{row['lds']:.2f} [{row['lds_low']:.2f}, {row['lds_high']:.2f}]{star}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask every attributor every problem.")
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--problem", action="append")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--method", action="append", choices=ATTRIBUTORS, default=[])
    given = parser.parse_args()
    board(given.out, given.problem or [case.name for case in TASK.cases], given.again, given.method)


if __name__ == "__main__":
    main()
