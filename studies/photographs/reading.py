"""Rows of the study as tables of the page."""

from __future__ import annotations

import numpy as np
import pandas as pd


def of(rows: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """The rows whose columns have the given values."""
    for column, value in wanted.items():
        rows = rows[rows[column] == value] if column in rows else rows[:0]
    return rows


def agreement(row: pd.Series, factor: float) -> tuple[int, int]:
    """How many samples of how many differ by at most so many stated errors; what overflowed does not agree."""
    distance, stated = (np.asarray(row[name], dtype=float) for name in ("differences", "errors"))
    return int((np.isfinite(distance) & (distance <= factor * stated)).sum()), len(distance)


def network_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Size, training and losses of the networks."""
    columns = ["model", "parameters", "dimension", "patches", "steps", "batch"]
    losses = ["train_loss", "held_out_loss", "gaussian_loss", "kernel_loss", "bandwidth"]
    table = of(rows, kind="network")[columns + losses].copy()
    for name in ("parameters", "dimension", "patches", "steps", "batch"):
        table[name] = table[name].astype(int)
    for name in losses:
        table[name] = table[name].map("{:.3f}".format)
    return table.rename(columns=lambda name: name.replace("_", " "))


def agreement_table(rows: pd.DataFrame, factor: float = 3.0) -> pd.DataFrame:
    """Each pair of settings: how many samples agree, the median difference, stated error and size."""
    lines = []
    for _, row in of(rows, kind="agreement").iterrows():
        base = of(of(rows, kind="run"), model=row.model, quantity=row.quantity, setting="base").iloc[0]
        inside, count = agreement(row, factor)
        lines.append(
            {
                "model": row.model,
                "quantity": row.quantity,
                "other setting": row.setting,
                "agree": f"{inside} of {count}",
                "difference": _median(row.differences),
                "stated": _median(row.errors),
                "stated below size": int((np.asarray(row.errors, float) < np.asarray(base.sizes, float)[:count]).sum()),
                "size": _median(base.sizes),
            }
        )
    return pd.DataFrame(lines)


def run_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Each setting: outcomes, stated error, time and memory."""
    lines = []
    for _, row in of(rows, kind="run").iterrows():
        total = np.hypot(np.asarray(row.random, dtype=float), np.asarray(row.stated, dtype=float))
        lines.append(
            {
                "model": row.model,
                "quantity": row.quantity,
                "setting": row.setting,
                "levels": int(row.steps),
                "finite": f"{int(row.finite)} of {int(row.samples)}",
                "outcomes": row.outcomes,
                "stated error": _median(total),
                "s per sample": f"{row.seconds / row.samples:.2f}",
                "peak MB": f"{row.megabytes:.0f}",
            }
        )
    return pd.DataFrame(lines)


def _median(values: object) -> str:
    numbers = np.asarray(values, dtype=float)
    return f"{np.median(numbers):.3g}"
