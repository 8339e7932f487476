"""What groups are worth: against enumerated retraining that is a solve, and against laws of what is left."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from support.close import assert_close
from support.exact_groups import ExactGroups

from sensitivity import Grid, Groups, Points, group_values, sample

EXACT = ExactGroups(latents_count=3)
MEMBERS = {"a": range(8), "b": range(8, 14), "c": range(14, 24), "d": range(24, 27)}
GROUPS = Groups(EXACT.images, {name: list(who) for name, who in MEMBERS.items()})


def functional(x):
    """A coordinate and a square."""
    return x[:, 0] + 0.3 * x.square().sum(1)


def shapley(value):
    """Shapley's value of four players over all orders, by the definition."""
    total = dict.fromkeys(MEMBERS, 0.0)
    for order in itertools.permutations(MEMBERS):
        for place, name in enumerate(order):
            total[name] = total[name] + value(set(order[: place + 1])) - value(set(order[:place]))
    return torch.stack([total[name] / math.factorial(4) for name in MEMBERS])


def left(present, keep):
    """Equal weights of the points, those of absent groups multiplied by `keep`."""
    weights = torch.ones(40, dtype=torch.float64)
    for name, who in MEMBERS.items():
        weights[list(who)] *= 1.0 if name in present else keep
    return weights / weights.sum()


@pytest.mark.parametrize("keep", [0.0, pytest.param(0.4, marks=pytest.mark.slow)])
def test_shapley_of_the_population_is_that_of_the_laws_that_are_left(keep):
    """Assert enumerated coalitions of the engine against the flow of each law of what is left, over all orders."""
    law, grid = Points(EXACT.images, bandwidth=0.5), Grid(8.0, 0.4, 14)
    known = {}

    def value(present):
        key = frozenset(present)
        if key not in known:
            rest = Points(EXACT.images, left(present, keep), bandwidth=0.5)
            known[key] = functional(sample(rest.score, EXACT.latents, grid, solver="rk4").samples)
        return known[key]

    groups = Groups(law, {name: list(who) for name, who in MEMBERS.items()})
    worth = group_values(
        law.score, EXACT.latents, groups, grid, functional, keep=keep, permutations=None, anchor=law, solver="rk4"
    )
    truth = shapley(value)
    assert_close(worth.values, truth, rtol=0, atol=4e-3 * float(truth.abs().max()))
    assert_close(worth.values.sum(0), worth.whole - worth.none, rtol=0, atol=1e-12)
    assert (worth.runs, worth.unfinished) == (16, 0)


def test_shapley_of_the_exactly_trained_network_is_near_that_of_all_retrainings():
    """Assert that the linear step in the readouts errs by 12 % where .4 of each group goes, by 1.5 % where .05 does."""
    truth = shapley(lambda present: functional(EXACT.retrained(left(present, 0.6).numpy())))
    prediction = asked(keep=0.6, permutations=None)
    assert_close(prediction.values, truth, rtol=0, atol=0.12 * float(truth.abs().max()))
    gentle = shapley(lambda present: functional(EXACT.retrained(left(present, 0.95).numpy())))
    near = asked(keep=0.95, permutations=None).values
    assert_close(near, gentle, rtol=0, atol=0.015 * float(gentle.abs().max()))
    with pytest.raises(AssertionError):  # planted: mass moved the other way
        assert_close(-near, gentle, rtol=0, atol=0.015 * float(gentle.abs().max()))


def asked(groups=GROUPS, **options):
    """The engine's values for the exactly trained network."""
    return group_values(EXACT.score, EXACT.latents, groups, EXACT.grid, functional, response=EXACT.response, **options)


def test_additive_values_are_the_slope_of_all_others():
    """Assert that they are the limit of leaving out and of Shapley's value as everything is kept, and add up."""
    slope = asked(kind="additive")
    small = 1e-5
    for kind in ("leave-out", "shapley"):
        prediction = asked(kind=kind, keep=1 - small, permutations=3)
        assert_close(prediction.values / small, slope.values, rtol=0, atol=1e-3 * float(slope.values.abs().max()))
    merged = {"ab": [*MEMBERS["a"], *MEMBERS["b"]], "rest": [*MEMBERS["c"], *MEMBERS["d"], *range(27, 40)]}
    both = asked(Groups(EXACT.images, merged), kind="additive").values
    assert_close(both[0], slope.values[0] + slope.values[1], rtol=1e-9)
    assert_close(both.sum(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_twins_are_worth_the_same_and_random_orders_say_how_sure_they_are():
    """Assert symmetry for groups of the same points, and the error bars of random orders."""
    law = Points(EXACT.images[[0, 1, 2, 0, 1, 2, 5, 6, 7, 8, 9]], bandwidth=0.5)
    groups = Groups(law, {"one": [0, 1, 2], "twin": [3, 4, 5], "other": [6, 7]})
    options = {"anchor": law, "grid": Grid(8.0, 0.4, 10), "functional": functional}
    exact = group_values(law.score, EXACT.latents, groups, permutations=None, **options)
    assert_close(exact.values[0], exact.values[1], rtol=0, atol=1e-9)
    some = group_values(law.score, EXACT.latents, groups, permutations=40, seed=1, **options)
    assert bool(((some.values - exact.values).abs() <= 4 * some.standard_error + 1e-9).all())
    assert float(some.standard_error.max()) > 0
    assert_close(some.values.sum(0), exact.values.sum(0), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"kind": "banzhaf"}, ValueError, "kind"),
        ({"groups": [0, 1]}, TypeError, "groups is a list"),
        ({"groups": Groups(EXACT.images, {"a": [0, 1], "b": [1, 2]})}, ValueError, "share points"),
        ({"groups": Groups(EXACT.images, [k % 2 for k in range(40)])}, ValueError, "keep=0 removes every group"),
        ({"keep": 1.0}, ValueError, "0 ≤ keep < 1"),
        ({"keep": "half"}, TypeError, "keep='half'"),
        ({"permutations": 1}, ValueError, "permutations=1"),
        ({"permutations": None, "groups": Groups(EXACT.images, [str(k // 2) for k in range(40)]), "keep": 0.5},
         ValueError, "all coalitions of 20 groups"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(options, kind, words):
    """Assert an error that quotes the argument."""
    with pytest.raises(kind, match=words):
        asked(**options)


def test_a_functional_must_give_numbers():
    """Assert the error for one that does not."""
    with pytest.raises(TypeError, match="functional returns"):
        group_values(EXACT.score, EXACT.latents, GROUPS, EXACT.grid, lambda x: "ink", response=EXACT.response)
