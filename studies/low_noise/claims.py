"""The claims, with the thresholds of the protocol."""

from __future__ import annotations

import numpy as np
import pandas as pd

from studies.bounds import above, below, equals, within
from studies.low_noise.config import Config, Part
from studies.low_noise.onset import FEWEST, Onset, laws, mean_interval, table, usual
from studies.low_noise.verdicts import EFFECT, Verdict, ratios, verdicts
from studies.statistics import bootstrap
from studies.study import Claim

PAPER = "arXiv 2506.07841, main claim"
SIDED = "one-sided 95 % bounds"
CONTROL = "control A′ (same data, other seed)"
AGREE, HIGH, MIDDLE, PLACED = 0.1, 3.0, 100, 0.1
TRAINED = 0.05  # excess loss over the least possible loss
Onsets = dict[tuple[str, str, int], Onset]


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """Every claim of the protocol that the configuration can judge."""
    main, found = usual(rows), list[Claim]()
    onsets, judged = table(rows), verdicts(rows)
    for geometry, objective in pairs(config):
        pair = f"{geometry}/{objective}"
        own = main[(main["geometry"] == geometry) & (main["objective"] == objective)]
        counts = sorted(own["N"].unique().astype(int))
        if not counts:
            continue
        found.append(_agree(own, pair, counts[-1]))
        middle = max((n for n in counts if n <= MIDDLE), default=counts[0])
        found += [_diverge(judged[geometry, objective, n], pair, n) for n in sorted({middle, counts[-1]})]
        if len(counts) >= FEWEST:
            found.append(_falls(onsets, geometry, objective))
    found += [*_means(main), *_reference(onsets), *_placing(main), *_predicting(main), *_trained(main)]
    return [*found, *_longer(rows), _finite(main)]


def pairs(config: Config) -> list[tuple[str, str]]:
    """Geometry and objective of all cells of the usual length."""
    parts = [Part.of(text) for text in config.grid]
    return [(part.geometry, part.objective) for part in parts if part.length == 1]


def _on(rows: pd.DataFrame, count: int | None = None) -> pd.DataFrame:
    chosen = rows[(rows["kind"] == "level") & (rows["states"] == "on")]
    return chosen if count is None else chosen[chosen["N"] == count]


def _agree(rows: pd.DataFrame, pair: str, count: int) -> Claim:
    own = _on(rows, count)
    found = mean_interval(own[own["level"] == HIGH]["cross"].to_numpy(), tail=0.05)
    statement = f"{pair}: at N = {count} networks on disjoint data agree at 3τ, |f_A − f_B|/|f − y| ({SIDED})"
    return Claim.of(statement, found, below(AGREE, interval=True), PAPER)


def _diverge(found: Verdict, pair: str, count: int) -> Claim:
    statement = (
        f"{pair}: at N = {count} data and not seeds part them at low noise, mean log(|f_A−f_B|/|f_A−f_A′|) above log "
        f"{EFFECT} ({SIDED})"
    )
    return Claim.of(statement, found.ratio, above(float(np.log(EFFECT)), interval=True), f"{PAPER}; {CONTROL}")


def _falls(onsets: Onsets, geometry: str, objective: str) -> Claim:
    law = laws(onsets, geometry, objective)[0]
    statement = f"{geometry}/{objective}: the onset falls with N, slope of log σ on log N"
    source = "arXiv 2506.07841 (training-set size matters); scaling law ours"
    if law is None:
        return Claim(statement, "too few N with an onset in range", None, below(0, interval=True), source)
    statement += f" over N = {', '.join(map(str, law.used))}"
    return Claim.of(statement, law.slope, below(0, interval=True), source)


def _means(rows: pd.DataFrame) -> list[Claim]:
    """At 30τ networks differ as the means of their data do, which is what the exact empirical denoisers differ by."""
    own = _on(rows, 10)
    own = own[(own["level"] == own["level"].max()) & (own["objective"] != "blind")]
    logs = np.log((own["data_part"] / own["empirical"]).to_numpy())
    logs = logs[np.isfinite(logs)]
    if len(logs) < FEWEST:
        return []
    found = mean_interval(logs)
    statement = f"N = 10, {own['level'].max():g}τ, all but blind: log of the networks' data part over that of the data"
    source = "σ²(s_A − s_B) → mean_A − mean_B, error O(1/σ²)"
    return [Claim.of(statement, found, within(-0.1, 0.1, interval=True), source)]


