"""What a retrained network would give: against retraining that is a solve, and against the law of what is left."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.exact_groups import ExactGroups

from oracles.features import Reweighting
from sensitivity import (
    Calibration,
    Grid,
    Groups,
    LocalResponse,
    Points,
    Trust,
    UnrolledResponse,
    counterfactual,
    sample,
)

EXACT = ExactGroups()
FUNCTIONAL = lambda x: torch.stack([x[:, 0], x.square().sum(1)], 1)  # noqa: E731


def asked(members, edits="removed", **options):
    """The engine's answer for the exactly trained network."""
    groups = Groups(EXACT.images, members, edits)
    return counterfactual(EXACT.score, EXACT.latents, groups, EXACT.grid, response=EXACT.response, **options)


def test_first_order_is_the_derivative_of_the_solve():
    """Assert that halving by little is the retrained network's change, and linear in the multiplier's mass."""
    members, small = EXACT.drawn(3, 4), 1e-4
    prediction = asked(members, 1 + small)
    base = EXACT.retrained(np.full(40, 1 / 40))
    assert_close(prediction.base, base, rtol=0, atol=1e-9)
    for k, who in members.items():
        change = EXACT.retrained(EXACT.weights(who, 1 + small)) - base
        assert_close(prediction.first[k], change, rtol=0, atol=3e-3 * float(change.abs().max()))
    removed = asked(members)
    ratio = removed.eta[:, None, None] / prediction.eta[:, None, None]
    assert_close(removed.first, ratio * prediction.first, rtol=1e-9, atol=1e-12)


def test_finite_masses_move_the_readouts_along_their_derivative():
    """Assert the finite form against the solve's derivative by the oracle, put into the network by hand."""
    members = {"some": [1, 5, 8], "few": [0]}
    prediction = asked(members)
    for k, who in enumerate(members.values()):
        rates = np.zeros(40)
        rates[who] = 1 / len(who)
        path = Reweighting(EXACT.fitted, rates - 1 / 40)
        levels = EXACT.grid.levels.tolist()
        moved = np.stack([path._level(level, 0.0).level.coefficients(1) for level in levels])
        other = ExactGroups()
        with torch.no_grad():
            other.network.readout += float(prediction.eta[k]) * torch.from_numpy(moved)
        assert_close(prediction.samples[k], sample(other.score, EXACT.latents, EXACT.grid).samples, rtol=0, atol=1e-10)
    assert prediction.outcome.trust == (Trust.UNCALIBRATED, Trust.UNCALIBRATED)


def test_the_last_solution_serves_all_runs():
    """Assert that K groups at finite mass ask the record once, for all together."""
    calls = []
    record = EXACT.response.record
    counted = SimpleNamespace(module=record.module, points=record.points, passes=1, pull=record.pull)
    counted.parameter_change = lambda rates, moves=None: calls.append(len(rates)) or record.parameter_change(rates)
    groups = Groups(EXACT.images, EXACT.drawn(4, 3))
    counterfactual(EXACT.score, EXACT.latents, groups, EXACT.grid, response=UnrolledResponse(counted))
    assert calls == [4]


def test_a_removed_part_leaves_the_flow_of_the_rest():
    """Assert the population's answer on a law of points against the law of those that are left, edits included."""
    data = EXACT.images
    law = Points(data, bandwidth=0.4)
    who = [k for k in range(40) if float(data[k, 0]) > 0.8]
    rest = [k for k in range(40) if k not in who]
    grid = Grid(8.0, 0.3, 20)
    other = data[who] * torch.tensor([0.3, 1.0]) + torch.tensor([0.0, 0.4])
    edits = {"gone": "removed", "half": "halved", "twice": "doubled", "other": other}
    prediction = counterfactual(
        law.score, EXACT.latents, Groups(law, dict.fromkeys(edits, who), edits), grid, anchor=law, solver="rk4"
    )
    factor = {"half": 0.5, "twice": 2.0}
    for k, name in enumerate(prediction.names):
        if name == "other":
            changed = Points(torch.cat([data[rest], other]), bandwidth=0.4)
        elif name == "gone":
            changed = Points(data[rest], bandwidth=0.4)
        else:
            weights = torch.ones(40).double()
            weights[who] = factor[name]
            changed = Points(data, weights, bandwidth=0.4)
        truth = sample(changed.score, EXACT.latents, grid, solver="rk4").samples
        assert_close(prediction.samples[k], truth, rtol=0, atol=1e-3)
    assert prediction.change.shape == (4, 5, 2)


