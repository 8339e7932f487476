"""A measure known by its score and an anchor is the law of that score."""

from __future__ import annotations

import torch
from support.close import assert_close
from support.problems import PROBLEMS

from sensitivity.densities.network_measure import NetworkMeasure
from sensitivity.grid import Grid
from sensitivity.measures.mixture import Mixture
from sensitivity.perturbations.contamination import Toward
from sensitivity.scores.score import as_score

LAW = Mixture(*(torch.from_numpy(v.copy()) for v in PROBLEMS["d2_k3_s0"].toward))
BASE = Mixture(*(torch.from_numpy(v.copy()) for v in PROBLEMS["d2_k3_s0"].base))
MEASURE = NetworkMeasure(as_score(LAW.score), LAW, grid=Grid(40.0, 0.3, 80, "log"), solver="rk4")
X = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_log_density_and_score_are_those_of_the_law() -> None:
    """Assert that the density along the flow comes to solver error of the exact one, and the score is the network's."""
    log_density, score = MEASURE.log_density_and_score(X, 0.5)
    assert_close(log_density, LAW.log_density(X, 0.5), rtol=0, atol=2e-5)
    assert_close(score, LAW.score(X, 0.5))


def test_score_product_is_that_of_the_law() -> None:
    """Assert that products found by a trial equal the closed form, whatever the form of the level."""
    tangent = X.flip(0)
    for sigma in (0.5, torch.full((6,), 0.5, dtype=torch.float64)):
        assert_close(MEASURE.score_product(X, sigma, tangent), LAW.score_product(X, 0.5, tangent), rtol=1e-9)


def test_random_probes_state_their_error() -> None:
    """Assert that estimates from probes carry a standard error, are repeatable, and lie within five of the truth."""
    measure = NetworkMeasure(LAW.score, LAW, grid=Grid(40.0, 0.3, 40, "log"), trace="hutchinson", probes=8)
    value, error = measure.estimate(X, 0.5)
    assert bool((error > 0).all())
    assert bool(((value - LAW.log_density(X, 0.5)).abs() < 5 * error + 1e-3).all())
    assert_close(measure.log_density(X, 0.5), value, rtol=0, atol=0)


def test_toward_a_network_is_toward_its_law() -> None:
    """Assert that a network goes where a closed-form measure goes."""
    log_density, score = BASE.log_density_and_score(X, 0.5)
    got = Toward(MEASURE).source(X, 0.5, score, log_density)
    assert_close(got, Toward(LAW).source(X, 0.5, score, log_density), rtol=1e-4)
