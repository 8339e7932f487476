"""Tables of the study for a page: every function takes the rows of a run and gives a table of text and numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from studies.low_noise.onset import Law, Onset, censored, laws, mean_interval, table, usual
from studies.low_noise.verdicts import Verdict, ratios, verdicts

KEYS = ["geometry", "objective", "N"]


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """The verdict and, in brackets, the mean log ratio of every geometry and objective (lines) and N (columns)."""
    return _by_count(rows, lambda each: f"{each.what} ({each.ratio.estimate:.2f})")


def _by_count(rows: pd.DataFrame, words: Callable[[Verdict], str]) -> pd.DataFrame:
    """The `words` of each verdict: geometries and objectives in lines, N in columns."""
    judged = verdicts(rows)
    counts = sorted({n for _, _, n in judged})
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for (g, o, n), each in judged.items():
        line = lines.setdefault((g, o), {"geometry": g, "objective": o} | {f"N = {m}": "" for m in counts})
        line[f"N = {n}"] = words(each)
    return pd.DataFrame(list(lines.values()))


def tally(rows: pd.DataFrame) -> pd.DataFrame:
    """How many geometries have each verdict, by objective, at the largest N up to 100 and at the largest N above."""
    table: dict[str, dict[str, int]] = {}
    judged = verdicts(rows)
    for g, o in dict.fromkeys((g, o) for g, o, _ in judged):
        counts = [n for h, p, n in judged if (h, p) == (g, o)]
        line = table.setdefault(o, {f"N {w} 100: {v}": 0 for w in ("≤", ">") for v in ("data", "open", "seed")})
        for where, those in (("≤", [n for n in counts if n <= 100]), (">", [n for n in counts if n > 100])):
            if those:
                line[f"N {where} 100: {judged[g, o, max(those)].what}"] += 1
    return pd.DataFrame([{"objective": o} | line for o, line in table.items()])


def decomposition(rows: pd.DataFrame) -> pd.DataFrame:
    """The data's share of the squared difference, `1 − (within/cross)²`, with its interval over replicates."""

    def said(each: Verdict) -> str:
        return f"{each.share.estimate:.2f} [{max(each.share.low, -9.99):.2f}, {each.share.high:.2f}]"

    return _by_count(rows, said)


def scaling_laws(rows: pd.DataFrame) -> pd.DataFrame:
    """The exponents of σ_onset ∝ N^b, of networks and of exact empirical denoisers over the same N."""
    onsets, records = table(rows), []
    for g, o in dict.fromkeys((g, o) for g, o, _ in onsets):
        networks, exact = laws(onsets, g, o)
        used = "" if networks is None else ", ".join(map(str, networks.used))
        fits = {"b, networks": _law(networks), "b, empirical": "" if networks is None else _law(exact)}
        whole = censored(onsets, g, o)
        fits["b, all N, censored"] = "" if isinstance(whole, str) else str(whole.slope)
        records.append({"geometry": g, "objective": o, "N": used} | fits)
    return pd.DataFrame(records)


def _law(law: Law | None) -> str:
    return "fewer than three N" if law is None else interval(law.slopes)


def crossings(rows: pd.DataFrame) -> pd.DataFrame:
    """The onset by the test, and by replicate where the data's part crosses the threshold."""
    return pd.DataFrame(
        [
            {"geometry": g, "objective": o, "N": n, "onset by test (σ/τ)": _level(x.level), "crossings": _crossed(x)}
            for (g, o, n), x in table(rows).items()
        ]
    )


def _level(level: float) -> str:
    return "none" if np.isnan(level) else "highest level or above" if np.isinf(level) else f"{level:g}"


def _crossed(onset: Onset) -> str:
    values = ["above" if np.isinf(v) else "none" if np.isnan(v) else f"{v:.2g}" for v in onset.crossings]
    low, high = onset.interval
    return ", ".join(values) + ("" if np.isnan(low) else f"  [{low:.2g}, {high:.2g}]")


def training(rows: pd.DataFrame) -> pd.DataFrame:
    """Excess losses, the first as a share of the least possible loss."""
    loss = rows[rows["kind"] == "loss"].assign(share=lambda r: r["excess"] / r["optimum"].abs())
    keys = ["geometry", "objective", "length", "N"]
    law = loss[loss["of"] == "law"].groupby(keys, sort=False)["share"].mean().rename("excess / least loss")
    data = loss[loss["of"] == "data"].groupby(keys, sort=False)["excess"].mean().rename("excess over memorising")
    return pd.concat([law, data], axis=1).reset_index().astype({"N": int, "length": int})


