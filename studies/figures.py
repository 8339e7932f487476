"""Drawing, once for all studies: one style, colours that colour-blind readers can tell apart, and a text alternative.

Colours are those of Okabe & Ito 2008; series differ by marker or line style as well as by colour, but for those that
stand apart (panels, bars, paths); fields and images use maps with even steps of lightness (`viridis`, `cividis`),
signed images a blue–red map centred on zero. Every figure is made by `figure` and finished by `described`, which
stores the text alternative in the attribute `alt` that reports and the book read.

Example:
    >>> drawing, axes = figure(1, 2)
    >>> slopes(axes[0], [1e-1, 1e-2, 1e-3], [0.2, 0.02, 0.002], label="d = 2", order=1)
    >>> described(drawing, "Errors fall in proportion to the mass moved.").alt
    'Errors fall in proportion to the mass moved.'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

__all__ = [
    "COLOURS",
    "colour",
    "described",
    "figure",
    "image_strip",
    "leftmost",
    "legend_below",
    "listed",
    "log_ratio",
    "panels",
    "picture",
    "score_field",
    "sensitivity_arrows",
    "slopes",
    "spans",
    "trajectories",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "osD^vP*X"
GREY = "0.45"
FONT = 9.0
PANEL = (3.6, 2.9)  # inches
ROW = 3  # panels: with more, letters are too small to read in the width of a page


def colour(index: int) -> str:
    """The index-th colour, beginning again after eight."""
    return COLOURS[index % len(COLOURS)]


def figure(rows: int = 1, columns: int = 1, *, panel: tuple[float, float] = PANEL) -> tuple[Figure, np.ndarray]:
    """A figure without pyplot's global state, and its axes in reading order, (rows·columns,)."""
    drawing = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    axes = np.asarray(drawing.subplots(rows, columns, squeeze=False)).ravel()
    for each in axes:
        _style(each)
    return drawing, axes


def panels(count: int, *, panel: tuple[float, float] = PANEL) -> tuple[Figure, np.ndarray, list[Axes]]:
    """Of `count` panels, at most `ROW` in a row and four in two rows: figure, panels, what the last row leaves."""
    columns = 2 if count == 4 else min(count, ROW)
    drawing, axes = figure(-(-count // columns), columns, panel=panel)
    for spare in axes[count:]:
        spare.set_axis_off()
    return drawing, axes[:count], list(axes[count:])


def leftmost(axes: Iterable[Axes]) -> list[Axes]:
    """The panels at the left, whose labels of y serve their rows."""
    specs = ((each, each.get_subplotspec()) for each in axes)
    return [each for each, spec in specs if spec is not None and spec.is_first_col()]


def spans(values: Mapping[str, Sequence[float]]) -> str:
    """The least and the largest value of each name, in words.

    Example:
        >>> spans({"kernel": [0.5, 0.25], "flow": [1.0]})
        'kernel 0.25 to 0.50; flow 1.00 to 1.00'
    """
    return "; ".join(f"{name} {min(each):.2f} to {max(each):.2f}" for name, each in values.items())


def legend_below(drawing: Figure, names: Sequence[str] = (), *, columns: int = 4) -> None:
    """One legend for all panels, below them, where it covers no data; `names` chooses and orders, all by default."""
    pairs = [axes.get_legend_handles_labels() for axes in drawing.axes]
    handles = {label: handle for handles, labels in pairs for handle, label in zip(handles, labels, strict=True)}
    shown = [name for name in names or handles if name in handles]
    drawing.legend([handles[n] for n in shown], shown, loc="outside lower center", ncols=columns, fontsize=FONT - 1)


def listed(axes: Axes, names: Sequence[str], *, named: bool = True, size: float = FONT - 2) -> None:
    """One line of the panel for each name, the first on top; `named=False` leaves the names to a neighbour."""
    axes.set_yticks(range(len(names)), list(names) if named else [""] * len(names), fontsize=size)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="both", labelsize=FONT - 2)
    axes.grid(True, linewidth=0.4, alpha=0.4)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_fontsize(FONT)


def described(drawing: Figure, alt: str) -> Any:
    """The figure with its text alternative: what it shows and what to see in it, one or two sentences."""
    if not alt.strip():
        raise ValueError("alt is empty: say in a sentence what the figure shows.")
    drawing.alt = alt  # type: ignore[attr-defined]  # Matplotlib has no place of its own for it
    return drawing


def slopes(
    axes: Axes,
    h: ArrayLike,
    error: ArrayLike,
    *,
    label: str = "",
    upper: ArrayLike | None = None,
    order: float | None = None,
    index: int = 0,
) -> None:
    """Errors against h on logarithmic axes, one line a series.

    Args:
        axes: where.
        h: (n,), positive.
        error: (n,), medians, say.
        upper: (n,), a higher quantile, drawn thin.
        label: in the legend.
        order: a dotted line of this slope is drawn above the points and named.
        index: of the colour.
    """
    x, y = np.asarray(h, dtype=float), np.asarray(error, dtype=float)
    if x.shape != y.shape or (x <= 0).any():
        raise ValueError(f"h {x.shape} and error {y.shape} must be of one length and h positive: axes are logarithmic.")
    style = {"color": colour(index), "marker": MARKERS[index % len(MARKERS)], "markersize": 4}
    axes.loglog(x, y, linewidth=1.4, label=label or None, **style)
    if upper is not None:
        axes.loglog(x, np.asarray(upper, dtype=float), linewidth=0.7, linestyle="--", color=colour(index))
    if order is not None:
        style = {"color": GREY, "linewidth": 0.8, "linestyle": ":", "zorder": 0, "label": f"slope {order:g}"}
        axes.loglog(x, 1.6 * y[0] * (x / x[0]) ** order, **style)


def score_field(
    axes: Axes, law: Any, sigma: float, *, extent: tuple[float, float, float, float], resolution: int = 120
) -> None:
    """Density (contours) and score (arrows of even length, two dimensions) of an exact law at a noise level.

    Args:
        axes: where.
        law: an oracle law in two dimensions.
        sigma: σ.
        extent: (left, right, bottom, top).
        resolution: of the contours.
    """
    noised = law.noised(sigma)
    x, y, points = _lattice(extent, resolution)
    density = np.exp(np.asarray(noised.log_density(points))).reshape(x.shape)
    axes.contourf(x, y, density, levels=np.linspace(0.02, 1, 13) * density.max(), cmap="cividis", alpha=0.55)
    x, y, points = _lattice(extent, 17)
    field = np.asarray(noised.score(points))
    field = field / np.maximum(np.linalg.norm(field, axis=1, keepdims=True), 1e-300)
    axes.quiver(x, y, *field.T.reshape(2, *x.shape), color="0.25", width=0.003, scale=34, pivot="mid")
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    axes.grid(False)


def _lattice(extent: tuple[float, float, float, float], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.linspace(*extent[:2], count), np.linspace(*extent[2:], count))
    return x, y, np.stack([x.ravel(), y.ravel()], axis=1)


def sensitivity_arrows(
    axes: Axes, samples: ArrayLike, sensitivity: ArrayLike, *, eta: float = 1.0, label: str = "", index: int = 1
) -> None:
    """Samples (n, 2) and where the mass η moves them to first order: arrows `η δ`, in the data's own units."""
    x, delta = np.asarray(samples, dtype=float), eta * np.asarray(sensitivity, dtype=float)
    if x.shape != delta.shape or x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"samples {x.shape} and sensitivity {delta.shape} must both be (n, 2) to be drawn as arrows.")
    axes.plot(*x.T, ".", color=colour(index), markersize=4, zorder=4)
    arrows: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "width": 0.006}
    axes.quiver(*x.T, *delta.T, color=colour(index), label=label or None, zorder=4, **arrows)


