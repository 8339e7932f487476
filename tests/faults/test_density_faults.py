"""Planted faults of density estimation: each must move an estimate out of its own error bars or an identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.problems import PROBLEMS
from torch import Tensor

from oracles import GaussianMixture
from sensitivity import Estimate, GaussianAnchor, Grid, log_density
from sensitivity.densities.formula import Formula
from sensitivity.densities.formula_nodes import Placement
from sensitivity.jacobians.traces import Trace
from sensitivity.noise import Noise
from studies.bridge import engine_measure

LAW = GaussianMixture(*PROBLEMS["d5_k2_s0"].base)
MODEL = engine_measure(LAW)
ANCHOR = GaussianAnchor(torch.from_numpy(LAW.mean), torch.from_numpy(LAW.covariance))
SIGMA = 0.3
X = torch.from_numpy(LAW.sample(8, 1) + SIGMA * np.random.default_rng(1).standard_normal((8, 5)))
TRUTH = torch.from_numpy(LAW.noised(SIGMA).log_density(X.numpy()))


def estimate(**options: Any) -> Estimate:
    anchor = ANCHOR if options.get("method") == "formula" else MODEL
    return log_density(MODEL.score, X, SIGMA, anchor=anchor, grid=Grid(80.0, SIGMA, 24), seed=1, **options)


def sound(**options: Any) -> bool:
    """Whether 99.99 % intervals (and a slack for the grid) hold the truth everywhere."""
    low, high = estimate(**options).interval(0.9999)
    return bool(((low - 1e-2 < TRUTH) & (high + 1e-2 > TRUTH)).all())


def test_unfaulted_estimates_are_sound() -> None:
    """Assert that the checks below pass as things stand."""
    assert sound(trace="exact")
    assert sound(trace="hutchinson", probes=8)
    assert sound(method="formula", evaluations=2000)
    assert sound(method="formula", evaluations=20_000)


def doubled(self: Trace, directions: Tensor, products: Tensor, sigma: Tensor | None = None) -> Tensor:
    quadratic = 2 * (directions * products).flatten(2).sum(2)
    return quadratic.sum(0, keepdim=True) if self.exact else quadratic


def summed(self: Trace, directions: Tensor, products: Tensor, sigma: Tensor | None = None) -> Tensor:
    quadratic = (directions * products).flatten(2).sum(2)
    total = quadratic.sum(0, keepdim=True)
    return total if self.exact else total.expand_as(quadratic)


@pytest.mark.parametrize("fault", [doubled, summed], ids=["doubled divergence", "probes not divided by their number"])
def test_faulty_divergence_is_caught(fault: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a wrong combination of probes leaves the error bars."""
    monkeypatch.setattr(Trace, "combine", fault)
    assert not sound(trace="hutchinson", probes=8)


def test_probes_kept_for_the_whole_path_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that probes which are not fresh at every stage show as a several times larger error."""
    fresh = estimate(trace="hutchinson", probes=8).standard_error
    draw = Noise.rademacher
    monkeypatch.setattr(
        Noise, "rademacher", lambda self, shape, **k: draw(self, shape, **(k | {"step": 0, "stage": 0}))
    )
    kept = estimate(trace="hutchinson", probes=8).standard_error
    assert float(kept.mean()) > 2 * float(fresh.mean())


def test_wrong_rate_of_the_placement_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a dropped factor in dτ/du moves the formula out of its bars."""
    times = Placement.times
    monkeypatch.setattr(Placement, "times", lambda self, u: (times(self, u)[0], 0.9 * times(self, u)[1]))
    assert not sound(method="formula", evaluations=20_000)


def test_score_at_the_wrong_level_is_caught() -> None:
    """Assert that a score which reads σ² where σ is meant is told from the right one, by every route."""

    def score(y: Tensor, sigma: Tensor) -> Tensor:
        return MODEL.score(y, sigma**2)

    for options in ({"trace": "exact"}, {"method": "formula", "evaluations": 2000}):
        anchor = ANCHOR if "method" in options else MODEL
        result = log_density(score, X, SIGMA, anchor=anchor, grid=Grid(80.0, SIGMA, 24), seed=1, **options)
        low, high = result.interval(0.9999)
        assert not bool(((low - 1e-2 < TRUTH) & (high + 1e-2 > TRUTH)).all())


def test_wrong_anchor_is_caught() -> None:
    """Assert that an anchor off by a standard deviation leaves the bars at a modest σ_max, and states an error."""
    wrong = GaussianAnchor(ANCHOR.mean + 2.0, torch.from_numpy(LAW.covariance))
    result = log_density(
        MODEL.score, X, SIGMA, anchor=wrong, grid=Grid(5.0, SIGMA, 1), seed=1, method="formula", evaluations=2000,
        formula=Formula(ANCHOR),
    )  # fmt: skip
    low, high = result.interval(0.9999)
    assert not bool(((low - 1e-2 < TRUTH) & (high + 1e-2 > TRUTH)).all())
    assert wrong.error(MODEL.score, 5.0) > 20 * ANCHOR.error(MODEL.score, 5.0)
