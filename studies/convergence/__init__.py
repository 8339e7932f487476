"""Study `convergence`: does the predicted sensitivity give the change of samples, and what spoils it?

Protocol. (a) Exact scores in d = 1, 2, 10, 100: `(x_η − x_0)/η`, both samples from the oracle, against the engine's
sensitivity δ for η from 1e-2 to 1e-5; fitted order, medians and 99 % quantiles. (b) Errors added to log p and to the
score against η, random probes, coarse grids, approximate anchors. (c) A score learned in d = 10: against the
oracle's δ, the network's own finite-η path, and networks retrained on ρ_η. (d) A score learned from 8×8 digits: one
class gains mass; predicted change against a retrained network's. All latents are kept and every cell is reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studies.convergence.config import Config
from studies.study import Cell, Claim, Context

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["NAME", "QUESTION", "VERSION", "Config", "cells", "claims", "figures", "run_cell"]

NAME = "convergence"
QUESTION = (
    "Is the predicted sensitivity the derivative of the samples in the mass moved, and what spoils the prediction?"
)
VERSION = 1


def cells(config: Config) -> list[Cell]:
    """All cells, the longest first."""
    from studies.convergence import exact, images, neural, paths, robust

    parts = [*images.cells(config), *reversed(neural.cells(config)), *reversed(exact.cells(config))]
    return [*parts, *robust.cells(config), *paths.cells(config)]


def run_cell(cell: Cell, context: Context) -> list[dict[str, Any]]:
    """The rows of one cell; the column `part` says what a row is."""
    from studies.convergence import exact, images, neural, paths, robust

    part, config = cell.parameters["part"], context.config
    if part == "images":
        return images.run(cell, context)
    if part == "neural":
        return neural.run(cell, context)
    if part == "paths":
        return paths.run(cell, config)
    if part == "exact":
        return exact.run(cell, config)
    return exact.run_solvers(cell, config) if part == "solvers" else robust.run(cell, config)


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """What is asserted, with measured values."""
    from studies.convergence import verdicts

    return verdicts.claims(rows, config)


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    """Pictures by name."""
    del config
    from studies.convergence import pictures

    return pictures.figures(rows)
