"""Figures: samples and their change, the patches of largest influence, differences against stated errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from studies.figures import GREY, MARKERS, colour, described, figure, image_strip, legend_below, panels, picture
from studies.photographs.cells import NEAREST, unpacked
from studies.photographs.config import Config
from studies.photographs.models import CLASS, REMOVED
from studies.photographs.reading import agreement, of

EDGE = 1e6
"""Largest stated error that is drawn in its place: one beyond it says that nothing is known, and may be infinite."""
BEYOND = 1e7  # where those are drawn
UNITS = {
    "sensitivity, kernel": ", norm of δ",
    "sensitivity, flow": ", norm of δ",
    "influence": ", norm of dφ/dη",
    "log density": " (nats)",
}


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
    drawing, axes, _ = panels(len(quantities))
    words = []
    for axis, quantity in zip(axes, quantities, strict=True):
        group = shown[shown.quantity == quantity]
        for _, row in group.iterrows():
            _points(axis, row, MARKERS[names.index(row.setting)], colour(models.index(row.model)))
        _limit(axis, group)
        unit = UNITS[quantity]
        axis.set(title=quantity, xlabel=f"stated error of both{unit}", ylabel=f"difference{unit}")
        for one in (axis.xaxis, axis.yaxis):
            one.set_minor_formatter(NullFormatter())
        inside = np.array([agreement(row, 3.0) for _, row in group.iterrows()]).sum(axis=0)
        words.append(f"{quantity} {inside[0]} of {inside[1]}")
    legend_below(drawing)
    text = (
        "Differences of two settings against the errors that they state together, one point a sample; at most three "
        f"stated errors, which is below the grey line: {', '.join(words)}. Differences of sensitivities are norms in "
        "units of the state (pixels or codes), those of influences norms over all training patches of the change of "
        "brightness per unit of mass."
    )
    return described(drawing, text + _off_the_scale(_errors(shown)))


def _points(axis: Axes, row: pd.Series, marker: str, shade: str) -> None:
    """One model and setting; hollow, beyond the edge, where the stated error is too large to be drawn in its place."""
    distance, stated = (np.asarray(row[n], dtype=float).clip(1e-12) for n in ("differences", "errors"))
    far = stated > EDGE
    style = {"linestyle": "", "marker": marker, "color": shade, "markersize": 4}
    axis.loglog(stated[~far], distance[~far], label=f"{row.model}, {row.setting}", **style)
    if far.any():
        axis.loglog(np.full(far.sum(), BEYOND), distance[far], markerfacecolor="none", **style)


def _limit(axis: Axes, group: pd.DataFrame) -> None:
    """Three stated errors, as far as stated errors are drawn in their place, and where they end."""
    stated = _errors(group)
    ends = np.array([0.8 * stated.min(), min(1.2 * stated.max(), EDGE)])
    axis.plot(ends, 3 * ends, color=GREY, linewidth=0.8, label="three stated errors")
    if (stated > EDGE).any():
        label = f"right of it, hollow: stated error beyond {EDGE:.0e}"
        axis.axvline(2 * EDGE, color=GREY, linewidth=0.8, linestyle=":", label=label)


def _off_the_scale(stated: np.ndarray) -> str:
    """What is said of samples with stated errors that are not drawn in their place."""
    far = stated[stated > EDGE]
    if not len(far):
        return ""
    most = f"finite ones reach {far[np.isfinite(far)].max():.0e}" if np.isfinite(far).any() else ""
    infinite = "some are infinite" if np.isinf(far).any() else ""
    return (
        f" Hollow points right of the dotted line stand for stated errors beyond {EDGE:.0e}, not in their place "
        f"({', '.join(each for each in (most, infinite) if each)}): these samples "
        "count as inside whatever their difference, since so large an error says that nothing is known."
    )


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
        "stretched to its own largest: mid-grey is no change of a colour, brighter more and darker less of it. "
        f"Median |change|/|sample|: {moved}."
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
