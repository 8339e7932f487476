"""The table of what is differentiable: it says what trying says, and nothing in it is wrong."""

from __future__ import annotations

import pytest

from oracles import capabilities
from oracles.capabilities import ARGUMENTS, LIBRARIES, QUANTITIES, Row, markdown, probe, stored


def test_the_stored_table_is_complete():
    """Assert one line for every quantity, argument and library of the code."""
    keys = [(row.quantity, row.argument, row.library) for row in stored()]
    assert sorted(keys) == sorted((q, a, lib) for q in QUANTITIES for a in ARGUMENTS for lib in LIBRARIES)


def test_nothing_differentiable_is_wrong_or_silent():
    """Assert verdicts without "wrong", constants only for samples, and a reason with every refusal."""
    for row in stored():
        assert row.verdict != "wrong", row
        assert row.verdict != "constant" or row.quantity.startswith("sample"), row
        assert row.verdict != "refused" or row.reason, row


# What does not enter a value: covariances a network trained on the means, states and noise levels the evidence.
ABSENT = {
    "feature score": ("covariances", "variances", "factors"),
    "feature score_derivative": ("covariances", "variances", "factors"),
    "log_evidence": ("x", "sigma"),
}


def test_every_closed_form_is_differentiable_in_everything():
    """Assert both modes of torch and JAX for every quantity but means, samples and streamed sums."""
    for row in stored():
        special = row.quantity in ("mean", "covariance") or row.quantity.startswith(("sample", "streamed"))
        if row.library in ("torch", "jax") and not special:
            absent = row.argument in ABSENT.get(row.quantity, ())
            assert row.verdict == ("independent" if absent else "both"), row


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_trying_torch_again_gives_the_stored_verdict(quantity, argument):
    """Assert the whole column of torch."""
    assert probe(quantity, argument, "torch") in stored()


@pytest.mark.parametrize(
    ("quantity", "argument", "library"),
    [
        ("score", "x", "jax"),
        ("streamed score", "x", "jax"),
        ("score", "sigma", "numpy"),
        ("quantile", "x", "strict"),
        ("conditioned score", "weights", "jax"),
        ("feature score", "means", "jax"),
    ],
)
def test_trying_other_libraries_gives_the_stored_verdict(quantity, argument, library):
    """Assert a few entries of each: JAX takes minutes for all (see the slow test)."""
    assert probe(quantity, argument, library) in stored()


@pytest.mark.slow
def test_the_whole_table_can_be_made_again():
    """Assert every entry in every library."""
    assert capabilities.table() == stored()


def test_a_wrong_derivative_is_called_wrong(monkeypatch):
    """Assert that a quantity whose derivative is doubled gets the verdict "wrong"."""

    def doubled(setting):
        score = setting.law.noised(setting.sigma).score(setting.x)
        return 2 * score - score.detach() if hasattr(score, "detach") else score

    monkeypatch.setitem(QUANTITIES, "score", doubled)
    assert probe("score", "x", "torch").verdict == "wrong"


def test_unknown_names_are_refused():
    """Assert the message that lists what there is."""
    with pytest.raises(ValueError, match="'entropy' is not in the table; choose from log_density"):
        probe("entropy", "x", "numpy")


def test_markdown_has_a_line_for_each_quantity_and_library():
    """Assert the table's shape."""
    rows = [Row("score", a, lib, "both") for a in ("x", "means") for lib in ("torch", "jax")]
    lines = markdown(rows).splitlines()
    assert lines[0] == "| quantity | library | x | means |"
    assert lines[2:] == ["| score | torch | both | both |", "| score | jax | both | both |"]
