"""Bayes' rule, pointwise, for every representation of a mixture and any linear observation."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.close import assert_close
from support.strategies import Parameters, mixtures, sigmas

from oracles import GaussianMixture

REPRESENTATIONS: dict[str, Any] = {
    "full": lambda law: GaussianMixture(*law),
    "diagonal": lambda law: GaussianMixture.diagonal(
        law.weights, law.means, np.diagonal(law.covariances, axis1=1, axis2=2).copy()
    ),
    "isotropic": lambda law: GaussianMixture.isotropic(law.weights, law.means, law.covariances[:, 0, 0]),
    "low_rank": lambda law: GaussianMixture.low_rank(law.weights, law.means, law.covariances[:, :, :1], 0.05),
    "empirical": lambda law: GaussianMixture.empirical(law.means, law.weights),
}


@given(
    mixtures(),
    st.sampled_from(sorted(REPRESENTATIONS)),
    st.integers(1, 4),
    sigmas(1e-4, 1e3),
    st.integers(0, 2**32 - 1),
)
def test_prior_times_likelihood_is_evidence_times_posterior(
    law: Parameters, kind: str, rows: int, scale: float, seed: int
):
    """Assert log p(x) + log p(y | x) = log p(y) + log p(x | y) at draws of (x, y), dependent rows included."""
    rng, prior = np.random.default_rng(seed), REPRESENTATIONS[kind](law).noised(0.3)
    operator = rng.standard_normal((rows, law.dimension))
    operator[rows // 2] = operator[0]
    variances = scale**2 * rng.uniform(0.5, 2.0, rows)
    x = prior.sample(1, rng)
    y = (x @ operator.T)[0] + np.sqrt(variances) * rng.standard_normal(rows)
    miss = y - (x @ operator.T)[0]
    likelihood = -0.5 * np.sum(miss**2 / variances + np.log(2 * np.pi * variances))
    posterior = prior.conditioned(operator, y, variances)
    left = prior.log_density(x)[0] + likelihood
    right = float(prior.log_evidence(operator, y, variances)) + posterior.log_density(x)[0]
    assert_close(right, float(left), rtol=1e-8, atol=1e-7)
    assert_close(float(np.sum(posterior.weights)), 1.0, rtol=1e-12)
    assert np.linalg.eigvalsh(posterior.covariances).min() > 0


@given(mixtures(), st.sampled_from(sorted(REPRESENTATIONS)), st.integers(0, 2**32 - 1))
def test_the_mean_of_posteriors_is_the_prior(law: Parameters, kind: str, seed: int):
    """Assert E[X | E y] = E[X], and Cov[X] = Cov[X | y] + Cov E[X | y], for one component, where K has no y in it."""
    prior = REPRESENTATIONS[kind](Parameters(np.ones(1), law.means[:1], law.covariances[:1])).noised(0.3)
    operator = np.random.default_rng(seed).standard_normal((2, law.dimension))
    seen = operator @ prior.covariance @ operator.T + 0.5 * np.eye(2)
    at = [prior.conditioned(operator, operator @ prior.mean + root, 0.5) for root in np.linalg.cholesky(seen).T]
    assert_close(prior.conditioned(operator, operator @ prior.mean, 0.5).mean, prior.mean, rtol=1e-10, atol=1e-10)
    moves = np.stack([posterior.mean - prior.mean for posterior in at])
    assert_close(at[0].covariance + moves.T @ moves, prior.covariance, rtol=1e-9, atol=1e-9)
