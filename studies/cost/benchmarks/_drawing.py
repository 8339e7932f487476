"""The common figure of a benchmark: ratios to the baseline, a panel for each size."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from studies.cost.benchmarks import Bound
from studies.figures import colour, described, figure

__all__ = ["ratios"]

SMALL = 7  # points
LETTERS = 90  # of a line above a panel
WIDE = 6.0  # span of ratios from which their axis is logarithmic
FLOOR, CLAIM = "the machine's floor", "claim: at most"
KINDS = {"mlp": "perceptron", "unet": "U-Net", "conv": "convolutions", "diffusers": "network of diffusers"}
WORDS: dict[str, Callable[[str], str]] = {
    "kind": lambda v: KINDS.get(v, v),
    "width": lambda v: f"width {v}",
    "depth": lambda v: f"depth {v}",
    "training": lambda v: f"trained for {v} steps" if int(v) else "untrained",
    "side": lambda v: f"{v} × {v} pixels",
    "batch": lambda v: f"batch of {v}",
    "heun": lambda v: f"{v} steps of the pass",
    "steps": lambda v: _steps(v),
    "points": lambda v: f"{int(v):,} points".replace(",", " "),
    "states": lambda v: f"{int(v):,} states".replace(",", " "),
    "dimension": lambda v: f"dimension {v}",
    "components": lambda v: f"{v} component{'' if v == '1' else 's'}",
    "sigma": lambda v: f"σ = {float(v):g}",
}
"""What the value of a size's key is called above a panel; values of other keys, such as the data, say it themselves."""


def ratios(table: pd.DataFrame, bounds: Sequence[Bound]) -> Figure:
    """Ratio of time of every alternative with its interval, the machine's floor, claimed bounds, and the seconds."""
    sizes = list(table.groupby("size", sort=False))
    most = max(len(part) for _, part in sizes)
    drawing, axes = figure(len(sizes), 1, panel=(6.8, 0.85 + 0.27 * most))
    for each, (size, part) in zip(axes, sizes, strict=True):
        _panel(each, part.reset_index(drop=True), bounds)
        scale = "; logarithmic axis" if each.get_xscale() == "log" else ""
        each.set_title(textwrap.fill(_called(str(size)) + scale, LETTERS), fontsize=SMALL, loc="left")
    axes[-1].set_xlabel("time relative to the baseline of the same size")
    shown = dict(pair for each in axes for pair in zip(*reversed(each.get_legend_handles_labels()), strict=True))
    drawing.legend(list(shown.values()), list(shown), fontsize=SMALL, loc="outside upper center", ncols=3)
    return described(drawing, _caption(table, bounds, set(shown)))


def _called(size: str) -> str:
    """A size in words: "perceptron, width 704, …", to be broken at commas only."""
    values = dict(pair.split("=", 1) for pair in size.split(", "))
    if "heun" in values:
        values["steps"] = f"{values['steps']} of the two-step solver"
    return ", ".join(WORDS.get(key, str)(value).replace(" ", "\u00a0") for key, value in values.items())


def _steps(value: str) -> str:
    return value if " " in value else f"{value} step{'' if value == '1' else 's'} of the sampler"


def _caption(table: pd.DataFrame, bounds: Sequence[Bound], shown: set[str]) -> str:
    """What is drawn, then the ratios themselves."""
    spans = table.groupby("alternative", sort=False)["ratio"].agg(["min", "max"])
    spoken = "; ".join(f"{name} {_span(low, high)}" for name, low, high in spans.itertuples())
    said = [
        "Time relative to the baseline of the same size, a panel for each size: median over rounds of the quotient of "
        "times in one round, with its 95 % interval. Right: the median time of each alternative; the ratios are not "
        "quotients of these, but medians of paired quotients."
    ]
    if CLAIM in shown:
        said.append(f"Orange marks are claimed bounds, at most: {_claimed(table, bounds)}.")
    if FLOOR in shown:
        said.append(
            "Grey marks are the machine's floor: the least time for the counted arithmetic and traffic of an "
            "alternative at the rates that a matrix product and a copy reached in the same rounds"
            + ("." if (table["floor_seconds"] > 0).all() else "; there is none where nothing could be counted.")
        )
    beyond = _beyond(table, bounds)
    if beyond:
        said.append(
            f"In {beyond} row{'' if beyond == 1 else 's'} the claim lies left of the floor: no code that does this "
            "work could meet it on that machine."
        )
    return " ".join([*said, f"Ratios: {spoken}."])


