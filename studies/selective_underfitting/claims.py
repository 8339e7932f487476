"""The claims, with thresholds fixed in the protocol."""

from __future__ import annotations

import numpy as np
import pandas as pd

from studies.claim_bounds import above, at_least, at_most, below, within
from studies.selective_underfitting.config import Config, Ladder
from studies.selective_underfitting.signs import AXES, PAPER, signs
from studies.selective_underfitting.summaries import (
    AT,
    EMPTY,
    changes,
    memorised_counts,
    networks,
    over_trainings,
    spearman,
)
from studies.statistics import (
    Interval,
    mean_of_units,
    median_interval,
    share_of_units,
    shares_apart,
    within_groups,
)
from studies.study import Claim

ENOUGH = 4  # regions, for a rank correlation


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """Every claim of the protocol, each ladder and each kind of network on its own."""
    claims = signs(rows, config)
    for ladder in first_of_sets(config):
        selected = rows[rows.ladder == ladder.name]
        claims += deviation(selected, ladder, config) + memoriser(selected, ladder)
    for ladder in config.ladders:
        claims += returning(rows[rows.ladder == ladder.name], ladder, config)
    claims += [claim for f in config.freedoms for claim in freedom(rows, f.kind, max(f.ratios), max(f.thickness))]
    claims += [reach(rows, f.kind) for f in config.freedoms if len(f.ratios) + len(f.thickness) > ENOUGH]
    claims += toy(rows, config) if "gaussian20" in set(rows.problem.dropna()) else []
    return [*claims, guidance(rows), *perception(rows), features(rows), *quality(rows)]


def first_of_sets(config: Config) -> list[Ladder]:
    """One ladder of each training set: what does not depend on the network is claimed once."""
    return list({ladder.data: ladder for ladder in reversed(config.ladders)}.values())[::-1]


def deviation(rows: pd.DataFrame, ladder: Ladder, config: Config) -> list[Claim]:
    """r⋆ of training, trajectory and held-out states."""
    selected = rows[rows.kind == "deviation"]
    lowest = min(config.levels)
    training = [median_interval(np.asarray(v)) for v in selected[selected.states == "inside"].deviation]
    worst = max(training, key=lambda interval: abs(interval.estimate - 1))
    claims = [
        Claim.of(
            f"{ladder.data}: training states lie at r⋆ = 1 (median at the level where it is farthest from 1)",
            worst,
            within(0.9, 1.1, interval=True),
            f"{PAPER}, r⋆; χ² law",
        )
    ]
    names = {"trajectory": "sampling trajectories leave", "heldout": "control: held-out states are outside"}
    for states, words in names.items():
        value = median_interval(
            np.asarray(selected[(selected.states == states) & (selected.sigma == lowest)].iloc[0].deviation)
        )
        claims.append(
            Claim.of(
                f"{ladder.data}: {words} the shells at σ = {lowest:g} (median r⋆)",
                value,
                above(1.2, interval=True),
                f"{PAPER}: r⋆ 1 at t ≥ .8, about 10 at .1, 90 at .01" if states == "trajectory" else "control",
            )
        )
    return claims


def memoriser(rows: pd.DataFrame, ladder: Ladder) -> list[Claim]:
    """The control that must memorise."""
    if ladder.problem.endswith("20"):
        return []
    share = float(rows[(rows.kind == "network") & (rows.rung == "memoriser")].iloc[0].memorised[AT])
    return [
        Claim(
            f"{ladder.data}: the exact empirical score memorises every sample (share)",
            share,
            None,
            at_least(0.99),
            "control: exact memoriser",
        )
    ]


def returning(rows: pd.DataFrame, ladder: Ladder, config: Config) -> list[Claim]:
    """Return to the training point from the lowest and from the highest level."""
    selected = rows[(rows.kind == "level") & (rows.rung == "base")]
    claims = []
    ends = ((min(config.levels), at_least(0.9, interval=True)), (max(config.levels), at_most(0.1, interval=True)))
    for sigma, bound in ends:
        shares = np.asarray(selected[selected.sigma == sigma].returned, dtype=float)
        trials = min(64, ladder.size)
        claims.append(
            Claim.of(
                f"{ladder.name}: training points noised to σ = {sigma:g} return to themselves (share, unit: a "
                "training)",
                share_of_units(shares * trials, np.full(len(shares), trials)),
                bound,
                f"{PAPER}: 1.0 .98 .78 .25 0 at t ≤ .75, .8, .85, .9, ≥ .95",
            )
        )
    return claims


def freedom(rows: pd.DataFrame, kind: str, ratio: int, thickness: float) -> list[Claim]:
    """Broader supervision of the same targets, by more images and by thicker shells."""
    regions = ((1, 1.0), (ratio, 1.0), (1, thickness))
    thin, wide, thick = (memorised_counts(rows, kind, *region) for region in regions)
    shares = [f"{each.memorised.sum() / each.samples.sum():.2f}" for each in (thin, wide, thick)]
    more, other = (shares_apart(each.memorised, thin.memorised, thin.samples) for each in (wide, thick))
    paper = {"unet": "0 to .80", "transformer": ".08 to .85"}.get(kind, "rises")
    return [
        Claim.of(
            f"{kind}: broadening D_region {ratio} times raises the share memorised ({shares[0]} to {shares[1]}; unit: "
            "a training)",
            more,
            above(0, interval=True),
            f"{PAPER}: {paper} at ratios 1 to 25.6",
        ),
        Claim.of(
            f"{kind}: thickening shells {thickness:g} times raises the share memorised ({shares[0]} to {shares[2]}; "
            "unit: a training)",
            other,
            above(0, interval=True),
            "not in the paper",
        ),
    ]


