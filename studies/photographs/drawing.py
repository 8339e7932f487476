"""Figures: samples and their change, the patches of largest influence, differences against stated errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from studies.figures import MARKERS, colour, described, figure, image_strip, legend_below, picture
from studies.photographs.cells import NEAREST, unpacked
from studies.photographs.config import Config
from studies.photographs.models import CLASS, REMOVED
from studies.photographs.reading import agreement, of

EDGE = 1e6
"""Largest stated error that is drawn in its place: one beyond it says that nothing is known, and may be infinite."""


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    """`agreement`, and for each model `change-…` and `influence-…`."""
    del config
    drawings = {"agreement": _agreement(rows)} if len(of(rows, kind="agreement")) else {}
    for name in dict.fromkeys(of(rows, kind="picture").model) if len(of(rows, kind="picture")) else []:
        drawings[f"change-{name}"] = _change(of(rows, kind="picture", model=name))
    for _, row in of(rows, kind="largest").iterrows():
        drawings[f"influence-{row.model}"] = _influence(row)
    return drawings


def _agreement(rows: pd.DataFrame) -> Figure:
    """Every sample: how far two settings lie apart, against the error that they state."""
    shown = of(rows, kind="agreement")
    quantities, names = (list(dict.fromkeys(shown[column])) for column in ("quantity", "setting"))
    models = list(dict.fromkeys(shown.model))
    drawing, axes = figure(1, len(quantities))
    words = []
    for axis, quantity in zip(axes, quantities, strict=True):
        group = shown[shown.quantity == quantity]
        for _, row in group.iterrows():
            distance, stated = (np.asarray(row[n], dtype=float).clip(1e-12) for n in ("differences", "errors"))
            axis.loglog(
                stated.clip(max=EDGE),
                distance,
                MARKERS[names.index(row.setting)],
                color=colour(models.index(row.model)),
                markersize=4,
                label=f"{row.model}, {row.setting}",
            )
        ends = np.array(axis.get_xlim())
        axis.plot(ends, 3 * ends, color="0.45", linewidth=0.8, label="three stated errors")
        axis.set(title=quantity, xlabel="stated error of both", ylabel="difference")
        for one in (axis.xaxis, axis.yaxis):
            one.set_minor_formatter(NullFormatter())
        inside = np.array([agreement(row, 3.0) for _, row in group.iterrows()]).sum(axis=0)
        words.append(f"{quantity} {inside[0]} of {inside[1]}")
    legend_below(drawing)
    text = "Differences of two settings against the errors they state; below the line are at most three stated errors: "
    edge = f" Stated errors beyond {EDGE:.0e} are drawn there." if bool((_errors(shown) > EDGE).any()) else ""
    return described(drawing, text + ", ".join(words) + "." + edge)


def _errors(shown: pd.DataFrame) -> np.ndarray:
    return np.concatenate([np.asarray(each, dtype=float) for each in shown.errors])


def _change(shown: pd.DataFrame) -> Figure:
    """Samples, and what the removal is predicted to make of them, by either ratio."""
    first = shown.iloc[0]
    strips = {"sample": unpacked(first.before)}
    for _, row in shown.iterrows():
        strips[f"{row.quantity}: after"] = unpacked(row.after)
        difference = unpacked(row.after).astype(float) - unpacked(row.before)
        largest = np.abs(difference).max(axis=(1, 2, 3), keepdims=True).clip(1e-9)
        strips[f"{row.quantity}: change"] = (127.5 + 127.5 * difference / largest).astype(np.uint8)
    moved = "; ".join(f"{row.quantity} {_median(row.moved)}" for _, row in shown.iterrows())
    guided = f" (guided toward '{CLASS}')" if first.model == "guided" else ""
    text = (
        f"{first.model}{guided}: samples, what removing '{REMOVED}' is predicted to make of them, and the change, each "
        f"stretched to its own largest. Median |change|/|sample|: {moved}."
    )
    return described(image_strip(strips, size=0.95), text)


def _influence(row: pd.Series) -> Figure:
    """One sample a row, then the patches of largest |influence| on its brightness."""
    count = int(row.shown)
    samples, patches = unpacked(row.before), unpacked(row.nearest).reshape(count, NEAREST, 32, 32, 3)
    signs = np.asarray(row.signs).reshape(count, NEAREST)
    drawing, axes = figure(count, NEAREST + 1, panel=(0.95, 1.1))
    axes = axes.reshape(count, NEAREST + 1)
    for k in range(count):
        picture(axes[k, 0], samples[k], "sample" if k == 0 else "", size=6)
        for j in range(NEAREST):
            picture(axes[k, j + 1], patches[k, j], "brighter" if signs[k, j] > 0 else "darker", size=6)
    names = ", ".join(dict.fromkeys(row.photographs))
    text = (
        f"{row.model}: samples and the {NEAREST} of {int(row.points)} training patches with the largest influence on "
        f"their brightness, which are from {names}; more of a patch makes the sample brighter or darker as it says."
    )
    return described(drawing, text)


def _median(values: object) -> str:
    return f"{np.median(np.asarray(values, dtype=float)):.2g}"
