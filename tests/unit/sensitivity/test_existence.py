"""Masses that leave no law, found where densities are known, at the limit −m/(N − m) and nowhere before it."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from sensitivity import (
    Grid,
    KernelRatio,
    Mixture,
    Outcome,
    PerBranch,
    Points,
    Remove,
    Reweight,
    Toward,
    guided,
    resample,
)
from sensitivity.perturbations import existence
from sensitivity.perturbations.existence import no_law

FOUR = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.5, 2.5]], dtype=torch.float64)
GRID = Grid(20.0, 0.05, 20)
LATENTS = 20 * torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _outcomes(law, change, eta, score=None, **options):
    return resample(score or law.score, LATENTS.to(law.means if isinstance(law, Mixture) else law.data), change, eta,
                    GRID, anchor=law, **options).outcome  # fmt: skip


def _without_a_law(outcomes):
    return outcomes.codes == Outcome.NO_LAW.value


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("bandwidth", [0.0, 0.3])
@pytest.mark.parametrize("taken", [1, 2])
def test_of_m_of_n_points_no_more_is_taken_than_there_is(taken, bandwidth, dtype):
    """Assert the limit −m/(N − m) to 2 %, toward one of four points and two; −.9 toward one of four finished before."""
    law = Points(FOUR.to(dtype), bandwidth=bandwidth)
    change = Remove(Points(law.data[:taken], bandwidth=bandwidth))
    limit = change.mass(4)
    assert limit == pytest.approx(-taken / (4 - taken))
    assert not bool(_without_a_law(_outcomes(law, change, limit)).any())
    beyond = max(1.1 * limit - 0.02, -taken)
    assert bool(_without_a_law(_outcomes(law, change, beyond)).all())
    if taken == 1:
        outcome = _outcomes(law, change, -0.9)
        assert bool(_without_a_law(outcome).all())
        assert "take perturbation.mass(N)), first at σ = 0.05." in outcome.sentence


def test_components_and_weights_have_their_own_limits():
    """Assert −w/(1 − w) for a component of weight w and for points that are reweighted beyond nothing."""
    law = Mixture(torch.tensor([0.2, 0.3, 0.5]).double(), FOUR[:3], 0.05)
    one = Remove(Mixture(None, FOUR[:1], 0.05))
    for eta, lost in ((-0.24, False), (-0.26, True)):
        assert bool(_without_a_law(_outcomes(law, one, eta)).all()) is lost
    empirical = Points(FOUR)
    halved = Reweight(Points(FOUR[:1]), torch.tensor([0.5], dtype=torch.float64).log())
    # ν moves by η/2 and by −η: half of one of four points is halved.mass(4), all of it twice the share.
    for eta, lost in ((halved.mass(4), False), (0.6, False), (0.7, True)):
        assert bool(_without_a_law(_outcomes(empirical, halved, eta)).all()) is lost


def test_each_latent_has_its_own_mass_in_chunks_too():
    """Assert marks where η < −1/3 alone, on the right rows of every chunk."""
    law, change = Points(FOUR), Remove(Points(FOUR[:1]))
    eta = torch.linspace(-0.9, 0.9, 12, dtype=torch.float64)
    for chunk in (None, 5):
        assert torch.equal(_without_a_law(_outcomes(law, change, eta, chunk_size=chunk)), eta < -1 / 3)


def test_several_masses_are_judged_together():
    """Assert that what one mass adds another may take."""
    law, point = Points(FOUR), Points(FOUR[:1])
    both = [Toward(point), Remove(point)]
    assert not bool(_without_a_law(_outcomes(law, both, [0.3, -0.5])).any())
    assert bool(_without_a_law(_outcomes(law, both, [0.1, -0.5])).all())


def test_a_kernel_ratio_brings_its_law_along():
    """Assert the limit for a score of which nothing is known."""
    network = partial(Points.score, Points(FOUR, bandwidth=0.3))
    change = Remove(KernelRatio(FOUR[:1], FOUR, 0.3))
    for eta, lost in ((-1 / 3, False), (-0.36, True)):
        outcome = resample(network, LATENTS, change, eta, GRID).outcome
        assert bool(_without_a_law(outcome).all()) is lost


def test_a_branch_without_a_law_is_seen_under_guidance():
    """Assert that one branch is enough."""
    law, change = Points(FOUR), Remove(Points(FOUR[:1]))
    score, anchor = guided(law.score, law.score, 1.5), PerBranch(law, law)
    for etas, lost in (((-0.3, -0.3), False), ((-0.3, -0.6), True)):
        outcome = resample(score, LATENTS, PerBranch(change, change), PerBranch(*etas), GRID, anchor=anchor).outcome
        assert bool(_without_a_law(outcome).all()) is lost


def test_a_path_alone_does_not_see_what_it_avoids():
    """Assert that along paths the changed density stays positive, so that of a network nothing is said."""
    law, change = Points(FOUR), Remove(Points(FOUR[:1]))
    moved = resample(lambda x, sigma: law.score(x, sigma), LATENTS, change, -0.9, GRID, anchor=law)
    assert not bool(_without_a_law(moved.outcome).any())
    log_ratio = change.measure.log_density(moved.samples, 0.05) - moved.log_density
    assert bool((1 - 0.9 * torch.expm1(log_ratio) > 0).all())


def test_removal_of_what_is_not_there_is_seen_and_nothing_else_is_asked_for():
    """Assert it for a far point, and that masses without a negative part cost no density."""
    law = Points(FOUR)
    far = Remove(Points(FOUR[:1] + 9))
    assert bool(_without_a_law(_outcomes(law, far, -0.01)).all())

    class Unasked(Points):
        def log_density(self, x, sigma):
            raise AssertionError("asked")

    masses = [(torch.tensor([0.5, 1.0]).double(), Unasked(FOUR[:1]))]
    assert no_law(law.score, masses, torch.tensor(0.05).double()) is None


def test_looking_elsewhere_than_at_the_peaks_is_seen(monkeypatch):
    """Assert that a planted look beside the points finds nothing, so that the tests above would fail."""
    right = existence._peaks
    monkeypatch.setattr(existence, "_peaks", lambda measure: right(measure) + 1.0)
    assert not bool(_without_a_law(_outcomes(Points(FOUR), Remove(Points(FOUR[:1])), -0.9)).any())
