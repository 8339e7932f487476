"""Figures: agreement of every response with every truth, the predicted changes beside the true one, removals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from studies.figures import colour, described, figure, image_strip, listed, spans
from studies.responses.config import Config
from studies.responses.reading import PAIRED, RESPONSES, rank_correlations, removals, shares
from studies.retraining.reading import of

TRUTHS = {
    "run": "the derivative of the training run itself",
    "scratch": "the mean change of pairs of networks trained on either data",
    "finetune": "the mean change of pairs that are fine-tuned",
    "others": "changes of other pairs than the one that predicts",
    "exact": "the exactly trained network",
}
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
    drawing, axes = figure(1, 1, panel=(8.0, 1.0 + 0.34 * len(heads)))
    medians: dict[str, list[float]] = {}
    for place, (regime, change, truth) in enumerate(heads):
        group = of(answers, regime=regime, change=change, truth=truth).set_index("response")
        for name, value in _line(axes[0], group, names, place).items():
            medians.setdefault(name, []).append(value)
    listed(axes[0], [f"{regime}, {said(change)}: {truth}" for regime, change, truth in heads])
    axes[0].axvline(0.0, color="black", linewidth=0.8)
    axes[0].set_xlabel("median correlation of predicted with actual change")
    marks, labels = axes[0].get_legend_handles_labels()
    known = dict(zip(labels, marks, strict=True))
    axes[0].legend(
        known.values(), known.keys(), frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5)
    )
    truths = "; ".join(f"{truth}, {TRUTHS[truth]}" for truth in dict.fromkeys(truth for _, _, truth in heads))
    return described(
        drawing,
        "Median over latents of the correlation over pixels of every predicted with the actual change, one line a "
        f"network, change and truth ({truths}). A grey mark is the ceiling, the most that the noise of retraining lets "
        f"a prediction reach that does not know the seed. Lowest to highest over lines: {spans(medians)}.",
    )


def said(change: str) -> str:
    """A change of the data in words.

    Example:
        >>> said("class:3@0.1"), said("drop-class:3")
        ('class 3 gets 0.1 more mass', 'class 3 is removed')
    """
    kind, _, rest = change.partition(":")
    item, _, size = rest.partition("@")
    words = {
        "class": f"class {item} gets {size + ' ' if size else ''}more mass",
        "drop-class": f"class {item} is removed",
        "add-image": f"image {item} gets {size} more mass",
        "blur-class": f"class {item} is blurred by {size}",
    }
    return words.get(kind, change)


def _line(axes: Axes, group: pd.DataFrame, names: list[str], place: int) -> dict[str, float]:
    """The marks of one line; medians by response."""
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
    return middles


def _changes(rows: pd.DataFrame, regime: str) -> Figure:
    """What each response predicts, and the truth, one column a latent."""
    pictures = of(rows, kind="picture", regime=regime)
    pictures = pictures[pictures.change == pictures.change.iloc[0]]
    columns: dict[str, ArrayLike] = {}
    for name in [n for n in (*RESPONSES, "truth") if n in set(pictures.response)]:
        pixels = np.asarray(of(pictures, response=name).iloc[0].pixels, dtype=float)
        columns[name] = _images(pixels)
    drawing = image_strip(columns, signed=list(columns))
    first = pictures.iloc[0]
    return described(
        drawing,
        f"{regime}, {said(first.change)}: changes of samples that each response predicts, and in the last row the "
        f"truth ({first.truth}, {TRUTHS[first.truth]}), one column a latent. Red is more ink, blue less, white no "
        "change, every image on its own scale.",
    )


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
    text = (
        "Changes after removing 1 % of the data against predictions, one point a removal; on the grey line both are "
        f"equal. Rank correlations: held-out loss {ranks[0]:.3f}; ink of {len(ranks) - 1} samples {min(ranks[1:]):.3f} "
        f"to {max(ranks[1:]):.3f}."
    )
    return described(drawing, text)