def _claimed(table: pd.DataFrame, bounds: Sequence[Bound]) -> str:
    """The bounds that are meant for one of the sizes, in words."""
    sizes, there = list(dict.fromkeys(table["size"])), set(table["alternative"])
    words: dict[str, list[str]] = {}
    for bound in bounds:
        if {bound.alternative, *bound.rivals()} <= there and any(bound.meant_for(size) for size in sizes):
            against = bound.against if isinstance(bound.against, str) else "the fastest package"
            meant = [WORDS[key](str(value)) for key, value in (("kind", bound.kind), ("batch", bound.batch)) if value]
            where = f" ({', '.join(meant)})" if meant else ""
            words.setdefault(bound.alternative, []).append(f"{bound.ratio:.3g} × {against}{where}")
    return "; ".join(f"{name} {', '.join(each)}" for name, each in words.items())


def _beyond(table: pd.DataFrame, bounds: Sequence[Bound]) -> int:
    """Rows with a claim to the left of their floor."""
    count = 0
    for _, part in table.groupby("size", sort=False):
        rows = part.reset_index(drop=True)
        floors = _floors(rows)
        count += sum(any(limit < floors[row] for limit in _limits(rows, row, bounds)) for row in range(len(rows)))
    return count


def _floors(part: pd.DataFrame) -> np.ndarray:
    """The floor of every row on the axis of ratios; NaN where no work was counted, as in NumPy."""
    baseline = float(part.loc[part["alternative"] == part["baseline"], "seconds"].iloc[0])
    floors = part["floor_seconds"].to_numpy(dtype=float) / baseline
    return np.where(floors > 0, floors, np.nan)


def _span(low: float, high: float) -> str:
    return _short(low) if _short(low) == _short(high) else f"{_short(low)} to {_short(high)}"


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def _panel(axes: Axes, part: pd.DataFrame, bounds: Sequence[Bound]) -> None:
    places = np.arange(len(part))[::-1]
    axes.errorbar(
        part["ratio"], places, xerr=_arms(part), fmt="o", color=colour(0), markersize=4, capsize=3, linewidth=1,
        label="median ratio, 95 % interval",
    )  # fmt: skip
    floors = _floors(part)
    claimed = [(limit, places[row]) for row in range(len(part)) for limit in _limits(part, row, bounds)]
    _marks(axes, [pair for pair in zip(floors, places, strict=True) if pair[0] > 0], "0.4", 11, FLOOR)
    _marks(axes, claimed, colour(1), 13, CLAIM)
    axes.set_yticks(places, list(part["alternative"]), fontsize=SMALL)
    axes.set_ylim(-0.6, len(part) - 0.4)
    for place, seconds in zip(places, part["seconds"], strict=True):
        text = f"{seconds:.2g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
        axes.text(1.01, place, text, transform=axes.get_yaxis_transform(), fontsize=SMALL, va="center")
    if part["ratio"].max() > WIDE * part["ratio"].min():
        axes.set_xscale("log")
        _plain_ticks(axes)
    else:
        axes.set_xlim(left=0)


def _marks(axes: Axes, points: Sequence[tuple[float, float]], shade: str, size: float, label: str) -> None:
    """Vertical marks; none, and none in the legend, where there is no point."""
    if points:
        axes.plot(*zip(*points, strict=True), "|", color=shade, markersize=size, label=label)


def _limits(part: pd.DataFrame, row: int, bounds: Sequence[Bound]) -> list[float]:
    """Where the claims on an alternative lie on the axis of ratios to the baseline."""
    limits = []
    for bound in bounds:
        rivals = part[part["alternative"].isin(bound.rivals())]
        named = bound.alternative == part["alternative"].iloc[row]
        if named and len(rivals) and bound.meant_for(str(part["size"].iloc[0])):
            fastest = rivals.sort_values("seconds")  # as the claim takes it: the least median time
            limits.append(bound.ratio * float(fastest["ratio"].iloc[0]))
    return limits


def _plain_ticks(axes: Axes) -> None:
    """Plain numbers on a logarithmic axis of x, and none between them."""
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 1000 * low else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _arms(part: pd.DataFrame) -> np.ndarray:
    """Lengths of the interval's arms; an infinite end (too few rounds) is not drawn."""
    low = np.where(np.isfinite(part["ratio_low"]), part["ratio"] - part["ratio_low"], 0.0)
    high = np.where(np.isfinite(part["ratio_high"]), part["ratio_high"] - part["ratio"], 0.0)
    return np.maximum(np.stack([low, high]), 0.0)
