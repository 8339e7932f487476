"""Many tiny cells, for the cost of the runner itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from studies.claim_bounds import equals
from studies.study import Cell, Claim, Context

NAME = "tiny"
QUESTION = "How long does a cell take that does nothing?"
TORCH = False


@dataclass(frozen=True)
class Config:
    count: int = 20

    @classmethod
    def smoke(cls) -> Config:
        return cls()

    @classmethod
    def quick(cls) -> Config:
        return cls(1000)

    @classmethod
    def full(cls) -> Config:
        return cls(10_000)


def cells(config: Config) -> list[Cell]:
    return [Cell(f"cell-{index:05d}", {"index": index}, seed=index) for index in range(config.count)]


def run_cell(cell: Cell, context: Context) -> list[dict[str, Any]]:
    return [{"index": cell.parameters["index"], "value": cell.rng().random()}]


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    mean = float(rows["value"].mean())
    return [Claim("the mean is one half within 0.5", mean, None, equals(0.5, 0.5), "test")]


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    return {}
