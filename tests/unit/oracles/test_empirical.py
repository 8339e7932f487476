"""Empirical laws of many points: accuracy in float32, near-duplicates, memory, separation, differentiation."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch
from support.close import assert_close

from oracles import GaussianMixture, _empirical_sums
from oracles.empirical import EmpiricalLaw

DIMENSION, SIZE = 784, 1500


def images(seed: int = 0) -> np.ndarray:
    """Points like images, scale about .3, every second one within 1e-4 to 1e-2 of its neighbour."""
    rng = np.random.default_rng(seed)
    points = rng.random((SIZE, DIMENSION)) * (rng.random(DIMENSION) < 0.4)
    size = 10.0 ** rng.uniform(-4, -2, (SIZE // 2, 1)) / math.sqrt(DIMENSION)
    points[1::2] = points[::2] + size * rng.standard_normal((SIZE // 2, DIMENSION))
    return points.astype(np.float32)


POINTS = images()
SCALE = float(POINTS.std())


def exact_log_density(points: np.ndarray, x: np.ndarray, sigma: float) -> np.ndarray:
    """log p_σ in float64 from differences, point by point."""
    points, x = points.astype(np.float64), x.astype(np.float64)
    terms = np.stack([-np.sum((points - state) ** 2, axis=1) / (2 * sigma**2) for state in x])
    top = terms.max(axis=1)
    constant = math.log(len(points)) + points.shape[1] / 2 * math.log(2 * math.pi * sigma**2)
    return top + np.log(np.exp(terms - top[:, None]).sum(axis=1)) - constant


def states(sigma: float, n: int = 8) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (POINTS[:n] + sigma * rng.standard_normal((n, DIMENSION))).astype(np.float32)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("relative", [0.002, 0.01, 0.05, 0.3, 1.0, 10.0])
def test_float32_log_density_is_within_a_hundredth_of_a_nat(relative, library):
    """Assert 1e-2 nat of float64 for σ ≥ .002 of the data scale, near-duplicates included."""
    sigma = float(np.float32(relative * SCALE))
    convert = np.asarray if library == "numpy" else torch.tensor
    x = states(sigma)
    value = EmpiricalLaw(convert(POINTS)).noised(sigma).log_density(convert(x))
    assert np.max(np.abs(np.asarray(value) - exact_log_density(POINTS, x, sigma))) <= 1e-2


@pytest.mark.parametrize("relative", [0.002, 0.05, 1.0])
def test_derivatives_in_float32_match_the_mixture_in_float64(relative):
    """Assert score, product and divergence against the dense mixture of the same points in float64."""
    sigma, some = float(np.float32(relative * SCALE)), 200
    x, rng = states(sigma, 4), np.random.default_rng(2)
    v = rng.standard_normal((4, DIMENSION)).astype(np.float32)
    law = EmpiricalLaw(POINTS[:some]).noised(sigma)
    truth = GaussianMixture.empirical(POINTS[:some].astype(float)).noised(sigma)
    fine = [a.astype(float) for a in (x, v)]
    pairs = [
        (law.score(x), truth.score(fine[0])),
        (law.score_jacobian_product(x, v), truth.score_jacobian_product(*fine)),
        (law.score_divergence(x), truth.score_divergence(fine[0])),
    ]
    for (value, expected), bound in zip(pairs, (1e-4, 1e-3, 1e-4), strict=True):
        assert np.max(np.abs(value - expected)) <= bound * np.max(np.abs(expected))


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_third_order_in_float32_matches_the_mixture_in_float64(offset):
    """Assert 1e-3 of the largest entry where several points matter, in the product form and (offset) in differences."""
    rng, sigma = np.random.default_rng(7), 0.5
    points = (offset + 0.5 * rng.standard_normal((60, 10))).astype(np.float32)
    x, u, v = rng.standard_normal((3, 4, 10)).astype(np.float32)
    x = (offset + 0.5 * x).astype(np.float32)
    truth = GaussianMixture.empirical(points.astype(float)).noised(sigma)
    expected = truth.third_order(*(a.astype(float) for a in (x, u, v)))
    assert truth.responsibilities(x.astype(float)).max() < 0.9
    value = EmpiricalLaw(points).noised(sigma).third_order(x, u, v)
    assert np.max(np.abs(value - expected)) <= 1e-3 * np.max(np.abs(expected))


def test_all_points_near_duplicates_are_evaluated_directly():
    """Assert accuracy where every point is within reach of every state."""
    rng = np.random.default_rng(3)
    points = (0.5 + 1e-5 * rng.standard_normal((300, 50))).astype(np.float32)
    x = points[:5]
    value = EmpiricalLaw(points).noised(1e-3).log_density(x)
    assert np.max(np.abs(value - exact_log_density(points, x, float(np.float32(1e-3))))) <= 1e-3


def test_data_far_from_the_origin_lose_nothing():
    """Assert 1e-2 nat for data shifted by a hundred times their scale."""
    rng = np.random.default_rng(4)
    points = (100 + rng.standard_normal((500, 20))).astype(np.float32)
    x, sigma = points[:6] + np.float32(0.01), float(np.float32(0.02))
    value = EmpiricalLaw(points).noised(sigma).log_density(x)
    assert np.max(np.abs(value - exact_log_density(points, x, sigma))) <= 1e-2


def test_results_do_not_depend_on_the_batch_or_the_blocks(monkeypatch):
    """Assert equal scores for states one by one, in chunks of three, and with small blocks of points."""
    law, x = EmpiricalLaw(POINTS.astype(float)).noised(0.5), states(0.5, 7).astype(float)
    whole = law.score(x)
    assert_close(np.stack([law.score(state) for state in x]), whole, rtol=1e-11)
    monkeypatch.setattr("oracles._empirical_sums.CHUNK", 3)
    monkeypatch.setattr("oracles._empirical_sums.BLOCK", 200)
    assert_close(law.score(x), whole, rtol=1e-11)
    fine = EmpiricalLaw(POINTS.astype(float)).noised(1e-9)
    direct = fine.score(x)
    monkeypatch.setattr("oracles._empirical_sums.GATHER", 1)
    assert_close(fine.score(x), direct, rtol=1e-12)


@pytest.mark.parametrize("sigma", [0.01, 1.0])
def test_memory_beyond_the_data_does_not_grow_with_their_number(sigma):
    """Assert a peak below 12 MB for 32 states, where states × points × dimension would take 150 MB."""
    law, x = EmpiricalLaw(POINTS), states(sigma, 32)
    law.noised(sigma).score(x)
    tracemalloc.start()
    law.noised(sigma).score(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6


def test_separation_is_that_of_the_closest_pair():
    """Assert the smallest distance against all differences, for a duplicate-free cloud far from the origin."""
    rng = np.random.default_rng(5)
    points = (30 + rng.standard_normal((200, 6))).astype(np.float32)
    points[17] = points[3] + np.float32(1e-3)
    law = EmpiricalLaw(points)
    offsets = points.astype(float)[:, None] - points.astype(float)[None]
    distances = np.sqrt(np.sum(offsets**2, axis=2))[np.triu_indices(200, 1)]
    assert_close(law.nearest_distance, float(distances.min()), rtol=1e-12)
    assert_close(law.separation(0.1), float(np.exp(-(distances.min() ** 2) / 0.08)), rtol=1e-6)


def test_blocks_of_pairs_cover_every_pair(monkeypatch):
    """Assert the closest pair when it lies in two different blocks."""
    monkeypatch.setattr("oracles.empirical.ROWS", 10)
    points = np.random.default_rng(6).standard_normal((45, 3))
    points[41] = points[2] + 1e-4
    assert_close(EmpiricalLaw(points).nearest_distance, float(np.linalg.norm(points[41] - points[2])), rtol=1e-12)


def test_torch_differentiates_through_both_ways():
    """Assert the gradient of log p is the score, in the product form and in differences."""
    law = EmpiricalLaw(torch.tensor(POINTS[:100].astype(float)))
    for sigma in (1.0, 1e-9):
        x = torch.tensor(states(sigma, 3).astype(float), requires_grad=True)
        noised = law.noised(sigma)
        (gradient,) = torch.autograd.grad(noised.log_density(x).sum(), x)
        assert_close(gradient, noised.score(x).detach().numpy(), rtol=1e-6, atol=1e-6 / sigma)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EmpiricalLaw(np.zeros(3)), "points has shape"),
        (lambda: EmpiricalLaw(np.zeros((0, 3))), "at least one point"),
        (lambda: EmpiricalLaw([[np.nan]]), "points contains values that are not finite"),
        (lambda: EmpiricalLaw([[0.0], [1.0]], [1.0]), "weights has shape"),
        (lambda: EmpiricalLaw([[0.0], [1.0]], [1.0, 1.0]), "weights sum to 2"),
        (lambda: EmpiricalLaw([[0.0]]).noised(0.0), "sigma = 0"),
        (lambda: EmpiricalLaw([[0.0]]).noised(1.0).score([0.0, 1.0]), "last axis"),
        (lambda: EmpiricalLaw([[0.0]]).noised(1.0).score([np.inf]), "x contains values that are not finite"),
    ],
)
def test_bad_input_is_refused(call, message):
    """Assert ValueError with a sentence that quotes the argument."""
    with pytest.raises(ValueError, match=message):
        call()


def test_one_point_has_no_pair():
    """Assert an infinite nearest distance and no overlap for one point."""
    law = EmpiricalLaw([[0.0, 1.0]])
    assert law.nearest_distance == math.inf
    assert law.separation(1.0) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shares_that_would_underflow_stay_normal_numbers(dtype):
    """Assert that terms far below the largest, which would be subnormal, are normal and nothing beside one."""
    shares = _empirical_sums._shares(torch.tensor([0.0, -80.0, -100.0, -740.0, -torch.inf], dtype=dtype))
    assert bool((shares >= torch.finfo(dtype).tiny).all())
    assert float(shares[1:].sum()) < 1e-29
    assert float(shares[0]) == 1.0
