"""What all claims of the study share."""

from __future__ import annotations

from typing import Any

PAPER = "arXiv 2408.16765"
Z = 1.96  # of a 95 % interval


def chosen(rows: Any, **values: object) -> Any:
    """The rows with the given values."""
    for name, value in values.items():
        rows = rows[rows[name] == value]
    return rows
