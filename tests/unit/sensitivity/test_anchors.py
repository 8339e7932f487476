"""Gaussian anchors: values against torch.distributions, moments from data and from a model, the stated error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.problems import PROBLEMS, problem
from torch import Tensor
from torch.distributions import MultivariateNormal

from oracles import GaussianMixture
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.noise import Noise
from studies.bridge import exact_anchor, exact_score

RNG = np.random.default_rng(0)
MEAN = torch.from_numpy(RNG.standard_normal(4))
FACTOR = torch.from_numpy(RNG.standard_normal((4, 4)))
COVARIANCE = FACTOR @ FACTOR.T
STATES = torch.from_numpy(3 * RNG.standard_normal((6, 4)))


def normal(covariance: Tensor, sigma: float) -> MultivariateNormal:
    return MultivariateNormal(MEAN, covariance + sigma**2 * torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("sigma", [0.1, 1.0, 80.0])
@pytest.mark.parametrize("kind", ["matrix", "variances", "number", "singular"])
def test_log_density_and_score_match_torch_distributions(kind: str, sigma: float) -> None:
    """Assert values, scores and divergence for every form of covariance, singular ones included."""
    variances = torch.tensor([0.5, 2.0, 1.0, 0.1], dtype=torch.float64)
    given, dense = {
        "matrix": (COVARIANCE, COVARIANCE),
        "variances": (variances, torch.diag(variances)),
        "number": (0.7, 0.7 * torch.eye(4, dtype=torch.float64)),
        "singular": (FACTOR[:, :2] @ FACTOR[:, :2].T,) * 2,
    }[kind]
    anchor, law = GaussianAnchor(MEAN, given), normal(dense, sigma)
    x = STATES.clone().requires_grad_()
    value = law.log_prob(x)
    (score,) = torch.autograd.grad(value.sum(), x)
    assert_close(anchor.log_density(STATES, sigma), value.detach(), rtol=1e-11)
    assert_close(anchor.score(STATES, sigma), score, rtol=1e-9, atol=1e-12)
    level = torch.tensor(sigma, dtype=torch.float64)
    assert_close(anchor.divergence(level), -law.precision_matrix.trace(), rtol=1e-10)
    assert_close(anchor.score_product(STATES, sigma, STATES), -STATES @ law.precision_matrix, rtol=1e-9, atol=1e-12)


def test_levels_per_sample() -> None:
    """Assert that σ of shape (batch,) gives every sample its own level."""
    anchor, levels = GaussianAnchor(MEAN, COVARIANCE), torch.linspace(0.5, 3.0, 6, dtype=torch.float64)
    for method in (anchor.log_density, anchor.score):
        singles = torch.cat([method(STATES[i : i + 1], float(levels[i])) for i in range(6)])
        assert_close(method(STATES, levels), singles, rtol=1e-12)


@pytest.mark.parametrize("rank", [0, 2, 4, 9])
def test_low_rank_keeps_leading_directions_and_the_total_variance(rank: int) -> None:
    """Assert that the anchor is the leading eigenpairs plus the mean of the other eigenvalues."""
    values, vectors = np.linalg.eigh(COVARIANCE.numpy())
    kept = min(rank, 4)
    spectrum = np.r_[np.full(4 - kept, values[: 4 - kept].mean() if kept < 4 else 0.0), values[4 - kept :]]
    dense = torch.from_numpy(vectors @ np.diag(spectrum) @ vectors.T)
    anchor = GaussianAnchor(MEAN, COVARIANCE, rank=rank)
    assert anchor.eigenvalues.shape == (kept,)
    assert_close(anchor.log_density(STATES, 0.5), normal(dense, 0.5).log_prob(STATES), rtol=1e-10)


@pytest.mark.parametrize("rank", [None, 3])
def test_moments_from_data(rank: int | None) -> None:
    """Assert that from_data is mean and covariance (divided by N) of images, also with fewer points than entries."""
    for count in (5, 200):
        data = torch.from_numpy(RNG.standard_normal((count, 2, 4)) * np.arange(1, 5) + 1)
        rows = data.flatten(1)
        expected = GaussianAnchor(data.mean(0), torch.cov(rows.T, correction=0), rank=rank)
        anchor, x = GaussianAnchor.from_data(data, rank=rank), data[:3] + 0.5
        assert anchor.shape == (2, 4)
        assert_close(anchor.log_density(x, 0.7), expected.log_density(x, 0.7), rtol=1e-9)


def test_samples_have_the_anchors_law() -> None:
    """Assert mean and covariance of 40 000 samples within 5 standard errors."""
    anchor, sigma = GaussianAnchor(MEAN, COVARIANCE, rank=2), torch.tensor(0.8, dtype=torch.float64)
    x = anchor.sample(Noise.draw(40_000, seed=1), sigma)
    spectrum = anchor.eigenvectors @ torch.diag(anchor.eigenvalues - anchor.tail) @ anchor.eigenvectors.T
    dense = spectrum + (anchor.tail + sigma**2) * torch.eye(4, dtype=torch.float64)
    scale = dense.diagonal().sqrt()
    assert float(((x.mean(0) - MEAN) / scale).abs().max()) < 5 / math.sqrt(40_000)
    assert float(((torch.cov(x.T) - dense) / torch.outer(scale, scale)).abs().max()) < 5 * math.sqrt(2 / 40_000)


@pytest.mark.parametrize("rank", [None, 3])
def test_moments_from_the_model_itself(rank: int | None) -> None:
    """Assert that from_score recovers mean and leading variances of the law whose exact score it is given."""
    law = GaussianMixture(*problem(12).base)
    start = torch.zeros(12, dtype=torch.float64)
    anchor = GaussianAnchor.from_score(exact_score(law), start, 80.0, rank=rank)
    values = torch.from_numpy(np.linalg.eigvalsh(law.covariance)[::-1].copy())
    count = 3 if rank else 12
    assert_close(anchor.mean, torch.from_numpy(law.mean), rtol=0.0, atol=0.05)
    assert_close(anchor.eigenvalues, values[:count], rtol=0.02, atol=1e-3)
    assert_close(anchor.tail, values[count:].mean() if rank else values.new_zeros(()), rtol=0.15)


def test_anchor_error_from_score_bounds_the_true_error() -> None:
    """Assert that the stated bound holds on latents, within a factor 4, for matched, low-rank and naive anchors."""
    law = GaussianMixture(*PROBLEMS["d10_k3_s0"].base)
    score, truth = exact_score(law), exact_anchor(law)
    mean, covariance = torch.from_numpy(law.mean), torch.from_numpy(law.covariance)
    for sigma in (10.0, 80.0):
        level = torch.tensor(sigma, dtype=torch.float64)
        anchors = (
            GaussianAnchor(mean, covariance),
            GaussianAnchor(mean, covariance, rank=1),
            GaussianAnchor(torch.zeros_like(mean), 0.0),
        )
        for anchor in anchors:
            x = anchor.sample(Noise.draw(4000, seed=2), level)
            gap = truth.log_density(x, level) - anchor.log_density(x, level)
            stated = anchor.error(score, sigma, samples=2000)
            assert float(gap.std()) < 1.1 * stated
            assert stated < 4 * float(gap.std())


def test_matched_moments_shrink_the_anchors_error() -> None:
    """Assert the order of anchors at σ_max = 80: full covariance < isotropic < N(0, σ²I)."""
    law = GaussianMixture(*PROBLEMS["d10_k3_s0"].base)
    score = exact_score(law)
    mean, covariance = torch.from_numpy(law.mean), torch.from_numpy(law.covariance)
    errors = [
        anchor.error(score, 80.0)
        for anchor in (
            GaussianAnchor(mean, covariance),
            GaussianAnchor(mean, covariance, rank=0),
            GaussianAnchor(torch.zeros_like(mean), 0.0),
        )
    ]
    assert 10 * errors[0] < errors[1] < errors[2] / 10


def test_bad_anchors_are_refused() -> None:
    """Assert that each bad input raises a sentence that names it."""
    eye = torch.eye(4, dtype=torch.float64)
    with pytest.raises(ValueError, match="negative eigenvalue"):
        GaussianAnchor(MEAN, -eye)
    with pytest.raises(ValueError, match="negative eigenvalue"):
        GaussianAnchor(MEAN, -1.0)
    with pytest.raises(ValueError, match="not symmetric"):
        GaussianAnchor(MEAN, eye + torch.triu(torch.ones_like(eye), 1))
    with pytest.raises(ValueError, match=r"covariance has shape \(3, 3\)"):
        GaussianAnchor(MEAN, eye[:3, :3])
    with pytest.raises(ValueError, match="non-finite"):
        GaussianAnchor(MEAN, eye / 0)
    with pytest.raises(ValueError, match="rank=-1"):
        GaussianAnchor(MEAN, eye, rank=-1)
    with pytest.raises(ValueError, match=r"data has shape \(1, 4\)"):
        GaussianAnchor.from_data(MEAN[None])
    with pytest.raises(ValueError, match="non-finite entries"):
        GaussianAnchor.from_data(torch.full((3, 4), math.nan))
    with pytest.raises(ValueError, match="each sample must have shape"):
        GaussianAnchor(MEAN, eye).log_density(STATES[:, :3], 1.0)
    with pytest.raises(TypeError, match=r"dtype torch.float32"):
        GaussianAnchor(MEAN, eye).log_density(STATES.float(), 1.0)
