"""Lines of a figure that nothing explains: neither a legend nor the words below the figure name their kind.

Main function: `unexplained`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

WORDS = {
    "--": r"dash",
    "-.": r"dash",
    ":": r"dotted|diagonal|identity",
    "grey": r"grey|diagonal|identity|vertical",
}


def unexplained(drawing: Figure) -> set[str]:
    """Kinds of lines (`--`, `-.`, `:`, `grey`) that a figure has, no legend shows and its words do not name.

    Args:
        drawing: finished by `described`. A line at zero is an axis and explains itself, as ticks do.
    """
    shown = {kind for legend in _legends(drawing) for line in legend.get_lines() for kind in _kinds(line)}
    kinds = {kind for axes in drawing.axes for line in axes.lines if not _is_axis(line) for kind in _kinds(line)}
    return {kind for kind in kinds - shown if not re.search(WORDS[kind], drawing.alt.lower())}  # type: ignore[attr-defined]


def _legends(drawing: Figure) -> Iterator:
    yield from drawing.legends
    yield from (axes.get_legend() for axes in drawing.axes if axes.get_legend() is not None)


def _kinds(line: Line2D) -> Iterator[str]:
    if line.get_linestyle() in ("--", "-.", ":"):
        yield line.get_linestyle()
    red, green, blue = colors.to_rgb(line.get_color())
    if line.get_linestyle() == "-" and red == green == blue and 0 < red < 1:
        yield "grey"


def _is_axis(line: Line2D) -> bool:
    """At zero of one coordinate, or at one of a logarithm, over the whole panel."""
    axes: Axes = line.axes
    for scale, values in ((axes.get_xscale(), line.get_xdata()), (axes.get_yscale(), line.get_ydata())):
        if len(set(values)) == 1 and len(values) == 2 and next(iter(values)) == (1.0 if scale == "log" else 0.0):
            return True
    return False
