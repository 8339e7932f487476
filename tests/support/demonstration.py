"""A tiny study for tests: the mean of n uniform numbers tends to one half with error n^(-1/2)."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies.claim_bounds import at_most
from studies.study import Cell, Claim, Context

NAME = "demonstration"
QUESTION = "Does the mean of uniform numbers tend to one half?"
TORCH = False


@dataclass(frozen=True)
class Config:
    sizes: tuple[int, ...] = (10, 100)
    repeats: int = 2
    pause: float = 0.0
    fail: str = ""
    deadly: str = ""

    @classmethod
    def smoke(cls) -> Config:
        return cls()

    @classmethod
    def quick(cls) -> Config:
        return cls(sizes=(10, 20, 30), repeats=40, pause=0.05)

    @classmethod
    def full(cls) -> Config:
        return cls(sizes=(10, 20, 30), repeats=200, pause=0.05)


def cells(config: Config) -> list[Cell]:
    return [
        Cell(f"n={size}-{repeat}", {"size": size, "repeat": repeat}, seed=1000 * size + repeat)
        for size in config.sizes
        for repeat in range(config.repeats)
    ]


def run_cell(cell: Cell, context: Context) -> list[dict[str, Any]]:
    if cell.name == context.config.fail:
        raise RuntimeError(f"asked to fail in {cell.name}")
    if cell.name == context.config.deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(context.config.pause)
    values = cell.rng().random(cell.parameters["size"])
    return [{"size": cell.parameters["size"], "mean": values.mean(), "first": values[:3]}]


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    error = float(np.abs(rows["mean"] - 0.5).max())
    return [Claim("the mean is one half within 0.4", error, (0.0, error), at_most(0.4), "law of large numbers")]


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    figure = Figure(figsize=(3, 2))
    axes = figure.add_subplot()
    axes.semilogx(rows["size"], rows["mean"], "o")
    figure.alt = "Means against sample size, closing in on one half"  # type: ignore[attr-defined]
    return {"means": figure}
