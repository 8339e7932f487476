"""What is exactly true of scores at low and at high noise, on generated point sets and thin manifolds."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles import GaussianMixture
from oracles.geometries import thin_manifold
from sensitivity import Points, as_score

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def disjoint_sets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two sets of up to six points and a state, d = 1, 2, 5, on scales from .1 to 10."""
    rng, d = np.random.default_rng(draw(SEEDS)), draw(st.sampled_from([1, 2, 5]))
    sizes, scale = (draw(st.integers(1, 6)), draw(st.integers(1, 6))), draw(st.floats(0.1, 10.0))
    a, b = (scale * rng.standard_normal((n, d)) for n in sizes)
    return a, b + 0.3 * scale, 1.5 * scale * rng.standard_normal(d)


def difference(a: np.ndarray, b: np.ndarray, x: np.ndarray, sigma: float) -> np.ndarray:
    """`σ²(s_A − s_B)` of the two empirical laws."""
    return sigma**2 * (score(a, x, sigma) - score(b, x, sigma))


def score(points: np.ndarray, x: np.ndarray, sigma: float) -> np.ndarray:
    """The empirical score at one state."""
    return np.asarray(GaussianMixture.empirical(points).noised(sigma).score(x))


empirical_score = score  # faults are planted in `score`


def weights(points: np.ndarray, x: np.ndarray, sigma: float) -> np.ndarray:
    """The posterior weights, written out."""
    logs = -np.square(points - x).sum(1) / (2 * sigma**2)
    w = np.exp(logs - logs.max())
    return w / w.sum()


def diameter(points: np.ndarray) -> float:
    """The largest distance between two points."""
    return float(np.linalg.norm(points[:, None] - points[None], axis=-1).max())


