"""The engine's measures against the oracle's laws on random mixtures, singular and repeated covariances included."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.close import assert_close
from support.strategies import mixture_pairs, mixtures, points, sigmas

from oracles.mixture import GaussianMixture
from oracles.perturbation import AdditivePerturbation
from sensitivity.measures.mixture import Mixture
from sensitivity.measures.points import Points
from sensitivity.perturbations.contamination import Toward


def engine(law) -> Mixture:
    """The engine's mixture of the same parameters."""
    return Mixture(*(torch.from_numpy(np.array(v)) for v in law))


@given(st.data())
def test_mixtures_agree_with_the_oracle(data: st.DataObject) -> None:
    """Assert that density, score and product agree to 1e-9 at any level and far out."""
    law, sigma = data.draw(mixtures()), data.draw(sigmas())
    x = data.draw(points(law, sigma, spread=3.0))
    oracle, state = GaussianMixture(*law).noised(sigma), torch.from_numpy(x)
    tangent = np.cos(np.arange(x.size, dtype=float)).reshape(x.shape)
    log_density, score = engine(law).log_density_and_score(state, sigma)
    product = engine(law).score_product(state, sigma, torch.from_numpy(tangent))
    assert_close(log_density, torch.from_numpy(oracle.log_density(x)), rtol=1e-9, atol=1e-9)
    assert_close(score, torch.from_numpy(oracle.score(x)), rtol=1e-9, atol=1e-9 / sigma)
    truth = torch.from_numpy(oracle.score_jacobian_product(x, tangent))
    assert_close(product, truth, rtol=1e-9, atol=1e-8 * max(1.0, sigma**-2))


@given(st.data())
def test_sources_agree_with_the_oracle(data: st.DataObject) -> None:
    """Assert that ṡ toward a random mixture, and its second derivative, are the oracle's."""
    base, toward = data.draw(mixture_pairs())
    sigma = data.draw(sigmas(0.1, 30.0))
    x = data.draw(points(base, sigma))
    oracle = AdditivePerturbation(GaussianMixture(*base), GaussianMixture(*toward))
    noised, state = oracle.base.noised(sigma), torch.from_numpy(x)
    score, log_density = torch.from_numpy(noised.score(x)), torch.from_numpy(noised.log_density(x))
    perturbation = Toward(engine(toward))
    for order, got in (
        (1, perturbation.source(state, sigma, score, log_density)),
        (2, perturbation.second_source(state, sigma, score, log_density)),
    ):
        truth = oracle.score_derivative(x, sigma, order=order)
        assert_close(got, torch.from_numpy(truth), rtol=1e-8, atol=1e-9 * max(1e-3, np.abs(truth).max()))


@given(st.data())
def test_points_agree_with_the_oracle(data: st.DataObject) -> None:
    """Assert that weighted points in any blocks are the oracle's empirical law."""
    law, sigma = data.draw(mixtures(kinds=("full",))), data.draw(sigmas(1e-3, 1e2))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    centres, weights = GaussianMixture(*law).sample(17, 0), rng.dirichlet(np.ones(17))
    x = centres[:6] + sigma * rng.standard_normal((6, centres.shape[1]))
    oracle = GaussianMixture.empirical(centres, weights).noised(sigma)
    measure = Points(torch.from_numpy(centres), torch.from_numpy(weights), block=data.draw(st.integers(1, 20)))
    log_density, score = measure.log_density_and_score(torch.from_numpy(x), sigma)
    assert_close(log_density, torch.from_numpy(oracle.log_density(x)), rtol=1e-9, atol=1e-9)
    assert_close(score, torch.from_numpy(oracle.score(x)), rtol=1e-8, atol=1e-9 / sigma)
