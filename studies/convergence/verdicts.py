"""The study's claims. Each can fail; thresholds were fixed before the runs that the book shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from studies.claim_bounds import above, agrees, at_least, at_most, equals
from studies.convergence.config import Config
from studies.statistics import (
    Interval,
    local_slopes,
    median_interval,
    paired,
    perfect_shares,
    share_interval,
    slope_of_medians,
    spearman_brown,
)
from studies.study import Claim

COVERED = 0.936  # of Student's t with 15 degrees of freedom within two standard errors
MISJUDGED = 0.05  # less than what a standard error wrong by a factor of √2 changes that share by: .82 or .99
SHARED = 0.1  # a slope of 0, of probes that are not fresh, is five times as far from −½

PAPER = "Scarvelis & Solomon 2025, arXiv 2509.23092"
ORACLE = "exact law, high-precision flow"
FEWEST = 3


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """All claims that the rows allow."""
    parts: list[Callable[[pd.DataFrame], Iterator[Claim]]] = [_order, _agreement, _solvers, _errors, _probes, _anchors]
    parts += [_own, _neural, _retrained, _images] if config.judged else [_own]
    return [claim for part in parts for claim in part(rows)]


def select(rows: pd.DataFrame, part: str, **where: Any) -> pd.DataFrame:
    """The rows of a part, further selected by equality."""
    chosen = rows[rows["part"] == part]
    for name, value in where.items():
        chosen = chosen[chosen[name] == value]
    return chosen


def stacked(rows: pd.DataFrame, column: str) -> np.ndarray:
    """A column of equal lists as an array (rows, items)."""
    return np.stack([np.asarray(each, dtype=float) for each in rows[column]])


def _slope(rows: pd.DataFrame) -> Interval | str:
    """The order in η of the median error, or a sentence where nothing is left above the floor."""
    floor = rows["floor"].to_numpy(dtype=float) if rows["floor"].notna().all() else 0.0
    try:
        return slope_of_medians(rows["eta"], stacked(rows, "errors"), floor=floor, resamples=400)
    except ValueError as error:
        return str(error)


def _slope_claim(statement: str, estimate: Interval | str, tolerance: float, source: str) -> Claim:
    bound = equals(1, tolerance, interval=True)
    return (
        Claim(statement, estimate, None, bound, source)
        if isinstance(estimate, str)
        else Claim.of(statement, estimate, bound, source)
    )


def _order(rows: pd.DataFrame) -> Iterator[Claim]:
    exact = select(rows, "exact")
    for dimension in sorted(exact["dimension"].unique()):
        chosen = exact[exact["dimension"] == dimension]
        statement = f"(x_η − x_0)/η tends to the predicted sensitivity at first order in η, d = {dimension:.0f}"
        yield _slope_claim(statement, _slope(chosen), 0.02, f"{PAPER}; x_η: {ORACLE}")
    bounded = exact[exact["bounded"].notna()]
    if len(bounded):
        share = float(bounded["bounded"].min())
        text = "every latent keeps |x_η − x_0 − ηδ| ≤ ½η² max|x″|, d = 1"
        yield Claim(text, share, None, equals(1), "Taylor's theorem; x″: quantile oracle")


def _agreement(rows: pd.DataFrame) -> Iterator[Claim]:
    for _, row in select(rows, "agreement").iterrows():
        d, oracle = int(row["dimension"]), "quantile oracle" if row["dimension"] == 1 else ORACLE
        text = f"99 % of the sample sensitivities equal the oracle's to 1e-6 relative, d = {d}"
        yield Claim(text, float(row["q99"]), None, at_most(1e-6), oracle)
        text = f"the score derivative equals the closed form to 1e-9 relative, d = {d}"
        yield Claim(text, float(row["score_derivative"]), None, at_most(1e-9), "closed form of the mixture")


def _solvers(rows: pd.DataFrame) -> Iterator[Claim]:
    solvers = select(rows, "solvers")
    for solver in solvers["solver"].unique():
        chosen = solvers[solvers["solver"] == solver].sort_values("steps")
        order = int(chosen["order"].iloc[0])
        local = -local_slopes(chosen["steps"], chosen["median"])
        last = local[-2:] if len(local) >= FEWEST else local[-1:]
        worst = float(last[np.abs(last - order).argmax()])
        text = f"the sensitivity converges at order {order} in the steps of {solver} (worst of the last local slopes)"
        yield Claim(text, worst, None, equals(order, 0.1), f"local slopes against the oracle's δ; {PAPER}")


def _errors(rows: pd.DataFrame) -> Iterator[Claim]:
    errors = select(rows, "errors", eta=0.0)
    logs = errors[(errors["score_error"] == 0) & (errors["log_error"] > 0)]
    gap = float((logs["median"] / logs["predicted"] - 1).abs().max())
    text = "an error e of log p multiplies the sensitivity by exp(−e) (relative gap)"
    yield Claim(text, gap, None, at_most(1e-3), "linearity of the flow in its source")
    scores = errors[(errors["log_error"] == 0) & (errors["score_error"] > 0)]
    small = scores[scores["score_error"] <= 0.01]
    text = "the error of δ is proportional to a small relative error of the score, d = 10"
    if len(small) > 1:
        slope = float(local_slopes(small["score_error"], small["median"]).mean())
        yield Claim(text, slope, None, equals(1, 0.15), "first-order perturbation")


def _probes(rows: pd.DataFrame) -> Iterator[Claim]:
    probes = select(rows, "probes").sort_values("probes")
    counts, rms = probes["probes"].to_numpy(dtype=float), probes["rms"].to_numpy(dtype=float)
    slope = float(np.polyfit(np.log(counts), np.log(rms), 1)[0])
    # The rms of n values has relative error 1/√(2n).
    error = float(1 / np.sqrt(2 * probes["latents"].iloc[0]) * np.sqrt(2) / np.log(counts[-1] / counts[0]))
    bounds = (slope - 2 * error, slope + 2 * error)
    text = "the error of log p falls as the inverse root of the number of fresh probes"
    yield Claim(text, slope, bounds, agrees(-0.5, SHARED), "Hutchinson 1990")
    best = probes.iloc[-1]
    text = f"two standard errors cover the error of log p, {int(best['probes'])} probes"
    latents = int(best["latents"])
    estimate = share_interval(round(best["covered"] * latents), latents)
    yield Claim.of(text, estimate, agrees(COVERED, MISJUDGED), "Student's t")


def _anchors(rows: pd.DataFrame) -> Iterator[Claim]:
    anchors = select(rows, "anchors")
    moments = anchors[(anchors["anchor"] == "moments") & (anchors["sigma"] == 80)]
    worst = float(moments["rms"].max())
    text = "a moment-matched anchor at σ = 80 errs by less than 1e-3 nat in every dimension"
    yield Claim(text, worst, None, at_most(1e-3), "moments of the law against the law")
    both = anchors[anchors["effect"].notna()]
    effect = float(both["effect"].max())
    text = "an anchor's error acts on the sensitivity as exp(−e) and no otherwise"
    yield Claim(text, effect, None, at_most(1e-9), "linearity of the flow in its source")


def _neural(rows: pd.DataFrame) -> Iterator[Claim]:
    neural = select(rows, "neural").sort_values("size")
    sizes = sorted(neural["size"].unique())
    least, most = (np.median(stacked(neural[neural["size"] == n], "errors"), axis=0) for n in (sizes[0], sizes[-1]))
    text = f"a score learned from {sizes[-1]:.0f} samples gives δ to 25 % in the median, d = 10"
    yield Claim.of(text, median_interval(most), at_most(0.25, interval=True), ORACLE)
    if len(sizes) > 1:
        text = f"the error of δ falls from {sizes[0]:.0f} to {sizes[-1]:.0f} training samples (difference of logs)"
        yield Claim.of(text, paired(np.log(least), np.log(most)).difference, above(0, interval=True), ORACLE)


def _own(rows: pd.DataFrame) -> Iterator[Claim]:
    paths = select(rows, "own")
    for size in sorted(paths["size"].unique()):
        estimate = _slope(paths[paths["size"] == size])
        text = f"δ is the derivative of the learned network's own finite-η path, {size:.0f} samples"
        yield _slope_claim(text, estimate, 0.05, "engine at finite η, same network")


def _retrained(rows: pd.DataFrame) -> Iterator[Claim]:
    retrained = select(rows, "retrained")
    for _, row in retrained[retrained["size"] == retrained["size"].max()].iterrows():
        setting = f"η = {row['eta']:g}, training samples: {row['size']:.0f}, pairs: {row['pairs']:.0f}"
        yield from _direction(row, f"δ points where networks retrained on ρ_η go ({setting}): cosine", 0.8)


def _images(rows: pd.DataFrame) -> Iterator[Claim]:
    for _, row in select(rows, "images", which="mean").iterrows():
        text = f"predicted and retrained changes of digits agree (pairs: {row['pairs']:.0f}): correlation over pixels"
        yield from _direction(row, text, 0.3)


def _direction(row: pd.Series, text: str, least: float) -> Iterator[Claim]:
    """Median agreement; its excess over another latent's prediction; its share of what luck leaves attainable."""
    linear = np.asarray(row["linear"], dtype=float)
    middle = median_interval(linear)
    yield Claim.of(text, middle, at_least(least, interval=True), f"retraining; {PAPER}")
    gain = paired(linear, np.asarray(row["shuffled"], dtype=float)).difference
    wrong = float(np.median(np.asarray(row["shuffled"], dtype=float)))
    words = f"{text}: more than the prediction of another latent, whose median is {wrong:.2f}"
    yield Claim.of(words, gain, above(0, interval=True), "control")
    if row["between"] is None or np.ndim(row["between"]) == 0:
        return
    # A reliability of 0 or less has no ceiling to be a share of.
    reliability = float(np.clip(np.median(np.asarray(row["between"], dtype=float)), 1e-3, 1))
    ceiling = float(np.sqrt(spearman_brown(reliability, float(row["pairs"]))))
    share = middle.estimate / ceiling
    # The unit is the pair of networks: how far chance carries a perfect prediction with so few belongs to the interval.
    chance = perfect_shares(max(int(row["pairs"]), 2), len(linear), min(reliability, 0.99))
    low, high = np.quantile(chance, [0.025, 0.975])
    bounds = float(middle.low / ceiling / high), float(middle.high / ceiling / low)
    words = f"{text}: share of the ceiling √ρ_k = {ceiling:.2f}"
    yield Claim(words, share, bounds, at_least(0.9, interval=True), "Spearman–Brown")
