"""Which scores are no gradients, and what follows for log densities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sensitivity import GaussianAnchor, Grid, Mixture, Outcome, Points, Toward, as_score, sample, sample_sensitivity
from sensitivity.jacobians.asymmetry import LEARNED, off_flow
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.trial import VALUES, choose


def _mixture(dimension, dtype):
    means = torch.randn(4, dimension, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Mixture(None, means.to(dtype), torch.tensor(0.1, dtype=dtype))


def _share(score, dimension, dtype=torch.float64, method="auto"):
    x = 20 * torch.randn(2, dimension, generator=torch.Generator().manual_seed(0), dtype=dtype)
    sigma = torch.tensor(20.0, dtype=dtype)
    return choose(Products(score, method), x, sigma, uses=VALUES, until=0.05).off_flow


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dimension", [1, 2, 784])
@pytest.mark.parametrize("method", ["auto", "finite"])
def test_scores_of_laws_are_gradients(dimension, dtype, method):
    """Assert a share of nothing, or of what rounding and differences leave."""
    law = _mixture(dimension, dtype)
    assert _share(lambda x, sigma: law.score(x, sigma), dimension, dtype, method) < 2e-3


def test_states_of_any_shape_have_the_share_of_flat_ones():
    """Assert the same share for states of shape (6,) and (1, 2, 3)."""
    turn = torch.kron(torch.eye(3), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])).double()

    def score(x, sigma):
        return (x.flatten(1) @ (0.05 * turn - torch.eye(6).double()) / (0.25 + sigma**2)).reshape(x.shape)

    x, sigma = torch.ones(2, 6).double(), torch.tensor(20.0).double()
    shares = [
        choose(Products(score), each, sigma, uses=VALUES, until=0.05).off_flow for each in (x, x.reshape(2, 1, 2, 3))
    ]
    assert shares[0] == pytest.approx(shares[1], rel=1e-9)
    assert shares[0] > 0.01


def test_a_law_behind_numpy_is_a_gradient_too():
    """Assert it where nothing can be differentiated."""
    law = _mixture(5, torch.float64)

    def score(x, sigma):
        return torch.from_numpy(np.array(law.score(x.detach(), sigma).tolist()))

    assert _share(score, 5) < 2e-3


@pytest.mark.parametrize("method", ["auto", "forward", "finite"])
def test_turned_scores_are_not(method):
    """Assert that the share grows with the rotation."""
    law = GaussianAnchor(torch.zeros(6).double(), 0.25)
    turn = torch.kron(torch.eye(3), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])).double()
    shares = [
        _share(lambda x, sigma, k=k: law.score(x, sigma) + k * x @ turn / (0.25 + sigma**2), 6, method=method)
        for k in (0.003, 0.03, 0.3)
    ]
    assert 1e-4 < shares[0] < shares[1] / 4
    assert shares[2] > 0.5


def test_a_network_is_none_whatever_its_jacobian():
    """Assert the share of networks for a module with parameters, even for one whose Jacobian is symmetric."""
    network = torch.nn.Linear(3, 3, bias=False).double()
    network.weight.data = 0.3 * torch.eye(3).double()
    assert _share(as_score(lambda x, sigma: network(x), "denoiser"), 3) == LEARNED
    assert off_flow(Products(network), []) == LEARNED


@pytest.mark.parametrize("ask", ["sample", "sensitivity"])
def test_along_noise_no_log_density_of_a_network_is_finished(ask):
    """Assert that the reverse SDE marks it, and not that of a law."""
    network = torch.nn.Linear(3, 3, bias=False).double()
    network.weight.data = 0.1 * torch.eye(3).double()
    law = GaussianAnchor(torch.zeros(3).double(), 0.25)
    latents, grid = 20 * torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).double(), Grid(20.0, 0.1, 40)
    for score, good in ((as_score(lambda x, sigma: network(x), "denoiser"), False), (law.score, True)):
        shared = {"anchor": law, "solver": "sde", "seed": 0}
        if ask == "sample":
            result = sample(score, latents, grid, log_density=True, **shared)
        else:
            change = Toward(Points(torch.ones(1, 3).double(), bandwidth=0.5))
            result = sample_sensitivity(score, latents, change, grid, **shared)
        assert bool(result.outcome.finished.all()) == good
        assert good or result.outcome[0] is Outcome.OFF_FLOW
