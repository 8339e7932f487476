"""Kept levels of a law give what new ones give, and are not kept where something would be lost."""

from __future__ import annotations

import numpy as np
import torch

from oracles import GaussianMixture
from studies.levels import KEPT, Levels

WEIGHTS, MEANS = [0.3, 0.7], [[0.0, 1.0], [1.0, -2.0]]
COVARIANCES = [[[0.5, 0.1], [0.1, 0.2]], [[0.3, 0.0], [0.0, 0.9]]]


def mixture(**options: object) -> GaussianMixture:
    return GaussianMixture(
        *(torch.tensor(part, dtype=torch.float64, **options) for part in (WEIGHTS, MEANS, COVARIANCES))
    )


STATES = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_kept_levels_give_the_same_bits() -> None:
    law = mixture()
    levels = Levels(law)
    for sigma in (0.1, 2.0, 0.1):
        for rows in (STATES, STATES[:1]):
            assert torch.equal(levels.at(torch.tensor(sigma)).score(rows), law.noised(torch.tensor(sigma)).score(rows))
            assert torch.equal(levels.at(sigma).log_density(rows), law.noised(sigma).log_density(rows))
    assert levels.at(0.1) is levels.at(torch.tensor(0.1, dtype=torch.float64))


def test_few_levels_are_kept() -> None:
    levels = Levels(mixture())
    first = levels.at(1.0)
    for k in range(KEPT):
        levels.at(2.0 + k)
    assert levels.kept is not None
    assert len(levels.kept) == KEPT
    assert levels.at(1.0) is not first


def test_derivatives_in_states_pass_through_what_was_kept_without_recording() -> None:
    levels, law = Levels(mixture()), mixture()
    with torch.no_grad():
        levels.at(0.5).score(STATES)
    x = STATES.clone().requires_grad_()
    (found,) = torch.autograd.grad(levels.at(0.5).score(x).sum(), x)
    (expected,) = torch.autograd.grad(law.noised(0.5).score(x).sum(), x)
    assert torch.equal(found, expected)


def test_derivatives_in_parameters_and_levels_are_never_lost() -> None:
    law = mixture(requires_grad=True)
    assert Levels(law).at(0.5).score(STATES).requires_grad
    sigma = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert Levels(mixture()).at(sigma).score(STATES).requires_grad
    slopes = torch.func.vmap(lambda own: Levels(mixture()).at(own).log_density(STATES))(torch.tensor([0.5, 1.0]))
    assert slopes.shape == (2, 5)


def test_other_laws_pass_through() -> None:
    class Own:
        def noised(self, sigma: float) -> str:
            return f"at {sigma}"

    assert Levels(Own()).at(0.5) == "at 0.5"
    arrays = Levels(GaussianMixture(np.array(WEIGHTS), np.array(MEANS), np.array(COVARIANCES)))
    assert arrays.at(0.5) is arrays.at(np.float64(0.5))
