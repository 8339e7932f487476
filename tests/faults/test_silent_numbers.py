"""Faults that once gave wrong numbers without a word, planted again: a check against the truth must see each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.engine import SIGMA_MAX, SIGMA_MIN, case
from torch import Tensor, nn

from oracles import AdditivePerturbation, GaussianMixture, information
from oracles.information import entropy
from sensitivity import (
    SDE,
    DiscreteDDPM,
    GaussianAnchor,
    Grid,
    PerBranch,
    Points,
    as_score,
    guided,
    influence,
    resample,
)
from sensitivity.readings.streaming import Recorded
from sensitivity.sampler.sde import Stochastic
from sensitivity.scores import score as network_score
from studies.bridge import ExactLaw

Patch = pytest.MonkeyPatch


def _check_one_branch() -> None:
    """At guidance weights 0 and 1 the influence is that of the remaining law alone."""
    problem, other = case("d2_k3_s0", samples=2), case("d2_k3_s0", seed=2)
    result, whole = problem.base, AdditivePerturbation(problem.base, other.base.noised(0.7)).at(0.6)
    points = Points(torch.from_numpy(np.asarray(whole.sample(3, 8))), bandwidth=0.4)
    grid, ones = Grid(SIGMA_MAX, SIGMA_MIN, 4), torch.ones(3, dtype=torch.float64)

    def first(x: Tensor) -> Tensor:
        return x[:, 0]

    for weight, law in ((0.0, whole), (1.0, result)):
        score = guided(ExactLaw(result).score, ExactLaw(whole).score, weight)
        anchor = PerBranch(ExactLaw(whole), ExactLaw(result))
        options = {"anchor": anchor, "rates": PerBranch(None, ones)}
        value = influence(score, problem.latents, first, points, grid, **options).values
        alone = influence(ExactLaw(law).score, problem.latents, first, points, grid, anchor=ExactLaw(law)).values
        assert_close(value, alone, rtol=1e-9, atol=1e-12)


def _only_maps_with_a_share(patch: Patch) -> None:
    """Laws of share 0 are not counted, and the first ones are taken for the others; no errors are stated."""
    right = Recorded.of.__func__

    def of(cls: type[Recorded], *rest: object) -> Recorded:
        whole = right(cls, *rest)
        return replace(whole, shares=tuple(share for share in whole.shares if share), errors=None)

    patch.setattr(Recorded, "of", classmethod(of))


def _check_order_of_the_correction() -> None:
    """Itô's corrected log density errs at order one with a Gaussian anchor."""
    problem = case("d2_k3_s0", samples=80)
    anchor = GaussianAnchor.from_data(torch.from_numpy(np.asarray(problem.base.sample(20000, 1))))
    errors = []
    for steps in (50, 200):
        grid = Grid(SIGMA_MAX, 0.05, steps, spacing="log")
        options = {"anchor": anchor, "solver": SDE(correction=True), "seed": 1}
        resampled = resample(problem.score, problem.latents, problem.change, 0.0, grid, **options)
        gap = resampled.log_density - problem.exact.log_density(resampled.samples, 0.05)
        errors.append(float(gap.square().mean().sqrt()))
    assert np.log2(errors[0] / errors[1]) / 2 > 0.8


def _anchor_at_order_one_half(patch: Patch) -> None:
    """The anchor's own correction is not subtracted."""
    right = Stochastic._control

    def control(self: Stochastic, *rest: object) -> Tensor:
        return right(replace(self, solver=replace(self.solver, correction=False)), *rest)

    patch.setattr(Stochastic, "_control", control)


def _check_stated_entropy() -> None:
    """An entropy with a narrow component within a wide one errs by no more than stated (truth: thirty digits)."""
    value, error = entropy(GaussianMixture([0.1, 0.9], [[2.3], [0.0]], [[[1e-8]], [[1.0]]]))
    assert abs(value - TRUTH) <= error


TRUTH = 0.82281782436517315  # mpmath to 30 digits, cut at both components' scales as in oracles/test_information.py


def _panels_of_one_scale(patch: Patch) -> None:
    """Panels start from the component's own width, whatever lies within it."""
    patch.setattr(information, "_shapes", lambda frame, others: (np.zeros((1, 1)), np.eye(1)[None]))


def _check_times() -> None:
    """Times of a table reach a network in bfloat16 unrounded."""
    seen: list[Tensor] = []

    class Listening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones((), dtype=torch.bfloat16))

        def forward(self, z: Tensor, t: Tensor) -> Tensor:
            seen.append(t)
            return z * self.weight

    schedule = DiscreteDDPM((1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0))
    times = torch.tensor([999.0, 501.0, 259.0], dtype=torch.float64)
    sigma = torch.stack([torch.as_tensor(schedule.level(t)) for t in times]).float()
    as_score(Listening(), "noise", schedule)(torch.ones(3, 4), sigma)
    assert float((seen[-1].double() - times).abs().max()) < 1e-2


def _times_cast_with_the_states(patch: Patch) -> None:
    """States and times alike are brought to the network's dtype."""
    patch.setattr(network_score, "in_dtype_of", lambda network, z, time: (z.bfloat16(), time.bfloat16()))


@pytest.mark.parametrize(
    ("check", "plant"),
    [
        (_check_one_branch, _only_maps_with_a_share),
        (_check_order_of_the_correction, _anchor_at_order_one_half),
        (_check_stated_entropy, _panels_of_one_scale),
        (_check_times, _times_cast_with_the_states),
    ],
    ids=["guidance at 0 and 1", "correction with a Gaussian anchor", "stated error of an entropy", "times in bfloat16"],
)
def test_a_fault_of_the_past_is_caught(
    check: Callable[[], None], plant: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    """Assert that the check holds as things stand and fails under the planted fault."""
    check()
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