def test_a_planted_sign_and_a_planted_mass_are_caught():
    """Assert that a removal by the mass of an addition, −W or W/(1 + W), does not pass as the removal."""
    data, who = EXACT.images, [0, 3, 6, 9, 12, 15, 18, 21]
    law, grid = Points(data, bandwidth=0.4), Grid(8.0, 0.3, 20)
    rest = Points(data[[k for k in range(40) if k not in who]], bandwidth=0.4)
    truth = sample(rest.score, EXACT.latents, grid, solver="rk4").samples
    for multiplier, right in ((0.0, True), (1 - 0.8, False), (2.0, False)):
        groups = Groups(law, {"g": who}, multiplier)
        prediction = counterfactual(law.score, EXACT.latents, groups, grid, anchor=law, solver="rk4")
        assert bool((prediction.samples[0] - truth).abs().max() < 1e-3) is right


@pytest.mark.slow
def test_coverage_on_the_exactly_trained_network():
    """Assert that nine in ten groups unseen in calibration lie in intervals made of twelve, over many divisions."""
    members = EXACT.drawn(72, 3)
    prediction = asked(members, functional=FUNCTIONAL, form="finite")
    truth = torch.stack([EXACT.retrained(EXACT.weights(who)) for who in members.values()])
    outcomes = torch.stack([FUNCTIONAL(x) for x in truth])
    rng, shares, naive = np.random.default_rng(0), [], []
    for _ in range(400):
        order = rng.permutation(72)
        some, others = order[:12], order[12:]
        calibration = Calibration(prediction.values[some], outcomes[some], stretch=prediction.stretch[some])
        low, high = calibration.interval(prediction.values[others], prediction.stretch[others])
        shares.append(float(((low <= outcomes[others]) & (outcomes[others] <= high)).double().mean()))
        wrong = calibration.scores.sort(0).values[10] * prediction.stretch[others][:, None, None]  # ⌈12 · .9⌉, planted
        naive.append(float(((outcomes[others] - prediction.values[others]).abs() <= wrong).double().mean()))
    assert abs(np.mean(shares) - 12 / 13) < 0.015
    assert np.mean(naive) < 0.88


def calibrated(found, members, edits="removed", **options):
    """A calibration by exact retraining."""
    del edits
    retrained = torch.stack([EXACT.retrained(EXACT.weights(who)) for who in members.values()])
    return Calibration.of(found, retrained, **options)


def test_intervals_widen_beyond_the_radius_and_are_refused_far_beyond():
    """Assert the three states, their intervals and their words."""
    members = EXACT.drawn(12, 3)
    calibration = calibrated(asked(members, functional=FUNCTIONAL, share=0.5), members)
    loose = asked({"a": [0, 1, 2]}, functional=FUNCTIONAL, share=0.5, calibration=calibration)
    assert loose.outcome["a"] is Trust.WITHIN
    assert bool((loose.low < loose.high).all())
    assert float(loose.stretch) == 1
    e = float(loose.departure.median())
    wide = asked({"a": [0, 1, 2]}, functional=FUNCTIONAL, share=e / 1.5, calibration=calibration)
    assert wide.outcome["a"] is Trust.WIDENED
    assert_close(wide.high - wide.low, 1.5 * (loose.high - loose.low), rtol=1e-9)
    far = asked({"a": [0, 1, 2]}, functional=FUNCTIONAL, share=e / 2.5, calibration=calibration)
    assert far.outcome["a"] is Trust.REFUSED
    assert bool(torch.isinf(far.high - far.low).all())
    assert "without an interval: retrain one" in far.outcome.sentence
    assert "exchangeable" in far.outcome.sentence
    assert_close(far.radius.median(1).values, far.eta.abs() / 2.5, rtol=1e-6)


