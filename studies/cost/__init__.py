"""What things cost: alternatives timed in turn, with ratios, memory, network evaluations and the machine's floor.

Every module in `studies/cost/benchmarks` is one question; cells run one at a time on one thread. Protocol: in every
round each alternative is timed once, in random order; a ratio is the median over rounds of the quotient of times of
the same round, with a distribution-free interval at 95 %. A cell takes as many rounds as fit in `seconds`, at most
`rounds` and at least seven. Against public packages the baseline is the one of least median time; all of them are
reported. Network calls are counted, memory is the growth of the process's peak (of the allocator's, on a GPU) in one
call, errors are relative and of the same call's result. Claims are bounds on ratios, stated in the benchmarks before
they were measured, with an error bound where a product of derivatives is inexact; sizes were settled after first
results, where ratios of densities overflowed or runs took too long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure

from studies.claim_bounds import Condition, at_most
from studies.cost import benchmarks, floors
from studies.cost.benchmarks import Setup
from studies.cost.benchmarks._drawing import ratios
from studies.cost.timing import alternate, peak_memory, ratio
from studies.statistics import Interval, median_interval
from studies.study import Cell, Claim, Context

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NAME", "QUESTION", "SERIAL", "VERSION", "Config", "cells", "claims", "figures", "run_cell"]

NAME = "cost"
QUESTION = "What do sensitivities cost, in time, memory and network evaluations, beside sampling itself?"
SERIAL = True
VERSION = 2  # times are of the processor on a CPU, errors are reported


@dataclass(frozen=True)
class Config:
    """Sizes come from each benchmark.

    Attributes:
        sizes: which sizes, by level.
        rounds: turns of every alternative, at most.
        seconds: timing of one cell; slow alternatives take fewer rounds, but never fewer than seven, the least from
            which a median has an interval at 95 %.
        only: benchmarks to run; all of them if empty.
    """

    sizes: str
    rounds: int
    seconds: float
    only: tuple[str, ...] = ()

    @classmethod
    def smoke(cls) -> Config:
        return cls("smoke", 7, 1.0)

    @classmethod
    def quick(cls) -> Config:
        return cls("quick", 15, 6.0)

    @classmethod
    def full(cls) -> Config:
        return cls("full", 41, 3.0)

    @classmethod
    def paper(cls) -> Config:
        return cls("full", 101, 300.0)


def cells(config: Config) -> list[Cell]:
    return [
        Cell(f"{name}-{index}", {"benchmark": name, "size": size}, seed=index)
        for name in config.only or [name for name in benchmarks.names() if name not in benchmarks.ELSEWHERE]
        for index, size in enumerate(benchmarks.load(name).SIZES.get(config.sizes, []))
    ]


def run_cell(cell: Cell, context: Context) -> list[dict[str, Any]]:
    name, size = cell.parameters["benchmark"], cell.parameters["size"]
    setup = benchmarks.load(name).prepare(size, context.device, cell.seed)
    machine = floors.references(device=context.device)
    times = alternate(
        {**setup.alternatives, **machine},
        rounds=context.config.rounds,
        seconds=context.config.seconds,
        seed=cell.seed,
        device=context.device,
    )
    shared = {"benchmark": name, "size": ", ".join(f"{key}={value}" for key, value in size.items())}
    return [shared | _row(alternative, setup, times, context.device) for alternative in setup.alternatives]


def _row(alternative: str, setup: Setup, times: dict[str, Any], device: str) -> dict[str, Any]:
    run, seconds = setup.alternatives[alternative], times[alternative]
    baseline = fastest(setup.references or list(setup.alternatives)[:1], times)
    errors = setup.errors[alternative]().double() if alternative in setup.errors else torch.full((1,), float("nan"))
    work, calls = _work(setup, run)
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
        "error": float(errors.median()),
        "error_worst": float(errors.max()),
        "round_seconds": seconds.tolist(),
    }


def fastest(names: Sequence[str], times: Mapping[str, Any]) -> str:
    """The name of the alternative with the least median time."""
    return min(names, key=lambda name: float(np.median(times[name])))


def _work(setup: Setup, run: Callable[[], object]) -> tuple[floors.Work, int]:
    """What one run does, and its network calls; zero where the benchmark counts none."""
    before = 0 if setup.counter is None else setup.counter.calls
    work = floors.work_of(run)
    calls = 0 if setup.counter is None else setup.counter.calls - before
    return floors.Work(work.operations, setup.bytes_per_call * calls), calls


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    claims = []
    for (name, size), table in rows.groupby(["benchmark", "size"], sort=False):
        seconds = {str(row.alternative): np.asarray(row.round_seconds) for row in table.itertuples()}
        for bound in benchmarks.load(str(name)).EXPECTED:
            rivals = [name for name in bound.rivals() if name in seconds]
            if bound.meant_for(str(size)) and bound.alternative in seconds and rivals:
                against = fastest(rivals, seconds)
                relative = ratio(seconds[bound.alternative], seconds[against])
                error = float(table.loc[table["alternative"] == bound.alternative, "error"].iloc[0])
                claims.append(_claim(str(name), str(size), bound, against, relative, error))
    return claims


def _claim(name: str, size: str, bound: benchmarks.Bound, against: str, relative: Interval, error: float) -> Claim:
    several = "" if len(bound.rivals()) == 1 else "the fastest public package, "
    accurate = () if bound.error is None else (Condition("its relative error", error, at_most(bound.error)),)
    statement = f"{name} ({size}): {bound.alternative} takes at most {bound.ratio:g} times {several}{against}"
    return Claim.of(statement, relative, at_most(bound.ratio, interval=True), bound.source, conditions=accurate)


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for name, table in rows.groupby("benchmark", sort=False):
        benchmark = benchmarks.load(str(name))
        draw = getattr(benchmark, "figures", None)
        figures |= {str(name): ratios(table, benchmark.EXPECTED)} if draw is None else draw(table)
    return figures
