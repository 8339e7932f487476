"""The common figure of a benchmark: ratios to the baseline, a panel for each size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from studies.cost.benchmarks import Bound
from studies.figures import colour, described, figure

__all__ = ["ratios"]

SMALL = 7  # points
WIDE = 6.0  # span of ratios from which their axis is logarithmic


def ratios(table: pd.DataFrame, bounds: Sequence[Bound]) -> Figure:
    """Ratio of time of every alternative with its interval, the machine's floor, claimed bounds, and the seconds."""
    sizes = list(table.groupby("size", sort=False))
    most = max(len(part) for _, part in sizes)
    drawing, axes = figure(len(sizes), 1, panel=(6.8, 0.75 + 0.27 * most))
    for each, (size, part) in zip(axes, sizes, strict=True):
        _panel(each, part.reset_index(drop=True), bounds)
        each.set_title(str(size).replace("=", " "), fontsize=SMALL, loc="left")
    axes[-1].set_xlabel("time relative to the baseline of the same size")
    handles, labels = axes[0].get_legend_handles_labels()
    drawing.legend(handles, labels, fontsize=SMALL, loc="outside upper center", ncols=3)
    spans = table.groupby("alternative", sort=False)["ratio"].agg(["min", "max"])
    spoken = "; ".join(f"{name} {_span(low, high)}" for name, low, high in spans.itertuples())
    return described(drawing, f"Time relative to the baseline of the same size, a panel for each size: {spoken}.")


def _span(low: float, high: float) -> str:
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"


def _panel(axes: Axes, part: pd.DataFrame, bounds: Sequence[Bound]) -> None:
    places = np.arange(len(part))[::-1]
    baseline = float(part.loc[part["alternative"] == part["baseline"], "seconds"].iloc[0])
    axes.errorbar(
        part["ratio"], places, xerr=_arms(part), fmt="o", color=colour(0), markersize=4, capsize=3, linewidth=1,
        label="median ratio, 95 % interval",
    )  # fmt: skip
    axes.plot(part["floor_seconds"] / baseline, places, "|", color="0.4", markersize=11, label="the machine's floor")
    claimed = [(limit, places[row]) for row in range(len(part)) for limit in _limits(part, row, bounds)]
    axes.plot(
        *(zip(*claimed, strict=True) if claimed else ([], [])), "|", color=colour(1), markersize=13, label="claim"
    )
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


def _limits(part: pd.DataFrame, row: int, bounds: Sequence[Bound]) -> list[float]:
    """Where the claims on an alternative lie on the axis of ratios to the baseline."""
    limits = []
    for bound in bounds:
        rivals = part[part["alternative"].isin(bound.rivals())]
        named = bound.alternative == part["alternative"].iloc[row]
        if named and len(rivals) and bound.meant_for(str(part["size"].iloc[0])):
            limits.append(bound.ratio * float(rivals["ratio"].min()))
    return limits


def _plain_ticks(axes: Axes) -> None:
    """Plain numbers on a logarithmic axis of x, and none between them."""
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _arms(part: pd.DataFrame) -> np.ndarray:
    """Lengths of the interval's arms; an infinite end (too few rounds) is not drawn."""
    low = np.where(np.isfinite(part["ratio_low"]), part["ratio"] - part["ratio_low"], 0.0)
    high = np.where(np.isfinite(part["ratio_high"]), part["ratio_high"] - part["ratio"], 0.0)
    return np.maximum(np.stack([low, high]), 0.0)
