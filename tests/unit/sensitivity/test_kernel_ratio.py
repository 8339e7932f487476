"""Kernel ratios against the oracle's empirical laws, their bound, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.close import assert_close

from oracles import GaussianMixture
from sensitivity import KernelRatio, Points, Toward, resample, sample_sensitivity
from sensitivity.grid import Grid


def _points(d, count=12, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(0.5 * rng.standard_normal((count, d)))


def _states(data, sigma, seed=1):
    rng = np.random.default_rng(seed)
    return data[:5] + sigma * torch.from_numpy(rng.standard_normal((5, data.shape[1])))


@pytest.mark.parametrize("d", [2, 784, 3072])
@pytest.mark.parametrize("sigma", [0.05, 0.7, 20.0])
def test_value_and_gradient_are_those_of_two_empirical_laws(d, sigma):
    """Assert agreement with the oracle's noised empirical mixtures at τ² = σ² + b²."""
    data, b = _points(d), 0.3
    ratio, x = KernelRatio(data[:4], data, b), _states(data, sigma)
    tau = math.hypot(sigma, b)
    new, base = (GaussianMixture.empirical(part.numpy()).noised(tau) for part in (data[:4], data))
    value, gradient = ratio.log_density_and_score(x, sigma)
    assert_close(value, new.log_density(x.numpy()) - base.log_density(x.numpy()), rtol=1e-9, atol=1e-8)
    assert_close(gradient, new.score(x.numpy()) - base.score(x.numpy()), rtol=1e-8, atol=1e-9)
    assert_close(ratio.log_density(x, sigma), value, rtol=1e-12, atol=1e-12)


def test_the_product_is_the_derivative_of_the_gradient():
    """Assert agreement with central differences of the score."""
    data = _points(3)
    ratio, x = KernelRatio(data[:4], data, 0.3), _states(data, 0.5)
    t = torch.from_numpy(np.random.default_rng(2).standard_normal(x.shape))
    ahead, behind = (ratio.score(x + h * t, 0.5) for h in (1e-5, -1e-5))
    assert_close(ratio.score_product(x, 0.5, t), (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("d", [2, 784, 3072])
def test_a_part_of_the_base_is_bounded_by_its_share(d):
    """Assert log r ≤ −log(share) at states near, between and far from the points, weights included."""
    data = _points(d)
    weights = torch.linspace(1.0, 2.0, len(data), dtype=torch.float64)
    new, base = Points(data[:4], weights[:4]), Points(data, weights)
    bound = -math.log(float(weights[:4].sum() / weights.sum()))
    ratio = KernelRatio(new, base, 0.2)
    for sigma in (1e-3, 0.1, 1.0, 30.0):
        for x in (_states(data, sigma), 50 * _states(data, sigma)):
            assert float(ratio.log_density(x, sigma).max()) <= bound + 1e-7  # rounding of log densities of -1e7


def test_it_needs_no_density_and_serves_every_reading():
    """Assert that at d = 784 sensitivity and finite mass need no anchor, stay small and agree at a small mass."""
    data = _points(784, 20)
    score = Points(data, bandwidth=0.3).score
    change, grid = Toward(KernelRatio(data[:5], data, 0.3)), Grid(20.0, 0.1, 12)
    latents = 20.0 * torch.from_numpy(np.random.default_rng(3).standard_normal((3, 784)))
    result = sample_sensitivity(score, latents, change, grid)
    moved = resample(score, latents, change, 1e-5, grid)
    assert result.log_density is None
    assert bool(result.outcome.finished.all())
    assert_close((moved.samples - result.samples) / 1e-5, result.sensitivity, rtol=1e-2, atol=1e-3)


def test_bad_points_are_refused_with_the_remedy():
    """Assert that each error quotes its argument."""
    data = _points(2)
    with pytest.raises(TypeError, match="new is a list"):
        KernelRatio([1.0], data)
    with pytest.raises(ValueError, match="give one shape"):
        KernelRatio(_points(3), data)
    with pytest.raises(ValueError, match="dtype or device"):
        KernelRatio(data.float(), data)
    with pytest.raises(ValueError, match="bandwidth"):
        KernelRatio(data, data, -1.0)
