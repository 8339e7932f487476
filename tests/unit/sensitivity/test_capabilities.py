"""The engine's table of what is differentiable: it says what trying says, and nothing in it is wrong."""

from __future__ import annotations

import pytest

from sensitivity import capabilities
from sensitivity.capabilities import ARGUMENTS, RESULTS, Row, markdown, probe, stored


def test_the_stored_table_is_complete():
    """Assert one line for every result and argument of the code."""
    assert [(row.result, row.argument) for row in stored()] == [(r, a) for r in RESULTS for a in ARGUMENTS]


def test_no_derivative_is_wrong_and_what_is_cut_is_known():
    """Assert verdicts without "wrong"; data are constants, and so is all but the anchor of an influence."""
    for row in stored():
        assert row.verdict != "wrong", row
        constant = row.argument in ("points", "level") or row.result.startswith("influence")
        assert row.verdict != "cut" or constant, row


@pytest.mark.parametrize("argument", ["network", "level"])
@pytest.mark.parametrize("result", RESULTS)
def test_trying_again_gives_the_stored_verdict(result, argument):
    """Assert two columns; all of them are a slow test."""
    assert probe(result, argument).verdict == {row[:2]: row.verdict for row in stored()}[result, argument]


@pytest.mark.slow
def test_the_whole_table_can_be_made_again():
    """Assert every entry."""
    assert [row[:3] for row in capabilities.table()] == [row[:3] for row in stored()]


def test_a_wrong_derivative_is_called_wrong(monkeypatch):
    """Assert that a result whose derivative is doubled gets the verdict "wrong"."""

    def doubled(setting):
        score = setting.score(setting.states, setting.level * setting.states.new_ones(1))
        return 2 * score - score.detach()

    monkeypatch.setitem(RESULTS, "score_derivative", doubled)
    assert probe("score_derivative", "states").verdict == "wrong"


def test_unknown_names_are_refused():
    """Assert the message that lists what there is."""
    with pytest.raises(ValueError, match="'entropy' is not in the table; choose from guided score"):
        probe("entropy", "states")


def test_markdown_has_a_line_for_each_result():
    """Assert the table's shape."""
    lines = markdown([Row(r, a, "both") for r in RESULTS for a in ARGUMENTS]).splitlines()
    assert lines[0] == "| result | " + " | ".join(ARGUMENTS) + " |"
    assert len(lines) == 2 + len(RESULTS)
