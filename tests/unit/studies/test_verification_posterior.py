"""Posterior tasks: truths by second routes, and the tests that judge draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.close import assert_close

from oracles import GaussianMixture
from studies.verification import TASKS, reproduce, verify
from studies.verification.laws import oracle
from studies.verification.observing import joint, log_likelihood, operator, posterior
from studies.verification.posteriors import calibration_p, energy_p, exact_draws
from studies.verification.tasks.base import Case

CASE = Case("plane", 0.1, operator="mask", noise=0.1, count=150, draws=40, judge="posterior", sigma_max=20.0, steps=8)


@pytest.mark.parametrize("case", TASKS["evidence"].cases, ids=lambda case: case.name)
def test_the_evidence_is_the_density_of_the_image_of_the_law(case: Case) -> None:
    """Assert that log p(y) equals the log density of the law of A X, noised by √R, built from its own moments."""
    _, truth = reproduce("evidence", case.name, backend="numpy")
    rng = case.rng("evidence", 0)
    seen, matrix = joint(case, rng, case.count)[1], operator(case)
    law = case.base
    image = GaussianMixture(law.weights, law.means @ matrix.T, matrix @ law.covariances @ matrix.T)
    assert_close(image.noised(np.sqrt(case.noise)).log_density(seen), truth, rtol=1e-9, atol=1e-8)


def test_posterior_density_is_bayes_rule() -> None:
    """Assert that log posterior differs from log prior + log likelihood by one number: minus the evidence."""
    case = TASKS["posterior-score"].case("five-s0.3")
    x, seen = joint(case, np.random.default_rng(0), 6)
    estimate = posterior(case, seen[0]).log_density(x)
    product = oracle(case.base).log_density(x) + log_likelihood(case, x, seen[0])
    constant = 0.5 * len(operator(case)) * np.log(2 * np.pi * case.noise)
    evidence = float(oracle(case.base).log_evidence(operator(case), seen[0], case.noise))
    assert_close(estimate, product - constant - evidence, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["gaussian-s0.3", "five-s0.3", "photo-784-s0.5"])
def test_the_posterior_score_is_the_gradient_of_the_noised_density(name: str) -> None:
    """Assert the truth against central differences of the noised posterior's log density along random directions."""
    problem, truth = reproduce("posterior-score", name, backend="numpy")
    case = TASKS["posterior-score"].case(name)
    law = posterior(case, problem.observation).noised(case.sigma)
    along = np.random.default_rng(0).standard_normal(problem.x.shape)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    h = 1e-4
    slope = (law.log_density(problem.x + h * along) - law.log_density(problem.x - h * along)) / (2 * h)
    assert_close((truth * along).sum(1), slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["mask", "mean", "mix"])
def test_operators_see_half_of_the_coordinates(kind: str) -> None:
    """Assert shapes and ranks of every operator, and that none sees everything."""
    for name, p in (("plane", 1), ("gaussian", 2), ("image", 8), ("photo-784", 24)):
        matrix = operator(Case(name, 0.1, operator=kind, noise=0.1))
        assert matrix.shape[0] == p, (kind, name)
        assert np.linalg.matrix_rank(matrix) == p


def test_exact_draws_are_calibrated_and_wrong_ones_are_not() -> None:
    """Assert p-values of exact draws, and of draws shifted, narrow, wide, copied and of the prior."""
    hidden, seen = joint(CASE, np.random.default_rng(3), CASE.count)
    hidden = hidden + CASE.sigma * np.random.default_rng(4).standard_normal(hidden.shape)
    good, exact = exact_draws(CASE, seen, CASE.draws, 5), exact_draws(CASE, seen, CASE.draws, 6)
    centre = good.mean(1, keepdims=True)
    assert min(calibration_p(CASE, good, hidden, seen), energy_p(good, exact)) > 1e-3
    wrong = {
        "shifted": good + 0.4,
        "narrow": centre + 0.5 * (good - centre),
        "wide": centre + 1.8 * (good - centre),
        "copied": np.repeat(good[:, :1], CASE.draws, 1),
        "of another observation": np.roll(good, 1, axis=0),
    }
    for name, draws in wrong.items():
        assert min(calibration_p(CASE, draws, hidden, seen), energy_p(draws, exact)) < 1e-6, name


def test_p_values_of_right_draws_are_uniform() -> None:
    """Assert that of 60 repetitions about a tenth lie below .1, for both tests."""
    case, low = Case("gaussian", 0.1, operator="mix", noise=0.05, count=30, draws=12), [0, 0]
    for seed in range(60):
        rng = np.random.default_rng(seed)
        hidden, seen = joint(case, rng, case.count)
        hidden = hidden + case.sigma * rng.standard_normal(hidden.shape)
        good, exact = exact_draws(case, seen, case.draws, 2 * seed), exact_draws(case, seen, case.draws, 2 * seed + 1)
        low[0] += calibration_p(case, good, hidden, seen) < 0.1
        low[1] += energy_p(good, exact) < 0.1
    assert max(low) <= 15
    assert low[1] >= 1


def test_draws_of_the_wrong_shape_are_refused_and_nan_is_found() -> None:
    """Assert the sentences for a missing axis and for values that are not finite."""

    def flat(problem: Any) -> Any:
        return np.zeros((len(problem.observations), 3))

    def broken(problem: Any) -> Any:
        return np.full((len(problem.observations), problem.count, 3), np.nan)

    for estimator, check in ((flat, "shape"), (broken, "finite")):
        report = verify(estimator, "posterior-sample", problems=["gaussian-s0.1"], backend="numpy", orders=False)
        assert report.failed_checks == (check,)
