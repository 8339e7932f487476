"""The study far outside the shells: its data, its claims against planted faults, its smoke run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from studies.claim_bounds import Verdict
from studies.runner import run
from studies.selective_underfitting import far
from studies.selective_underfitting.config import Ladder
from studies.selective_underfitting.problem import RANK, SCALE, problem
from studies.study import Claim

FEW, MANY = (Ladder("lowrank256", "mlp", 16, 2, 16, n, 8, 8, n > 32) for n in (32, 64))
CONFIG = far.Config((FEW, MANY), (0.02,))


def planted(pull: float, own: float = 0.5, inside: float = 0.5, nearest: float = 15.0) -> pd.DataFrame:
    """Rows of eight trainings in which the pull of *base* exceeds that of the smaller rungs by `pull`."""
    rng, rows = np.random.default_rng(0), list[dict]()
    for ladder, size in ((FEW, 2.0), (MANY, 1.0)):
        named = {"ladder": ladder.name, "problem": ladder.problem, "data": ladder.data, "size": ladder.size}
        rows.append(named | {"kind": "radius", "sigma": 0.02, "nearest": (nearest + rng.normal(size=64)).tolist()})
        rows.append(named | {"kind": "gaussian", "loss": 0.5})
        for rung in far.rungs(ladder):
            for seed in range(8):
                last = rung.name == "base"
                here = 0.01 + last * size * pull + 1e-5 * rng.normal()
                parts = {"heldout_own": 1 - last * own, "heldout_gap": 400.0, "heldout_pull": here}
                error = parts["heldout_own"] + 400 * (1 - 2 * here)
                errors = {"inside_empirical": 1 - last * inside + 1e-3 * rng.normal(), "heldout_empirical": error}
                shared = named | {"rung": rung.name, "seed": seed, "steps": rung.steps}
                rows.append(shared | {"kind": "level", "sigma": 0.02} | parts | errors)
                rows.append(shared | {"kind": "network", "held_out_loss": 0.4 + 0.01 * rng.normal()})
    return pd.DataFrame(rows)


def verdicts(rows: pd.DataFrame, *words: str) -> list[Verdict]:
    """Of the claims whose statement has all the words."""
    values: list[Claim] = [c for c in far.claims(rows, CONFIG) if all(word in c.statement for word in words)]
    assert values
    return [claim.verdict for claim in values]


@pytest.mark.parametrize(("pull", "expected"), [(-0.004, Verdict.HOLDS), (0.004, Verdict.FAILS), (0, Verdict.OPEN)])
def test_the_pull_decides_the_sign(pull: float, expected: Verdict) -> None:
    """Assert that the named outcome and the outside error follow a planted pull, whatever the own error does."""
    rows = planted(pull, own=0.5 if pull else 0.0)
    assert set(verdicts(rows, "pulled less")) == {expected}
    assert set(verdicts(rows, "external states rises")) == {expected}


def test_few_points_must_pull_more() -> None:
    """Assert that the comparison of few and many has the sign of the larger pull."""
    assert verdicts(planted(0.004), "than for N =") == [Verdict.HOLDS]
    assert verdicts(planted(-0.004), "than for N =") == [Verdict.FAILS]


def test_a_confounded_design_is_seen() -> None:
    """Assert that states near the points, and changes made by the own error, are reported."""
    assert set(verdicts(planted(0.004), "radius ratios")) == {Verdict.HOLDS}
    assert set(verdicts(planted(0.004, nearest=4.0), "radius ratios")) == {Verdict.FAILS}
    assert set(verdicts(planted(0.004), "own error's")) == {Verdict.HOLDS}
    assert set(verdicts(planted(0.0002), "own error's")) == {Verdict.FAILS}


def test_networks_that_a_gaussian_beats_are_not_called_trained() -> None:
    """Assert that the control fails where the held-out loss is above the Gaussian's."""
    rows = planted(0.004)
    assert set(verdicts(rows, "are trained")) == {Verdict.HOLDS}
    rows.loc[rows.kind == "gaussian", "loss"] = 0.3
    assert set(verdicts(rows, "are trained")) == {Verdict.FAILS}


def test_the_known_law_has_the_stated_rank_and_scale() -> None:
    """Assert the scale, that each point lies in one plane of the rank, and ratios of ten at the largest level."""
    result = problem("lowrank256", 2048)
    pool = torch.cat([result.train, result.held_out])
    assert float((pool - pool.mean(0)).square().mean().sqrt()) == pytest.approx(SCALE, rel=0.15)
    spectrum = torch.linalg.eigvalsh((pool - pool.mean(0)).T @ (pool - pool.mean(0)) / len(pool))
    assert int((spectrum > 1e-3).sum()) <= 3 * RANK + 2
    nearest = torch.cdist(result.held_out[:256], result.train).amin(1)
    ratio = (1 + (nearest / (max(far.LEVELS) * 16)).square()).sqrt()
    assert float(ratio.median()) > 10


def test_the_smoke_run_ends_with_claims_a_table_and_a_figure(tmp_path: Path) -> None:
    """Assert that every cell finishes and that every level has cells of unique names."""
    result = run("selective_underfitting_far", "smoke", out=tmp_path, workers=0)
    assert not result.failures
    assert len(result.claims) == 2 + 3 * 3 + 2 * 2 + 1
    assert len(far.table(result.rows, far.Config.smoke())) == 3
    assert all(len(drawing.alt) > 60 for drawing in far.figures(result.rows, far.Config.smoke()).values())
    for level in ("quick", "full", "paper"):
        names = [cell.name for cell in far.cells(getattr(far.Config, level)())]
        assert len(names) == len(set(names)) > 5
    assert {ladder.seeds for ladder in far.Config.full().ladders} == {8}
    assert replace(FEW, capacity=True).rungs()[2].name == "shallow"
