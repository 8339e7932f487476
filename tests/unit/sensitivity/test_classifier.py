"""Density ratios from classifiers: exact logits give exact sources, and a trained network comes near them."""

from __future__ import annotations

import math

import pytest
import torch
from support.close import assert_close
from support.problems import PROBLEMS
from torch import Tensor

from oracles.mixture import GaussianMixture
from oracles.perturbation import AdditivePerturbation
from sensitivity.measures.classifier import RatioClassifier
from sensitivity.measures.classifier_training import RatioNetwork, train_ratio_classifier
from sensitivity.measures.mixture import Mixture
from sensitivity.perturbations.contamination import Toward

PROBLEM = PROBLEMS["d2_k3_s0"]
BASE, NEW = (Mixture(*(torch.from_numpy(v.copy()) for v in law)) for law in (PROBLEM.base, PROBLEM.toward))
ORACLE = AdditivePerturbation(GaussianMixture(*PROBLEM.base), GaussianMixture(*PROBLEM.toward))
SIGMA = 0.6
X = ORACLE.base.noised(SIGMA).sample(12, 5)


def logit(prior: float, base: str):
    """The optimal classifier's logit: old against new, or the rest against the new where the base is all data."""

    def call(x: Tensor, sigma: Tensor) -> Tensor:
        ratio = NEW.log_density(x, sigma) - BASE.log_density(x, sigma)
        odds = ratio + math.log(prior) - math.log1p(-prior)
        if base == "old":
            return odds
        posterior = (math.log(prior) + ratio).exp()  # P(new | x) = π r, where all data are the base
        return posterior.log() - (-posterior).log1p()

    return call


@pytest.mark.parametrize(("prior", "base"), [(0.5, "old"), (0.1, "old"), (1e-4, "all")])
def test_optimal_classifier_gives_the_oracles_sources(prior: float, base: str) -> None:
    """Assert that ṡ, s̈ and `∇ṡ t` from an optimal classifier are the oracle's, with no density given."""
    toward = Toward(RatioClassifier(logit(prior, base), prior, base))
    assert not toward.needs_density
    law, x = ORACLE.base.noised(SIGMA), torch.from_numpy(X)
    score, tangent = torch.from_numpy(law.score(X)), torch.cos(x)
    product = torch.from_numpy(law.score_jacobian_product(X, tangent.numpy()))
    first, second = (torch.from_numpy(ORACLE.score_derivative(X, SIGMA, order=k)) for k in (1, 2))
    assert_close(toward.source(x, SIGMA, score), first, rtol=1e-8, atol=1e-9)
    assert_close(toward.second_source(x, SIGMA, score), second, rtol=1e-7, atol=1e-8)
    wanted = torch.from_numpy(ORACLE.score_derivative_product(X, SIGMA, tangent.numpy()))
    assert_close(toward.source_product(x, SIGMA, score, product, None, tangent), wanted, rtol=1e-7, atol=1e-8)
    assert_close(toward.log_ratio(x, SIGMA, None), torch.from_numpy(ORACLE.log_ratio(X, SIGMA)), rtol=1e-8, atol=1e-9)


def test_levels_for_each_state() -> None:
    """Assert that a level for each state gives each its own ratio."""
    ratio, x = RatioClassifier(logit(0.5, "old"), base="old"), torch.from_numpy(X[:3])
    levels = torch.tensor([0.2, 0.6, 3.0], dtype=torch.float64)
    together = ratio.log_density_and_score(x, levels)
    for i, sigma in enumerate(levels.tolist()):
        for got, wanted in zip(together, ratio.log_density_and_score(x[i : i + 1], sigma), strict=True):
            assert_close(got[i : i + 1], wanted, rtol=1e-10, atol=1e-12)


def test_planted_prior_fault_is_seen() -> None:
    """Assert that a prior that is not the one trained with makes the comparison fail."""
    wrong = Toward(RatioClassifier(logit(0.1, "old"), 0.5, "old"))
    x = torch.from_numpy(X)
    score = torch.from_numpy(ORACLE.base.noised(SIGMA).score(X))
    with pytest.raises(AssertionError, match="differ"):
        assert_close(wrong.source(x, SIGMA, score), torch.from_numpy(ORACLE.score_derivative(X, SIGMA)), rtol=1e-2)


def test_trained_classifier_comes_near_the_optimum() -> None:
    """Assert that a short training reaches the optimal loss within 0.03 nat and orders the ratios."""
    torch.manual_seed(0)
    data = [torch.from_numpy(law.sample(4000, seed)) for law, seed in ((ORACLE.base, 1), (ORACLE.toward, 2))]
    network = RatioNetwork((2,), scale=1.5, width=64, depth=2).double()
    trained = train_ratio_classifier(network, *data, sigma_min=0.1, sigma_max=10.0, steps=600, batch=256)
    assert trained.losses.shape == (600,)
    losses = [float(trained.losses[-100:].mean()), optimal_loss(data)]
    assert losses[0] == pytest.approx(losses[1], abs=0.03)
    truth = torch.from_numpy(ORACLE.log_ratio(X, SIGMA))
    correlation = torch.corrcoef(torch.stack([truth, trained.classifier.log_density(torch.from_numpy(X), SIGMA)]))
    assert float(correlation[0, 1]) > 0.95


def optimal_loss(data: list[Tensor]) -> float:
    """The loss of the optimal logit over the same levels."""
    generator = torch.Generator().manual_seed(9)
    total = []
    for sign, points in ((1.0, data[0]), (-1.0, data[1])):
        levels = (math.log(0.1) + torch.rand(len(points), generator=generator).double() * math.log(100)).exp()
        noise = torch.randn(points.shape, dtype=torch.float64, generator=generator)
        total.append(torch.nn.functional.softplus(sign * logit(0.5, "old")(points + levels[:, None] * noise, levels)))
    return float(torch.cat(total).mean())


def test_training_is_reproducible() -> None:
    """Assert that the same seed and start give the same losses."""
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        network = RatioNetwork((2,), width=8, depth=1)
        data = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
        runs.append(
            train_ratio_classifier(network, data, data + 1, sigma_min=0.1, sigma_max=1.0, steps=5, seed=3).losses
        )
    assert_close(runs[0], runs[1], rtol=0, atol=0)
