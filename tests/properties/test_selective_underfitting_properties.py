"""Theorems on empirical scores and their shells, on generated data."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.strategies import mixtures

from oracles import GaussianMixture
from studies.selective_underfitting import Empirical, RandomFeatures, Shells, shell_bounds, shell_probability
from studies.selective_underfitting.features import fit, quadrature

SEEDS = st.integers(0, 2**32 - 1)
SIGMAS = st.floats(-2.0, 0.5).map(np.exp)


def law_of(parameters) -> GaussianMixture:
    """The oracle's law."""
    return GaussianMixture(parameters.weights, parameters.means, parameters.covariances)


def memoriser(points: np.ndarray):
    """D⋆ of points, NumPy in and out."""
    network = Empirical(torch.as_tensor(points))
    return lambda x, sigma: network(torch.as_tensor(x), sigma).numpy()


@given(st.integers(1, 3000), st.floats(0.05, 0.999))
def test_bounds_and_probability_are_inverse(dimension, probability):
    """Assert that the bounds of a shell hold the probability they were made for, and lie about one."""
    low, high = shell_bounds(dimension, probability)
    assert abs(shell_probability(dimension, low, high) - probability) < 1e-9
    assert 0 <= low < high


@given(mixtures(dimensions=(2, 3, 5)), SIGMAS, st.sampled_from([0.5, 0.9, 0.99]), SEEDS)
def test_shells_contain_the_stated_probability(parameters, sigma, probability, seed):
    """Assert that noised data lie in their own shell with the stated probability, and in the union at least."""
    rng = np.random.default_rng(seed)
    points = torch.as_tensor(law_of(parameters).sample(5, seed))
    origin = torch.as_tensor(rng.integers(5, size=600))
    x = points[origin] + sigma * torch.as_tensor(rng.standard_normal((600, points.shape[1])))
    shells = Shells(points, probability)
    ratios = shells.ratios(x, float(sigma))
    result = ratios.gather(1, origin[:, None]).squeeze(1)
    inside = (result >= shells.low) & (result <= shells.high)
    assert stats.binomtest(int(inside.sum()), 600, probability).pvalue > 1e-7
    assert bool(shells.contains(x, float(sigma))[inside].all())


@given(mixtures(dimensions=(1, 2)), SIGMAS, SEEDS)
def test_the_empirical_denoiser_has_no_gradient_in_any_direction(parameters, sigma, seed):
    """Assert `E (D⋆(Y) − X)·v(Y) = 0` for smooth v, integrated to quadrature order; another denoiser fails."""
    law, rng = law_of(parameters), np.random.default_rng(seed)
    points = np.asarray(law.sample(4, seed)) + rng.standard_normal((4, law.dimension))
    states, weights, origin = quadrature(points, float(sigma), order=40)
    direction = RandomFeatures(law.dimension, 1, scale=float(sigma), seed=seed % 1000)(states)[:, -1:]
    direction = direction / np.sqrt(weights @ np.square(direction))
    gap = memoriser(points)(states, float(sigma)) - origin
    assert np.all(np.abs(weights @ (gap * direction)) < 5e-3 * float(sigma))
    other = gap + 0.1 * float(sigma) * direction  # the planted fault: any other denoiser has a gradient
    assert np.all(np.abs(weights @ (other * direction)) > 5e-2 * float(sigma))


@given(mixtures(dimensions=(2, 3)), st.floats(0.05, 1.5), SEEDS)
def test_inside_isolated_shells_the_denoiser_points_to_the_nearest_datum(parameters, sigma, seed):
    """Assert `E|D⋆(x_i + σε) − x_i| ≤ Σ_j |x_j − x_i| exp(−|x_i − x_j|²/8σ²)`: E γ_j is below the coefficient."""
    rng = np.random.default_rng(seed)
    points = np.asarray(law_of(parameters).sample(5, seed))
    x = points[0] + sigma * rng.standard_normal((4000, points.shape[1]))
    distance = np.linalg.norm(memoriser(points)(x, sigma) - points[0], axis=1)
    gaps = np.linalg.norm(points[1:] - points[0], axis=1)
    bound = float(gaps @ np.exp(-(gaps**2) / (8 * sigma**2)))
    assert distance.mean() <= bound + 5 * distance.std() / np.sqrt(len(x)) + 1e-9


def squared_error(law: GaussianMixture, size: int, sigma: float, seeds: range) -> float:
    """`E |s_N − s|²` at fixed states of the noised law, over data sets of N points."""
    x = np.asarray(law.noised(sigma).sample(16, 1))
    truth = np.asarray(law.noised(sigma).score(x))
    errors = []
    for seed in seeds:
        points = torch.as_tensor(np.asarray(law.sample(size, seed)))
        errors.append(np.square(Empirical(points).score(torch.as_tensor(x), sigma).numpy() - truth).sum(1))
    return float(np.median(np.mean(errors, axis=0)))


@given(mixtures(dimensions=(1, 2), kinds=("full", "diagonal", "isotropic")))
def test_the_empirical_score_tends_to_the_population_score_as_one_over_root_n(parameters):
    """Assert that at σ = 1 the mean squared error falls as 1/N: by 16 from N = 200 to N = 3200, within a factor 2.2."""
    law = law_of(parameters)
    few, many = (squared_error(law, n, 1.0, range(16)) for n in (200, 3200))
    assert 16 / 2.2 < few / many < 16 * 2.2


@given(mixtures(dimensions=(1, 2)), st.floats(0.1, 1.0), SEEDS)
def test_inside_error_cannot_rise_with_nested_features(parameters, sigma, seed):
    """Assert the theorem, for the loss with every single feature and for the inside error; sets not nested break it."""
    points = np.asarray(law_of(parameters).sample(5, seed))
    states, weights, origin = quadrature(points, sigma, order=10)

    def distance(size: int, scale: float, target: np.ndarray) -> float:
        f = fit(RandomFeatures(points.shape[1], size, scale=scale, seed=seed % 997), states, weights, origin)
        return float(weights @ np.square(f(states) - target).sum(1))

    losses = [distance(size, sigma, origin) for size in range(8)]  # short waves keep the least squares well posed
    assert all(b <= a + 1e-6 * losses[0] for a, b in pairwise(losses))
    errors = [distance(size, 1.0, memoriser(points)(states, sigma)) for size in (0, 3, 12)]
    slack = 1e-6 * (errors[0] + sigma**2)  # D⋆ − X is orthogonal only to quadrature order
    assert all(b <= a + slack for a, b in pairwise(errors))
