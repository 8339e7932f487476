"""Study `low_noise_length`: does longer training turn seed noise at low noise levels into a part of the data?

Source: Pavlova & Wei 2025, arXiv 2506.07841 (networks trained on disjoint subsets diverge at low noise because of the
data). The study `low_noise` had three replicates a setting, so that most of its verdicts are open, and one setting with
four times the steps. Geometries and objectives that the paper names keep their row there; this one has few settings.

Protocol, fixed before any result
---------------------------------
- Settings: `spiral/edm` with N = 100 and 1000, `uniform/edm` (d = 5) with N = 1000, `digits/edm` with N = 100. Data,
  networks (3×64), optimiser, levels and states as in `low_noise`.
- Ten replicates, each with data sets of its own (digits: random splits; two replicates share about a ninth of their
  data, so that their intervals are somewhat short) and four networks each: A, A′ (same data, other seed), B, B′. All
  forty of a setting are trained together.
- Lengths: 500 steps, four times and sixteen times as many, each with its own cosine schedule; the same data, seeds and
  states at every length, so that lengths are compared within a replicate.
- Measure: the mean over .03, .01, .003τ of `log(|f_A − f_B|/|f_A − f_A′|)` at fresh data noised, for each replicate,
  which is the unit. Beside it the data's share of the squared difference, `1 − (within/cross)²`, and network A's loss
  above the least possible.
- Claims, per setting: (1) at the longest training data and not seeds part the networks: the mean log ratio is above log
  1.1, with bounds for all settings and lengths at once (Holm, one-sided 95 %); (2) the ratio rises with length: its
  change from the shortest to the longest training, paired by replicate, is above 0; (3) it has levelled off: the
  change from four to sixteen times is within ±.05; (4) where the law is known, the excess loss at the longest training
  is below 5 % of the least possible.
- Extrapolation, for the table: the slope of the log ratio on the logarithm of the steps, fitted to each replicate, and
  the multiple of the steps at which the line through the last two lengths would reach log 1.1.
- `full()` was run once, with these words unchanged, and is published.
- Cut rule of `full()` against `paper()`: settings, widths, steps and N are cut; no length, replicate or claim is.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies.claim_bounds import above, below, within
from studies.figures import colour, described, panels
from studies.low_noise import config as parent
from studies.low_noise import measures
from studies.low_noise.bench import Bench
from studies.low_noise.cells import losses
from studies.low_noise.comparison import shares
from studies.low_noise.config import LOW, Part
from studies.low_noise.onset import Floats, mean_interval
from studies.low_noise.verdicts import EFFECT, LEAST, ratios
from studies.statistics import Interval, data_share, family_intervals, mean_of_units
from studies.study import Cell, Claim, Context

NAME = "low_noise_length"
QUESTION = "Does longer training turn the seed noise of networks at low noise levels into a part of the data?"
VERSION = 1
SOURCE = "arXiv 2506.07841, main claim; control A′"
LEVELLED, TRAINED = 0.05, 0.05
Rows = pd.DataFrame


@dataclass(frozen=True)
class Config(parent.Config):
    """As of `low_noise`; `grid` has entries "geometry/objective/N", each at every length.

    Attributes:
        lengths: multiples of `steps`, ascending.
    """

    lengths: tuple[int, ...] = (1, 4, 16)

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; nothing is learned."""
        return cls(("spiral/edm/20",), replicates=2, width=16, depth=1, steps=5, batch=16, states=8, levels=LOW)

    @classmethod
    def quick(cls) -> Config:
        """Two minutes on two cores: one setting, four replicates."""
        return cls(("spiral/edm/100",), replicates=4, steps=250, levels=LOW)

    @classmethod
    def full(cls) -> Config:
        """The protocol, some fifteen minutes of one core."""
        grid = ("spiral/edm/100", "spiral/edm/1000", "uniform/edm/1000", "digits/edm/100")
        return cls(grid, replicates=10, steps=500, levels=LOW)

    @classmethod
    def paper(cls) -> Config:
        """For a GPU: every geometry at two N, each image set, and all objectives on the spiral."""
        grid = [f"{g}/edm/{n}" for g in parent.GEOMETRIES for n in (100, 10_000)]
        grid += [f"{g}/edm/{min(1000, parent.LARGEST[g])}" for g in parent.IMAGES]
        grid += [f"spiral/{o}/1000" for o in parent.OBJECTIVES if o != "edm"]
        size = {"replicates": 16, "width": 256, "steps": 5000, "batch": 256, "states": 256}
        return cls(tuple(grid), rate=2e-3, levels=LOW, **size)  # type: ignore[arg-type]  # sizes are integers


