"""What things cost: alternatives timed in turn, with ratios, memory, network evaluations and the machine's floor.

Every module in `studies/benchmarks` is one question; cells run one at a time on one thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from studies import benchmarks, floors
from studies.benchmarks import Setup
from studies.statistics import Interval, median_interval
from studies.study import Cell, Claim, Context
from studies.timing import alternate, peak_memory, ratio

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NAME", "QUESTION", "SERIAL", "Config", "cells", "claims", "figures", "run_cell"]

NAME = "cost"
QUESTION = "What do sensitivities cost, in time, memory and network evaluations, beside sampling itself?"
SERIAL = True


@dataclass(frozen=True)
class Config:
    """Sizes come from each benchmark.

    Args:
        sizes: which sizes, by level.
        rounds: turns of every alternative.
        only: benchmarks to run; all of them if empty.
    """

    sizes: str
    rounds: int
    only: tuple[str, ...] = ()

    @classmethod
    def smoke(cls) -> Config:
        return cls("smoke", 7)

    @classmethod
    def quick(cls) -> Config:
        return cls("quick", 15)

    @classmethod
    def full(cls) -> Config:
        return cls("full", 41)

    @classmethod
    def paper(cls) -> Config:
        return cls("full", 101)


def cells(config: Config) -> list[Cell]:
    return [
        Cell(f"{name}-{index}", {"benchmark": name, "size": size}, seed=index)
        for name in config.only or benchmarks.names()
        for index, size in enumerate(benchmarks.load(name).SIZES.get(config.sizes, []))
    ]


def run_cell(cell: Cell, context: Context) -> list[dict[str, Any]]:
    name, size = cell.parameters["benchmark"], cell.parameters["size"]
    setup = benchmarks.load(name).prepare(size, context.device, cell.seed)
    machine = floors.references(device=context.device)
    times = alternate(
        {**setup.alternatives, **machine}, rounds=context.config.rounds, seed=cell.seed, device=context.device
    )
    shared = {"benchmark": name, "size": ", ".join(f"{key}={value}" for key, value in size.items())}
    return [shared | _row(alternative, setup, times, context.device) for alternative in setup.alternatives]


def _row(alternative: str, setup: Setup, times: dict[str, Any], device: str) -> dict[str, Any]:
    run, seconds = setup.alternatives[alternative], times[alternative]
    baseline = next(iter(setup.alternatives))
    calls = _calls(setup, alternative)
    work = floors.work_of(run, setup.bytes_per_call * calls)
    typical, relative = median_interval(seconds), ratio(seconds, times[baseline])
    return {
        "alternative": alternative,
        "baseline": baseline,
        "seconds": typical.estimate,
        "seconds_low": typical.low,
        "seconds_high": typical.high,
        "ratio": relative.estimate,
        "ratio_low": relative.low,
        "ratio_high": relative.high,
        "network_calls": calls,
        "operations": work.operations,
        "bytes_moved": work.bytes,
        "floor_seconds": floors.floor_seconds(work, times),
        "peak_bytes": peak_memory(run, device),
        "round_seconds": seconds.tolist(),
    }


def _calls(setup: Setup, alternative: str) -> int:
    """Network calls of one run; zero where the benchmark counts none."""
    if setup.counter is None:
        return 0
    before = setup.counter.calls
    setup.alternatives[alternative]()
    return setup.counter.calls - before


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    found = []
    for (name, size), table in rows.groupby(["benchmark", "size"], sort=False):
        seconds = {row.alternative: np.asarray(row.round_seconds) for row in table.itertuples()}
        for bound in benchmarks.load(str(name)).EXPECTED:
            if bound.alternative in seconds and bound.against in seconds:
                relative = ratio(seconds[bound.alternative], seconds[bound.against])
                found.append(_claim(str(name), str(size), bound, relative))
    return found


def _claim(name: str, size: str, bound: benchmarks.Bound, relative: Interval) -> Claim:
    return Claim(
        statement=f"{name} ({size}): {bound.alternative} takes at most {bound.ratio:g} times {bound.against}",
        measured=relative.estimate,
        interval=relative.bounds,
        expected=f"≤ {bound.ratio:g}",
        source=bound.source,
        holds=relative.estimate <= bound.ratio,
    )


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    return {str(name): _figure(str(name), table) for name, table in rows.groupby("benchmark", sort=False)}


def _figure(name: str, table: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(7, 1.3 + 0.45 * len(table)), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(table))[::-1]
    axes.errorbar(
        table["seconds"],
        places,
        xerr=_whiskers(table),
        fmt="o",
        color="#4477aa",
        capsize=3,
        label="median, 95 % interval",
    )
    axes.plot(table["floor_seconds"], places, "|", color="#bb3344", markersize=14, label="the machine's floor")
    axes.set_yticks(places, [f"{row.alternative}\n{row.size}" for row in table.itertuples()], fontsize=7)
    for place, row in zip(places, table.itertuples(), strict=True):
        axes.annotate(f"×{row.ratio:.2f}", (row.seconds, place), (0, 6), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.15)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("seconds a call; × is the ratio to the first of the same size")
    figure.legend(fontsize=7, loc="outside upper center", ncols=2)
    best = ", ".join(f"{row.alternative} ×{row.ratio:.2f} ({row.size})" for row in table.itertuples())
    figure.alt = f"Time of each alternative of the benchmark {name}: {best}"  # type: ignore[attr-defined]
    return figure


def _whiskers(table: pd.DataFrame) -> np.ndarray:
    """Lengths of the interval's arms; an infinite end (too few rounds) is not drawn."""
    low = np.where(np.isfinite(table["seconds_low"]), table["seconds"] - table["seconds_low"], 0.0)
    high = np.where(np.isfinite(table["seconds_high"]), table["seconds_high"] - table["seconds"], 0.0)
    return np.stack([low, high])
