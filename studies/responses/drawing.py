"""Figures: agreement of every response with every truth, the predicted changes beside the true one, removals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from studies.figures import colour, described, figure, image_strip, listed
from studies.responses.config import Config
from studies.responses.reading import PAIRED, RESPONSES, rank_correlations, removals, shares
from studies.retraining.reading import of

LATENTS = 4  # that a row of pictures holds


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    """`agreement`, `changes` and, where data were removed, `removals`."""
    figures = {"agreement": _agreement(rows)}
    for regime in dict.fromkeys(of(rows, kind="picture").regime):
        figures[f"changes-{regime}"] = _changes(rows, regime)
    if len(of(rows, kind="removal")):
        figures["removals"] = _removals(rows)
    return figures


def _agreement(rows: pd.DataFrame) -> Figure:
    answers = of(rows, kind="answer")
    heads = list(dict.fromkeys(zip(answers.regime, answers.change, answers.truth, strict=True)))
    names = [name for name in dict.fromkeys(answers.response) if name != "zero"]
    drawing, axes = figure(1, 1, panel=(6.4, 1.0 + 0.34 * len(heads)))
    words = []
    for place, (regime, change, truth) in enumerate(heads):
        group = of(answers, regime=regime, change=change, truth=truth).set_index("response")
        words.append(_line(axes[0], group, names, place))
    listed(axes[0], [" ".join(head) for head in heads])
    axes[0].axvline(0.0, color="black", linewidth=0.8)
    axes[0].set_xlabel("median correlation of predicted with actual change")
    marks, labels = axes[0].get_legend_handles_labels()
    known = dict(zip(labels, marks, strict=True))
    axes[0].legend(
        known.values(), known.keys(), frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5)
    )
    medians = "; ".join(f"{' '.join(head)}: {text}" for head, text in zip(heads, words, strict=True))
    return described(drawing, f"Median correlations of predicted with actual changes. {medians}.")


def _line(axes: Axes, group: pd.DataFrame, names: list[str], place: int) -> str:
    middles = {}
    for index, name in enumerate(names):
        if name not in group.index:
            continue
        middles[name] = float(np.median(np.asarray(group.loc[name].correlations, dtype=float)))
        axes.plot(middles[name], place, "osD^vP*X"[index % 8], color=colour(index), label=name)
    first = group.iloc[0]
    known = of(group.reset_index(), response="unrolled")
    part = shares(known.iloc[0]) if first.truth in PAIRED and len(known) else None
    if part is not None:
        axes.plot([part.ceiling.estimate] * 2, [place - 0.35, place + 0.35], color="0.45", label="ceiling")
    return ", ".join(f"{name} {value:.2f}" for name, value in middles.items())


def _changes(rows: pd.DataFrame, regime: str) -> Figure:
    """What each response predicts, and the truth, one column a latent."""
    pictures = of(rows, kind="picture", regime=regime)
    pictures = pictures[pictures.change == pictures.change.iloc[0]]
    columns: dict[str, ArrayLike] = {}
    for name in [n for n in (*RESPONSES, "truth") if n in set(pictures.response)]:
        pixels = np.asarray(of(pictures, response=name).iloc[0].pixels, dtype=float)
        columns[name] = _images(pixels)
    drawing = image_strip(columns, signed=list(columns))
    return described(drawing, f"{regime}: changes of samples that {', '.join(columns)} give, one column a latent.")


def _images(pixels: np.ndarray) -> np.ndarray:
    """(latents, side, side)."""
    side = round((len(pixels) // LATENTS) ** 0.5)
    return pixels.reshape(LATENTS, side, side)


def _removals(rows: pd.DataFrame) -> Figure:
    predicted, actual = removals(rows)
    ranks = rank_correlations(predicted, actual)
    drawing, axes = figure(1, 2)
    for axis, index, title in zip(axes, (0, 1), ("held-out loss", "ink of one sample"), strict=True):
        axis.plot(predicted[:, index], actual[:, index], "o", color=colour(index), markersize=3)
        axis.axline((0.0, 0.0), slope=1.0, color="0.45", linewidth=0.8)
        axis.set_xlabel("predicted change")
        axis.set_title(f"{title}: rank correlation {ranks[index]:.3f}", fontsize=8)
    axes[0].set_ylabel("change after training again")
    text = f"Changes after removing 1 % of the data against predictions; rank correlations {ranks.round(3).tolist()}."
    return described(drawing, text)
