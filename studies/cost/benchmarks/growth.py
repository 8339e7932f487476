"""How time and memory of an influence grow with the number of points, steps and samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from sensitivity import Points
from studies.cost.benchmarks import Bound, Setup
from studies.cost.benchmarks._problem import Problem
from studies.cost.benchmarks.influence import MLP, OWN, PARTS, SMALL, own, parts
from studies.figures import colour, described, figure

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
    drawing, axes = figure(2, len(CURVES), panel=(2.4, 2.0))
    for column, key in enumerate(CURVES):
        others = [other for other in CURVES if other != key]
        middle = table[(table[others] == table[others].mode().iloc[0]).all(axis=1)].sort_values(key)
        _curves(axes[column], middle, key, "seconds", middle["seconds"])
        _curves(axes[column + len(CURVES)], middle, key, "MB", middle["peak_bytes"] / 2**20)
    drawing.legend(*axes[0].get_legend_handles_labels(), fontsize=7, loc="outside upper center", ncols=2)
    text = (
        "Median seconds (top) and megabytes (bottom) of an influence and of its bare parts against points, steps of "
        "the sampler and samples of the batch (logarithmic), the other two at their middle values."
    )
    return {"growth": described(drawing, text)}


def _curves(axes: Axes, rows: pd.DataFrame, key: str, label: str, values: pd.Series) -> None:
    for index, name in enumerate((OWN, PARTS)):
        selected = rows["alternative"] == name
        axes.plot(
            rows.loc[selected, key], values[selected], "os"[index] + "-", color=colour(index), markersize=4, label=name
        )
    axes.set(xscale="log", xlabel=key, ylabel=label if key == next(iter(CURVES)) else "", ylim=(0, None))
    axes.set_xticks(CURVES[key], [f"{value:,}".replace(",", " ") for value in CURVES[key]])
    axes.xaxis.set_minor_locator(NullLocator())
