"""The study of training length at low noise: its claims against planted rows, its extrapolation, its smoke run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from studies.claim_bounds import Verdict
from studies.low_noise import length
from studies.low_noise.config import LOW
from studies.runner import run

CONFIG = length.Config(("spiral/edm/1000",), replicates=10)


def planted(means: dict[int, float], excess: float = 0.02) -> pd.DataFrame:
    """Rows of ten replicates whose mean log ratio at each length is given, with a spread of .02 of their own."""
    rng, rows = np.random.default_rng(0), list[dict]()
    for replicate in range(10):
        shift = 0.02 * rng.normal()
        for times, mean in means.items():
            named = {"geometry": "spiral", "objective": "edm", "length": times, "N": 1000, "replicate": replicate}
            for level in LOW:
                ratio = np.exp(mean + shift + 0.005 * rng.normal())
                rows.append(named | {"kind": "level", "states": "on", "level": level, "cross": ratio, "within": 1.0})
            noise = 1 + 0.1 * rng.normal()
            rows.append(named | {"kind": "loss", "of": "law", "excess": excess * noise, "optimum": 1.0})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ({1: 0.0, 4: 0.2, 16: 0.21}, "holds holds holds"),
        ({1: 0.0, 4: 0.02, 16: 0.2}, "holds holds fails"),
        ({1: 0.05, 4: 0.02, 16: 0.0}, "fails fails holds"),
        ({1: 0.09, 4: 0.09, 16: 0.0953}, "open open holds"),
    ],
)
def test_claims_follow_planted_ratios(means: dict[int, float], expected: str) -> None:
    """Assert data against seeds, the rise and the levelling off, and that an effect at its bound is open."""
    judged = length.claims(planted(means), CONFIG)
    verdicts = [str(claim.verdict) for claim in judged[:3]]
    if expected.startswith("open"):
        assert verdicts[0] == "open"
    else:
        assert verdicts == expected.split()
    assert judged[3].verdict is Verdict.HOLDS


def test_overtraining_is_reported() -> None:
    """Assert that an excess loss of a tenth fails the control."""
    judged = length.claims(planted({1: 0.0, 4: 0.1, 16: 0.2}, excess=0.1), CONFIG)
    assert judged[3].verdict is Verdict.FAILS


def test_the_extrapolation_reaches_the_bound_where_the_line_does() -> None:
    """Assert the multiple at which the line through the last two lengths meets log 1.1, and none for a falling one."""
    quarter = np.log(1.1) / 4
    rising = {1: np.zeros(2), 4: np.full(2, quarter), 16: np.full(2, 2 * quarter)}
    assert length._reached(rising) == f"×{16 * 16:.3g}"
    assert length._reached({1: np.zeros(2), 4: np.zeros(2), 16: np.full(2, -0.1)}).startswith("never")
    assert length._reached({1: np.zeros(2), 4: np.zeros(2), 16: np.full(2, 0.1)}) == "reached"


def test_the_smoke_run_ends_with_claims_a_table_and_a_figure(tmp_path: Path) -> None:
    """Assert that every cell finishes, that lengths share their data, and that ten replicates are asked for."""
    result = run("low_noise_length", "smoke", out=tmp_path, workers=0)
    assert not result.failures
    assert set(result.rows["kind"]) == {"level", "loss"}
    assert set(result.rows["length"]) == {1, 4, 16}
    assert len(result.claims) == 4
    assert len(length.table(result.rows)) == 1
    assert all(len(drawing.alt) > 60 for drawing in length.figures(result.rows, length.Config.smoke()).values())
    assert length.Config.full().replicates == 10
    for level in ("quick", "full", "paper"):
        names = [cell.name for cell in length.cells(getattr(length.Config, level)())]
        assert len(names) == len(set(names))
