"""Divergence estimates: exact against the oracle, unbiased probes with the published variances, groups, chunks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.problems import PROBLEMS
from torch import Tensor

from oracles import GaussianMixture
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.traces import EXACT_UP_TO, Trace
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.noise import Noise
from studies.bridge import exact_score

SIGMA = torch.tensor(0.7, dtype=torch.float64)
LAW = GaussianMixture(*PROBLEMS["d10_k3_s0"].base)
PRODUCTS = Products(exact_score(LAW), "forward")
RANDOM = ("hutchinson", "hutchinson-gaussian", "hutch++")


def states(count: int) -> Tensor:
    return torch.from_numpy(LAW.sample(count, 1) + 0.7 * np.random.default_rng(2).standard_normal((count, 10)))


def truth(x: Tensor) -> Tensor:
    return torch.from_numpy(LAW.noised(float(SIGMA)).score_divergence(x.numpy()))


@pytest.mark.parametrize("chunk_size", [None, 1, 3, 10, 64])
@pytest.mark.parametrize("method", ["forward", "double-vjp", "reverse"])
def test_exact_trace_matches_oracle_in_any_chunk(method: str, chunk_size: int | None) -> None:
    """Assert that the exact trace is the oracle's divergence, and the score comes with it."""
    x = states(4)
    trace = Trace.resolve("exact", None, 10, chunk_size)
    value, groups = trace.divergence(Products(exact_score(LAW), method), x, SIGMA)
    assert_close(value, exact_score(LAW)(x, SIGMA), rtol=1e-12)
    assert_close(groups, truth(x)[None], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", RANDOM)
def test_probes_are_unbiased(name: str) -> None:
    """Assert that 20 000 independent estimates at one state average to the truth within 4 standard errors."""
    x = states(1).expand(2000, 10)
    trace = Trace.resolve(name, 12, 10)
    _, groups = trace.divergence(PRODUCTS, x, SIGMA, Noise.draw(2000, seed=0), step=3)
    means = groups.mean(0)
    error = float(means.std()) / math.sqrt(2000)
    assert abs(float(means.mean() - truth(x[:1])[0])) < 4 * error


@pytest.mark.parametrize("name", ["hutchinson", "hutchinson-gaussian"])
def test_probe_variance_is_the_published_one(name: str) -> None:
    """Assert 2 Σ_{i≠j} S_ij² for signs and 2 |S|_F² for normal probes."""
    x = states(1).expand(4000, 10)
    _, groups = Trace.resolve(name, 5, 10).divergence(PRODUCTS, x, SIGMA, Noise.draw(4000, seed=1))
    dense = torch.from_numpy(LAW.noised(0.7).score_jacobian(x[:1].numpy()))[0]
    expected = 2 * dense.square().sum()
    if name == "hutchinson":
        expected = expected - 2 * dense.diagonal().square().sum()
    assert abs(float(groups.flatten().var() / expected) - 1) < 0.08


def test_signs_are_exact_for_a_diagonal_jacobian() -> None:
    """Assert that Rademacher probes have no error when coordinates do not couple."""
    x = states(3)
    field = Products(lambda y, sigma: torch.sin(y) / sigma, "forward")
    _, groups = Trace.resolve("hutchinson", 2, 10).divergence(field, x, SIGMA, Noise.draw(3, seed=2))
    assert_close(groups, (torch.cos(x) / SIGMA).sum(1).expand(2, 3), rtol=1e-12)


def test_hutch_is_exact_when_its_sketch_spans_the_posterior_covariance() -> None:
    """Assert that Hutch++ has no error for a denoiser's Jacobian of rank at most a third of its products."""
    x = states(3)
    factor = torch.from_numpy(np.random.default_rng(3).standard_normal((10, 2)))

    def score(y: Tensor, sigma: Tensor) -> Tensor:
        return ((y @ factor + 0.1 * (y @ factor) ** 2) @ factor.T - y) / sigma**2

    field = Products(score, "forward")
    exact = Trace.resolve("exact", None, 10).divergence(field, x, SIGMA)[1]
    for method in ("forward", "double-vjp"):
        products = Products(field.score, method)
        _, groups = Trace.resolve("hutch++", 9, 10).divergence(products, x, SIGMA, Noise.draw(3, seed=3))
        assert_close(groups, exact.expand(3, 3), rtol=1e-10)


def test_hutch_beats_hutchinson_at_equal_products_for_a_decaying_spectrum() -> None:
    """Assert the purpose of Hutch++ for a posterior covariance with eigenvalues 1, 1/4, 1/9, …: half the error."""
    rotation = torch.linalg.qr(torch.from_numpy(np.random.default_rng(4).standard_normal((40, 40)))).Q
    matrix = rotation @ torch.diag(1 / torch.arange(1, 41, dtype=torch.float64) ** 2) @ rotation.T
    x = torch.zeros(400, 40, dtype=torch.float64)
    field = Products(lambda y, sigma: (y @ matrix - y) / sigma**2, "forward")
    deviations = {}
    for name in ("hutchinson", "hutch++"):
        _, groups = Trace.resolve(name, 15, 40).divergence(field, x, SIGMA, Noise.draw(400, seed=5))
        deviations[name] = float(groups.mean(0).std())
    assert deviations["hutch++"] < 0.5 * deviations["hutchinson"]


@pytest.mark.parametrize("name", RANDOM)
def test_estimates_do_not_depend_on_the_batch(name: str) -> None:
    """Assert that a sample's estimate is the same alone, in a batch and in another order."""
    x, noise = states(5), Noise.draw(5, seed=6)
    trace = Trace.resolve(name, 6, 10)
    _, whole = trace.divergence(PRODUCTS, x, SIGMA, noise, step=2, stage=1)
    for rows in (slice(0, 1), slice(2, 5), torch.tensor([4, 0])):
        _, part = trace.divergence(PRODUCTS, x[rows], SIGMA, noise[rows], step=2, stage=1)
        assert_close(part, whole[:, rows], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", RANDOM)
def test_probes_are_fresh_at_every_step_and_stage(name: str) -> None:
    """Assert that estimates at other steps and stages are different draws."""
    x, noise = states(4), Noise.draw(4, seed=7)
    trace = Trace.resolve(name, 6, 10)
    draws = [trace.divergence(PRODUCTS, x, SIGMA, noise, step=k, stage=j)[1] for k, j in ((0, 0), (1, 0), (0, 1))]
    assert not torch.isclose(draws[0], draws[1]).any()
    assert not torch.isclose(draws[0], draws[2]).any()


def test_control_is_unbiased_and_exact_for_its_own_law() -> None:
    """Assert that probes of div (s − s^q) have the mean of div s, and no noise where s is s^q."""
    control = GaussianAnchor(torch.from_numpy(LAW.mean), torch.from_numpy(LAW.covariance))
    result = Trace.resolve("hutchinson-gaussian", 3, 10, control=control)
    x = states(2000)
    _, groups = result.divergence(Products(control.score, "forward"), x, SIGMA, Noise.draw(2000, seed=10))
    assert_close(groups, control.divergence(SIGMA).expand(3, 2000), rtol=1e-9)
    gaps = result.divergence(PRODUCTS, x, SIGMA, Noise.draw(2000, seed=11))[1].mean(0) - truth(x)
    assert abs(float(gaps.mean())) < 4 * float(gaps.std()) / math.sqrt(2000)
    with pytest.raises(ValueError, match="pass sigma"):
        result.combine(x[None], x[None])
    with pytest.raises(ValueError, match="Hutchinson probes only"):
        Trace.resolve("hutch++", 6, 10, control=control)


def test_directions_and_combine_agree_with_divergence() -> None:
    """Assert that the two halves used inside a sampler step are the general entry."""
    x, noise = states(3), Noise.draw(3, seed=8)
    for name in ("exact", "hutchinson", "hutchinson-gaussian"):
        trace = Trace.resolve(name, 4, 10)
        directions = trace.directions(x, noise, step=1)
        _, products = PRODUCTS.jvp(x, SIGMA, directions)
        _, whole = trace.divergence(PRODUCTS, x, SIGMA, noise, step=1)
        assert whole.shape == (trace.groups, 3)
        assert_close(trace.combine(directions, products), whole, rtol=1e-12)


def test_image_shapes_pass_through() -> None:
    """Assert that samples of shape (2, 3) give the trace over all six entries."""
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 2, 3)
    field = Products(lambda y, sigma: y**2 + y.sum((1, 2), keepdim=True), "forward")
    expected = 2 * x.sum((1, 2)) + 6
    for name in ("exact", "hutchinson", "hutch++"):
        _, groups = Trace.resolve(name, 18, 6).divergence(field, x, SIGMA, Noise.draw(4, seed=9))
        assert groups.dim() == 2
        if name != "hutchinson":
            assert_close(groups, expected.expand(groups.shape), rtol=1e-9)


def test_auto_is_exact_in_small_dimension() -> None:
    """Assert where "auto" switches."""
    assert Trace.resolve("auto", None, EXACT_UP_TO).exact
    assert Trace.resolve("auto", None, EXACT_UP_TO + 1) == Trace("hutchinson", 4)


def test_bad_traces_are_refused() -> None:
    """Assert that each misuse raises its sentence."""
    with pytest.raises(ValueError, match="trace='approximate' is unknown"):
        Trace.resolve("approximate", None, 2)
    with pytest.raises(ValueError, match=r"probes=0 is too few for trace='hutchinson'"):
        Trace.resolve("hutchinson", 0, 2)
    with pytest.raises(ValueError, match=r"probes=2 is too few for trace='hutch\+\+'"):
        Trace.resolve("hutch++", 2, 2)
    with pytest.raises(ValueError, match="has no noise"):
        Trace.resolve("hutchinson", 2, 10).divergence(PRODUCTS, states(1), SIGMA)