def reach(rows: pd.DataFrame, kind: str) -> Claim:
    """Over all regions and seeds: what memorised samples go with."""
    selected = rows[(rows.kind == "freedom") & (rows.network == kind)]
    outside = selected.heldout_errors.map(lambda v: float(np.nanmean(np.log(np.asarray(v, dtype=float)))))
    estimate = spearman(outside, selected.memorised.map(lambda m: float(m[AT])))
    return Claim.of(
        f"{kind}: over regions, images added or shells thickened, more is memorised where the targets are met on "
        f"held-out states (rank correlation of the share with the error there, {len(selected)} networks)",
        estimate,
        below(0, interval=True),
        "ours: new directions count, not radii",
    )


def toy(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """The paper's Gaussian toy."""
    selected = rows[rows.problem == "gaussian20"]
    base = selected[(selected.kind == "level") & (selected.rung == "base") & (selected.sigma <= config.low)]
    plateau = over_trainings(base.set_index("seed").inside_population.dropna().astype(float))
    fitted = over_trainings(changes(selected, config, AXES["training"], "inside_empirical"))
    outside = over_trainings(changes(selected, config, AXES["training"], "heldout_population"))
    name, words = "gaussian20", "(mean change of its logarithm with training, unit: a seed)"
    source = f"{PAPER}, Gaussian toy:"
    return [
        Claim.of(
            f"{name}: the inside error to the empirical score falls {words}",
            fitted,
            below(0, interval=True),
            f"{source} .98→.17",
        ),
        Claim.of(
            f"{name}: the inside error to the true score does not vanish (base)",
            plateau,
            at_least(0.1, interval=True),
            f"{source} .34",
        ),
        Claim.of(
            f"{name}: the outside error to the true score falls {words}",
            outside,
            below(0, interval=True),
            f"{source} .56→.08",
        ),
    ]


def guidance(rows: pd.DataFrame) -> Claim:
    """Guidance is what networks differ by where they were not trained. (The empirical scores of the classes agree to
    rounding on both kinds of states, so that no ratio with them in the numerator can fail.)"""
    gaps = rows[rows.kind == "gap"]
    wide = gaps.pivot_table(index=["label", "sigma"], columns="states", values="learned")
    kept = wide[(wide > 0).all(axis=1)].reindex(columns=["trajectory", "training"])
    each = (kept["trajectory"] / kept["training"]).apply(np.log).groupby(level="label").mean()
    return Claim.of(
        "guidance: learned conditional and unconditional scores differ by more on trajectories than on training states "
        "(mean log ratio, unit: a class)",
        mean_of_units(each.to_numpy(dtype=float)) if len(each) else EMPTY,
        above(0, interval=True),
        f"{PAPER}, guidance",
    )


def perception(rows: pd.DataFrame) -> list[Claim]:
    """Where samples fall between the four points."""
    selected = rows[rows.kind == "perception"].pivot(index="seed", columns="features")
    claims = []
    for column, words in (("between", "fewer samples between the classes"), ("within", "more samples within a class")):
        value = shares_apart(selected[column, "aligned"], selected[column, "plain"], selected["samples", "plain"])
        falls = column == "between"
        claims.append(
            Claim.of(
                f"perception toy: aligned features give {words} than plain ones (difference of shares, unit: a seed)",
                value,
                below(0, interval=True) if falls else above(0, interval=True),
                f"{PAPER}, perception-aligned toy (network ours)",
            )
        )
    return claims


def features(rows: pd.DataFrame) -> Claim:
    """The theorem on nested sets."""
    table = rows[rows.kind == "features"].pivot(index="size", columns="seed", values="inside").sort_index()
    rise = float(np.diff(np.asarray(table, dtype=float), axis=0).max())
    return Claim(
        "features: the inside error does not rise between nested feature sets (largest rise)",
        rise,
        None,
        at_most(1e-9),
        "least squares on the exact denoising objective",
    )


def _within_ladders(table: pd.DataFrame, column: str) -> tuple[Interval, str]:
    """The mean rank correlation of the energy distance with a column within ladders, and each of them in words."""
    if table.groupby("ladder").size().ge(ENOUGH).sum() < 2:
        return EMPTY, "fewer than two ladders"
    estimate = within_groups(table[column], table.energy, table.ladder)
    each = ", ".join(f"{name}: {value:.2f}" for name, value in estimate.each.items())
    return estimate.mean, f"{each}; over all {len(table)} networks at once {estimate.pooled:.2f}"


def quality(rows: pd.DataFrame) -> list[Claim]:
    """Rank correlation over the networks of a ladder of the energy distance with each part of the supervision loss."""
    table = networks(rows)
    claims = []
    for column, words in (("inside_empirical", "inside error"), ("trajectory_empirical", "trajectory error")):
        value, each = _within_ladders(table[table[column].notna() & table.energy.notna()], column)
        rises = column == "inside_empirical"
        claims.append(
            Claim.of(
                f"images: sample quality and {words} (rank correlation of the energy distance with it within a ladder, "
                f"mean, unit: a ladder; {each})",
                value,
                above(0, interval=True) if rises else below(0, interval=True),
                f"{PAPER}: decomposition of the supervision loss",
            )
        )
    return claims
