"""The claims, with the thresholds of the protocol."""

from __future__ import annotations

import numpy as np
import pandas as pd

from studies.claim_bounds import above, below, equals, within
from studies.low_noise.config import Config, Part
from studies.low_noise.onset import FEWEST, Onset, censored, mean_interval, table, usual
from studies.low_noise.verdicts import EFFECT, LEAST, Verdict, ratios, verdicts
from studies.statistics import Interval, mean_of_units
from studies.study import Claim

PAPER = "arXiv 2506.07841, main claim"
SIDED = "one-sided 95 % bounds"
CONTROL = "control A′ (same data, other seed)"
UNIT = "unit: a geometry"
AGREE, HIGH, MIDDLE, PLACED = 0.1, 3.0, 100, 0.1
TRAINED = 0.05  # excess loss over the least possible loss
Onsets = dict[tuple[str, str, int], Onset]


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """Every claim of the protocol that the configuration can judge."""
    main, claims = usual(rows), list[Claim]()
    onsets, judged = table(rows), verdicts(rows)
    for geometry, objective in pairs(config):
        pair = f"{geometry}/{objective}"
        selected = main[(main["geometry"] == geometry) & (main["objective"] == objective)]
        counts = sorted(selected["N"].unique().astype(int))
        if not counts:
            continue
        claims.append(_agree(selected, pair, counts[-1]))
        middle = max((n for n in counts if n <= MIDDLE), default=counts[0])
        claims += [_diverge(judged[geometry, objective, n], pair, n) for n in sorted({middle, counts[-1]})]
        if len(counts) >= FEWEST:
            claims.append(_falls(onsets, geometry, objective))
    claims += [*_means(main), *_reference(onsets), *_placing(main), *_predicting(main), *_trained(main)]
    return [*claims, *_longer(rows), _finite(main)]


def pairs(config: Config) -> list[tuple[str, str]]:
    """Geometry and objective of all cells of the usual length."""
    parts = [Part.of(text) for text in config.grid]
    return [(part.geometry, part.objective) for part in parts if part.length == 1]


def over_geometries(rows: pd.DataFrame, column: str) -> Interval:
    """Mean over geometries of the mean over all else: replicates of one number share their draws over geometries.

    Where there is one geometry only, its replicates are the units.
    """
    kept = rows.dropna(subset=[column])
    unit = "geometry" if kept["geometry"].nunique() > 1 else "replicate"
    return mean_of_units(kept.groupby(unit)[column].mean().to_numpy(dtype=float))


def _on(rows: pd.DataFrame, count: int | None = None) -> pd.DataFrame:
    chosen = rows[(rows["kind"] == "level") & (rows["states"] == "on")]
    return chosen if count is None else chosen[chosen["N"] == count]


def _agree(rows: pd.DataFrame, pair: str, count: int) -> Claim:
    at_count = _on(rows, count)
    estimate = mean_interval(at_count[at_count["level"] == HIGH]["cross"].to_numpy(), tail=0.05)
    statement = f"{pair}: at N = {count} networks on disjoint data agree at 3τ, |f_A − f_B|/|f − y| ({SIDED})"
    return Claim.of(statement, estimate, below(AGREE, interval=True), PAPER)


def _diverge(verdict: Verdict, pair: str, count: int) -> Claim:
    statement = (
        f"{pair}: at N = {count} data and not seeds part them at low noise, mean log(|f_A−f_B|/|f_A−f_A′|) above log "
        f"{EFFECT} ({SIDED}, Holm over all cells; the data's share of the squared difference is {_text(verdict.share)})"
    )
    return Claim.of(statement, verdict.ratio, above(LEAST, interval=True), f"{PAPER}; {CONTROL}")


def _text(share: Interval) -> str:
    return f"{share.estimate:.2f} [{share.low:.2f}, {share.high:.2f}]"


def _falls(onsets: Onsets, geometry: str, objective: str) -> Claim:
    law = censored(onsets, geometry, objective)
    statement = f"{geometry}/{objective}: the onset falls with N, slope of log σ on log N"
    source = "arXiv 2506.07841 (training-set size matters); scaling law ours"
    if isinstance(law, str):
        return Claim(statement, law, None, below(0, interval=True), source)
    statement += f" ({law.seen} onsets seen, {law.censored} beyond the levels: censored)"
    return Claim.of(statement, law.slope, below(0, interval=True), source)


def _means(rows: pd.DataFrame) -> list[Claim]:
    """At 30τ networks differ as the means of their data do, which is what the exact empirical denoisers differ by."""
    at_ten = _on(rows, 10)
    at_ten = at_ten[(at_ten["level"] == at_ten["level"].max()) & (at_ten["objective"] != "blind")]
    logs = np.log(at_ten["data_part"] / at_ten["empirical"])
    if not np.isfinite(logs).any():
        return []
    estimate = over_geometries(at_ten.assign(log=logs.where(np.isfinite(logs))), "log")
    level = f"N = 10, {at_ten['level'].max():g}τ, all but blind"
    statement = f"{level}: log of the networks' data part over that of the data ({UNIT})"
    source = "σ²(s_A − s_B) → mean_A − mean_B, to O(1/σ) at states of level σ"
    return [Claim.of(statement, estimate, within(-0.1, 0.1, interval=True), source)]


