"""Dice: how fast does the mean of N throws approach 3.5?

Protocol, written before the first result: for each N, 400 means of N throws of a fair die; the root mean square of
their distance from 3.5. Control: a loaded die, whose distance must not fall to zero. The claim fails if the slope of
log rms on log N is farther than .05 from −½, or if the loaded die comes closer to 3.5 than half its bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.claim_bounds import above, equals
from studies.figures import described, figure
from studies.statistics import fit_slope
from studies.study import Cell, Claim, Context

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NAME = "dice"
QUESTION = "How fast does the mean of N throws approach 3.5?"
TORCH = False  # the cells do not need torch
DICE = {"fair": [1 / 6] * 6, "loaded": [0.1] * 5 + [0.5]}
BIAS = 1.0  # of the loaded die


@dataclass(frozen=True)
class Config:
    """Numbers of throws."""

    throws: tuple[int, ...] = (10, 30, 100, 300)

    @classmethod
    def smoke(cls) -> Config:
        return cls()

    @classmethod
    def quick(cls) -> Config:
        return cls((10, 30, 100, 300, 1000))

    @classmethod
    def full(cls) -> Config:
        return cls((10, 100, 1000, 10_000))

    @classmethod
    def paper(cls) -> Config:
        return cls((10, 1000, 100_000))


def cells(config: Config) -> list[Cell]:
    """One cell for each die and number of throws, each with a seed of its own."""
    pairs = [(die, n) for die in DICE for n in config.throws]
    return [Cell(f"{die}-{n}", {"die": die, "throws": n}, seed=k) for k, (die, n) in enumerate(pairs)]


def run_cell(cell: Cell, context: Context) -> list[dict[str, Any]]:
    """Rows are flat dictionaries; randomness comes from the cell's seed alone."""
    die, n = cell.parameters["die"], cell.parameters["throws"]
    means = cell.rng().choice(np.arange(1, 7), (400, n), p=DICE[die]).mean(1)
    return [{"die": die, "throws": n, "rms": float(np.sqrt(np.mean((means - 3.5) ** 2)))}]


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """Claims that can fail, the control among them."""
    fair, loaded = (rows[rows["die"] == die].sort_values("throws") for die in DICE)
    slope = fit_slope(fair["throws"], fair["rms"])
    return [
        Claim(
            statement="the distance falls as one over the root of N (slope of logarithms)",
            measured=slope.slope,
            interval=slope.interval(),
            bound=equals(-0.5, 0.05),
            source="central limit theorem",
        ),
        Claim(
            statement="a loaded die stays away (least distance)",
            measured=float(loaded["rms"].min()),
            interval=None,
            bound=above(BIAS / 2),
            source="control",
        ),
    ]


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    """Matplotlib figures, each with a text alternative."""
    drawing, (axis,) = figure()
    for die, part in rows.groupby("die"):
        axis.loglog(part["throws"], part["rms"], "o-", label=die)
    axis.set(xlabel="throws", ylabel="rms distance from 3.5")
    axis.legend()
    return {
        "distance": described(
            drawing, "The distance of a fair die's mean from 3.5 falls as N grows, a loaded die's does not."
        )
    }
