"""The table of what is known: README and landing page show what is published."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies.reports import known

README = Path(__file__).resolve().parents[3] / "README.md"


def test_the_readme_holds_the_table():
    """Assert that the numbers between the two comments are those of the published claims."""
    text = README.read_text(encoding="utf-8")
    assert text.split("<!-- known -->")[1].split("<!-- /known -->")[0].strip() == known.table()


def test_a_claim_that_is_gone_is_named(monkeypatch):
    """Assert that a line without its claim fails by its words."""
    monkeypatch.setattr(known, "LINES", (known.Line("?", "convergence", "no such claim"),))
    with pytest.raises(KeyError, match="no such claim"):
        known.table()
