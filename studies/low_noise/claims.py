"""The claims, with the thresholds of the protocol."""

from __future__ import annotations

import numpy as np
import pandas as pd

from studies.low_noise.config import LOW, Config
from studies.low_noise.onset import Onset, mean_interval, scaling, table
from studies.statistics import bootstrap
from studies.study import Claim

PAPER = "arXiv 2506.07841, main claim"
CONTROL = "control A′ (same data, other seed)"
AGREE, MIDDLE, PLACED, FEW = 0.1, 100, 0.1, 3


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """Every claim of the protocol that the configuration can judge."""
    found: list[Claim] = []
    onsets = table(rows)
    for pair in config.grid:
        geometry, objective = pair.split("/")
        own = rows[(rows["geometry"] == geometry) & (rows["objective"] == objective)]
        counts = config.counts_of(geometry)
        found.append(_agree(own, pair, counts[-1]))
        found += [_diverge(own, pair, n) for n in sorted({min(MIDDLE, counts[-1]), counts[-1]})]
        if objective == "edm":
            found += _falls({n: onsets[geometry, objective, n] for n in counts}, pair)
    return [*found, *_placing(rows), *_predicting(rows), _finite(rows)]


def _on(rows: pd.DataFrame, count: int | None = None) -> pd.DataFrame:
    chosen = rows[(rows["kind"] == "level") & (rows["states"] == "on")]
    return chosen if count is None else chosen[chosen["N"] == count]


def _agree(rows: pd.DataFrame, pair: str, count: int) -> Claim:
    own = _on(rows, count)
    found = mean_interval(own[own["level"] == own["level"].max()]["cross"].to_numpy(), tail=0.05)
    statement = f"{pair}: at N = {count} networks on disjoint data agree at 3τ, |f_A − f_B|/|f − y|"
    return Claim(
        statement, found.estimate, found.bounds, f"below {AGREE} (one-sided 95 % bounds)", PAPER, found.high < AGREE
    )


def _diverge(rows: pd.DataFrame, pair: str, count: int) -> Claim:
    low = _on(rows, count)
    low = low[low["level"].isin(LOW)]
    ratios = low.assign(ratio=np.log(low["cross"] / low["within"])).groupby("replicate")["ratio"].mean()
    found = mean_interval(ratios.to_numpy(), tail=0.05)
    statement = f"{pair}: at N = {count} they differ by more than seeds at low noise, mean log(|f_A−f_B|/|f_A−f_A′|)"
    return Claim(
        statement, found.estimate, found.bounds, "above 0 (one-sided 95 % bounds)", f"{PAPER}; {CONTROL}", found.low > 0
    )


def _falls(onsets: dict[int, Onset], pair: str) -> list[Claim]:
    found = scaling({n: each.crossings for n, each in onsets.items()})
    statement = f"{pair}: the onset falls with N, slope of log σ on log N"
    source = "arXiv 2506.07841 (training-set size matters); scaling law ours"
    if found is None:
        return [Claim(statement, "too few N with an onset in range", None, "below 0", source, False)]
    slope, used = found
    statement += f" over N = {', '.join(map(str, used))}"
    return [Claim(statement, slope.estimate, slope.bounds, "below 0", source, slope.high < 0)]


def _placing(rows: pd.DataFrame) -> list[Claim]:
    """Claim 4: nearer to memorising with few data than with many."""
    if "place" not in rows or rows["N"].nunique() < FEW:
        return []
    own = _on(rows[rows["objective"] == "edm"])
    own = own[(own["level"] == PLACED) & own["place"].notna()]
    few, many = own[own["N"] == 10], own[own["N"] == own["N"].max()]
    keys = ["geometry", "replicate"]
    falls = (few.set_index(keys)["place"] - many.set_index(keys)["place"]).dropna().to_numpy()
    if not len(falls):
        return []
    found = bootstrap(falls)
    statement = "edm, .1τ: the place between population (0) and memorising (1) falls from N = 10 to the largest N"
    return [Claim(statement, found.estimate, found.bounds, "above 0", "theory of denoising on N data", found.low > 0)]


def _predicting(rows: pd.DataFrame) -> list[Claim]:
    """Claim 5: the sensitivity to B's data says more of f_B − f_A than that to other data."""
    own = _on(rows[rows["objective"] == "edm"], MIDDLE)
    own = own[own["level"] == PLACED]
    gain = (own["finite_cosine"] - own["finite_cosine_wrong"]).dropna().to_numpy() if len(own) else np.array([])
    if not len(gain):
        return []
    found = bootstrap(gain)
    statement = f"edm, N = {MIDDLE}, .1τ: cosine of predicted and observed f_B − f_A exceeds that of the wrong data"
    source = "arXiv 2509.23092, finite gate; control: data of another replicate"
    return [Claim(statement, found.estimate, found.bounds, "above 0", source, found.low > 0)]


def _finite(rows: pd.DataFrame) -> Claim:
    """Claim 6: no 0/0 anywhere."""
    parts = rows[rows["kind"] == "level"].reindex(columns=["finite", "exact_finite"]).fillna(1.0)
    share = float(((parts["finite"] == 1) & (parts["exact_finite"] == 1)).mean())
    statement = "share of level rows in which learned, empirical and exact values are all finite"
    return Claim(statement, share, None, "1", "log-sum-exp in every reference", share == 1)