def cells(config: Config) -> list[Cell]:
    """One a setting and length; short ones first."""
    listed = []
    for length in config.lengths:
        for text in config.grid:
            part = dataclasses.replace(Part.of(text), length=length)
            parameters = dataclasses.asdict(part) | {"counts": list(part.counts)}
            listed.append(Cell(f"{part.geometry}-{part.objective}-{part.counts[0]}-x{length}", parameters))
    return listed


def bench_of(cell: Cell, context: Context) -> Bench:
    """The networks of a cell."""
    return Bench(Part(**{**cell.parameters, "counts": tuple(cell.parameters["counts"])}), context)


def run_cell(cell: Cell, context: Context) -> list[dict[str, Any]]:
    """Rows of one cell: a replicate's distances at every level, and network A's losses."""
    bench, rows = bench_of(cell, context), list[dict[str, Any]]()
    part = bench.part
    for (count, replicate), networks in bench.networks.items():
        given = {"geometry": part.geometry, "objective": part.objective, "length": part.length}
        given |= {"N": count, "replicate": replicate}
        memory = bench.memory(replicate, "A", count)
        rows += [given | row for row in losses(bench, networks, count, replicate, memory)]
        for index, level in enumerate(bench.levels):
            sigma, clean = level * bench.scale, bench.problem.fresh(replicate, bench.config.states)
            x = clean + sigma * bench.gaussian(replicate, index, clean)
            f = bench.values(networks, x, sigma)
            distances = shares(f, measures.rms(f[0] - x))
            rows.append(given | {"kind": "level", "states": "on", "level": level} | distances)
    return rows


Key = tuple[str, str, int]
Found = dict[Key, dict[int, Floats]]


def by_setting(rows: Rows) -> Found:
    """The log ratio of every replicate (R,), by setting (geometry, objective, N) and length."""
    result: Found = {}
    for (g, o, n, length), part in rows.groupby(["geometry", "objective", "N", "length"], sort=False):
        result.setdefault((str(g), str(o), int(float(str(n)))), {})[int(float(str(length)))] = ratios(part)
    return result


def claims(rows: Rows, config: Config) -> list[Claim]:
    """Every claim of the protocol, setting by setting."""
    settings = by_setting(rows)
    bounds, judged = _family(settings), list[Claim]()
    for key, values in settings.items():
        name, (first, *_, late, last) = f"{key[0]}/{key[1]}, N = {key[2]}", sorted(values)
        share = data_share(np.exp(values[last]), np.ones(len(values[last])))
        rise, end = values[last] - values[first], values[last] - values[late]
        judged += [
            Claim.of(
                f"{name}, {last} times the steps: data and not seeds part the networks at low noise, mean "
                f"log(|f_A−f_B|/|f_A−f_A′|) above log {EFFECT} (one-sided 95 % bounds, Holm over settings and lengths; "
                f"the data's share of the squared difference is {share.estimate:.2f} "
                f"[{share.low:.2f}, {share.high:.2f}])",
                bounds[key, last],
                above(LEAST, interval=True),
                SOURCE,
            ),
            Claim.of(
                f"{name}: the log ratio rises from {first} to {last} times the steps (unit: a replicate)",
                mean_of_units(rise),
                above(0, interval=True),
                "ours: seeds should agree once networks are trained",
            ),
            Claim.of(
                f"{name}: the log ratio has levelled off, its change from {late} to {last} times the steps (unit: a "
                "replicate)",
                mean_of_units(end),
                within(-LEVELLED, LEVELLED, interval=True),
                "ours: training is long enough",
            ),
        ]
        judged += _trained(rows, key, name, last)
    return judged


