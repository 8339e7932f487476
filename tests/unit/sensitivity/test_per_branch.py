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
    as_score,
    conditional_mass,
    guided,
    influence,
    resample,
    sample_sensitivity,
    score_derivative,
)
from sensitivity.scores.schedules import VPCosine, VPLinear
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
        result = AdditivePerturbation(self.own, self.new_own).at(conditional_mass(eta, NEW_SHARE, SHARE))
        whole = AdditivePerturbation(self.whole, self.new_whole).at(eta)
        return guided(ExactLaw(result).score, ExactLaw(whole).score, WEIGHT)


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
        classes.score(), classes.latents, classes.finite(), eta, FINE, anchor=classes.anchor(), solver="rk4"
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
        classes.score(), classes.latents, classes.change(), FINE, anchor=classes.anchor(), solver="rk4"
    )
    assert_close(result.sensitivity, slope, rtol=1e-4, atol=1e-4)
    assert result.log_density.shape == (2, 3)


def test_influence_under_guidance_is_the_transpose():
    """Assert the inner-product identity to 1e-12, points of the class at rate 1/π and others at rate 0."""
    classes = _Classes()
    data = torch.from_numpy(np.asarray(classes.whole.sample(5, 8)))
    rates = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64) / SHARE
    options = {"grid": Grid(SIGMA_MAX, SIGMA_MIN, 6), "anchor": classes.anchor(), "solver": "heun"}
    influences = influence(
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
    assert float(((influences.values - wanted) / wanted.abs().amax(1, keepdim=True)).abs().max()) < 1e-12


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
    derivative = score_derivative(classes.score(), x, sigma, classes.change(), log_density=logs)
    free = AdditivePerturbation(classes.whole, classes.new_whole).score_derivative(x.numpy(), sigma)
    bound = AdditivePerturbation(classes.own, classes.new_own).score_derivative(x.numpy(), sigma)
    wanted = (1 - WEIGHT) * np.asarray(free) + WEIGHT * NEW_SHARE / SHARE * np.asarray(bound)
    assert_close(derivative, wanted, rtol=1e-9, atol=1e-12)


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
    with pytest.raises(TypeError, match="PerBranch holds a float"):
        sample_sensitivity(score, latents, PerBranch(0.1, 0.2), grid, anchor=classes.anchor())
    with pytest.raises(TypeError, match="give anchor=PerBranch"):
        sample_sensitivity(score, latents, classes.change(), grid, anchor=ExactLaw(classes.own))
    with pytest.raises(ValueError, match="rates is missing"):
        influence(score, latents, lambda x: x[:, 0], latents, grid, anchor=classes.anchor())
    with pytest.raises(TypeError, match="rates must be PerBranch"):
        influence(score, latents, lambda x: x[:, 0], latents, grid, anchor=classes.anchor(), rates=torch.ones(3))


def _any_measure():
    """Any measure in the plane."""
    return engine_measure(GaussianMixture.isotropic([1.0], [[0.0, 0.0]], 1.0))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_weight_that_leaves_one_branch_alone_is_no_special_case(weight):
    """Assert at w = 0 and 1 the influence of the remaining law alone, the limit of nearby weights and the tangent."""
    classes = _Classes()
    score, near = (
        guided(ExactLaw(classes.own).score, ExactLaw(classes.whole).score, w) for w in (weight, weight - 1e-7)
    )
    data = torch.from_numpy(np.asarray(classes.whole.sample(4, 8)))
    rates = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64) / SHARE
    points, grid = Points(data, bandwidth=0.4), Grid(SIGMA_MAX, SIGMA_MIN, 6)
    given = {"anchor": classes.anchor(), "rates": PerBranch(None, rates)}

    def first(x):
        return x[:, 0]

    value = influence(score, classes.latents, first, points, grid, **given).values
    assert_close(value, influence(near, classes.latents, first, points, grid, **given).values, rtol=1e-5, atol=1e-6)
    law = (classes.whole, classes.own)[int(weight)]
    alone = influence(ExactLaw(law).score, classes.latents, first, points, grid, anchor=ExactLaw(law)).values
    assert_close(value, alone * (rates if weight else 1.0), rtol=1e-9, atol=1e-12)
    assert float(value.abs().max()) > 0.1
    changes = [
        PerBranch(Toward(Points(row[None], bandwidth=0.4)), r * Toward(Points(row[None], bandwidth=0.4)))
        for row, r in zip(data, rates.tolist(), strict=True)
    ]
    forward = sample_sensitivity(score, classes.latents, changes, grid, anchor=classes.anchor())
    assert_close(value, forward.sensitivity[..., 0].T, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_the_second_derivative_under_guidance_follows_bayes_rule():
    """Assert ζ against five-point differences of the exact changed branches, whose class moves by η_c(η)."""
    classes, h = _Classes(), 5e-4
    ends = [_follow(classes.at(k * h), classes.latents) for k in range(5)]
    weights = (35 / 12, -26 / 3, 19 / 2, -14 / 3, 11 / 12)
    wanted = sum(w * x for w, x in zip(weights, ends, strict=True)) / h**2
    options = {"anchor": classes.anchor(), "solver": "dopri5", "order": 2}
    result = sample_sensitivity(classes.score(), classes.latents, classes.change(), FINE, **options)
    scale = float(wanted.abs().max())
    assert float((result.curvature - wanted).abs().max()) < 2e-3 * scale
    truth = _follow(classes.at(0.01), classes.latents)
    missed = (
        (result.predict(0.01) - truth).norm(dim=1),
        (result.samples + 0.01 * result.sensitivity - truth).norm(dim=1),
    )
    assert bool((missed[0] < 0.2 * missed[1]).all())


def test_one_mass_of_the_whole_moves_the_class_by_bayes_rule():
    """Assert that `resample` with one η equals each branch with its own mass, and several at once the joint rule."""
    classes = _Classes()
    grid, options = Grid(SIGMA_MAX, SIGMA_MIN, 8), {"anchor": classes.anchor()}
    eta = PerBranch(ETA, conditional_mass(ETA, NEW_SHARE, SHARE))
    value = resample(classes.score(), classes.latents, classes.finite(), eta, grid, **options).samples
    one = resample(classes.score(), classes.latents, classes.change(), ETA, grid, **options).samples
    assert_close(one, value, rtol=1e-10, atol=1e-12)
    halves = resample(classes.score(), classes.latents, [classes.change()] * 2, [ETA / 2] * 2, grid, **options).samples
    assert_close(halves, value, rtol=1e-10, atol=1e-12)
    emptied = PerBranch(classes.change().unconditional, 0.0 * classes.change().unconditional)
    with pytest.raises(ValueError, match="leaves no mass in the class"):
        resample(classes.score(), classes.latents, emptied, 1.0, grid, **options)
    with pytest.raises(ValueError, match="mixes PerBranch and numbers"):
        resample(classes.score(), classes.latents, [classes.change()] * 2, [0.1, eta], grid, **options)
    law = ExactLaw(classes.own)
    with pytest.raises(TypeError, match="needs a guided score"):
        resample(law.score, classes.latents, classes.finite().conditional, eta, grid, anchor=law)


def test_a_guided_score_has_the_schedule_of_its_branches():
    """Assert the common schedule, one given by a single branch, none, and the refusal of two different ones."""
    one, same, other = (as_score(lambda z, t: -z, "noise", s) for s in (VPLinear(), VPLinear(), VPCosine()))
    assert guided(one, same, 2.0).schedule is one.schedule
    assert guided(lambda x, s: -x, one, 2.0).schedule is one.schedule
    assert guided(lambda x, s: -x, lambda x, s: -x, 2.0).schedule is None
    with pytest.raises(ValueError, match="different schedules"):
        _ = guided(one, other, 2.0).schedule
