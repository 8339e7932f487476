"""Pictures: base models, samples before and after, and the training images of largest influence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies.figures import described, figure, picture
from studies.retraining.config import Regime
from studies.retraining.reading import of

SHOWN = 6
PARTS = {
    "sample": "before",
    "after": "retrained",
    "predicted": "predicted\nchange",
    "actual": "mean change",
}


def models(rows: pd.DataFrame, regimes: list[Regime]) -> Figure:
    """Training images and samples of the first base network, one pair of lines a regime."""
    drawing, axes = figure(2 * len(regimes), SHOWN, panel=(0.85, 0.85))
    grid = axes.reshape(len(regimes), 2, SHOWN)
    for lines, regime in zip(grid, regimes, strict=True):
        row = of(rows, kind="model", regime=regime.name).iloc[0]
        for line, column, label in zip(lines, ("data", "samples"), (f"{regime.name}\ndata", "samples"), strict=True):
            pictures = _stack(row[column], len(row[column]) // int(row["pixels"]))
            for axis, image in zip(line, pictures, strict=False):
                picture(axis, image)
            for axis in line[len(pictures) :]:
                axis.set_axis_off()
            line[0].set_ylabel(label, fontsize=6, rotation=0, ha="right", va="center")
    return described(
        drawing,
        "For each data set and network, images of the training data (upper line) and samples of the first base network "
        f"(lower line): {', '.join(regime.name for regime in regimes)}.",
    )


def images(rows: pd.DataFrame, regime: Regime, change: str) -> Figure:
    """Sample before and after retraining, predicted change and mean actual change of the first latents."""
    shown = of(rows, kind="shown", change=change).sort_values("latent").head(SHOWN)
    drawing, axes = figure(len(PARTS), len(shown), panel=(1.1, 1.15))
    grid = axes.reshape(len(PARTS), len(shown))
    for column, (_, row) in enumerate(shown.iterrows()):
        for axis, name in zip(grid[:, column], PARTS, strict=True):
            picture(axis, _square(row[name]), signed=name in ("predicted", "actual"))
            if column == 0:
                axis.set_ylabel(PARTS[name], fontsize=8)
    return described(
        drawing,
        f"{regime.name}, {change}: samples of the first base network and of the network retrained beside it, the "
        f"predicted change and the mean change of all pairs, for the first {len(shown)} latents; red is more ink, each "
        "picture of a change on its own scale.",
    )


def influential(rows: pd.DataFrame, regime: Regime) -> Figure:
    """The first samples with the training images of largest and smallest influence on their ink."""
    shown = of(rows, kind="influential").sort_values("latent")
    count = len(shown.iloc[0].influence)
    drawing, axes = figure(len(shown), count + 1, panel=(0.95, 1.1))
    grid = axes.reshape(len(shown), count + 1)
    for line, (_, row) in enumerate(shown.iterrows()):
        titles = ["sample", *[f"{v:+.2f}" for v in row.influence]]
        shown_images = [_square(row["sample"]), *_stack(row["images"], count)]
        for axis, image, title in zip(grid[line], shown_images, titles, strict=True):
            picture(axis, image, title)
    return described(
        drawing,
        f"{regime.name}: each row a sample and the training images that raise (left four) and lower (right four) its "
        "ink most, with dφ/dη above each.",
    )


def _square(pixels: Any) -> np.ndarray:
    flat = np.asarray(pixels, dtype=float)
    side = round(len(flat) ** 0.5)
    return flat.reshape(side, side)


def _stack(pixels: Any, count: int) -> list[np.ndarray]:
    return [_square(part) for part in np.asarray(pixels, dtype=float).reshape(count, -1)]
