"""Claims on the sign pattern: how errors inside and outside the shells change with training and capacity."""

from __future__ import annotations

import numpy as np
import pandas as pd

from studies.claim_bounds import above, below
from studies.selective_underfitting.config import Config, Ladder, Ladders
from studies.selective_underfitting.summaries import changes, over_trainings
from studies.study import Claim

PAPER = "arXiv 2510.01378"
AXES = {"training": ("shorter",), "late training": ("short",), "capacity": ("narrow", "shallow")}
STATES = {
    "inside": "inside",
    "heldout": "held-out",
    "trajectory": "reference's trajectories",
    "own": "own trajectories",
}
OUTSIDE = {"trajectory": "the reference's trajectories", "own": "its own trajectories"}


def signs(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """Both halves of the pattern for each ladder and axis, its weak sense, and what few points do."""
    claims: list[Claim] = []
    for ladder in config.ladders:
        selected = rows[rows.ladder == ladder.name]
        axes = [axis for axis in AXES if ladder.capacity or axis != "capacity"]
        claims += [sign(selected, ladder, config, axis, column) for axis in axes for column in ("inside", *OUTSIDE)]
        claims += [selective(selected, ladder, config), perfect(selected, ladder, config)]
    return claims + [pulled(rows, few, many, config) for few, many in few_and_many(config)]


def sign(rows: pd.DataFrame, ladder: Ladder, config: Config, axis: str, column: str) -> Claim:
    """One half of the pattern of selective underfitting."""
    estimate = over_trainings(changes(rows, config, AXES[axis], f"{column}_empirical"))
    falls = column == "inside"
    words = "inside the shells falls" if falls else f"on {OUTSIDE[column]}, outside the shells, rises"
    return Claim.of(
        f"{ladder.name}: with more {axis} the error to the empirical score {words} (mean change of its logarithm, "
        "unit: a seed)",
        estimate,
        below(0, interval=True) if falls else above(0, interval=True),
        f"{PAPER}: SiT S to XL .1884→.1834 inside, .5334→.5359 outside",
    )


def selective(rows: pd.DataFrame, ladder: Ladder, config: Config) -> Claim:
    """The weak sense: more is gained inside than outside."""
    inside, outside = (changes(rows, config, AXES["training"], f"{c}_empirical") for c in ("inside", "heldout"))
    estimate = over_trainings(inside - outside)
    return Claim.of(
        f"{ladder.name}: with more training the inside error falls by more than that of held-out states (mean "
        "difference of the changes of the logarithms, unit: a seed)",
        estimate,
        below(0, interval=True),
        "weak sense, ours",
    )


def table(rows: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Mean changes of the log errors with intervals: a line a ladder and axis, a column a kind of state."""
    records = []
    for ladder in config.ladders:
        selected = rows[rows.ladder == ladder.name]
        for axis in AXES if ladder.capacity else list(AXES)[:2]:
            cells = {c: over_trainings(changes(selected, config, AXES[axis], f"{c}_empirical")) for c in STATES}
            texts = {c: f"{v.estimate:+.2f} [{v.low:+.2f}, {v.high:+.2f}]" for c, v in cells.items()}
            records.append({"ladder": ladder.name, "more": axis} | texts)
    return pd.DataFrame(records).rename(columns=STATES)


def perfect(rows: pd.DataFrame, ladder: Ladder, config: Config) -> Claim:
    """Whether generalising perfectly would raise the outside error at all, from where the ladder starts."""
    start = rows[(rows.kind == "level") & (rows.sigma <= config.low) & (rows.rung == "shorter")]
    gap, error = (start.set_index("seed")[c].astype(float) for c in ("heldout_gap", "heldout_empirical"))
    estimate = over_trainings((gap / error).apply(np.log))
    return Claim.of(
        f"{ladder.name}: on held-out states a perfect denoiser has a smaller error to the empirical score than the "
        "shortest training (mean log ratio, unit: a seed)",
        estimate,
        below(0, interval=True),
        "ours: |x − x_i|² = |x_0 − x_i|² + noise, so removing noise brings a state closer to every datum",
    )


def few_and_many(config: Ladders) -> list[tuple[Ladder, Ladder]]:
    """Ladders of one kind on one problem that differ in the number of training points."""
    pairs = [(a, b) for a in config.ladders for b in config.ladders if a.size < b.size]
    return [(a, b) for a, b in pairs if (a.problem, a.kind) == (b.problem, b.kind)]


def pulled(rows: pd.DataFrame, few: Ladder, many: Ladder, config: Ladders) -> Claim:
    """Whether falling outside errors come from memorising: then they need few points."""
    claims = [rows[rows.ladder == ladder.name] for ladder in (few, many)]
    a, b = (changes(ladder_rows, config, AXES["training"], "heldout_pull", np.positive) for ladder_rows in claims)
    value = over_trainings(a - b)
    return Claim.of(
        f"{many.problem} {many.kind}: with more training, held-out states are pulled toward the empirical score more "
        f"for N = {few.size} than for N = {many.size} (mean difference of the changes of the pull, "
        "unit: a seed)",
        value,
        above(0, interval=True),
        "ours: outside errors fall where networks memorise",
    )
