"""The study `groups_copies`: its draws, and a run from end to end."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from studies.groups import copies
from studies.study import Context

CONFIG = copies.Config.smoke()


def test_a_draw_is_even_disjoint_and_a_function_of_its_seed():
    """Assert that no image is in two parts, and that classes are even."""
    result = copies.drawn(60, 3)
    everything = torch.cat([result.train, result.reference, result.others]).flatten(1)
    assert len(everything.unique(dim=0)) == len(everything)
    again = copies.drawn(60, 3)
    assert torch.equal(result.train, again.train)
    assert not torch.equal(result.train, copies.drawn(60, 4).train)
    larger = copies.drawn(120, 3)
    assert torch.equal(larger.train[:60], result.train)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """All rows of a small run."""
    context = Context(CONFIG, folder=tmp_path_factory.mktemp("copies") / "run")
    return pd.DataFrame([row for cell in copies.cells(CONFIG) for row in copies.run_cell(cell, context)])


def test_a_run_from_end_to_end_tells_the_laws_apart(rows):
    """Assert what is known without training: the empirical law copies, the smoothed one does not."""
    assert copies.over_draws(rows, copies.EMPIRICAL, "copies, held-out").estimate == 1
    assert copies.over_draws(rows, copies.SMOOTH, "copies, held-out").estimate < 0.1
    assert copies.over_draws(rows, copies.EMPIRICAL, "area").estimate > 0.99
    judged = copies.claims(rows, CONFIG)
    assert len(judged) == 12
    assert all(each.expected for each in judged)
    assert all(each.alt for each in copies.figures(rows, CONFIG).values())
    assert len(copies.table(rows)) == 5
