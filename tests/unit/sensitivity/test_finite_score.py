"""The score at finite mass against the oracle's mixtures, in the regions where naive formulas fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.engine import case

from oracles import AdditivePerturbation, GaussianMixture
from sensitivity import Move, Points, Remove, Toward
from sensitivity.perturbations.finite_score import gate, masses_of
from studies.bridge import ExactLaw, engine_measure

SIGMA = torch.tensor(0.7, dtype=torch.float64)


def _at(problem, x, masses):
    score, logs = problem.exact.score(x, SIGMA), problem.exact.log_density(x, SIGMA)
    return gate(x, SIGMA, score, logs, masses)


def _full(value, x):
    return torch.full(x.shape[:1], value, dtype=x.dtype)


@pytest.mark.parametrize("eta", [1e-12, 1e-3, 0.5, 1 - 1e-9, 1.0])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_one_mass_equals_the_score_of_the_exact_mixture(eta, spread):
    """Assert 1e-9 agreement near the data and 30 standard deviations out, up to all the mass."""
    problem = case("d3_k4_s0", samples=6)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 3))) * spread
    moved, excess = _at(problem, x, masses_of(problem.change, _full(eta, x)))
    weights = [(1 - eta) * np.asarray(problem.base.weights), eta * np.asarray(problem.toward.weights)]
    whole = GaussianMixture(
        np.concatenate(weights),
        np.concatenate([problem.base.means, problem.toward.means]),
        np.concatenate([problem.base.covariances, problem.toward.covariances]),
    )
    assert_close(moved, ExactLaw(whole).score(x, SIGMA), rtol=1e-9, atol=1e-9)
    assert bool((excess < 0).all())


def test_two_masses_equal_the_score_of_the_exact_mixture():
    """Assert that several masses enter one denominator."""
    problem = case("d2_k3_s0", samples=4)
    third = GaussianMixture.isotropic([1.0], [[0.5, -1.0]], 0.4)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((4, 2)))
    masses = [(_full(0.2, x), problem.measure), (_full(0.3, x), engine_measure(third))]
    moved, _ = _at(problem, x, masses)
    weights = [0.5 * np.asarray(problem.base.weights), 0.2 * np.asarray(problem.toward.weights), [0.3]]
    laws = (problem.base, problem.toward, third)
    whole = GaussianMixture(
        np.concatenate(weights),
        np.concatenate([law.means for law in laws]),
        np.concatenate([law.covariances for law in laws]),
    )
    assert_close(moved, ExactLaw(whole).score(x, SIGMA), rtol=1e-10, atol=1e-10)


def test_removal_undoes_addition():
    """Assert that taking ν out of the exact mixture with mass η of it gives the base score back."""
    problem = case("d3_k4_s0", samples=5)
    eta = 0.3
    whole = AdditivePerturbation(problem.base, problem.toward).at(eta)
    x = torch.from_numpy(np.random.default_rng(2).standard_normal((5, 3)))
    exact = ExactLaw(whole)
    # p = (1−η)ρ + ην, so that ρ = p − (η/(1−η))(ν − p).
    masses = [(_full(-eta / (1 - eta), x), problem.measure)]
    moved, excess = gate(x, SIGMA, exact.score(x, SIGMA), exact.log_density(x, SIGMA), masses)
    assert_close(moved, problem.exact.score(x, SIGMA), rtol=1e-8, atol=1e-8)
    assert bool((excess < 0).all())


def test_an_impossible_removal_has_a_non_negative_excess():
    """Assert that removing more than there is is said, sample by sample."""
    problem = case("d2_k3_s0", samples=2)
    x = torch.from_numpy(np.stack([problem.toward.means[0], [-9.0, -9.0]]))
    _, excess = _at(problem, x, [(_full(-0.5, x), problem.measure)])
    ratio = problem.measure.log_density(x, SIGMA) - problem.exact.log_density(x, SIGMA)
    assert_close(excess, ratio + np.log(0.5 / 1.5), rtol=1e-12)


def test_no_mass_changes_nothing():
    """Assert that η = 0 returns the score itself."""
    problem = case("d2_k3_s0", samples=3)
    x = torch.zeros(3, 2, dtype=torch.float64)
    moved, excess = _at(problem, x, masses_of(problem.change, _full(0.0, x)))
    assert_close(moved, problem.exact.score(x, SIGMA))
    assert bool((excess == -float("inf")).all())


def test_removing_points_is_a_mass_of_the_opposite_sign():
    """Assert that Remove at its own mass is Toward at mass −m/(N−m)."""
    problem = case("d2_k3_s0", samples=3)
    points = Points(torch.zeros(1, 2, dtype=torch.float64), bandwidth=1.0)
    x = torch.ones(3, 2, dtype=torch.float64)
    removed, _ = _at(problem, x, masses_of(Remove(points), _full(Remove(points).mass(101), x)))
    added, _ = _at(problem, x, masses_of(Toward(points), _full(-0.01, x)))
    assert_close(removed, added)


def test_moved_points_have_no_finite_mass():
    """Assert that the error says what to do instead."""
    points = Points(torch.zeros(1, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="moves points and has no exact finite mass"):
        masses_of(Move(points, torch.ones(1, 2, dtype=torch.float64)), torch.tensor([0.1]))
