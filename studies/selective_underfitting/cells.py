"""Cells: one a rung, one a ladder's controls, one a network kind and region, one each for the small experiments."""

from __future__ import annotations

from typing import Any

from studies.selective_underfitting.config import Config
from studies.selective_underfitting.exact import run_features, run_perception
from studies.selective_underfitting.freedom import run_exact, run_freedom
from studies.selective_underfitting.guidance import run_guidance
from studies.selective_underfitting.ladder import Bench, run_memoriser, run_rung
from studies.study import Cell, Context

SEEDS = 5  # of the experiments without training


def cells(config: Config) -> list[Cell]:
    """The independent pieces; the base network of a ladder is trained by whichever needs it first."""
    cells = []
    for index, ladder in enumerate(config.ladders):
        for place, rung in enumerate(ladder.rungs()):
            cells.append(Cell(f"{ladder.name}-{rung.name}", {"part": "rung", "ladder": index, "rung": place}))
        cells.append(Cell(f"{ladder.name}-controls", {"part": "controls", "ladder": index}))
    for index, freedom in enumerate(config.freedoms):
        regions = [(ratio, 1.0) for ratio in freedom.ratios] + [(1, k) for k in freedom.thickness]
        for ratio, thickness in regions:
            parameters = {"part": "freedom", "freedom": index, "ratio": ratio, "thickness": thickness}
            cells.append(Cell(f"freedom-{freedom.kind}-{ratio}-{thickness:g}", parameters))
    cells.append(Cell("freedom-memoriser", {"part": "exact"}))
    cells.append(Cell("guidance", {"part": "guidance"}))
    cells += [Cell(f"features-{seed}", {"part": "features"}, seed) for seed in range(SEEDS)]
    return cells + [Cell(f"perception-{seed}", {"part": "perception"}, seed) for seed in range(SEEDS)]


def run_cell(cell: Cell, context: Context) -> list[dict[str, Any]]:
    """Rows of one cell."""
    config: Config = context.config
    p = cell.parameters
    if p["part"] in ("rung", "controls"):
        bench = Bench(config.ladders[p["ladder"]], context)
        return run_memoriser(bench) if p["part"] == "controls" else run_rung(bench, bench.ladder.rungs()[p["rung"]])
    if p["part"] == "freedom":
        return run_freedom(config.freedoms[p["freedom"]], p["ratio"], p["thickness"], context)
    if p["part"] == "exact":
        return run_exact(context)
    if p["part"] == "guidance":
        return run_guidance(context)
    return run_features(config, cell.seed) if p["part"] == "features" else run_perception(cell.seed)
