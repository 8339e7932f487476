"""Outcomes: first bad step per sample, halting, the run's sentence."""

from __future__ import annotations

import torch

from sensitivity.sampler.outcome import Outcome, Outcomes, Watch


def test_the_first_bad_step_is_kept():
    """Assert that a later mark of the same kind does not move the level."""
    watch = Watch(3, torch.device("cpu"))
    watch.mark(torch.tensor([False, True, False]), Outcome.NONFINITE_SCORE, 2.0)
    watch.mark(torch.tensor([False, True, True]), Outcome.NONFINITE_SCORE, 1.0)
    outcomes = watch.read()
    assert [outcomes[i] for i in range(len(outcomes))] == [
        Outcome.FINISHED,
        Outcome.NONFINITE_SCORE,
        Outcome.NONFINITE_SCORE,
    ]
    assert outcomes.levels[1:].tolist() == [2.0, 1.0]
    assert watch.running.tolist() == [True, False, False]


def test_a_halting_outcome_replaces_a_warning_but_not_the_other_way_round():
    """Assert that warnings let a sample run on and never hide why it stopped."""
    watch = Watch(2, torch.device("cpu"))
    watch.mark(torch.tensor([True, False]), Outcome.LOG_RATIO_ERROR, 3.0)
    assert watch.running.all()
    watch.mark(torch.tensor([True, True]), Outcome.REMOVAL_CONTRADICTED, 2.0)
    watch.mark(torch.tensor([True, True]), Outcome.LOG_RATIO_ERROR, 1.0)
    assert watch.read().codes.tolist() == [Outcome.REMOVAL_CONTRADICTED.value] * 2


def test_the_sentence_counts_every_kind():
    """Assert that one sentence says how many samples ended how, and where first."""
    codes = torch.tensor([0, 1, 4, 4])
    levels = torch.tensor([float("nan"), 0.5, 2.0, 3.0])
    assert Outcomes(codes, levels).sentence == (
        "1 of 4 samples finished; 1: non-finite score, first at σ = 0.5; "
        "2: the estimated density contradicts the removal, first at σ = 3."
    )


def test_every_outcome_has_a_sentence():
    """Assert that none is forgotten."""
    assert len({outcome.sentence for outcome in Outcome}) == len(Outcome)


def test_joined_outcomes_keep_their_order():
    """Assert that chunks are joined one after the other."""
    parts = [Outcomes(torch.tensor([code]), torch.tensor([float(code)])) for code in (2, 0)]
    assert Outcomes.join(parts).codes.tolist() == [2, 0]
