"""Figures of the study `conformance`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from studies.figures import colour, described, figure, listed

__all__ = ["draw"]

MOST = 1e12  # ratio of error to tolerance that is drawn in its place, and its inverse the least
STATUSES = ("agrees", "differs", "not applicable", "did not install")
MARKS = {"agrees": "o", "differs": "X", "not applicable": "_", "did not install": "."}


def draw(rows: pd.DataFrame) -> dict[str, Figure]:
    """`agreement`: error over tolerance by package; `orders`: observed against stated order, where one is stated."""
    drawn = {"agreement": agreement(rows)}
    if rows["expected_order"].notna().any():
        drawn["orders"] = orders(rows)
    return drawn


def agreement(rows: pd.DataFrame) -> Figure:
    """One point per check; crosses differ; raising ones sit at the right edge."""
    packages = list(dict.fromkeys(rows["package"]))
    drawing, axes = figure(panel=(6.5, 0.8 + 0.4 * len(packages)))
    for place, package in enumerate(packages):
        for index, status in enumerate(STATUSES[:2]):
            part = rows[(rows["package"] == package) & (rows["status"] == status)]
            if part.empty:
                continue
            spread = place + np.linspace(-0.25, 0.25, len(part)) if len(part) > 1 else np.array([place])
            label = status if status not in axes[0].get_legend_handles_labels()[1] else None
            style = {"color": colour(index), "markersize": 5, "alpha": 0.7, "label": label}
            axes[0].plot(_excess(part), spread, MARKS[status], **style)
    axes[0].axvline(1.0, color="black", linewidth=1.0)
    axes[0].set_xscale("log")
    listed(axes[0], packages)
    axes[0].set_xlabel("error / tolerance (1 is just allowed; raising checks at the right edge)")
    axes[0].legend(frameon=False, fontsize=7, loc="lower right")
    counts = rows["status"].value_counts()
    words = ", ".join(f"{int(counts[s])} {s}" for s in STATUSES if s in counts)
    return described(
        drawing,
        f"Error over tolerance of every check by package (of a test, the least p-value allowed over the one found): "
        f"{words}.{_edges(rows)}",
    )


def _ratio(part: pd.DataFrame) -> pd.Series:
    ratio = part["error"] / part["allowed"]
    return ratio.where(part["unit"] != "p", part["allowed"] / part["error"])


def _excess(part: pd.DataFrame) -> Any:
    return _ratio(part).fillna(MOST).clip(1 / MOST, MOST).to_numpy()


def _edges(rows: pd.DataFrame) -> str:
    """What is not drawn in its place, and what differs though its error is allowed."""
    ratio, differs = _ratio(rows), rows["status"] == "differs"
    judged, said = ratio[rows["status"].isin(STATUSES[:2])], ""
    if bool(judged.isna().any()):
        said += f" Checks that raise are drawn at {MOST:.0e}."
    if bool((judged < 1 / MOST).any()):
        said += f" Ratios below {1 / MOST:.0e} are drawn at it."
    small = int((differs & (ratio < 1)).sum())
    if small:
        said += f" {small} crosses left of 1 differ by their order of convergence, not by their error."
    return said


def orders(rows: pd.DataFrame) -> Figure:
    """Observed orders of solvers and samplers beside the stated ones."""
    part = rows[rows["expected_order"].notna() & rows["order"].notna()].reset_index(drop=True)
    drawing, axes = figure(panel=(6.5, 0.8 + 0.22 * len(part)))
    place = np.arange(len(part))
    axes[0].plot(part["expected_order"], place, "|", color="black", markersize=12, label="stated")
    good = part["status"] == "agrees"
    axes[0].plot(part["order"][good].clip(-1), place[good], "o", color=colour(0), label="observed")
    axes[0].plot(part["order"][~good].clip(-1), place[~good], "X", color=colour(1), label="observed, differs")
    listed(axes[0], list(part["package"] + " " + part["check"]))
    axes[0].set_xlabel("order of convergence (diverging ones at −1)")
    axes[0].legend(frameon=False, fontsize=7)
    low = ", ".join(part["check"][~good]) or "none"
    return described(
        drawing, f"Observed and stated orders of convergence; below the stated one by more than .4: {low}."
    )
