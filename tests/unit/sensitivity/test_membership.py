"""Copies and members: thresholds keep their false alarms, and statistics tell what they must on laws that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.exact_groups import ExactGroups

from oracles import GaussianMixture
from oracles.features import FeatureDenoiser
from sensitivity import Grid, Points, influence, sample
from sensitivity.membership import Detector, NearestRatio, concentration, denoising_loss
from studies.statistics import roc

RNG = np.random.default_rng(4)
MEANS = np.array([[-1.5, 0.2, 0.0, 0.4], [1.0, 0.8, -0.5, 0.0], [0.6, -1.4, 0.3, -0.6]])
LAW = GaussianMixture.diagonal([0.5, 0.3, 0.2], MEANS, [[0.2, 0.05, 0.1, 0.3]] * 3)
DATA = torch.from_numpy(np.asarray(LAW.sample(80, 1)))
HELD_OUT = torch.from_numpy(np.asarray(LAW.sample(199, 2)))
LATENTS = 12.0 * torch.from_numpy(RNG.standard_normal((40, 4)))


def check_false_alarms(flag, level, size):
    """Fail unless the share of false alarms over draws is in (level − 1/(n + 1), level], four errors allowed."""
    rng, draws, result = np.random.default_rng(0), 3000, 0
    for _ in range(draws):
        values = torch.from_numpy(rng.gamma(0.5, size=size + 1))
        result += int(flag(values[:-1], values[-1:], level))
    share, slack = result / draws, 4 * math.sqrt(level * (1 - level) / draws)
    assert level - 1 / (size + 1) - slack <= share <= level + slack


@pytest.mark.parametrize(("level", "size"), [(0.05, 19), (0.1, 25), (0.3, 9)])
def test_false_alarms_are_as_many_as_asked_for(level, size):
    """Assert it for skewed values, and that p-values and the threshold flag the same, not the threshold itself."""

    def flag(reference, value, level):
        detector = Detector(reference, level)
        assert bool(detector.flagged(value)) == (float(value) < detector.threshold)
        assert not bool(detector.flagged(reference.new_tensor([detector.threshold])))
        return detector.flagged(value)

    check_false_alarms(flag, level, size)


def test_a_planted_quantile_of_the_reference_alone_is_caught():
    """Assert that the rule without the new point among n + 1 fails the check above."""
    with pytest.raises(AssertionError):
        check_false_alarms(lambda r, v, level: v <= r.sort().values[math.ceil(len(r) * level) - 1], 0.1, 11)


def test_a_short_reference_flags_nothing():
    """Assert that ten points cannot tell one in a hundred."""
    detector = Detector(torch.rand(10), 0.01)
    assert detector.threshold == -math.inf
    assert not bool(detector.flagged(torch.zeros(3)).any())


def test_the_ratio_is_that_of_sorted_distances():
    """Assert it by NumPy, of states and of the data against themselves."""
    ratio, x = NearestRatio(DATA, 7), HELD_OUT[:5]
    squares = ((x.numpy()[:, None] - DATA.numpy()) ** 2).sum(-1)
    nearest = np.sort(squares, 1)[:, :7]
    assert_close(ratio(x), torch.from_numpy(nearest[:, 0] / nearest.mean(1)), rtol=1e-10)
    assert torch.equal(ratio.nearest(x), torch.from_numpy(squares.argmin(1)))
    result = NearestRatio(torch.cat([DATA[:10], DATA[11:]]), 7)(DATA[10:11])
    assert_close(ratio.of_data()[10:11], result, rtol=1e-10)


def test_samples_of_the_empirical_law_are_copies_and_those_of_the_population_are_not():
    """Assert that all of the memorising optimum's samples are flagged, and of the population's no more than allowed."""
    ratio = NearestRatio(DATA, 20)
    copies = sample(Points(DATA).score, LATENTS, Grid(12.0, 0.002, 60)).samples
    fresh = torch.from_numpy(np.asarray(LAW.sample(2000, 3)))
    for reference in (ratio(HELD_OUT), ratio.of_data()):
        detector = Detector(reference, 0.05)
        assert bool(detector.flagged(ratio(copies)).all())
        assert float(detector.flagged(ratio(fresh)).double().mean()) < 0.09
    assert bool((ratio.nearest(copies[:4]) == NearestRatio(DATA, 2).nearest(copies[:4])).all())


def test_the_denoising_loss_is_that_of_the_laws_denoiser():
    """Assert it for the empirical law, whose denoiser the oracle has."""
    result = denoising_loss(Points(DATA).score, HELD_OUT[:3], [0.4], draws=2, seed=3)
    noise = torch.randn(2, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    law, total = GaussianMixture.empirical(DATA.numpy()), np.zeros(3)
    for each in noise.numpy():
        state = HELD_OUT[:3].numpy() + 0.4 * each
        denoised = state + 0.16 * np.asarray(law.noised(0.4).score(state))
        total += ((denoised - HELD_OUT[:3].numpy()) ** 2).mean(1) / 0.16 / 2
    assert_close(result, torch.from_numpy(total), rtol=1e-9)
    assert_close(denoising_loss(Points(DATA).score, HELD_OUT[:3], [0.4], draws=2, seed=3, chunk_size=1), result, rtol=0)


def test_members_of_the_empirical_law_are_told_and_those_of_the_population_are_not():
    """Assert areas under the curve: near one for the memorising optimum, one half for the population."""

    def area(score):
        inside, outside = (denoising_loss(score, x, [0.1, 0.3]).numpy() for x in (DATA, HELD_OUT))
        return roc(inside, outside).area

    assert area(Points(DATA).score).estimate > 0.99
    population = area(lambda x, s: torch.from_numpy(np.asarray(LAW.noised(float(s)).score(x.numpy()))))
    assert population.low < 0.5 < population.high


def test_an_exactly_trained_network_knows_its_members_the_more_the_smaller_its_ridge():
    """Assert that membership is told better as the ridge falls, and not at all where it is large."""
    areas = []
    rng = np.random.default_rng(1)
    frequencies = np.vstack([np.zeros((1, 4)), rng.standard_normal((119, 4)) * np.geomspace(0.3, 6.0, 119)[:, None]])
    phases = np.concatenate([np.zeros(1), rng.uniform(0, 2 * np.pi, 119)])
    for ridge in (1e2, 1e-2, 1e-5):
        fitted = FeatureDenoiser(frequencies, phases, ridge).fit(DATA.numpy())

        def score(x, s, fitted=fitted):
            return torch.from_numpy(np.asarray(fitted.score(x.numpy(), float(s))))

        inside, outside = (denoising_loss(score, x, [0.15], draws=4).numpy() for x in (DATA, HELD_OUT))
        areas.append(roc(inside, outside).area.estimate)
    assert areas[0] < 0.6
    assert areas[0] < areas[1] < areas[2]
    assert areas[2] > 0.8


def test_influence_on_copies_is_concentrated():
    """Assert that the influence on copies is more concentrated than that on smooth samples, on another network too."""
    sharp, wide = Points(DATA, bandwidth=0.05), Points(DATA, bandwidth=0.8)
    shares = []
    for law in (sharp, wide):
        influences = influence(law.score, LATENTS[:8], lambda x: x[:, 0], law, Grid(12.0, 0.05, 30), anchor=law)
        shares.append(concentration(influences.values).median())
    assert shares[0] < 1.5 * shares[1] < 0
    exact = ExactGroups(latents_count=2)
    values = influence(
        exact.score, exact.latents, lambda x: x[:, 0], exact.images, exact.grid, response=exact.response
    ).values
    assert concentration(values).shape == (2,)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: Detector(torch.zeros(0)), ValueError, "one value for each point"),
        (lambda: Detector([1.0]), TypeError, "reference is a list"),
        (lambda: Detector(torch.tensor([torch.nan])), ValueError, "reference is not finite"),
        (lambda: Detector(torch.zeros(3), 0.0), ValueError, "level=0.0"),
        (lambda: Detector(torch.zeros(3)).pvalues([0.0]), TypeError, "values is a list"),
        (lambda: NearestRatio(DATA, 80), ValueError, "neighbours=80 of 80 points"),
        (lambda: NearestRatio(DATA, 1), ValueError, "neighbours=1"),
        (lambda: NearestRatio(DATA)(DATA[:, :2]), ValueError, "x has shape"),
        (lambda: NearestRatio(DATA)(DATA.float()), TypeError, "x has dtype"),
        (lambda: denoising_loss(3, DATA, [0.1]), TypeError, "score is a int"),
        (lambda: denoising_loss(Points(DATA).score, DATA, []), TypeError, "no list of noise levels"),
        (lambda: denoising_loss(Points(DATA).score, DATA, [0.0]), ValueError, "levels = 0.0"),
        (lambda: denoising_loss(Points(DATA).score, DATA, [0.1], draws=0), ValueError, "draws=0"),
        (lambda: concentration(torch.zeros(3, 1)), ValueError, "two points at least"),
    ],
)
def test_what_does_not_fit_is_refused(call, kind, words):
    """Assert an error that quotes the argument."""
    with pytest.raises(kind, match=words):
        call()
