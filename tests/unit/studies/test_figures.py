"""Figures: what is drawn, in which style, with which words."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from support.lines import unexplained

from oracles import GaussianMixture
from studies import figures
from studies.results import load
from studies.results import names as published
from studies.study import configuration
from studies.study import load as load_study

LAW = GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [1.0, 0.5]], [np.diag([0.3, 0.5]), np.diag([0.6, 0.2])])


def drawn(drawing):
    """The figure's PNG: drawing it must raise nothing and warn of nothing."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=40)
    return buffer.getvalue()


def test_slopes_draw_what_they_are_given_on_logarithmic_axes():
    """Assert that medians, quantiles and the reference line have the data's values."""
    drawing, (axis,) = figures.figure()
    figures.slopes(axis, [0.1, 0.01], [0.2, 0.02], upper=[0.4, 0.04], order=1, label="error")
    assert axis.get_xscale() == axis.get_yscale() == "log"
    lines = [line.get_ydata().tolist() for line in axis.lines]
    assert lines[:2] == [[0.2, 0.02], [0.4, 0.04]]
    assert lines[2][0] / lines[2][1] == pytest.approx(10)
    drawn(drawing)


def test_fields_arrows_and_paths_are_drawn_in_the_data_s_units():
    """Assert that an arrow is η δ long and starts at its sample."""
    drawing, (axis,) = figures.figure()
    figures.score_field(axis, LAW, 0.5, extent=(-3, 3, -2, 2), resolution=20)
    figures.trajectories(axis, np.zeros((4, 3, 2)), label="paths")
    figures.sensitivity_arrows(axis, [[0.0, 1.0]], [[2.0, -4.0]], eta=0.5, label="δ")
    quiver = axis.collections[-1]
    assert (quiver.U.tolist(), quiver.V.tolist(), quiver.scale) == ([1.0], [-2.0], 1.0)
    assert axis.get_xlim() == (-3, 3)
    drawn(drawing)


def test_log_ratio_draws_median_band_and_size_of_error():
    """Assert that σ falls to the right, and that signed errors are drawn by size."""
    drawing, axes = figures.figure(1, 2)
    errors = np.array([[-1.0, -1.0, 1.0], [0.1, -0.1, 0.1]])
    figures.log_ratio(axes, [1.0, 0.1], np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]), errors, label="probes")
    assert axes[0].lines[0].get_ydata().tolist() == [1.0, 4.0]
    assert axes[1].lines[0].get_ydata().tolist() == [1.0, 0.1]
    assert all(axis.xaxis_inverted() for axis in axes)
    drawn(drawing)


def test_image_strips_show_images_on_one_scale_and_differences_about_zero():
    """Assert that a row is a set, and that zero is the middle of a difference's colours."""
    strip = figures.image_strip({"sample": np.zeros((3, 2, 2)), "change": np.full((3, 2, 2), -0.2)}, signed=["change"])
    pictures = [axis.images[0] for axis in strip.axes]
    assert len(pictures) == 6
    assert pictures[0].get_clim() == (-1, 1)
    assert pictures[3].get_clim() == (-0.2, 0.2)
    drawn(strip)


def test_neighbouring_colours_differ_in_lightness_for_readers_who_see_no_hue():
    """Assert that the first three colours are told apart in grey, and that a ninth line begins again."""
    grey = [float(np.dot(to_rgb(c), (0.299, 0.587, 0.114))) for c in figures.COLOURS[:3]]
    assert min(abs(a - b) for i, a in enumerate(grey) for b in grey[:i]) > 0.02
    assert figures.colour(8) == figures.colour(0)
    assert len(set(figures.COLOURS)) == len(figures.MARKERS) == 8


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda axis: figures.slopes(axis, [1.0, 2.0], [1.0]), "of one length"),
        (lambda axis: figures.slopes(axis, [0.0, 2.0], [1.0, 1.0]), "positive"),
        (lambda axis: figures.sensitivity_arrows(axis, [[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]]), r"\(n, 2\)"),
        (lambda axis: figures.described(axis.figure, " "), "alt is empty"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, words):
    """Assert that errors name the argument."""
    with pytest.raises(ValueError, match=words):
        call(figures.figure()[1][0])


def test_one_legend_for_all_panels_names_what_any_of_them_shows():
    """Assert that labels of all panels appear once, in the order asked for, and unknown ones are left out."""
    drawing, axes = figures.figure(1, 2)
    axes[0].plot([0, 1], label="a")
    axes[1].plot([0, 1], label="b")
    axes[1].plot([1, 0], label="a")
    figures.legend_below(drawing, ("b", "a", "c"))
    assert [text.get_text() for text in drawing.legends[0].get_texts()] == ["b", "a"]
    drawn(drawing)


def test_a_line_without_words_is_found():
    """Assert that a dashed line needs a legend or a word, and that an axis at zero needs none."""
    drawing, (axis,) = figures.figure()
    axis.plot([0, 1], [1, 2], "--")
    axis.axhline(0.0, color="0.5")
    axis.axvline(0.3, color="0.5")
    assert unexplained(figures.described(drawing, "Errors.")) == {"--", "grey"}
    assert unexplained(figures.described(drawing, "Errors, bounds dashed; the grey line is the floor.")) == set()
    axis.plot([0, 1], [1, 3], "--", label="upper")
    axis.legend()
    assert unexplained(figures.described(drawing, "Errors; grey: the floor.")) == set()


@pytest.mark.parametrize("name", published())
def test_every_line_of_a_published_figure_is_named(name):
    """Assert that a legend or the words below the figure name every dashed, dotted and grey line."""
    rows, study = load(name), load_study(name)
    drawings = study.figures(rows.rows, configuration(study, rows.manifest["setting"]["level"]))
    assert {key: lines for key, drawing in drawings.items() if (lines := unexplained(drawing))} == {}
