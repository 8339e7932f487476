"""Nodes of the density formula: exact marginals, whole frames, placements that integrate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from support.close import assert_close
from torch import Tensor

from sensitivity.densities.formula_nodes import TIMES, Placement, coordinates, frames, uniforms, vectors
from sensitivity.noise import Noise


def placement(logarithmic: bool = False) -> Placement:
    fine, coarse, top = (torch.tensor([v, 2 * v], dtype=torch.float64) for v in (0.1, 1.5, 40.0))
    return Placement(fine, coarse, top, logarithmic)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_times_span_their_interval_and_rates_are_derivatives(logarithmic: bool) -> None:
    """Assert the ends, and that dτ/du is the derivative of τ(u)."""
    place = placement(logarithmic)
    u = torch.linspace(0, 1, 11, dtype=torch.float64)[:, None].expand(11, 2).clone().requires_grad_()
    tau, rate = place.times(u)
    (slope,) = torch.autograd.grad(tau.sum(), u)
    assert_close(rate.detach(), slope, rtol=1e-12)
    assert_close(tau[-1].detach(), place.top, rtol=1e-12)
    assert_close(tau[0].detach(), place.fine / 1000 if logarithmic else torch.zeros(2).double(), rtol=1e-12, atol=1e-14)


def test_placement_is_the_stated_density() -> None:
    """Assert dτ/du ∝ (τ + a)(τ + b)."""
    place = placement()
    tau, rate = place.times(torch.linspace(0.01, 0.99, 9, dtype=torch.float64)[:, None].expand(9, 2))
    shape = rate / ((tau + place.fine) * (tau + place.coarse))
    assert_close(shape, shape[:1].expand(9, 2), rtol=1e-12)


@pytest.mark.parametrize("kind", TIMES)
def test_points_are_uniform_in_every_coordinate(kind: str) -> None:
    """Assert each node's marginal over replicates is uniform, so that every quadrature is unbiased."""
    noise = Noise.draw(40, seed=0)
    for dimension in (1, 2, 7):
        width = coordinates(dimension)
        points = torch.stack([uniforms(noise, kind, 5, width, replicate) for replicate in range(50)])
        for coordinate in range(width):
            column = points[..., coordinate]
            pooled = column.flatten() if kind != "stratified" or coordinate else (column * 5).remainder(1.0).flatten()
            assert stats.kstest(pooled.numpy(), "uniform").pvalue > 1e-4


@pytest.mark.parametrize(("kind", "order"), [("lattice", 0.9), ("stratified", 1.2)])
def test_quadrature_converges_faster_than_independent_points(kind: str, order: float) -> None:
    """Assert the order of the root-mean-square error for a smooth bump in time: above 1/2 as stated by `order`."""
    noise = Noise.draw(400, seed=1)
    exact = math.sqrt(math.pi / 12) / 2 * (math.erf(0.6 * math.sqrt(12)) + math.erf(0.4 * math.sqrt(12)))
    errors = []
    for count in (8, 32):
        u = uniforms(noise, kind, count, 2, 0)[..., 0]
        errors.append(float((torch.exp(-12 * (u - 0.4).square()).mean(0) - exact).square().mean().sqrt()))
    assert math.log(errors[0] / errors[1]) / math.log(4) > order


@pytest.mark.parametrize("dimension", [1, 2, 3, 5, 50])
def test_frame_vectors_are_normal_together(dimension: int) -> None:
    """Assert the law over a frame, whose vectors have one stratum of χ_d each: radii χ_d, coordinates normal."""
    noise = Noise.draw(3000, seed=2)
    points = uniforms(noise, "lattice", 1, coordinates(dimension), 0)
    size = min(dimension, 4)
    z = frames(noise, points, dimension, size, 0, True)[:, 0]
    assert z.shape == (vectors(size, True), 3000, dimension)
    picked = z.numpy()[np.random.default_rng(0).integers(len(z), size=3000), np.arange(3000)]
    assert stats.kstest(np.linalg.norm(picked, axis=1), stats.chi(dimension).cdf).pvalue > 1e-4
    assert stats.kstest(picked[:, 0], "norm").pvalue > 1e-4
    assert stats.kstest(picked[:, -1], "norm").pvalue > 1e-4


def test_independent_vectors_are_normal() -> None:
    """Assert the law of the plain draws."""
    noise = Noise.draw(2000, seed=3)
    z = frames(noise, uniforms(noise, "independent", 3, 2, 0), 4, 2, 0, False)
    assert z.shape == (2, 3, 2000, 4)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("dimension", [2, 3, 8])
def test_whole_frame_averages_a_quadratic_form_to_its_trace(dimension: int) -> None:
    """Assert that Σ θᵀAθ over a frame's directions is tr A, and that directions are orthonormal."""
    noise = Noise.draw(6, seed=4)
    z = frames(noise, uniforms(noise, "lattice", 3, coordinates(dimension), 0), dimension, dimension, 0, True)
    directions = z[:dimension] / z[:dimension].norm(dim=-1, keepdim=True)
    matrix = torch.from_numpy(np.random.default_rng(0).standard_normal((dimension, dimension)))
    forms = torch.einsum("knbi,ij,knbj->nb", directions, matrix, directions)
    assert_close(forms, matrix.trace().expand(forms.shape), rtol=1e-10, atol=1e-12)


def test_frames_do_not_depend_on_batch_or_node_chunks() -> None:
    """Assert that rows and node chunks of a frame are the rows and chunks of the whole."""
    noise = Noise.draw(5, seed=5)
    for dimension in (1, 2, 6):
        for orthogonal in (True, False):
            points = uniforms(noise, "lattice", 7, coordinates(dimension), 3)
            size = min(dimension, 3)
            whole = frames(noise, points, dimension, size, 3, orthogonal)
            part = frames(noise[1:3], points[2:6, 1:3], dimension, size, 3, orthogonal, first=2)
            assert_close(part, whole[:, 2:6, 1:3], rtol=1e-12, atol=1e-13)


def chi_error(u: Tensor, dimension: int) -> float:
    from sensitivity.densities.formula_nodes import _chi_quantile

    return float(np.abs(_chi_quantile(u, dimension).numpy() / stats.chi(dimension).ppf(u.numpy()) - 1).max())


def test_chi_quantile_matches_scipy_far_into_both_tails() -> None:
    """Assert 1e-10 relative from probability 1e-12 to 1 − 1e-9 and dimensions 1 to 3072."""
    u = torch.tensor([1e-12, 1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-6, 1 - 1e-9], dtype=torch.float64)
    for dimension in (1, 2, 3, 4, 10, 50, 784, 3072):
        assert chi_error(u, dimension) < (1e-10 if dimension < 100 else 1e-6)
