"""The study with sixteen pairs: untrained regimes carry no claims, and its smoke run."""

from __future__ import annotations

from pathlib import Path

from studies.retraining import pairs, reading
from studies.runner import run


def test_untrained_regimes_are_shown_and_carry_no_claim(tmp_path: Path) -> None:
    """Assert that the smoke run's networks fail the control and have no other claim, and that trained ones have."""
    result = run("retraining_pairs", "smoke", out=tmp_path, workers=0)
    assert not result.failures
    config, rows = pairs.Config.smoke(), result.rows
    assert reading.untrained(rows) == {"digits-mlp"}
    assert [str(claim.verdict) for claim in pairs.claims(rows, config)] == ["fails", "fails"]
    better = rows.assign(held_out_loss=rows.held_out_loss / 10)
    judged = pairs.claims(better, config)
    assert [str(claim.verdict) for claim in judged[:2]] == ["holds", "holds"]
    assert len(judged) > 12
    assert all(len(drawing.alt) > 30 for drawing in pairs.figures(rows, config).values())


def test_every_regime_has_the_pairs_of_the_protocol() -> None:
    """Assert sixteen pairs for perceptrons and six for convolutional networks."""
    assert {regime.pairs for regime in pairs.Config.full().regimes} == {16}
    assert {(regime.kind, regime.pairs) for regime in pairs.Config.paper().regimes} == {("mlp", 16), ("unet", 6)}
