"""How small a fault a task's suite sees, as measured and kept in `power.json` (see `studies.verification.power`)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from studies.verification.tasks import TASKS

__all__ = ["TABLE", "entries", "sentence"]

TABLE = Path(__file__).with_name("power.json")


@cache
def entries() -> dict[str, list[dict[str, Any]]]:
    """What was measured, by task; empty where nothing was."""
    by_task: dict[str, list[dict[str, Any]]] = {}
    for entry in json.loads(TABLE.read_text())["power"] if TABLE.exists() else []:
        by_task.setdefault(entry["task"], []).append(entry)
    return by_task


def sentence(task: str, suite: str = "quick") -> str:
    """What the task's suite would have seen, in words; empty where it was not measured.

    Where the full suite was not measured, the quick one's numbers stand for it: it has the same problems and more.

    Example:
        >>> "factor" in sentence("score")
        True
    """
    known = entries().get(task, [])
    if not known:
        return ""
    exact = next((entry for entry in known if entry["suite"] == suite), known[0])
    unit = " nat" if TASKS[task].absolute else " of the truth's size"
    words = [f"a factor off by {_percent(exact['factor'])}", f"a shift of {exact['shift']:g}{unit}"]
    own = [entry for entry in known if entry["bars_of"] == "its own"]
    honest = next((entry for entry in own if entry["suite"] == suite), (own or [exact])[0])["bars"]
    words += [f"error bars wrong by {honest:g} ×"] if honest else []
    return f"Smallest faults that this suite sees (99 of 100 seeds): {', '.join(words)}."


def _percent(size: float) -> str:
    return f"{100 * size:.2g} %"