def ladder(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean log ratio at low noise of `spiral/edm` by N and training length."""
    chosen = rows[(rows["geometry"] == "spiral") & (rows["objective"] == "edm")]
    chosen = chosen[chosen["N"].isin(chosen.loc[chosen["length"] > 1, "N"].unique())]
    return pd.DataFrame(
        [
            {"N": int(float(str(n))), "times the steps": int(str(length)), "mean log ratio": interval(ratios(part))}
            for (n, length), part in chosen.groupby(["N", "length"])
        ]
    )


def by_states(rows: pd.DataFrame, sigma: float = 0.1) -> pd.DataFrame:
    """Distances on the four kinds of states at a level, at the largest N up to 1000, means over replicates."""
    level = usual(rows)
    level = level[(level["kind"] == "level") & (level["level"] == sigma) & (level["N"] <= 1000)]
    level = level[level["N"] == level.groupby(KEYS[:2])["N"].transform("max")]
    names = {"cross": "A, B", "within": "A, A′", "data_part": "data part e", "to_population": "|f − D|/σ√d"}
    names |= {"to_empirical": "|f − E|/σ√d"}
    return _means(level, [*KEYS, "states"], names)


def dynamics(rows: pd.DataFrame, sigma: float = 0.1) -> pd.DataFrame:
    """End points of trajectories, attractors and ranks, means over replicates."""
    main = usual(rows)
    ends = _means(main[main["kind"] == "ends"], KEYS, {"cross": "ends A, B", "within": "ends A, A′"})
    fixed = main[(main["kind"] == "attractors") & (main["level"] == sigma)]
    ranks = main[(main["kind"] == "jacobian") & (main["level"] == sigma)]
    table = ends.merge(_means(fixed, KEYS, {"limits": "limits", "at_data": "share at data"}), on=KEYS, how="left")
    return table.merge(_means(ranks, KEYS, {"rank": "rank", "exact_rank": "exact rank"}), on=KEYS, how="left")


def _means(rows: pd.DataFrame, keys: list[str], names: dict[str, str]) -> pd.DataFrame:
    table = rows.reindex(columns=[*keys, *names]).groupby(keys, sort=False)[list(names)].mean()
    return table.rename(columns=names).reset_index().astype({"N": int})


def predictions(rows: pd.DataFrame, count: int = 100) -> pd.DataFrame:
    """How well the sensitivities predict with `edm`, by level: means over the mixtures, which are the unit.

    Replicates of a mixture share its draws: each mixture counts with the mean of its own.
    """
    main = usual(rows)
    selected = main[(main["kind"] == "level") & (main["states"] == "on") & (main["objective"] == "edm")]
    selected = selected[(selected["N"] == count) & selected["exact_finite"].notna()]
    names = {
        "first_cosine": "cosine, first order",
        "finite_cosine": "cosine, gate",
        "finite_cosine_wrong": "wrong data",
        "smooth_cosine": "cosine, smoothed",
        "finitefull_explained": "share explained",
        "smoothfull_explained": "share explained, smoothed",
        "smoothfull_scale": "best scale, smoothed",
        "reproduced": "cosine of two seeds",
    }
    means = selected.groupby(["level", "geometry"])[list(names)].mean()
    return pd.DataFrame(
        [
            {"σ/τ": f"{sigma:g}"}
            | {label: interval(means.loc[sigma, name].to_numpy()) for name, label in names.items()}
            for sigma in sorted(selected["level"].unique(), reverse=True)
        ]
    )


def paths(rows: pd.DataFrame) -> pd.DataFrame:
    """How well `resample` predicts end points of trajectories."""
    main = usual(rows)
    names = {"finite_cosine": "cosine", "finite_cosine_wrong": "wrong data", "smooth_cosine": "cosine, smoothed"}
    names |= {"finite_scale": "best scale"}
    return pd.DataFrame(
        [
            {"geometry": g, "N": int(float(str(n)))}
            | {label: interval(part[name].to_numpy()) for name, label in names.items()}
            for (g, n), part in main[main["kind"] == "path"].groupby(["geometry", "N"], sort=False)
        ]
    )


def interval(values: NDArray[np.float64]) -> str:
    """Mean and 95 % t interval of the finite values.

    Example:
        >>> interval(np.array([1.0, 2.0, 3.0, np.nan]))
        '2.00 [-0.48, 4.48]'
    """
    kept = values[np.isfinite(values)]
    if len(kept) < 2:
        return "" if not len(kept) else f"{kept[0]:.2f}"
    estimate = mean_interval(kept)
    return f"{estimate.estimate:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
