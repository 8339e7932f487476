"""The paper's numbers beside ours, line by line."""

from __future__ import annotations

import numpy as np
import pandas as pd

from studies.selective_underfitting.claims import first_of_sets
from studies.selective_underfitting.config import Config, Ladder
from studies.selective_underfitting.summaries import memorised_counts
from studies.statistics import share_of_units

SETTING = "ImageNet latents, SiT S to XL; ours: "
Line = tuple[str, str, str, str]
ERRORS = {"D_score": "inside_errors", "D_region": "region_errors", "held-out": "heldout_errors"}


def against_paper(rows: pd.DataFrame, config: Config) -> pd.DataFrame:
    """One line a published number: quantity, paper (Song et al. 2025, arXiv 2510.01378), ours, what differs."""
    lines = [line for ladder in first_of_sets(config) for line in shells(rows, ladder)]
    lines += [line for ladder in config.ladders for line in errors(rows, ladder, config)]
    lines += [returned(rows, ladder) for ladder in config.ladders]
    for f in config.freedoms:
        shares = [(ratio, memorised_counts(rows, f.kind, ratio, 1.0).sum()) for ratio in f.ratios]
        ours = ", ".join(f"{count.memorised / count.samples:.2f} ({ratio})" for ratio, count in shares)
        paper = {"unet": "0 .01 .05 .59 .80 (1 2 4 8 25.6)", "transformer": ".08 .41 .67 .76 .82 .85 (1 2 3 4 8 25.6)"}
        differs = f"{config.score_size} digits in D_score, {f.steps} steps, threshold ours"
        lines.append((f"memorised share (ratio), {f.kind}", paper.get(f.kind, ""), ours, differs))
    return pd.DataFrame(lines, columns=["quantity", "paper", "ours", "what differs"])


def regions(rows: pd.DataFrame, config: Config) -> pd.DataFrame:
    """One line a kind of network and region: memorised share, errors to the targets over the low levels (geometric
    means) on D_score, on D_region and on held-out states, and the median r⋆ of the paths at the lowest level."""
    records = []
    for f in config.freedoms:
        for ratio, thickness in [(r, 1.0) for r in f.ratios] + [(1, k) for k in f.thickness]:
            selected = rows[(rows.kind == "freedom") & (rows.network == f.kind)]
            selected = selected[(selected.ratio == ratio) & (selected.thickness == thickness)]
            counts = memorised_counts(rows, f.kind, ratio, thickness)
            share = share_of_units(counts.memorised, counts.samples)
            line = {"network": f.kind, "ratio": ratio, "thickness": thickness}
            line |= {"memorised": f"{share.estimate:.2f} [{share.low:.2f}, {share.high:.2f}]"}
            line |= {f"error, {n}": typical(selected[c]) for n, c in ERRORS.items()}
            records.append(line | {"r⋆ of paths": float(np.mean([v[-1] for v in selected.path_deviation]))})
    return pd.DataFrame(records)


def typical(errors: pd.Series) -> float:
    """The geometric mean over networks and levels that have an error."""
    logs = np.log(np.asarray([list(v) for v in errors], dtype=float))
    return float(np.exp(np.nanmean(logs)))


def shells(rows: pd.DataFrame, ladder: Ladder) -> list[Line]:
    """r⋆ of trajectories and held-out states, at the highest and the lowest level."""
    selected = rows[(rows.ladder == ladder.name) & (rows.kind == "deviation")]
    lines = []
    for states, paper in (("trajectory", "1 (t ≥ .8), ~10 (t = .1), ~90 (t = .01)"), ("heldout", "not given")):
        part = selected[selected.states == states].sort_values("sigma", ascending=False)
        ours = ", ".join(
            f"{pd.Series(v).median():.2g} (σ = {s:g})" for s, v in zip(part.sigma, part.deviation, strict=True)
        )
        lines.append((f"median r⋆, {states}, {ladder.data}", paper, ours, "levels in σ, other data and dimension"))
    return lines


def errors(rows: pd.DataFrame, ladder: Ladder, config: Config) -> list[Line]:
    """Errors to the empirical score (and the population's), *shorter* → *base*, mean over low levels and seeds."""
    selected = rows[(rows.ladder == ladder.name) & (rows.kind == "level") & (rows.sigma <= config.low)]
    means = selected.groupby("rung").mean(numeric_only=True)
    lines: dict[str, str] = {
        "inside_empirical": ".1884→.1834",
        "trajectory_empirical": ".5334→.5359",
        "own_empirical": ".5334→.5359",
    }
    differs = f"{SETTING}{ladder.name} ({ladder.size} points), training length"
    if ladder.problem == "gaussian20":
        lines = {"inside_empirical": ".98→.17", "inside_population": "plateau .34", "heldout_population": ".56→.08"}
        differs = f"MLP 10×1000, 20 000 steps; ours {ladder.depth}×{ladder.width}, {ladder.steps}; levels"
    if ladder.problem == "mixture20":
        lines = dict.fromkeys((*lines, "inside_population", "heldout_population"), "not given")
        differs = "not in the paper"
    return [
        (f"error {column.replace('_', ' to ')}, {ladder.name}", paper, between(means[column]), differs)
        for column, paper in lines.items()
    ]


def between(means: pd.Series) -> str:
    """`shorter→base`."""
    return f"{means['shorter']:.3g}→{means['base']:.3g}"


def returned(rows: pd.DataFrame, ladder: Ladder) -> Line:
    """Share of training points that return, by level."""
    selected = rows[(rows.ladder == ladder.name) & (rows.kind == "level") & (rows.rung == "base")]
    shares = selected.groupby("sigma").returned.mean()
    ours = ", ".join(f"{share:.2f} (σ = {sigma:g})" for sigma, share in shares.items())
    paper = "1.0 .98 .78 .25 0 (t ≤ .75, .8, .85, .9, ≥ .95)"
    return f"share returned, {ladder.name}", paper, ours, "levels in σ, threshold ours"