def test_states_without_an_interval_say_why():
    """Assert too few groups, no calibration, and a first-order form."""
    members = EXACT.drawn(4, 3)
    prediction = asked(members)
    assert prediction.low is None
    assert "Calibration.of" in prediction.outcome.sentence
    few = prediction.calibrated(calibrated(prediction, members))
    assert few.outcome[0] is Trust.TOO_FEW
    assert bool(torch.isinf(few.high).all())
    first = asked(members, form="first")
    assert torch.isnan(first.departure).all()
    assert_close(first.change, first.first, rtol=1e-12, atol=1e-12)
    again = first.calibrated(calibrated(first, members, level=0.5))
    assert again.outcome[0] is Trust.UNJUDGED
    assert bool(torch.isfinite(again.high).all())
    with pytest.raises(KeyError, match="there is no group"):
        prediction.outcome["absent"]


@pytest.mark.parametrize("source", [{}, {"seed": 3}, {"generator": torch.Generator().manual_seed(3)}])
def test_all_runs_share_their_noise(source):
    """Assert that along a stochastic path a change of nearly nothing changes nearly nothing, however noise is drawn."""
    prediction = asked({"a": [0, 1], "b": [5]}, 1 + 1e-7, solver="sde", **source)
    assert float(prediction.change.abs().max()) < 1e-5
    assert float((prediction.samples[0] - prediction.samples[1]).abs().max()) < 1e-5


def test_a_sample_that_does_not_finish_has_no_interval():
    """Assert that a removal which the densities contradict leaves its own samples without an interval."""
    data = torch.tensor([[-1.0], [-0.8], [1.0], [1.3]]).double()
    law, latents = Points(data, bandwidth=0.3), torch.tensor([[-8.0], [4.0]]).double()
    # An anchor five nats too low on the left: the group's ratio is too large there, and more than all is removed.
    anchor = SimpleNamespace(log_density=lambda x, sigma: law.log_density(x, sigma) - 5.0 * (x[:, 0] < 0))
    groups = Groups(law, {"first": [0]})
    prediction = counterfactual(law.score, latents, groups, Grid(8.0, 0.2, 20), anchor=anchor)
    assert prediction.outcome.samples[0].finished.tolist() == [False, True]
    calibration = Calibration(torch.zeros(9, 2, 1).double(), torch.rand(9, 2, 1).double(), stretch=None)
    ends = prediction.calibrated(calibration)
    assert torch.isinf(ends.high[0, :, 0]).tolist() == [True, False]


def test_local_and_pooled_functionals_work():
    """Assert another response with a finite form, and a functional of all samples together."""
    images = EXACT.images.reshape(40, 1, 1, 2).float()
    local = LocalResponse(images, "whole")
    law = Points(images, bandwidth=0.0)
    prediction = counterfactual(
        law.score, EXACT.latents.reshape(-1, 1, 1, 2).float(), Groups(images, {"a": [0, 1, 2, 3]}), Grid(8.0, 0.3, 10),
        response=local, functional=lambda x: x.mean(),
    )  # fmt: skip
    assert prediction.values.shape == (1,)
    calibration = Calibration(torch.zeros(9), torch.rand(9))
    assert prediction.calibrated(calibration).low.shape == (1,)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"form": "second"}, ValueError, "form"),
        ({"share": 0.0}, ValueError, "share"),
        ({"groups": {"a": [0]}}, TypeError, "groups is a dict; give Groups"),
        ({"latents": torch.zeros(2, 3).double()}, ValueError, "latents has shape"),
        ({"response": "population"}, TypeError, "response is a str"),
        ({"functional": 3}, TypeError, "functional is a int"),
        ({"functional": lambda x: x[:1]}, ValueError, "functional returns"),
        ({"functional": lambda x: "ink"}, TypeError, "functional returns str"),
        ({"calibration": 0.9}, TypeError, "calibration is a float"),
        ({"seed": 1, "generator": torch.Generator()}, ValueError, "generator and seed both"),
        ({"seed": "one"}, TypeError, "seed='one'"),
    ],
)
def test_what_does_not_fit_is_refused(change, kind, words):
    """Assert an error that quotes the argument."""
    given = {"latents": EXACT.latents, "groups": Groups(EXACT.images, {"a": [0, 1]}), "response": EXACT.response}
    given |= change
    with pytest.raises(kind, match=words):
        counterfactual(EXACT.score, given.pop("latents"), given.pop("groups"), EXACT.grid, **given)


def test_retrained_samples_must_fit():
    """Assert that samples of other groups are refused."""
    members = EXACT.drawn(4, 3)
    prediction = asked(members)
    with pytest.raises(ValueError, match="retrained has shape"):
        Calibration.of(prediction, prediction.samples[:2])
