"""Figures: what is drawn, in which style, with which words."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from oracles import GaussianMixture
from studies import figures

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
