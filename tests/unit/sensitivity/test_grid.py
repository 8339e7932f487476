"""Noise grids: levels, spacings, refinement, bad input."""

from __future__ import annotations

import pytest
import torch
from support.close import assert_close

from sensitivity import Grid


@pytest.mark.parametrize("spacing", ["karras", "log", "linear"])
def test_levels_descend_in_float64_from_end_to_end(spacing):
    """Assert that the ends are exact, the levels descend strictly and there is one more of them than intervals."""
    grid = Grid(80.0, 0.002, 18, spacing=spacing)
    assert grid.levels.dtype == torch.float64
    assert (grid.sigma_max, grid.sigma_min, grid.steps, len(grid.levels)) == (80.0, 0.002, 18, 19)
    assert bool((grid.levels.diff() < 0).all())


def test_karras_levels_have_equal_steps_in_the_seventh_root():
    """Assert the defining property of the spacing, written the other way round."""
    roots = Grid(80.0, 0.002, 10).levels ** (1 / 7)
    assert_close(roots.diff(), torch.full((10,), float(roots[-1] - roots[0]) / 10, dtype=torch.float64), rtol=1e-12)


@pytest.mark.parametrize("spacing", ["karras", "log", "linear"])
def test_refinement_keeps_every_old_level(spacing):
    """Assert that each third level of the refined grid is the old one, bit for bit."""
    grid = Grid(10.0, 0.1, 7, spacing=spacing)
    fine = grid.refined(3)
    assert fine.steps == 21
    assert torch.equal(fine.levels[::3], grid.levels)


@pytest.mark.parametrize("spacing", ["karras", "log", "linear"])
def test_filling_cuts_steep_intervals_alone_into_equal_ratios(spacing):
    """Assert that old levels stay to the last bit, no ratio is above the limit, and narrow intervals are not cut."""
    grid = Grid(80.0, 0.002, 18, spacing=spacing)
    levels = grid.filled(1.5).levels
    assert bool((levels[:-1] / levels[1:] <= 1.5 + 1e-12).all())
    assert set(grid.levels.tolist()) <= set(levels.tolist())
    for top, low in zip(grid.levels[:-1].tolist(), grid.levels[1:].tolist(), strict=True):
        inside = levels[(levels <= top) & (levels >= low)]
        assert len(inside) == 2 if top / low < 1.5 else bool(((inside[:-1] / inside[1:]) ** 2 > 1.5).all())
        assert_close(
            (inside[:-1] / inside[1:]).log(), torch.full_like(inside[1:], (inside[0] / inside[1]).log()), rtol=1e-9
        )
    assert grid.filled(1e6) == grid


def test_an_interval_of_just_the_limit_is_not_cut():
    """Assert it for ratios that are not exact in binary."""
    levels = [1.2**k for k in range(20, -20, -1)]
    assert Grid.from_levels(levels).filled(1.2).steps == len(levels) - 1


def test_reversed_levels_start_where_asked_and_end_at_the_top():
    """Assert that the levels ascend from σ through the grid's own levels above it."""
    grid = Grid(10.0, 0.1, 5, spacing="log")
    between = grid.reversed_from(0.5)
    assert float(between[0]) == 0.5
    assert torch.equal(between[1:], grid.levels.flip(0)[grid.levels.flip(0) > 0.5])
    assert torch.equal(grid.reversed_from(float(grid.levels[2])), grid.levels[:3].flip(0))
    assert torch.equal(grid.reversed_from(10.0), torch.tensor([10.0], dtype=torch.float64))


def test_given_levels_are_kept_in_full_precision():
    """Assert that a list of Python numbers is not rounded to float32."""
    assert Grid.from_levels([3.0, 0.1]).sigma_min == 0.1
    assert Grid.from_levels([3.0, 0.1]) == Grid(3.0, 0.1, 1)
    assert hash(Grid.from_levels([3.0, 0.1])) == hash(Grid(3.0, 0.1, 1))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Grid(1.0, 2.0, 3), "not below sigma_max"),
        (lambda: Grid(1.0, 0.0, 3), "sigma_min=0.0 is not a noise level"),
        (lambda: Grid(float("inf"), 0.1, 3), "sigma_max=inf is not a noise level"),
        (lambda: Grid(1.0, 0.1, 0), "steps=0 counts the intervals"),
        (lambda: Grid(1.0, 0.1, 2.5), "steps=2.5 counts the intervals"),
        (lambda: Grid(1.0, 0.1, 3, spacing="cosine"), "spacing='cosine' is unknown"),
        (lambda: Grid.from_levels([1.0]), "at least two noise levels"),
        (lambda: Grid.from_levels([1.0, 2.0]), "strictly descending"),
        (lambda: Grid.from_levels([1.0, float("nan")]), "finite"),
        (lambda: Grid(1.0, 0.1, 3).refined(0), "factor=0 counts the parts"),
        (lambda: Grid(1.0, 0.1, 3).filled(1.0), "widest=1.0 is no ratio"),
        (lambda: Grid(1.0, 0.1, 3).filled(float("nan")), "widest=nan is no ratio"),
        (lambda: Grid(1.0, 0.1, 3).reversed_from(2.0), "lies above sigma_max"),
    ],
)
def test_bad_grids_are_refused_with_the_remedy(make, said):
    """Assert that the error quotes the argument."""
    with pytest.raises(ValueError, match=said):
        make()
