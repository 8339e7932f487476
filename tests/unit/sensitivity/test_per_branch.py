"""Classifier-free guidance: two laws, a density, an anchor and a change of mass for each branch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.engine import SIGMA_MAX, SIGMA_MIN, case

from oracles import AdditivePerturbation, GaussianMixture
from sensitivity import (
    Grid,
    PerBranch,
    Points,
    Toward,
    conditional_mass,
    guided,
    influence,
    resample,
    sample_sensitivity,
    score_derivative,
)
from studies.bridge import ExactLaw, engine_measure

WEIGHT, SHARE, NEW_SHARE, ETA = 1.7, 0.4, 0.8, 0.2


class _Classes:
    """A law of two classes, of which the first is asked for, and new data of which 80 % is in that class."""

    def __init__(self):
        first, second = case("d2_k3_s0", samples=3), case("d2_k3_s0", seed=2)
        self.latents = first.latents
        self.own = first.base
        self.whole = AdditivePerturbation(first.base, second.base.noised(0.7)).at(1 - SHARE)
        self.new_own = first.toward
        self.new_whole = AdditivePerturbation(first.toward, second.toward.noised(0.4)).at(1 - NEW_SHARE)

    def score(self):
        return guided(ExactLaw(self.own).score, ExactLaw(self.whole).score, WEIGHT)

    def anchor(self):
        return PerBranch(ExactLaw(self.whole), ExactLaw(self.own))

    def change(self):
        rate = NEW_SHARE / SHARE
        return PerBranch(Toward(engine_measure(self.new_whole)), rate * Toward(engine_measure(self.new_own)))

    def finite(self):
        return PerBranch(Toward(engine_measure(self.new_whole)), Toward(engine_measure(self.new_own)))

    def at(self, eta):
        """The guided score after mass η, from the exact mixtures of both branches."""
        own = AdditivePerturbation(self.own, self.new_own).at(conditional_mass(eta, NEW_SHARE, SHARE))
        whole = AdditivePerturbation(self.whole, self.new_whole).at(eta)
        return guided(ExactLaw(own).score, ExactLaw(whole).score, WEIGHT)


def _follow(score, x, steps=100):
    """Independent RK4 in log σ along dx/du = −σ² s."""
    levels = np.linspace(np.log(SIGMA_MAX), np.log(SIGMA_MIN), steps + 1)

    def slope(u, y):
        sigma = torch.tensor(np.exp(u), dtype=torch.float64)
        return -(sigma**2) * score(y, sigma)

    for u, v in pairwise(levels):
        h = v - u
        a = slope(u, x)
        b = slope(u + h / 2, x + h / 2 * a)
        c = slope(u + h / 2, x + h / 2 * b)
        d = slope(v, x + h * c)
        x = x + h / 6 * (a + 2 * b + 2 * c + d)
    return x


FINE = Grid(SIGMA_MAX, SIGMA_MIN, 56, spacing="log")


def test_finite_mass_under_guidance_is_the_guided_flow_of_the_changed_laws():
    """Assert 1e-5 agreement with an independent integration of the exact changed branches."""
    classes = _Classes()
    eta = PerBranch(ETA, conditional_mass(ETA, NEW_SHARE, SHARE))
    result = resample(
        classes.score(), classes.latents, classes.finite(), eta, FINE, anchor=classes.anchor(), solver="dopri5"
    )
    assert_close(result.samples, _follow(classes.at(ETA), classes.latents), rtol=0, atol=1e-5)
    for b, law in enumerate((classes.whole, classes.own)):
        exact = ExactLaw(law).log_density(result.samples, SIGMA_MIN)
        assert_close(result.log_density[b], exact, rtol=0, atol=1e-3)


def test_the_sensitivity_under_guidance_is_the_derivative_of_the_guided_flow():
    """Assert agreement with one-sided differences of second order of the independent integration."""
    classes = _Classes()
    ends = [_follow(classes.at(eta), classes.latents) for eta in (0.0, 1e-4, 2e-4)]
    slope = (4 * ends[1] - ends[2] - 3 * ends[0]) / 2e-4
    result = sample_sensitivity(
        classes.score(), classes.latents, classes.change(), FINE, anchor=classes.anchor(), solver="dopri5"
    )
    assert_close(result.sensitivity, slope, rtol=1e-4, atol=1e-4)
    assert result.log_density.shape == (2, 3)


def test_influence_under_guidance_is_the_transpose():
    """Assert the inner-product identity to 1e-12, points of the class at rate 1/π and others at rate 0."""
    classes = _Classes()
    data = torch.from_numpy(np.asarray(classes.whole.sample(5, 8)))
    rates = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64) / SHARE
    options = {"grid": Grid(SIGMA_MAX, SIGMA_MIN, 6), "anchor": classes.anchor(), "solver": "heun"}
    found = influence(
        classes.score(),
        classes.latents,
        lambda x: x[:, 0],
        Points(data, bandwidth=0.4, block=2),
        rates=PerBranch(None, rates),
        **options,
    )
    changes = []
    for row, rate in zip(data, rates.tolist(), strict=True):
        point = Toward(Points(row[None], bandwidth=0.4))
        changes.append(PerBranch(point, rate * point))
    forward = sample_sensitivity(classes.score(), classes.latents, changes, **options)
    wanted = forward.sensitivity[..., 0].T
    assert float(((found.values - wanted) / wanted.abs().amax(1, keepdim=True)).abs().max()) < 1e-12


def test_one_branch_may_stay_as_it_is():
    """Assert that None in one branch is a change of mass zero there."""
    classes = _Classes()
    grid, anchor = Grid(SIGMA_MAX, SIGMA_MIN, 6), classes.anchor()
    moved = classes.change()
    runs = [
        sample_sensitivity(classes.score(), classes.latents, change, grid, anchor=anchor).sensitivity
        for change in (PerBranch(moved.unconditional, None), PerBranch(None, moved.conditional), moved)
    ]
    assert_close(runs[0] + runs[1], runs[2], rtol=1e-10, atol=1e-12)


def test_the_guided_score_derivative_is_the_weighted_one():
    """Assert agreement with the oracles of both branches."""
    classes = _Classes()
    x, sigma = torch.from_numpy(np.asarray(classes.whole.sample(4, 1))), 0.5
    logs = PerBranch(ExactLaw(classes.whole), ExactLaw(classes.own))
    found = score_derivative(classes.score(), x, sigma, classes.change(), log_density=logs)
    free = AdditivePerturbation(classes.whole, classes.new_whole).score_derivative(x.numpy(), sigma)
    bound = AdditivePerturbation(classes.own, classes.new_own).score_derivative(x.numpy(), sigma)
    wanted = (1 - WEIGHT) * np.asarray(free) + WEIGHT * NEW_SHARE / SHARE * np.asarray(bound)
    assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_the_mass_of_a_class_is_bayes_rule():
    """Assert η_c on round numbers, and its refusal where the class would be empty."""
    assert_close(conditional_mass(0.5, 0.5, 0.5), 0.5)
    assert_close(conditional_mass(0.1, 0.0, 0.3), 0.0)
    with pytest.raises(ValueError, match="leaves no mass"):
        conditional_mass(1.0, 0.0, 0.3)


def test_a_guided_score_wants_both_branches():
    """Assert that each missing branch is asked for by name."""
    classes = _Classes()
    grid, score, latents = Grid(SIGMA_MAX, SIGMA_MIN, 3), classes.score(), classes.latents
    alone = Toward(_any_measure())
    with pytest.raises(TypeError, match="give perturbation=PerBranch"):
        sample_sensitivity(score, latents, alone, grid, anchor=classes.anchor())
    with pytest.raises(TypeError, match="give anchor=PerBranch"):
        sample_sensitivity(score, latents, classes.change(), grid, anchor=ExactLaw(classes.own))
    with pytest.raises(ValueError, match="rates is missing"):
        influence(score, latents, lambda x: x[:, 0], latents, grid, anchor=classes.anchor())
    with pytest.raises(TypeError, match="rates must be PerBranch"):
        influence(score, latents, lambda x: x[:, 0], latents, grid, anchor=classes.anchor(), rates=torch.ones(3))


def _any_measure():
    """Any measure in the plane."""
    return engine_measure(GaussianMixture.isotropic([1.0], [[0.0, 0.0]], 1.0))
