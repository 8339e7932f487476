"""Device hygiene of the responses: parameters and patches on the pretend device."""

from __future__ import annotations

import pytest
import torch
from support.close import assert_close
from support.pretend_device import AVAILABLE, NAME, pretend_device
from torch import nn

from sensitivity import (
    DenoisingLoss,
    Grid,
    LocalResponse,
    ParameterResponse,
    Points,
    Toward,
    as_score,
    influence,
    resample,
    sample_sensitivity,
)

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this torch has no PrivateUse1 Python backend")


class _Network(nn.Module):
    """A small denoiser of images."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x, sigma):
        scaled = x.flatten(1) / (1 + sigma[:, None] ** 2)
        return (torch.tanh(scaled) @ self.weights).reshape(x.shape)


def _results(weights, data, latents, kind):
    score, points, grid = as_score(_Network(weights), "denoiser"), Points(data), Grid(3.0, 0.5, 3)
    if kind == "local":
        response = LocalResponse(points, levels=2, states=3)
    else:
        response = ParameterResponse(score, DenoisingLoss(draws=3), points, kind)
    options = {"grid": grid, "response": response}
    change = Toward(Points(data[:2]))
    return [
        sample_sensitivity(score, latents, change, **options).sensitivity,
        influence(score, latents, lambda x: x.flatten(1).square().sum(1), points, **options).values,
        resample(score, latents, change, 0.1, **options).samples,
    ]


@pytest.mark.parametrize("kind", ["local", "ggn", "exact"])
def test_a_response_stays_on_its_device(kind):
    """Assert that nothing is made on another device, and that the values are those of the CPU."""
    draws = torch.Generator().manual_seed(0)
    shapes = ((12, 12), (5, 1, 3, 4), (2, 1, 3, 4))
    given = [torch.randn(shape, generator=draws, dtype=torch.float64) for shape in shapes]
    wanted = _results(*given, kind)
    with pretend_device():
        result = _results(*(part.to(NAME) for part in given), kind)
        for there, here in zip(result, wanted, strict=True):
            assert there.device.type == NAME
            assert_close(there.cpu(), here, rtol=1e-9, atol=1e-9)
