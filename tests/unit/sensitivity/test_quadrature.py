"""Rules for ∫ q d(log σ) and the bounds of their errors."""

from __future__ import annotations

import numpy as np
import pytest

from sensitivity.sampler.quadrature import Reference, references

LEVELS = {"karras": (0.5, 0.4, 0.31, 0.24), "wide": (0.21, 0.144, 0.079, 0.01), "first": (99.0, 32.6, 19.2, 13.4, 10.2)}
SCALES = 10 ** np.linspace(-7, 8, 301)


def _missed(levels, interval: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each reference, error and bound over Gaussian laws of all variances."""
    start, end, t = levels[interval], levels[interval + 1], np.square(levels)[:, None]
    rates, exact = -t / (t + SCALES), 0.5 * np.log((start**2 + SCALES) / (end**2 + SCALES))
    return [(one.rates @ rates - exact, one.bound @ rates) for one in references(levels, start, end)]


@pytest.mark.parametrize("name", LEVELS)
def test_bounds_hold_for_gaussian_laws_of_every_scale_and_are_attained(name):
    """Assert it for every interval, and that no bound is more than a few times the largest error it is for."""
    levels = LEVELS[name]
    for interval in range(len(levels) - 1):
        for error, bound in _missed(levels, interval):
            assert np.all(np.abs(error) <= np.abs(bound) * (1 + 1e-9) + 1e-12)
            assert np.max(np.abs(error) / (np.abs(bound) + 1e-9)) > 0.5


@pytest.mark.parametrize("name", LEVELS)
def test_divided_differences_have_one_sign_over_all_scales(name):
    """Assert it: a positive mixture of scales cannot make the bound vanish."""
    levels = LEVELS[name]
    for _, bound in _missed(levels, 1):
        large = bound[np.abs(bound) > 1e-9 * np.abs(bound).max()]
        assert len(set(np.sign(large))) == 1


def test_a_rule_integrates_constants_and_its_bound_ignores_them():
    """Assert ∫ d(log σ) and 0."""
    levels = LEVELS["wide"]
    for rule in references(levels, levels[2], levels[3]):
        assert isinstance(rule, Reference)
        np.testing.assert_allclose(rule.rates.sum(), np.log(levels[3] / levels[2]), rtol=1e-9)
        np.testing.assert_allclose(rule.bound.sum(), 0, atol=1e-9 * np.abs(rule.bound).max())