def nearest(points: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The point nearest to x."""
    return points[np.square(points - x).sum(1).argmin()]


def low_noise_bound(sets: tuple[np.ndarray, ...], x: np.ndarray, sigma: float) -> float:
    """`Σ (1 − max weight)·diameter`."""
    return sum((1 - weights(p, x, sigma).max()) * diameter(p) for p in sets)


@given(disjoint_sets(), st.floats(-3.0, 1.0).map(lambda u: 10**u))
def test_at_low_noise_scores_of_disjoint_sets_differ_by_their_nearest_neighbours(sets, ratio):
    """Assert `|σ²(s_A − s_B) − (nn_A − nn_B)| ≤ Σ (1 − max weight)·diameter` at every σ."""
    a, b, x = sets
    sigma = ratio * max(diameter(np.concatenate([a, b])), 0.1)
    gap = np.linalg.norm(difference(a, b, x, sigma) - (nearest(a, x) - nearest(b, x)))
    assert gap <= low_noise_bound((a, b), x, sigma) + 1e-9 * (1 + np.abs(x).max() + np.abs(a).max())


@given(disjoint_sets())
def test_the_low_noise_bound_falls_with_the_noise(sets):
    """Assert that the bound never rises as σ falls."""
    a, b, x = sets
    scale = max(diameter(np.concatenate([a, b])), 0.1)
    bounds = [low_noise_bound((a, b), x, scale * 10**u) for u in np.linspace(1, -3, 9)]
    assert all(low <= high + 1e-12 for high, low in pairwise(bounds))


def test_a_tenth_of_the_low_noise_bound_is_broken():
    """Assert that the bound is not idle: two points a side, at σ = 1, break a tenth of it."""
    a, b, x = np.array([[0.0], [1.0]]), np.array([[5.0], [5.0]]), np.array([0.4])
    gap = np.linalg.norm(difference(a, b, x, 1.0) - (nearest(a, x) - nearest(b, x)))
    assert gap > 0.1 * low_noise_bound((a, b), x, 1.0)


@given(disjoint_sets(), st.floats(0.0, 4.0).map(lambda u: 10**u))
def test_at_high_noise_scores_of_disjoint_sets_differ_by_their_means(sets, ratio):
    """Assert `|σ²(s_A − s_B) − (mean_A − mean_B)| ≤ Σ diameter·range(|x − y|²)/8σ²`: the error is O(1/σ²).

    With t = 1/σ² and q = |x − y|²/2 the posterior mean moves at the rate `−Cov_t(y, q)`, and a covariance is at most a
    quarter of the product of the ranges.
    """
    a, b, x = sets
    sigma = ratio * max(diameter(np.concatenate([a, b])), 0.1)
    bound = sum(diameter(p) * np.ptp(np.square(x - p).sum(1)) / (8 * sigma**2) for p in (a, b))
    gap = np.linalg.norm(difference(a, b, x, sigma) - (a.mean(0) - b.mean(0)))
    assert gap <= bound + 1e-9 * (1 + np.abs(x).max() + np.abs(a).max())


@given(disjoint_sets())
def test_the_order_of_the_high_noise_error_is_exactly_one_over_sigma_squared(sets):
    """Assert that σ² times the error tends to `−Cov_A(y, q) + Cov_B(y, q)` under equal weights."""
    a, b, x = sets

    def rate(points: np.ndarray) -> np.ndarray:
        q = np.square(x - points).sum(1) / 2
        return -((points - points.mean(0)) * (q - q.mean())[:, None]).mean(0)

    scale = max(diameter(np.concatenate([a, b, x[None]])), 0.1)
    sigma = 300 * scale
    error = difference(a, b, x, sigma) - (a.mean(0) - b.mean(0))
    np.testing.assert_allclose(sigma**2 * error, rate(a) - rate(b), atol=1e-3 * scale**3)


@given(disjoint_sets(), st.floats(-3.0, 1.0).map(lambda u: 10**u))
def test_a_fixed_error_of_the_denoiser_is_a_score_error_of_order_one_over_sigma_squared(sets, sigma):
    """Assert that adding e to a denoiser adds e/σ² to the engine's score."""
    a, _, x = sets
    points, error = Points(torch.as_tensor(a)), torch.full((1, a.shape[1]), 0.01, dtype=torch.float64)
    state, level = torch.as_tensor(x)[None], torch.tensor(sigma, dtype=torch.float64)

    def off(y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return y + s.reshape(-1, 1) ** 2 * points.score(y, s) + error

    gap = as_score(off, parametrization="denoiser")(state, level) - points.score(state, level)
    torch.testing.assert_close(gap, error / sigma**2, rtol=1e-6, atol=1e-9 / sigma**2)


@st.composite
def manifolds(draw: st.DrawFn) -> tuple[GaussianMixture, np.ndarray, float, np.ndarray, float]:
    """A thin manifold law, its plane (d, 2), its normal variance, a state off it, and σ down to 1e-6."""
    d, v = draw(st.sampled_from([5, 100])), draw(st.sampled_from([0.0, 1e-4, 0.01]))
    seed, sigma = draw(st.integers(0, 999)), draw(st.floats(-6.0, 0.0).map(lambda u: 10**u))
    law = thin_manifold(dimension=d, size=3, normal_variance=v, seed=seed)
    means = np.asarray(law.means)
    plane = np.linalg.svd(means.T, full_matrices=False)[0][:, :2]
    rng = np.random.default_rng(seed)
    return law, plane, v, means[0] + 0.5 * rng.standard_normal(d), sigma


@given(manifolds())
def test_across_a_thin_manifold_the_score_is_a_spring_and_along_it_that_of_the_plane(case):
    """Assert `s_⊥ = −x_⊥/(v + σ²)` and `s_∥ = score of the law in the plane`, finite in 100-d down to σ = 1e-6."""
    law, plane, v, x, sigma = case
    s = np.asarray(law.noised(sigma).score(x))
    along, across = plane @ (plane.T @ s), s - plane @ (plane.T @ s)
    x_across = x - plane @ (plane.T @ x)
    inside = GaussianMixture.isotropic(law.weights, np.asarray(law.means) @ plane, 0.5)
    expected = plane @ np.asarray(inside.noised(sigma).score(plane.T @ x))
    assert np.isfinite(s).all()
    np.testing.assert_allclose(across, -x_across / (v + sigma**2), rtol=1e-7, atol=1e-8 / (v + sigma**2))
    np.testing.assert_allclose(along, expected, atol=1e-6 * (1 + 1e-3 * np.abs(across).max()))


@given(manifolds())
def test_the_denoiser_keeps_the_normal_share_that_the_law_predicts(case):
    """Assert `D_⊥ = x_⊥ v/(v + σ²)`: as σ falls below √v the denoiser stops projecting."""
    law, plane, v, x, sigma = case
    d = np.asarray(law.denoiser(x, sigma))
    across, x_across = (z - plane @ (plane.T @ z) for z in (d, x))
    np.testing.assert_allclose(across, x_across * v / (v + sigma**2), atol=1e-8)


def halved_sharpness(points: np.ndarray, x: np.ndarray, sigma: float) -> np.ndarray:
    """A planted fault: the weights of σ√2, so that the exponent's factor ½ is lost."""
    w = weights(points, x, sigma * 2**0.5)
    return (w @ points - x) / sigma**2


def without_the_last(points: np.ndarray, x: np.ndarray, sigma: float) -> np.ndarray:
    """A planted fault: one point is forgotten."""
    return empirical_score(points[:-1] if len(points) > 1 else points, x, sigma)


def shrunk(points: np.ndarray, x: np.ndarray, sigma: float) -> np.ndarray:
    """A planted fault: a denoiser one part in a hundred too short."""
    return (0.99 * (x + sigma**2 * empirical_score(points, x, sigma)) - x) / sigma**2


def of_another_power(points: np.ndarray, x: np.ndarray, sigma: float) -> np.ndarray:
    """A planted fault: σ for σ²."""
    return sigma * empirical_score(points, x, sigma)


CASE = (np.array([[0.0, 0.1], [1.0, -0.5], [0.3, 2.0]]), np.array([[2.0, 1.0], [0.5, 0.4]]), np.array([0.4, 0.2]))
LOW, HIGH, ORDER = (
    test_at_low_noise_scores_of_disjoint_sets_differ_by_their_nearest_neighbours,
    test_at_high_noise_scores_of_disjoint_sets_differ_by_their_means,
    test_the_order_of_the_high_noise_error_is_exactly_one_over_sigma_squared,
)


@pytest.mark.parametrize(
    ("fault", "seen_by"),
    [
        (halved_sharpness, (LOW, ORDER)),
        (without_the_last, (LOW, HIGH, ORDER)),
        (shrunk, (LOW, HIGH, ORDER)),
        (of_another_power, (LOW, HIGH, ORDER)),
    ],
)
def test_a_planted_fault_in_the_score_breaks_the_properties(fault, seen_by, monkeypatch):
    """Assert that on one plain case every named property fails for the faulty score, and holds for the right one."""
    for check in seen_by:
        assert not fails(check)
        with monkeypatch.context() as patched:
            patched.setitem(globals(), "score", fault)
            assert fails(check)


def fails(check: Any) -> bool:
    """Whether a property fails on `CASE` at some of three noise levels, where it takes one."""
    inner = check.hypothesis.inner_test
    for level in ((0.01,), (0.1,), (1.0,), (1000.0,)) if check is not ORDER else ((),):
        try:
            inner(CASE, *level)
        except AssertionError:
            return True
    return False