def _reference(onsets: Onsets) -> list[Claim]:
    """The exact empirical denoisers' law at high noise."""
    exponents = []
    for g in dict.fromkeys(g for g, o, _ in onsets if o == "edm"):
        crossings = {n: x.empirical for (h, o, n), x in onsets.items() if (h, o) == (g, "edm") and n in (1, 10)}
        if len(crossings) == 2 and all(np.isfinite(c).all() for c in crossings.values()):
            exponents.append(np.log(crossings[10] / crossings[1]) / np.log(10))
    if len(exponents) < FEWEST:
        return []
    slope = mean_interval(np.concatenate(exponents))
    statement = "exact empirical denoisers: slope of the onset from N = 1 to 10, where it lies above τ"
    return [Claim.of(statement, slope, equals(-0.5, 0.1, interval=True), "σ = |mean_A − mean_B|/δ√d ∝ N^−½")]


def _placing(rows: pd.DataFrame) -> list[Claim]:
    """Nearer to memorising with few data than with many."""
    if "place" not in rows or rows["N"].nunique() < FEWEST:
        return []
    selected = _on(rows[rows["objective"] == "edm"])
    selected = selected[(selected["level"] == PLACED) & selected["place"].notna()]
    keys = ["geometry", "replicate"]
    few, many = (
        selected[selected["N"] == 10],
        selected[selected["N"] == selected.groupby("geometry")["N"].transform("max")],
    )
    falls = (few.set_index(keys)["place"] - many.set_index(keys)["place"]).dropna().rename("fall").reset_index()
    if not len(falls):
        return []
    estimate = over_geometries(falls, "fall")
    statement = (
        "edm, .1τ: the place between population (0) and memorising (1) falls from N = 10 to the geometry's largest N "
        f"({UNIT})"
    )
    return [Claim.of(statement, estimate, above(0, interval=True), "theory of denoising on N data")]


def _predicting(rows: pd.DataFrame) -> list[Claim]:
    """The sensitivity to B's data says more of f_B − f_A than that to other data; smoothed, it is of the right size."""
    selected = _on(rows[rows["objective"] == "edm"], MIDDLE)
    selected = selected[selected["level"] == PLACED]
    source, claims = "arXiv 2509.23092, finite gate; control: data of another replicate", []
    for kind, words in (("finite", ""), ("smooth", ", data smoothed")):
        if f"{kind}_cosine" not in selected or not len(selected):
            continue
        gain = over_geometries(
            selected.assign(gain=selected[f"{kind}_cosine"] - selected[f"{kind}_cosine_wrong"]), "gain"
        )
        statement = (
            f"edm, N = {MIDDLE}, .1τ{words}: cosine of predicted and observed f_B − f_A exceeds that of the wrong data "
            f"({UNIT})"
        )
        claims.append(Claim.of(statement, gain, above(0, interval=True), source))
        part = over_geometries(selected, f"{kind}full_explained")
        statement = f"edm, N = {MIDDLE}, .1τ{words}: share of the observed |f_B − f_A|² that is predicted ({UNIT})"
        claims.append(Claim.of(statement, part, above(0, interval=True), source))
    return claims


def _trained(rows: pd.DataFrame) -> list[Claim]:
    """The rule for the number of steps, where the law is known and d ≤ 5."""
    if "of" not in rows:
        return []
    selected = rows[(rows["kind"] == "loss") & (rows["of"] == "law") & (rows["objective"] == "edm")]
    selected = selected[(selected["geometry"] != "thin") & (selected["N"] >= 1000)]
    if not len(selected):
        return []
    estimate = over_geometries(selected.assign(share=selected["excess"] / selected["optimum"]), "share")
    statement = f"edm, N ≥ 1000, d ≤ 5: mean excess loss over the least possible loss, fresh data ({UNIT})"
    return [Claim.of(statement, estimate, below(TRAINED, interval=True), "rule for steps")]


def _longer(rows: pd.DataFrame) -> list[Claim]:
    """Does training longer give the data a larger part against seeds?"""
    ladder = rows[(rows["geometry"] == "spiral") & (rows["objective"] == "edm")]
    lengths = sorted(ladder["length"].unique())
    if len(lengths) < 2:
        return []
    claims = []
    for n in sorted(ladder[ladder["length"] > 1]["N"].unique()):
        ends = [ladder[(ladder["N"] == n) & (ladder["length"] == length)] for length in (lengths[0], lengths[-1])]
        first, last = (ratios(part) for part in ends)
        gain = mean_interval(last - first, tail=0.05)
        statement = (
            f"spiral/edm, N = {n:.0f}: training {lengths[-1]} times as long raises mean log(|f_A−f_B|/|f_A−f_A′|) "
            f"at low noise ({first.mean():.3f} → {last.mean():.3f}; {SIDED})"
        )
        claims.append(Claim.of(statement, gain, above(0, interval=True), "seed noise averages out"))
    return claims


def _finite(rows: pd.DataFrame) -> Claim:
    """No 0/0 anywhere."""
    parts = rows[rows["kind"] == "level"].reindex(columns=["finite", "exact_finite"]).fillna(1.0)
    share = float(((parts["finite"] == 1) & (parts["exact_finite"] == 1)).mean())
    statement = "share of level rows in which learned, empirical and exact values are all finite"
    return Claim(statement, share, None, equals(1), "log-sum-exp in every reference")