def _reference(onsets: Onsets) -> list[Claim]:
    """The exact empirical denoisers' law at high noise."""
    found = []
    for g in dict.fromkeys(g for g, o, _ in onsets if o == "edm"):
        crossings = {n: x.empirical for (h, o, n), x in onsets.items() if (h, o) == (g, "edm") and n in (1, 10)}
        if len(crossings) == 2 and all(np.isfinite(c).all() for c in crossings.values()):
            found.append(np.log(crossings[10] / crossings[1]) / np.log(10))
    if len(found) < FEWEST:
        return []
    slope = mean_interval(np.concatenate(found))
    statement = "exact empirical denoisers: slope of the onset from N = 1 to 10, where it lies above τ"
    return [Claim.of(statement, slope, equals(-0.5, 0.1, interval=True), "σ = |mean_A − mean_B|/δ√d ∝ N^−½")]


def _placing(rows: pd.DataFrame) -> list[Claim]:
    """Nearer to memorising with few data than with many."""
    if "place" not in rows or rows["N"].nunique() < FEWEST:
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
    return [Claim.of(statement, found, above(0, interval=True), "theory of denoising on N data")]


def _predicting(rows: pd.DataFrame) -> list[Claim]:
    """The sensitivity to B's data says more of f_B − f_A than that to other data; smoothed, it is of the right size."""
    own = _on(rows[rows["objective"] == "edm"], MIDDLE)
    own = own[own["level"] == PLACED]
    source, found = "arXiv 2509.23092, finite gate; control: data of another replicate", []
    for kind, words in (("finite", ""), ("smooth", ", data smoothed")):
        if f"{kind}_cosine" not in own or not len(own):
            continue
        gain = bootstrap((own[f"{kind}_cosine"] - own[f"{kind}_cosine_wrong"]).dropna().to_numpy())
        statement = (
            f"edm, N = {MIDDLE}, .1τ{words}: cosine of predicted and observed f_B − f_A exceeds that of the wrong data"
        )
        found.append(Claim.of(statement, gain, above(0, interval=True), source))
        part = bootstrap(own[f"{kind}full_explained"].dropna().to_numpy())
        statement = f"edm, N = {MIDDLE}, .1τ{words}: share of the observed |f_B − f_A|² that is predicted"
        found.append(Claim.of(statement, part, above(0, interval=True), source))
    return found


def _trained(rows: pd.DataFrame) -> list[Claim]:
    """The rule for the number of steps, where the law is known and d ≤ 5."""
    if "of" not in rows:
        return []
    own = rows[(rows["kind"] == "loss") & (rows["of"] == "law") & (rows["objective"] == "edm")]
    own = own[(own["geometry"] != "thin") & (own["N"] >= 1000)]
    if not len(own):
        return []
    found = bootstrap((own["excess"] / own["optimum"]).to_numpy(), np.median)
    statement = "edm, N ≥ 1000, d ≤ 5: median excess loss over the least possible loss, fresh data"
    return [Claim.of(statement, found, below(TRAINED, interval=True), "rule for steps")]


def _longer(rows: pd.DataFrame) -> list[Claim]:
    """Does training longer give the data a larger part against seeds?"""
    ladder = rows[(rows["geometry"] == "spiral") & (rows["objective"] == "edm")]
    lengths = sorted(ladder["length"].unique())
    if len(lengths) < 2:
        return []
    found = []
    for n in sorted(ladder[ladder["length"] > 1]["N"].unique()):
        ends = [ladder[(ladder["N"] == n) & (ladder["length"] == length)] for length in (lengths[0], lengths[-1])]
        first, last = (ratios(part) for part in ends)
        gain = mean_interval(last - first, tail=0.05)
        statement = (
            f"spiral/edm, N = {n:.0f}: training {lengths[-1]} times as long raises mean log(|f_A−f_B|/|f_A−f_A′|) "
            f"at low noise ({first.mean():.3f} → {last.mean():.3f}; {SIDED})"
        )
        found.append(Claim.of(statement, gain, above(0, interval=True), "seed noise averages out"))
    return found


def _finite(rows: pd.DataFrame) -> Claim:
    """No 0/0 anywhere."""
    parts = rows[rows["kind"] == "level"].reindex(columns=["finite", "exact_finite"]).fillna(1.0)
    share = float(((parts["finite"] == 1) & (parts["exact_finite"] == 1)).mean())
    statement = "share of level rows in which learned, empirical and exact values are all finite"
    return Claim(statement, share, None, equals(1), "log-sum-exp in every reference")
