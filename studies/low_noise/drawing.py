"""Figures: disagreement against its control, onset against N, place between population and memorising."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from studies.figures import colour, described, figure
from studies.low_noise.config import Config
from studies.low_noise.onset import DELTA, table

SHOWN = 3  # N in a panel of disagreement


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Any]:
    """Figures by name."""
    return {
        "disagreement": _disagreement(rows, config),
        "onset": _onset(rows, config),
        "place": _curves(rows, config, "place", "place of A", _PLACE, limits=(-0.5, 1.5)),
        "accuracy": _curves(rows, config, "to_population", "|f − D| / σ√d", _ACCURACY, logarithmic=True),
        "prediction": _prediction(rows, config),
    }


_PLACE = "Place of network A between the exact population denoiser and its own empirical one against σ, a line per N."
_ACCURACY = "Distance of network A to the exact denoiser of the noised law against σ, one line for each N."


def _panels(count: int) -> tuple[Any, np.ndarray]:
    columns = min(count, 4)
    drawing, axes = figure(-(-count // columns), columns, panel=(3.1, 2.6))
    for each in axes[count:]:
        each.set_visible(False)
    return drawing, axes


def _on(rows: pd.DataFrame, pair: str) -> pd.DataFrame:
    geometry, objective = pair.split("/")
    own = rows[(rows["kind"] == "level") & (rows["states"] == "on")]
    return own[(own["geometry"] == geometry) & (own["objective"] == objective)]


def _band(axes: Axes, rows: pd.DataFrame, name: str, index: int, label: str, style: str = "-") -> None:
    """Mean over replicates, and their range."""
    groups = rows.groupby("level")[name]
    middle, low, high = groups.mean(), groups.min(), groups.max()
    axes.plot(middle.index, middle, style, color=colour(index), label=label, linewidth=1.3)
    axes.fill_between(middle.index, low, high, color=colour(index), alpha=0.15, linewidth=0)


def _disagreement(rows: pd.DataFrame, config: Config) -> Any:
    drawing, axes = _panels(len(config.grid))
    for each, pair in zip(axes, config.grid, strict=False):
        own, counts = _on(rows, pair), config.counts_of(pair.split("/")[0])
        for index, n in enumerate(counts[-SHOWN:]):
            part = own[own["N"] == n]
            _band(each, part, "cross", index, f"N = {n}")
            _band(each, part, "within", index, "", "--")
        each.set(xscale="log", yscale="log", xlabel="σ/τ", ylabel="|f − f′| / |f − y|", title=pair)
        each.legend(fontsize=6)
    return described(
        drawing,
        "Relative distance of denoisers against σ, one panel for each geometry and objective: solid for networks on "
        "disjoint data, dashed for the control on the same data with another seed; bands span the replicates.",
    )


def _onset(rows: pd.DataFrame, config: Config) -> Any:
    onsets = table(rows)
    drawing, axes = _panels(len(config.grid))
    for each, pair in zip(axes, config.grid, strict=False):
        geometry, objective = pair.split("/")
        counts = config.counts_of(geometry)
        for index, (name, label) in enumerate((("crossings", "networks"), ("empirical", "empirical, exact"))):
            values = [getattr(onsets[geometry, objective, n], name) for n in counts]
            _scatter(each, counts, values, index, label, config.levels[0])
        each.set(xscale="log", yscale="log", xlabel="N", ylabel=f"σ/τ where e = {DELTA}", title=pair)
        each.legend(fontsize=6)
    return described(
        drawing,
        "Noise level at which the data's part of the disagreement reaches a tenth of the residual, against N: one "
        "point a replicate, for networks and for exact empirical denoisers; triangles lie above the highest level.",
    )


def _scatter(axes: Axes, counts: tuple[int, ...], values: list[Any], index: int, label: str, top: float) -> None:
    x = np.repeat(np.asarray(counts, dtype=float), [len(v) for v in values])
    y = np.concatenate(values)
    finite, above = np.isfinite(y), np.isinf(y)
    axes.plot(x[finite], y[finite], "o" if index == 0 else "s", color=colour(index), markersize=3.5, label=label)
    axes.plot(x[above], np.full(above.sum(), top), "^", color=colour(index), markersize=4, alpha=0.6)


def _curves(
    rows: pd.DataFrame,
    config: Config,
    name: str,
    label: str,
    alt: str,
    *,
    limits: tuple[float, float] | None = None,
    logarithmic: bool = False,
) -> Any:
    shown = [pair for pair in config.grid if name in rows and _on(rows, pair)[name].notna().any()]
    drawing, axes = _panels(len(shown))
    for each, pair in zip(axes, shown, strict=False):
        own = _on(rows, pair)
        for index, n in enumerate(sorted(own["N"].unique())):
            _band(each, own[own["N"] == n], name, index, f"N = {n}")
        each.set(xscale="log", xlabel="σ/τ", ylabel=label, title=pair, yscale="log" if logarithmic else "linear")
        if limits is not None:
            each.set_ylim(*limits)
        each.legend(fontsize=6)
    return described(drawing, alt)


def _prediction(rows: pd.DataFrame, config: Config) -> Any:
    shown = [pair for pair in config.grid if not pair.endswith("blind")]
    drawing, axes = _panels(len(shown))
    for each, pair in zip(axes, shown, strict=False):
        own, counts = _on(rows, pair), config.counts_of(pair.split("/")[0])
        for index, n in enumerate(counts[-SHOWN:]):
            part = own[own["N"] == n]
            _band(each, part, "finite_cosine", index, f"N = {n}")
            _band(each, part, "finite_cosine_wrong", index, "", "--")
        each.set(xscale="log", xlabel="σ/τ", ylabel="cosine", title=pair, ylim=(-0.6, 1.05))
        each.legend(fontsize=6)
    return described(
        drawing,
        "Cosine between the change that the sensitivity to B's data predicts and the observed difference of networks "
        "B and A, against σ: solid for the right data, dashed for the control with data of another replicate.",
    )
