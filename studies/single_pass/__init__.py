"""What sensitivities and influences cost beside one hand-written pass, on three kinds of networks.

The benchmarks are `fused` and `equal_accuracy` of `studies.cost.benchmarks`, and the exact laws that truth is made of;
protocol, rows, claims and figures are those of the study `cost`. The baseline is another: Heun's method with one probe
a stage and reverse mode, what a user writes in twenty lines; packages take log densities by a second pass.
May touch: `studies.cost`, which runs it.
"""

from __future__ import annotations

from dataclasses import dataclass

from studies.cost import Config as CostConfig
from studies.cost import benchmarks, claims, figures, run_cell
from studies.study import Cell

__all__ = ["NAME", "QUESTION", "SERIAL", "Config", "cells", "claims", "figures", "run_cell"]

NAME = "single_pass"
QUESTION = "What do sensitivities and influences cost beside one hand-written pass for samples and log densities?"
SERIAL = True
ORACLES = ("mixture", "empirical")


@dataclass(frozen=True)
class Config(CostConfig):
    """As for `cost`; `only` names the benchmarks."""

    only: tuple[str, ...] = (*benchmarks.SINGLE_PASS, *ORACLES)


def cells(config: Config) -> list[Cell]:
    """One for each size of each benchmark."""
    return [
        Cell(f"{name}-{index}", {"benchmark": name, "size": size}, seed=index)
        for name in config.only
        for index, size in enumerate(benchmarks.load(name).SIZES.get(config.sizes, []))
    ]
