"""Intervals from a few retrained groups: their coverage is what the rule says, and wrong rules are caught."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.close import assert_close

from sensitivity import Calibration

DRAWS = 1500


def errors(seed, groups, latents=1, stretched=False, spread=1.0):
    """Errors of exchangeable groups: skewed, of unequal sizes, dependent within a group; with stretches if asked."""
    rng = np.random.default_rng(seed)
    common = rng.standard_exponential((groups, 1)) ** 2
    values = common * (0.3 + spread * rng.standard_normal((groups, latents)))
    stretch = 1 + 4 * rng.random(groups) if stretched else np.ones(groups)
    return torch.from_numpy(values * stretch[:, None]), torch.from_numpy(stretch)


def covered(rule, groups, level, latents=1, **drawn):
    """The share of new groups that `rule(calibration errors, stretches, new stretch) -> half width` covers."""
    hits = 0.0
    for draw in range(DRAWS):
        value, stretch = errors([draw, groups], groups + 1, latents, **drawn)
        half = rule(value[:-1], stretch[:-1], float(stretch[-1]), level)
        hits += float((value[-1].abs() <= half).double().mean())
    return hits / DRAWS


def right(found, stretch, new, level, pooled=False):
    """The package's rule."""
    calibration = Calibration(torch.zeros_like(found), found, level, pooled, stretch)
    low, high = calibration.interval(torch.zeros_like(found[:1]), [new])
    assert_close(low, -high, rtol=0)
    return high[0]


def check_coverage(rule, **setting):
    """Fail unless coverage lies in [level, level + 1/(n + 1)], four standard errors allowed."""
    share, slack = covered(rule, **setting), 4 * math.sqrt(0.25 / DRAWS)
    level, groups = setting["level"], setting["groups"]
    assert level - slack / 2 <= share <= level + 1 / (groups + 1) + slack / 2


@pytest.mark.parametrize(("groups", "level"), [(9, 0.9), (12, 0.9), (19, 0.8), (4, 0.5)])
def test_coverage_of_one_latent_is_what_was_asked_for(groups, level):
    """Assert the two-sided statement of split conformal prediction."""
    check_coverage(right, groups=groups, level=level)


def test_coverage_holds_with_stretches_and_with_many_dependent_latents():
    """Assert it where intervals are stretched, and pooled over latents of one group."""
    check_coverage(right, groups=12, level=0.9, stretched=True)
    for spread in (1.0, 0.02):
        check_coverage(lambda *a: right(*a, pooled=True), groups=12, level=0.9, latents=6, spread=spread)


def without_the_new_group(found, stretch, new, level):
    """Planted: the empirical quantile of n, as if the new group's rank were not among n + 1."""
    scores = (found.abs() / stretch[:, None]).sort(0).values
    return new * scores[math.ceil(len(found) * level) - 1]


def unstretched(found, stretch, new, level):
    """Planted: scores divided by their stretches, and the new interval not multiplied by its own."""
    return right(found, stretch, 1.0, level)


def pooled_as_if_independent(found, stretch, new, level):
    """Planted: every latent counts as a calibration group of its own."""
    flat = found.reshape(-1, 1)
    return right(flat, torch.ones(len(flat)).double(), new, level).expand(found.shape[1])


@pytest.mark.parametrize(
    ("rule", "setting"),
    [
        (without_the_new_group, {"groups": 12, "level": 0.9}),
        (unstretched, {"groups": 12, "level": 0.9, "stretched": True}),
        (pooled_as_if_independent, {"groups": 12, "level": 0.9, "latents": 6, "spread": 0.02}),
    ],
)
def test_wrong_rules_are_caught(rule, setting):
    """Assert that each planted rule fails the check that the package's passes."""
    with pytest.raises(AssertionError):
        check_coverage(rule, **setting)


def test_too_few_groups_have_no_interval():
    """Assert that the length is infinite below level/(1 − level) groups and finite from there."""
    for groups, finite in ((8, False), (9, True)):
        calibration = Calibration(torch.zeros(groups, 2), torch.rand(groups, 2))
        assert calibration.needed == 9
        assert bool(torch.isfinite(calibration.margin).all()) is finite
        pooled = Calibration(torch.zeros(groups, 2), torch.rand(groups, 2), pooled=True)
        assert bool(torch.isfinite(pooled.margin).all()) is finite


def test_one_latent_pooled_is_one_latent_alone():
    """Assert that the two rules agree where there is nothing to pool, and that rescaling rescales."""
    values = torch.rand(30, 1, dtype=torch.float64)
    alone, pooled = Calibration(0 * values, values), Calibration(0 * values, values, pooled=True)
    assert_close(alone.margin[0], pooled.margin, rtol=0)
    assert_close(Calibration(0 * values, 3 * values).margin, 3 * alone.margin, rtol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (([1.0], torch.zeros(1)), TypeError, "predicted is a list"),
        ((torch.zeros(3, 2), torch.zeros(3, 1)), ValueError, "retrained has shape"),
        ((torch.zeros(0, 2), torch.zeros(0, 2)), ValueError, "one outcome for each calibration group"),
        ((torch.zeros(3, 2), torch.full((3, 2), torch.nan)), ValueError, "retrained is not finite"),
        ((torch.zeros(3, 2), torch.zeros(3, 2), 1.0), ValueError, "level=1.0 is no probability"),
        ((torch.zeros(3), torch.zeros(3), 0.5, True), ValueError, "pooled=True shares"),
        ((torch.zeros(3, 2), torch.zeros(3, 2), 0.5, False, torch.zeros(3)), ValueError, "a number ≥ 1"),
    ],
)
def test_what_is_no_calibration_is_refused(arguments, kind, words):
    """Assert an error that quotes the argument."""
    with pytest.raises(kind, match=words):
        Calibration(*arguments)


def test_a_calibration_of_something_else_is_refused():
    """Assert that values of another functional, or of other latents unless pooled, are refused."""
    calibration = Calibration(torch.zeros(9, 2, 3), torch.ones(9, 2, 3))
    with pytest.raises(ValueError, match="on these latents"):
        calibration.interval(torch.zeros(1, 4, 3))
    pooled = Calibration(torch.zeros(9, 2, 3), torch.ones(9, 2, 3), pooled=True)
    assert pooled.interval(torch.zeros(1, 4, 3))[1].shape == (1, 4, 3)
    with pytest.raises(ValueError, match="same functional"):
        pooled.interval(torch.zeros(1, 4, 2))
