"""The oracles on a device that refuses mixing: the CPU's values, on the device of the input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.pretend_device import AVAILABLE, NAME, pretend_device
from support.problems import PROBLEMS

from oracles import AdditivePerturbation, GaussianMixture
from oracles.empirical import EmpiricalLaw
from oracles.features import FeatureDenoiser, moving, removal
from oracles.parameters import ParameterPerturbation

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this torch has no PrivateUse1 Python backend")

PROBLEM = PROBLEMS["d3_k4_s0"]
STATES = np.random.default_rng(0).standard_normal((4, 3))


def quantities(convert: Any) -> list[Any]:
    """Values of every kind from parameters and states made by `convert`."""
    law, toward = (GaussianMixture(*map(convert, part)) for part in (PROBLEM.base, PROBLEM.toward))
    low = GaussianMixture.low_rank(convert(PROBLEM.base.weights), law.means, law.covariances[:, :, :1], 0.2)
    x, perturbation = convert(STATES), AdditivePerturbation(law, toward)
    values = []
    for one in (law, low, GaussianMixture.empirical(law.means), EmpiricalLaw(law.means), perturbation.at(0.3)):
        noised = one.noised(0.5)
        values += [noised.log_density(x), noised.score(x), noised.score_jacobian(x), noised.score_divergence(x)]
        values += [noised.score_jacobian_product(x, x), noised.third_order(x, x, x), noised.responsibilities(x)]
        values += [*one.posterior(x, 0.5), one.sample(3, 0), one.mean, one.covariance, noised.noised(0.1).score(x)]
    values += [EmpiricalLaw(law.means).noised(1e-9).score(x), perturbation.score_derivative(x, 0.5, 2, 0.1)]
    path = ParameterPerturbation(law, means=x, covariances=law.covariances)
    values += [path.score_derivative(x, 0.5, 2), *perturbation.sample_sensitivity(x, 4.0, 1.0)]
    for one in (law, low, GaussianMixture.empirical(law.means), GaussianMixture.isotropic(law.weights, law.means, 0.2)):
        posterior = one.conditioned(x[:2, :], x[0, :2], 0.3)
        values += [posterior.noised(0.5).score(x), posterior.weights, one.log_evidence(x[:2, :], x[0, :2], 0.3)]
    fitted = FeatureDenoiser(x, x[:, 0], 0.1).fit(law.means, law.weights)
    values += [fitted.denoiser(x, 0.5), fitted.score_jacobian(x, 0.5), fitted.score_derivative(x, 0.5, x, order=2)]
    values += [moving(fitted, law.means).score_derivative(x, 0.5, 2), removal(fitted, [0])[0].score_derivative(x, 0.5)]
    values += [*fitted.sample_sensitivity(x, x[:1, :], 4.0, 1.0), fitted.influence(x, x, 4.0, 1.0)]
    line = GaussianMixture.isotropic(law.weights, law.means[:, :1], 0.3)
    return [*values, line.cdf(x[:, :1]), line.quantile(line.cdf(x[:, :1]))]


def test_everything_stays_on_the_device() -> None:
    """Assert the device of every result and the CPU's values."""
    plain = quantities(torch.tensor)
    with pretend_device() as move:
        results = quantities(lambda array: move(torch.as_tensor(array)))
        assert {value.device.type for value in results} == {NAME}
        for value, expected in zip(results, plain, strict=True):
            assert_close(value.cpu(), expected, rtol=1e-9, atol=1e-10 * float(expected.abs().max() + 1))


def test_mixed_devices_are_refused_before_anything_runs() -> None:
    """Assert the message that names both devices."""
    with pretend_device() as move:
        law = GaussianMixture.isotropic(torch.ones(1), torch.zeros(1, 3), 1.0)
        with pytest.raises(ValueError, match=f"x is on device {NAME}:0 but cpu is in use"):
            law.score(move(torch.zeros(3)))