def trajectories(axes: Axes, paths: ArrayLike, *, index: int = 0, label: str = "") -> None:
    """Paths (levels, n, 2) of the sampler, from the first level to the last."""
    states = np.asarray(paths, dtype=float)
    for k in range(states.shape[1]):
        axes.plot(
            *states[:, k].T, color=colour(index), linewidth=0.8, alpha=0.7, label=label if k == 0 and label else None
        )


def log_ratio(
    axes: Sequence[Axes], sigma: ArrayLike, values: ArrayLike, errors: ArrayLike, *, label: str = "", index: int = 0
) -> None:
    """The log-ratio `log r = log ν_σ − log p_σ` along paths, and the error of its estimate, both against σ.

    Args:
        axes: two.
        sigma: (levels,).
        values: log r (levels, n).
        errors: estimate minus truth (levels, n), in nats.
    """
    levels, ratio, error = (np.asarray(each, dtype=float) for each in (sigma, values, np.abs(errors)))
    low, middle, high = np.quantile(ratio, [0.1, 0.5, 0.9], axis=1)
    axes[0].fill_between(levels, low, high, color=colour(index), alpha=0.2, linewidth=0)
    axes[0].semilogx(levels, middle, color=colour(index), marker=MARKERS[index % len(MARKERS)], markersize=4)
    axes[0].set(xlabel="σ", ylabel="log r (nats)")
    slopes(axes[1], levels, np.median(error, axis=1), upper=np.quantile(error, 0.9, axis=1), label=label, index=index)
    axes[1].set(xlabel="σ", ylabel="|error of log r| (nats)")
    for each in axes[:2]:
        if not each.xaxis_inverted():
            each.invert_xaxis()


def image_strip(columns: Mapping[str, ArrayLike], *, signed: Sequence[str] = (), size: float = 0.75) -> Figure:
    """Images side by side: one row for each named set (n, height, width) or (n, height, width, 3), a column an item.

    Args:
        columns: name → images; names label the rows.
        signed: names of sets that are differences: drawn blue to red about zero, each image on its own scale.
        size: of an image, in inches.
    """
    sets = {name: np.asarray(each) for name, each in columns.items()}
    count = len(next(iter(sets.values())))
    drawing = Figure(figsize=(size * count + 0.9, size * 1.12 * len(sets)), layout="constrained")
    axes = drawing.subplots(len(sets), count, squeeze=False)
    for row, (name, images) in zip(axes, sets.items(), strict=True):
        for each, image in zip(row, images, strict=True):
            picture(each, image, signed=name in signed)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=FONT)
    return drawing


def picture(
    axes: Axes,
    image: ArrayLike,
    title: str = "",
    *,
    signed: bool = False,
    limit: float | None = None,
    size: float = FONT - 2,
) -> None:
    """An image (height, width) with values in [−1, 1], or in colour, without ticks.

    Args:
        axes: where.
        image: grey or colour.
        title: above it.
        signed: a difference: blue to red about zero.
        limit: where the colours of a difference end; by default at its own largest value.
        size: of the title, in points.
    """
    if limit is None:
        limit = max(float(np.abs(np.asarray(image, dtype=float)).max()), 1e-12)
    scale: dict[str, Any] = (
        {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if signed else {"cmap": "gray", "vmin": -1, "vmax": 1}
    )
    axes.imshow(np.asarray(image), interpolation="nearest", **scale)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.set_title(title, fontsize=size)
