"""Figures: disagreement against its control, the data's part, onset, verdicts, place, accuracy, predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from studies.figures import MARKERS, colour, described, figure, leftmost, legend_below, panels
from studies.low_noise.config import GEOMETRIES, IMAGES, OBJECTIVES, Config
from studies.low_noise.onset import DELTA, Onset, table, usual
from studies.low_noise.verdicts import EFFECT, verdicts
from studies.statistics import Interval

Draw = Callable[[Axes, pd.DataFrame], None]
SMALL, TITLE = 7, 9  # points, of legends and titles
SPAN = (-0.3, 1.5)  # of the log ratios that are drawn


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Any]:
    """Figures by name; those that need what the run has not are left out."""
    del config  # the rows say what there is
    level = usual(rows)
    level = level[(level["kind"] == "level") & (level["states"] == "on")]
    edm, few = [(g, "edm") for g in GEOMETRIES], _middle(level)
    figures = {
        "disagreement": _panels(level, edm, _disagreement, _DISAGREEMENT),
        "images": _panels(level, [(g, "edm") for g in IMAGES], _disagreement, _DISAGREEMENT, shared=False),
        "objectives": _panels(level, [("spiral", o) for o in OBJECTIVES], _disagreement, _DISAGREEMENT),
        "data-part": _panels(level, edm, _data_part, _DATA_PART),
        "onset": _onset(table(rows)),
        "verdicts": _verdicts(rows),
        "place": _panels(level, edm, _place, _PLACE),
        "accuracy": _panels(level, edm, _accuracy, _ACCURACY),
        "prediction": _panels(level[level["N"] == few], edm, _prediction, _PREDICTION.format(few)),
    }
    return {name: drawing for name, drawing in figures.items() if drawing is not None}


_BANDS = "lines are means over replicates, bands their range"
_DISAGREEMENT = (
    "Distance of denoisers relative to the residual against the noise level: solid for networks on disjoint data, "
    f"dashed for the control on the same data with another seed, a colour and marker for each N; {_BANDS}."
)
_DATA_PART = (
    "The data's part e of the disagreement against the noise level, a colour for each N: solid, with markers, for "
    "networks, dotted for the exact empirical denoisers of the same data; the grey line is the threshold of the onset. "
    "Lines are cut below 0.003, and have no point where the estimate of e² is not positive."
)
_PLACE = (
    "Place of network A between the exact population denoiser (0) and its own empirical one (1) against the noise "
    f"level, a colour and marker for each N; {_BANDS}. Both are cut at −0.5 and 1.5, beyond which many reach at high "
    "noise, where the two denoisers are close to each other."
)
_ACCURACY = (
    "Distance of network A to the exact denoiser of the noised law, relative to the exact residual, against the noise "
    f"level, a colour and marker for each N; {_BANDS}."
)
_PREDICTION = (
    "Cosine between the predicted and the observed difference of networks B and A, N = {}, against the noise level: "
    "solid for B's data, dashed for data of another replicate; circles predict from the data's empirical denoiser, "
    f"squares from that of the data smoothed by a kernel; {_BANDS}. Dotted: the most that seed noise allows."
)


def _panels(rows: pd.DataFrame, pairs: list[tuple[str, str]], draw: Draw, alt: str, shared: bool = True) -> Any:
    """One panel for each pair that there is; one legend below all, or each with its own."""
    there = [(g, o) for g, o in pairs if len(_of(rows, g, o))]
    if not there:
        return None
    drawing, axes, _ = panels(len(there), panel=(2.9, 2.3))
    left = leftmost(axes)
    for each, (g, o) in zip(axes, there, strict=True):
        draw(each, _of(rows, g, o))
        each.set(xscale="log", xlabel="σ/τ")
        each.set_title(f"{g}, {o}", fontsize=TITLE)
        if each not in left:
            each.set_ylabel("")
    if shared:
        legend_below(drawing, _ordered(axes), columns=6)
    else:
        for each in axes:
            _legend(each, [each])
    return described(drawing, alt)


def _of(rows: pd.DataFrame, geometry: str, objective: str) -> pd.DataFrame:
    return rows[(rows["geometry"] == geometry) & (rows["objective"] == objective)]


def _legend(axes: Axes, panels: Iterable[Axes], **place: Any) -> None:
    """What any of the panels shows, numbers in ascending order."""
    known = {label: handle for each in panels for handle, label in zip(*each.get_legend_handles_labels(), strict=True)}
    labels = _ordered(panels)
    axes.legend([known[each] for each in labels], labels, fontsize=SMALL, handlelength=1.4, framealpha=0.7, **place)


def _look(index: int) -> dict[str, Any]:
    """Colour and marker of a line."""
    return {"color": colour(index), "marker": MARKERS[index], "markersize": 3}


def _ordered(panels: Iterable[Axes]) -> list[str]:
    """Labels of all panels, each once, numbers in ascending order."""
    labels = dict.fromkeys(label for each in panels for label in each.get_legend_handles_labels()[1])
    return sorted(labels, key=lambda label: int(label.removeprefix("N = ")) if label.startswith("N = ") else 0)


def _middle(rows: pd.DataFrame) -> int:
    return max((int(n) for n in rows["N"].unique() if n <= 100), default=0)


def _band(axes: Axes, rows: pd.DataFrame, name: str, index: int, label: str = "", style: str = "-") -> None:
    """Mean over replicates, and their range."""
    groups = rows.groupby("level")[name]
    middle, low, high = groups.mean(), groups.min(), groups.max()
    axes.plot(middle.index, middle, style, label=label or None, linewidth=1.3, **_look(index))
    axes.fill_between(middle.index, low, high, color=colour(index), alpha=0.12, linewidth=0)


def _counts(rows: pd.DataFrame, most: int = 6) -> list[tuple[int, int]]:
    """(colour, N): at most so many, the ends among them; N has the same colour in every panel."""
    counts = sorted(int(n) for n in rows["N"].unique())
    kept = sorted({counts[round(k)] for k in np.linspace(0, len(counts) - 1, most)})
    return [(round(np.log10(n)), n) for n in kept]


def _disagreement(axes: Axes, rows: pd.DataFrame) -> None:
    for index, n in _counts(rows, 3):
        part = rows[rows["N"] == n]
        _band(axes, part, "cross", index, f"N = {n}")
        _band(axes, part, "within", index, "", "--")
    axes.set(yscale="log", ylabel="|f − f′| / |f − y|")


def _data_part(axes: Axes, rows: pd.DataFrame) -> None:
    for index, n in _counts(rows):
        part = rows[rows["N"] == n]
        squares = part.groupby("level")["data_square"].mean()
        shown = squares[squares > 0]
        axes.plot(shown.index, np.sqrt(shown), label=f"N = {n}", linewidth=1.3, **_look(index))
        exact = part.groupby("level")["empirical"].mean()
        axes.plot(exact.index, exact, ":", color=colour(index), linewidth=1.1)
    axes.axhline(DELTA, color="0.5", linewidth=0.8)
    axes.set(yscale="log", ylabel="data part e", ylim=(0.003, 10))


def _place(axes: Axes, rows: pd.DataFrame) -> None:
    for index, n in _counts(rows):
        _band(axes, rows[rows["N"] == n], "place", index, f"N = {n}")
    axes.set(ylabel="place of A", ylim=(-0.5, 1.5))


def _accuracy(axes: Axes, rows: pd.DataFrame) -> None:
    for index, n in _counts(rows):
        _band(axes, rows[rows["N"] == n], "relative_error", index, f"N = {n}")
    axes.set(yscale="log", ylabel="|f − D| / |D − x|")


def _prediction(axes: Axes, rows: pd.DataFrame) -> None:
    for index, (name, label) in enumerate((("finite", "data"), ("smooth", "data smoothed"))):
        _band(axes, rows, f"{name}_cosine", index, label)
        _band(axes, rows, f"{name}_cosine_wrong", index, "", "--")
    most = rows.groupby("level")["reproduced"].mean()
    axes.plot(most.index, np.sqrt(np.maximum(most, 0)), ":", color="black", label="attainable", linewidth=1.2)
    axes.set(ylabel="cosine", ylim=(-0.6, 1.05))


def _onset(onsets: dict[tuple[str, str, int], Onset]) -> Any:
    there = [g for g in (*GEOMETRIES, *IMAGES) if any(h == g for h, _, _ in onsets)]
    drawing, axes, free = panels(len(there), panel=(2.4, 2.3))
    for each, g in zip(axes, there, strict=True):
        for index, o in enumerate(OBJECTIVES):
            crossings = {n: x for (h, p, n), x in onsets.items() if (h, p) == (g, o)}
            _crossings(each, {n: x.crossings for n, x in crossings.items()}, index, o)
            if o == "edm":
                _crossings(each, {n: x.empirical for n, x in crossings.items()}, None, "exact, empirical")
        each.set(xscale="log", yscale="log", xlabel="N")
        each.set(xlim=(0.5, 2e5), ylim=(0.003, 60), xticks=[1, 10, 100, 1e3, 1e4, 1e5], yticks=[0.01, 0.1, 1, 10])
        each.set_title(g, fontsize=TITLE)
    for each in leftmost(axes):
        each.set_ylabel("onset σ/τ")
    _legend(free[0] if free else axes[0], axes, loc="upper left" if free else "best")
    return described(
        drawing,
        "Noise level at which the data's part of the disagreement reaches a tenth of the residual against N: geometric "
        "means over replicates, where all of them cross, for each objective; in black: exact empirical denoisers.",
    )


def _crossings(axes: Axes, values: dict[int, Any], index: int | None, label: str) -> None:
    kept = {n: np.exp(np.mean(np.log(v))) for n, v in sorted(values.items()) if np.isfinite(v).all()}
    if kept:
        look: dict[str, Any] = {"color": "black", "linestyle": ":"} if index is None else {"color": colour(index)}
        marker = "x" if index is None else MARKERS[index]
        axes.plot(list(kept), list(kept.values()), marker=marker, markersize=3.5, linewidth=1, label=label, **look)


def _verdicts(rows: pd.DataFrame) -> Any:
    judged = verdicts(rows)
    pairs = list(dict.fromkeys((g, o) for g, o, _ in judged))
    drawing, axes = figure(1, 1, panel=(6.4, 0.9 + 0.19 * len(pairs)))
    for row, (g, o) in enumerate(reversed(pairs)):
        counts = sorted(n for h, p, n in judged if (h, p) == (g, o))
        few = max((n for n in counts if n <= 100), default=counts[0])
        for index, n in ((0, few), (1, counts[-1])):
            ratio = judged[g, o, n].ratio
            y = row + 0.15 - 0.3 * index
            axes[0].plot([ratio.low, ratio.high], [y, y], color=colour(index), linewidth=1)
            for mark, end in _cut(ratio):
                axes[0].plot(end, y, mark, color=colour(index), markersize=3.5, clip_on=False)
            axes[0].plot(ratio.estimate, y, MARKERS[index], color=colour(index), markersize=3.5)
    axes[0].axvline(float(np.log(EFFECT)), color="0.4", linewidth=0.9, linestyle="--")
    axes[0].set_yticks(range(len(pairs)), [f"{g}, {o}" for g, o in reversed(pairs)])
    axes[0].set(xlabel="mean log |f_A − f_B| / |f_A − f_A′| at low noise", xlim=SPAN, ylim=(-0.7, len(pairs)))
    axes[0].plot([], [], MARKERS[0], color=colour(0), markersize=3.5, label="the largest N up to 100")
    axes[0].plot([], [], MARKERS[1], color=colour(1), markersize=3.5, label="the largest N")
    legend_below(drawing)
    low, high = SPAN
    return described(
        drawing,
        "How much farther apart networks on other data are than networks of another seed at low noise, as a mean log "
        "ratio with one-sided 95 percent bounds, for each geometry and objective at two N (the same twice where only "
        "one was run); dashed: the least effect. "
        f"Bounds below {low:g} or above {high:g} are cut there, with an arrowhead.",
    )


def _cut(ratio: Interval) -> list[tuple[str, float]]:
    """Arrowheads where an interval leaves the panel."""
    low, high = SPAN
    return [("<", low)] * (ratio.low < low) + [(">", high)] * (ratio.high > high)
