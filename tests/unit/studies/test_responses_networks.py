"""The study of more networks, images and changes: its protocol, and one cell of each kind from end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from studies.networks import Architecture, build
from studies.responses import networks, perceptrons
from studies.responses.config import MAIN, OTHERS
from studies.study import Context

SIDES = {"digits": 8, "mnist14": 14, "fashion14": 14}


def test_the_protocol_has_the_networks_images_and_changes_that_it_says() -> None:
    """Assert four pairs everywhere, a hundred thousand parameters, three data sets and all four changes."""
    regimes = networks.Config.full().regimes
    assert {regime.pairs for regime in regimes} == {4}
    assert {regime.images for regime in regimes} == set(SIDES)
    assert {regime.kind for regime in regimes} == {"unet", "transformer"}
    assert {change for regime in regimes for change in regime.changes} == {MAIN, *OTHERS}
    for regime in regimes:
        architecture, side = Architecture(regime.kind, regime.width, regime.depth), SIDES[regime.images]
        assert sum(p.numel() for p in build(architecture, (1, side, side)).parameters()) > 1e5


def test_cells_from_scratch_come_first() -> None:
    """Assert both truths of every change, and no other cell."""
    config = networks.Config.full()
    parts = [cell.parameters["part"] for cell in networks.cells(config)]
    half = sum(len(regime.changes) for regime in config.regimes)
    assert parts == ["scratch"] * half + ["finetune"] * half


@pytest.mark.parametrize("name", ["digits-unet-drop-class=3-finetune", "digits-transformer-class=3-0.1-finetune"])
def test_a_cell_compares_every_answer_with_retraining(name: str, tmp_path: Path) -> None:
    """Assert answers of all five responses for a removal, and for a network with attention."""
    config = networks.Config.smoke()
    cell = next(cell for cell in networks.cells(config) if cell.name == name)
    rows = pd.DataFrame(networks.run_cell(cell, Context(config, folder=tmp_path / "run")))
    assert {"population", "kernel", "local", "parameters", "unrolled", "zero"} <= set(rows.response)
    assert set(rows.pairs) == {2}
    assert not rows.unfinished.any()


def test_perceptrons_are_asked_both_truths(tmp_path: Path) -> None:
    """Assert rows of every truth, and the size and training that the page states."""
    small = networks.Config.smoke()
    regime = replace(perceptrons.CONFIG.regimes[0], count=80, width=8, steps=6, batch=16, pairs=2)
    rows = perceptrons.rows(replace(small, regimes=(regime,)), tmp_path)
    assert set(rows.truth.dropna()) == {"run", "scratch", "others", "finetune"}
    stated = perceptrons.CONFIG.regimes[0]
    assert (stated.kind, stated.width, stated.steps, stated.batch, stated.pairs) == ("mlp", 256, 3000, 128, 4)