def _family(settings: Found) -> dict[tuple[Key, int], Interval]:
    """One-sided bounds of all settings and lengths at once."""
    values = {(key, length): each for key, by_length in settings.items() for length, each in by_length.items()}
    means = [mean_interval(each, tail=0.05) for each in values.values()]
    errors, freedom = [each.standard_error for each in means], [len(each) - 1 for each in values.values()]
    family = family_intervals([each.estimate for each in means], errors, freedom, LEAST)
    return dict(zip(values, family, strict=True))


def _trained(rows: Rows, key: Key, name: str, length: int) -> list[Claim]:
    losses_of_law = rows[(rows["kind"] == "loss") & (rows["of"] == "law") & (rows["length"] == length)]
    losses_of_law = losses_of_law[
        (losses_of_law["geometry"] == key[0]) & (losses_of_law["objective"] == key[1]) & (losses_of_law["N"] == key[2])
    ]
    if not len(losses_of_law):
        return []
    excess = mean_of_units((losses_of_law["excess"] / losses_of_law["optimum"]).to_numpy(dtype=float))
    statement = (
        f"{name}, {length} times the steps: excess loss over the least possible on fresh data (unit: a replicate)"
    )
    return [Claim.of(statement, excess, below(TRAINED, interval=True), "control: trained, and not over-trained")]


def table(rows: Rows) -> pd.DataFrame:
    """A line a setting: the log ratio and the data's share at every length, the slope and where it leads."""
    lines = []
    for key, values in by_setting(rows).items():
        lengths = sorted(values)
        line: dict[str, str] = {"setting": f"{key[0]}/{key[1]}, N = {key[2]}"}
        for length in lengths:
            share = data_share(np.exp(values[length]), np.ones(len(values[length])))
            line[f"×{length}"] = f"{mean_of_units(values[length])}; share {share.estimate:.2f}"
        line["slope a factor of 4"] = str(mean_of_units(slopes(values)))
        lines.append(line | {"reaches log 1.1 at": _reached(values)})
    return pd.DataFrame(lines)


def slopes(values: dict[int, Floats]) -> Floats:
    """The slope of the log ratio on the logarithm of the steps to base 4 of every replicate (R,).

    Example:
        >>> slopes({1: np.zeros(2), 4: np.ones(2), 16: np.array([2.0, 2.0])}).round(12).tolist()
        [1.0, 1.0]
    """
    lengths = sorted(values)
    places = np.log(lengths) / np.log(4)
    centred = places - places.mean()
    return np.asarray(centred @ np.stack([values[length] for length in lengths]) / (centred @ centred))


def _reached(values: dict[int, Floats]) -> str:
    """The multiple of the steps at which the line through the means of the last two lengths reaches log 1.1."""
    *_, late, last = sorted(values)
    end, slope = float(values[last].mean()), float((values[last] - values[late]).mean() / np.log(last / late))
    if end >= LEAST:
        return "reached"
    return f"×{last * np.exp((LEAST - end) / slope):.3g}" if slope > 0 else "never, at this slope"


def figures(rows: Rows, config: Config) -> dict[str, Figure]:
    """The log ratio against training length, a line a replicate."""
    settings = by_setting(rows)
    drawing, places, _ = panels(len(settings), panel=(3.4, 2.6))
    for axis, (key, values) in zip(places, settings.items(), strict=True):
        lengths = sorted(values)
        each = np.stack([values[length] for length in lengths])
        axis.plot(lengths, each, color=colour(0), linewidth=0.6, alpha=0.6)
        axis.plot(lengths, each.mean(axis=1), color=colour(1), marker="o", markersize=4)
        axis.axhline(LEAST, color="0.4", linewidth=0.8, linestyle="--")
        axis.set_xscale("log")
        axis.set_xticks(lengths, [f"×{length}" for length in lengths])
        axis.set_xticks([], minor=True)
        axis.set(xlabel="steps")
        axis.set_title(f"{key[0]}/{key[1]}, N = {key[2]}", fontsize=9)
    places[0].set_ylabel("log(|f_A−f_B|/|f_A−f_A′|)")
    text = (
        "Mean log ratio at low noise of the distance of networks on other data over that of networks of another seed, "
        "against training length: thin a line a replicate, thick the mean; dashed: log 1.1."
    )
    return {"length": described(drawing, text)}
