"""Several estimators at once: `studies verify` without a name reads `[tool.score-sensitivity]` of a `pyproject.toml`.

    [[tool.score-sensitivity.verify]]
    estimator = "mine:log_density"
    task = "log-density"
    suite = "quick"          # optional, as are backend, seed, problems and slack

The file is that of the current folder; estimators are found from there.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studies.errors import StudyError
from studies.study import suggestion

__all__ = ["OPTIONS", "Entry", "entries"]

OPTIONS: dict[str, type | tuple[type, ...]] = {
    "suite": str,
    "backend": str,
    "seed": int,
    "problems": list,
    "slack": (int, float),
}
WHERE = "[[tool.score-sensitivity.verify]]"
NAME_IT = (
    "name what to verify: MODULE:CALLABLE --task TASK, or --engine for this package's own, or list estimators under "
    f"{WHERE} in pyproject.toml"
)


@dataclass(frozen=True)
class Entry:
    """One estimator to verify: its name, its task, and options of `studies verify`."""

    estimator: str
    task: str
    options: dict[str, Any] = field(default_factory=dict)


def entries(path: Path = Path("pyproject.toml")) -> list[Entry]:
    """The estimators that a `pyproject.toml` names, in order.

    Raises:
        StudyError: no such file, not TOML, nothing named, or an entry that says something else than it may.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyError(f"{NAME_IT} (there is no {path.name} here).") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StudyError(f"{path} cannot be read ({error}); mend the file.") from error
    listed: Any = content
    for key in ("tool", "score-sensitivity", "verify"):
        listed = listed.get(key, {}) if isinstance(listed, dict) else {}
    if not isinstance(listed, list) or not listed:
        raise StudyError(f"{NAME_IT} ({path.name} has none).")
    return [_entry(path, number, table) for number, table in enumerate(listed, 1)]


def _entry(path: Path, number: int, table: Any) -> Entry:
    where = f"{path}, {WHERE} number {number}"
    if not isinstance(table, dict):
        raise StudyError(f"{where} is {table!r}; write a table with estimator and task.")
    known = {"estimator": str, "task": str, **OPTIONS}
    for key, value in table.items():
        if key not in known:
            raise StudyError(f"{where} has {key!r}; {suggestion(key, known)}.")
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise StudyError(f"{where}: {key} = {value!r} is of the wrong kind; see the page on verifying.")
    missing = [key for key in ("estimator", "task") if key not in table]
    if missing:
        raise StudyError(f"{where} lacks {missing[0]}; give estimator = 'MODULE:CALLABLE' and task = '...'.")
    return Entry(table["estimator"], table["task"], {key: table[key] for key in OPTIONS if key in table})
