"""Claims of the study; expectations are those of the protocol."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from studies.claim_bounds import Bound, above, at_least, at_most, within
from studies.responses.config import Config
from studies.responses.reading import RESPONSES, advantage, leave_out, over_units, removals, shares, slope
from studies.retraining.reading import of, untrained
from studies.statistics import Interval
from studies.study import Claim

SOURCES = {
    "exact": "a network trained by a solve",
    "run": "the derivative of the training run (Ilyas & Engstrom 2025, arXiv 2504.16430)",
    "scratch": "retraining from scratch",
    "others": "retraining from scratch with other seeds",
    "finetune": "fine-tuning",
    "removal": "the same run without 1 % of its data",
}
OF_CEILING = {"scratch": 0.8, "finetune": 0.9}
LOWEST_CEILING = 0.1  # below it there is nothing to take a share of


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """Truth (a), then each regime, change and truth, then removals; networks worse than simple laws carry none."""
    claims = _exact(rows)
    answers = of(rows, kind="answer")
    answers = answers[~answers.regime.isin(untrained(rows))]
    for (_, _, truth), group in answers.groupby(["regime", "change", "truth"], sort=False):
        if truth in OF_CEILING:
            claims += _retrained(group)
        elif truth in ("run", "others"):
            claims += _by_pairs(group)
    return claims + _removals(rows)


def claim(statement: str, estimate: Interval, bound: Bound, source: str) -> Claim:
    """A claim that its bound decides."""
    interval = None if math.isnan(estimate.low) or math.isnan(estimate.high) else estimate.bounds
    return Claim(statement, estimate.estimate, interval, bound, source)


def _point(value: float) -> Interval:
    return Interval(value, math.nan, math.nan)


def _exact(rows: pd.DataFrame) -> list[Claim]:
    answers = of(rows, kind="answer", truth="exact").set_index("response")
    if not len(answers):
        return []
    middle = {name: float(np.median(np.asarray(row.correlations, dtype=float))) for name, row in answers.iterrows()}
    source, answer = SOURCES["exact"], of(rows, kind="answer", truth="exact", response="parameters").iloc[0]
    claims = [
        claim("exact: the derivative of its solve is its answer (median correlation)", _point(middle["unrolled"]),
              at_least(0.99), source),
        claim("exact: 'parameters' is its answer (median correlation)", _point(middle["parameters"]), at_least(0.99),
              source),
        claim("exact: 'parameters' has its size (slope)", slope(answer), within(0.9, 1.1), source),
    ]  # fmt: skip
    words = "exact: '{}' is not its answer, its score being no gradient of a density (median correlation)"
    return [*claims, claim(words.format("population"), _point(middle["population"]), at_most(0.9), source)]


def _by_pairs(group: pd.DataFrame) -> list[Claim]:
    """Each response against the run's own derivative, or other pairs' changes; the training is the unit."""
    claims = []
    by_run = group.iloc[0].truth == "run"
    words = (
        "points as the derivative of the run does" if by_run else "from other networks points as a pair's change does"
    )
    for _, row in group[group.response != "unrolled"].iterrows() if by_run else group.iterrows():
        value = over_units(np.asarray(row.correlations, dtype=float))
        statement = f"{row.regime}, {row.change}: '{row.response}' {words} (median correlation, {int(row.pairs)} pairs)"
        claims.append(claim(statement, value, above(0, interval=True), SOURCES[row.truth]))
    return claims


def _retrained(group: pd.DataFrame) -> list[Claim]:
    rows = {row.response: row for _, row in group.iterrows() if row.response in RESPONSES}
    known = {name: shares(row) for name, row in rows.items()}
    first = next(iter(rows.values()))
    head, source, least = (
        f"{first.regime}, {first.change}, {first.truth}",
        SOURCES[first.truth],
        OF_CEILING[first.truth],
    )
    parts = {name: part for name, part in known.items() if part is not None}
    ceiling = next((part.ceiling for part in parts.values()), _point(math.nan))
    if not ceiling.low > LOWEST_CEILING:
        words = f"{head}: the best response as a share of the ceiling ({ceiling}, {int(first.pairs)} pairs)"
        unknown = f"the ceiling's interval does not lie above {LOWEST_CEILING:g}"
        return [Claim(words, unknown, None, at_least(least, interval=True), source)]
    best = max(parts, key=lambda name: parts[name].share.estimate)
    claims = [
        claim(f"{head}: the best response, '{best}', as a share of the ceiling ({ceiling}, {int(first.pairs)} pairs)",
              parts[best].share, at_least(least, interval=True), source),
        claim(f"{head}: the size of its prediction (slope of actual on predicted change)", slope(rows[best]),
              within(0.7, 1.4, interval=True), source),
    ]  # fmt: skip
    for other in [name for name in rows if name != "unrolled" and "unrolled" in rows]:
        words = f"{head}: 'unrolled' correlates better with the mean change than '{other}' (difference of medians)"
        claims.append(claim(words, advantage(rows["unrolled"], rows[other]), above(0, interval=True), source))
    return claims


def _removals(rows: pd.DataFrame) -> list[Claim]:
    if not len(of(rows, kind="removal")):
        return []
    loss, ink = leave_out(*removals(rows))
    words = "1 % of the data removed at random: one pass back ranks the changes of {} (Spearman over removals)"
    return [
        claim(words.format("the held-out loss"), loss, at_least(0.95), SOURCES["removal"]),
        claim(words.format("samples' ink"), ink, at_least(0.95), SOURCES["removal"]),
    ]
