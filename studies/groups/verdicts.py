"""Claims of the study; expectations are those of the protocol."""

from __future__ import annotations

import numpy as np
import pandas as pd

from studies.claim_bounds import above, at_least, at_most, below, within
from studies.datamodelling import ranked
from studies.groups.config import PLANTS, Config
from studies.groups.reading import (
    OURS,
    TRUTHS,
    Pool,
    advantage,
    conservation,
    lowest_of_laws,
    of,
    over_divisions,
    precision_at_top,
    rank,
    regimes,
    transfer,
    width,
    worth,
    worth_slope,
)
from studies.statistics import Interval, mean_of_units
from studies.study import Claim

CONFORMAL = "split conformal prediction (Vovk, Gammerman & Shafer 2005)"
RETRAINED = "retraining from scratch with fresh seeds"
PLANTED = "groups planted by us"
CONTROL = "control: untrained networks carry no other claim"
SOLVED = "a network trained by a solve"
LOW, HIGH = 0.86, 0.94


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """Coverage and widths, ranks, planted groups."""
    return [*_coverage(rows, config), *_ranks(rows), *_planted(rows)]


def _coverage(rows: pd.DataFrame, config: Config) -> list[Claim]:
    claims = []
    for regime in regimes(rows):
        pool = Pool.of(rows, regime, "real")
        if len(pool) <= config.calibration:
            continue
        share = over_divisions(pool, config)
        words = f"{regime}: 90 % intervals hold retrained outcomes of {len(pool)} groups outside the calibration"
        claims.append(Claim(words, share.estimate, share.bounds, within(LOW, HIGH), CONFORMAL))
        if not len(of(rows, kind="group", regime=regime, pool="random")):
            continue
        moved = transfer(Pool.of(rows, regime, "random"), pool, config)
        words = f"{regime}: so do intervals that were calibrated on nine random groups (exchangeability is assumed)"
        claims.append(Claim.of(words, moved, within(LOW, HIGH, interval=True), RETRAINED))
        words = f"{regime}: the intervals' width over that of retraining with nothing changed"
        claims.append(Claim(words, width(pool, rows, regime, config), None, at_most(1.5), RETRAINED))
    return claims


def _ranks(rows: pd.DataFrame) -> list[Claim]:
    claims = []
    for regime, group in of(rows, kind="method").groupby("regime", sort=False):
        by_name = {row.method: row for _, row in group.iterrows()}
        ours = rank(by_name[OURS])
        words = f"{regime}: '{OURS}' ranks groups by what their removal does to class shares"
        claims.append(Claim(words, ours.value, ours.interval, above(0, interval=True), RETRAINED))
        for name, row in by_name.items():
            if name == OURS or name in TRUTHS:
                continue
            words = f"{regime}: '{OURS}' ranks groups better than '{name}' (difference of rank correlations)"
            claims.append(Claim.of(words, advantage(by_name[OURS], row), above(0, interval=True), RETRAINED))
    return claims


def _planted(rows: pd.DataFrame) -> list[Claim]:
    claims = []
    for plant in [p for p in PLANTS if len(of(rows, kind="planted", plant=p))]:
        words = f"planted groups, {plant}: precision among the first three by what removal does to the held-out loss"
        claims.append(Claim.of(words, precision_at_top(rows, plant, "harm"), at_least(0.8), PLANTED))
        words = f"planted groups, {plant}: so found better than by their training loss (difference of precisions)"
        claims.append(Claim.of(words, _gap(rows, plant), above(0, interval=True), PLANTED))
    return claims


def _gap(rows: pd.DataFrame, plant: str) -> Interval:
    both = [of(rows, kind="planted", plant=plant, method=how).sort_values("draw") for how in ("harm", "training loss")]
    one, other = (each.precision.to_numpy(dtype=float) for each in both)
    return mean_of_units(np.asarray(one - other))


def trained(rows: pd.DataFrame) -> list[Claim]:
    """Whether every base network denoises better than the laws that cost no training."""
    claims = []
    for _, model in lowest_of_laws(rows).iterrows():
        words = (
            f"{model.regime}: the base network is trained, its held-out loss {model.loss:.3f} over the lower one of a "
            f"Gaussian ({model.gaussian:.3f}) and a kernel density ({model.kernel:.3f})"
        )
        claims.append(Claim(words, float(model.loss / model.least), None, below(1), CONTROL))
    return claims


def values(rows: pd.DataFrame) -> list[Claim]:
    """Values of groups against solves."""
    claims = []
    for _, row in of(rows, kind="value").iterrows():
        score, head = ranked(*worth(row)), f"exact, {row.worth} values of {int(row.groups)} classes"
        words = f"{head}: ranked as by solves (Spearman over classes, mean over latents)"
        claims.append(Claim(words, score.value, score.interval, at_least(0.9), SOLVED))
        words = f"{head}: their size (slope of actual on predicted)"
        claims.append(Claim(words, worth_slope(row), None, within(0.7, 1.4), SOLVED))
        if row.worth == "shapley":
            words = f"{head}: they sum to what all classes are worth (standard errors, the latent that errs most)"
            claims.append(Claim(words, conservation(row), None, at_most(3), SOLVED))
    return claims
