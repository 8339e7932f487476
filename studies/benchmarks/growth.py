"""How time and memory of an influence grow with the number of points, steps and samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from sensitivity import Points
from studies.benchmarks import Bound, Setup
from studies.benchmarks._problem import Problem
from studies.benchmarks.influence import MLP, OWN, PARTS, SMALL, own, parts
from studies.figures import described, figure

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EXPECTED", "QUESTION", "SIZES", "figures", "prepare"]

QUESTION = "How do time and memory of an influence grow with points, steps and samples?"
MIDDLE = {"points": 15_000, "steps": 4, "batch": 16}
CURVES = {"points": (3_750, 15_000, 60_000), "steps": (1, 4, 16), "batch": (4, 16, 64)}


def _sizes(base: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The middle size, then each curve's other ends."""
    ends = [
        {**base, **MIDDLE, key: value} for key, values in CURVES.items() for value in values if value != MIDDLE[key]
    ]
    return [{**base, **MIDDLE}, *ends]


SIZES = {
    "smoke": [{"kind": "mlp", "width": 32, **SMALL}],
    "full": _sizes(MLP),
}
EXPECTED: tuple[Bound, ...] = ()


def prepare(parameters: Mapping[str, Any], device: str, seed: int) -> Setup:
    """One quantity at a time leaves the middle size; the network stays the same."""
    problem = Problem.of(parameters, device, seed, count=parameters["points"])
    points = Points(problem.data, bandwidth=0.5)
    return Setup({PARTS: parts(problem, points), OWN: own(problem, points)}, problem.counter, problem.moved)


def figures(table: pd.DataFrame) -> dict[str, Figure]:
    """Time and memory against each quantity."""
    sizes = [dict(part.split("=") for part in size.split(", ")) for size in table["size"]]
    table = table.assign(**{key: [int(size[key]) for size in sizes] for key in CURVES})
    drawing, axes = figure(1, len(CURVES), panel=(2.6, 2.4))
    for axis, key in zip(axes.flat, CURVES, strict=True):
        others = [other for other in CURVES if other != key]
        middle = table[(table[others] == table[others].mode().iloc[0]).all(axis=1)].sort_values(key)
        own_rows, part_rows = (middle[middle["alternative"] == name] for name in (OWN, PARTS))
        axis.plot(own_rows[key], own_rows["seconds"], "o-", color="#4477aa", label="influence")
        axis.plot(part_rows[key], part_rows["seconds"], "s--", color="#999999", label="its bare parts")
        memory = axis.twinx()
        memory.plot(own_rows[key], own_rows["peak_bytes"] / 2**20, "^:", color="#bb3344", label="memory")
        memory.set(yscale="log")
        memory.grid(False)
        axis.set(xscale="log", yscale="log", xlabel=key, ylabel="seconds" if key == "points" else "")
        memory.set_ylabel("MB (triangles)" if key == "batch" else "")
    axes.flat[0].legend(fontsize=7)
    return {"growth": described(drawing, "Seconds and megabytes of an influence against points, steps and samples.")}
