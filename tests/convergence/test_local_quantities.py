"""Local quantities of the engine against the oracle, from one dimension to a hundred and one component to eight."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.problems import problem
from torch import Tensor

from oracles import AdditivePerturbation, GaussianMixture
from sensitivity import Toward, score_derivative
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.traces import Trace
from sensitivity.jacobians.trial import choose
from studies.bridge import engine_measure

SIZES = [(1, 1), (1, 8), (2, 3), (2, 8), (10, 1), (10, 5), (100, 2), (100, 8)]  # (dimension, components)
LEVELS = (0.05, 0.5, 5.0)
COUNT = 24


class Setting:
    """One problem at one level: the oracle's truth, the engine's score, states of the noised law, tangents."""

    def __init__(self, d: int, k: int, sigma: float) -> None:
        given = problem(d, k, 3)
        self.sigma = torch.tensor(sigma, dtype=torch.float64)
        self.base, self.toward = (GaussianMixture(*law) for law in (given.base, given.toward))
        rng = np.random.default_rng([d, k])
        self.x = self.base.sample(COUNT, 1) + sigma * rng.standard_normal((COUNT, d))
        self.v = rng.standard_normal(self.x.shape)
        self.noised = self.base.noised(sigma)
        self.score = engine_measure(self.base).score
        self.states, self.tangents = torch.from_numpy(self.x), torch.from_numpy(self.v)
        self.products = choose(Products(self.score), self.states, self.sigma)


def _score(at: Setting) -> tuple[Tensor, np.ndarray]:
    return at.score(at.states, at.sigma), at.noised.score(at.x)


def _product(at: Setting) -> tuple[Tensor, np.ndarray]:
    value = at.products.jvp(at.states, at.sigma, at.tangents[None])[1][0]
    return value, at.noised.score_jacobian_product(at.x, at.v)


def _divergence(at: Setting) -> tuple[Tensor, np.ndarray]:
    exact = Trace.resolve("exact", None, at.x.shape[1])
    return exact.divergence(at.products, at.states, at.sigma)[1].T, at.noised.score_divergence(at.x)[:, None]


def _log_ratio(at: Setting) -> tuple[Tensor, np.ndarray]:
    logs = torch.from_numpy(at.noised.log_density(at.x))
    ratios = Toward(engine_measure(at.toward)).log_ratio(at.states, at.sigma, logs)
    wanted = at.toward.noised(float(at.sigma)).log_density(at.x) - at.noised.log_density(at.x)
    return ratios[:, None], wanted[:, None]


def _source(at: Setting) -> tuple[Tensor, np.ndarray]:
    logs, change = torch.from_numpy(at.noised.log_density(at.x)), Toward(engine_measure(at.toward))
    derivative = score_derivative(at.score, at.states, at.sigma, change, log_density=logs)
    return derivative, AdditivePerturbation(at.base, at.toward).score_derivative(at.x, float(at.sigma))


QUANTITIES = {"s": _score, "∇s·v": _product, "div s": _divergence, "log r": _log_ratio, "ṡ": _source}


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize(("d", "k"), SIZES)
def test_errors_are_at_rounding(d: int, k: int, quantity: str) -> None:
    """Assert that median and 99 % quantile of the relative error over states and levels are at most 1e-9."""
    errors = np.concatenate([_errors(QUANTITIES[quantity], Setting(d, k, sigma)) for sigma in LEVELS])
    assert np.median(errors) <= 1e-12
    assert np.quantile(errors, 0.99) <= 1e-9


def _errors(compare: Callable[[Setting], tuple[Tensor, np.ndarray]], at: Setting) -> np.ndarray:
    """Per state, relative to the largest entry."""
    value, wanted = compare(at)
    wanted = np.asarray(wanted)
    return np.abs(value.numpy() - wanted).max(1) / np.maximum(np.abs(wanted).max(1), 1e-290)


def test_a_level_one_part_in_a_billion_off_is_seen() -> None:
    """Assert that the comparison has the power that it claims: a score at a slightly wrong level fails it."""
    at = Setting(10, 5, 0.5)
    at.sigma = at.sigma * (1 + 1e-8)
    assert np.median(_errors(_score, at)) > 1e-9
