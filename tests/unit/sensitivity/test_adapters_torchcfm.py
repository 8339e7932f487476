"""torchcfm's own networks and conditional velocities, where the package is installed (without its dependencies: it asks
for torchdyn, which asks for torchvision).

Its sampling is an integrator of `velocity(t, x)`; the examples take torchdiffeq's, and so does this test.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.close import assert_close
from torch import Tensor, nn

from sensitivity import Points
from sensitivity.adapters import from_flow_matching
from sensitivity.noise import Noise

torchcfm = pytest.importorskip("torchcfm", reason="pip install --no-deps torchcfm")


def normal(*shape: int, step: int = 0) -> Tensor:
    """Standard normal numbers, float64."""
    return Noise.draw(1, seed=5).gaussian(shape, step=step)[0, 0]


class Marginal(nn.Module):
    """The exact velocity of points y on the straight path: the posterior mean of torchcfm's conditional ones."""

    def __init__(self, points: Tensor) -> None:
        super().__init__()
        self.points = points
        self.matcher = torchcfm.ConditionalFlowMatcher(sigma=0.0)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        time = t.reshape(-1, 1, 1)
        sources = (x[:, None] - time * self.points) / (1 - time)
        weights = torch.softmax(-0.5 * sources.square().sum(-1), dim=1)
        each = self.matcher.compute_conditional_flow(sources, self.points.expand_as(sources), time, x[:, None])
        return (weights[..., None] * each).sum(1)


def test_conditional_velocities_average_to_the_score_of_the_points() -> None:
    """Assert that the adapter makes of torchcfm's velocities the score of the noised points, at any level."""
    points = normal(4, 3)
    score = from_flow_matching(Marginal(points), protocol="torchcfm")
    x = normal(6, 3, step=1)
    for level in (0.1, 1.0, 30.0):
        sigma = torch.tensor(level, dtype=torch.float64)
        assert_close(score(x * level, sigma), Points(points).score(x * level, sigma), rtol=1e-9, atol=1e-12)


class Wrapped(nn.Module):
    """The time as a last coordinate, as `torchcfm.utils.torch_wrapper` hands it to torchcfm's MLP."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, t: Tensor, x: Tensor) -> Any:
        return self.model(torch.cat([x, t.expand(len(x))[:, None]], 1))


def test_step_of_an_mlp() -> None:
    """Assert that torchdiffeq's Euler step in t and the engine's in σ lead to the same state."""
    from torchcfm.models import MLP
    from torchdiffeq import odeint

    torch.manual_seed(0)
    model = Wrapped(MLP(dim=3, time_varying=True, w=16)).eval().double().requires_grad_(False)
    score = from_flow_matching(model, protocol="torchcfm")
    z, times = normal(5, 3), torch.tensor([0.4, 0.4001], dtype=torch.float64)
    after = odeint(model, z, times, method="euler")[-1] / times[1]
    sigma, end = (1 - times) / times
    x = z / times[0]
    moved = x - (end - sigma) * sigma * score(x, sigma)
    # A step of Euler in t is one in σ up to the curvature of z = α x over it.
    assert_close((after - x) / (end - sigma), (moved - x) / (end - sigma), rtol=2e-3)


def test_images_through_a_unet() -> None:
    """Assert the velocity of torchcfm's U-Net in the engine's coordinates, by hand."""
    from torchcfm.models.unet import UNetModel

    torch.manual_seed(0)
    model = (
        UNetModel(dim=(1, 8, 8), num_channels=32, num_res_blocks=1, channel_mult=(1, 2)).eval().requires_grad_(False)
    )
    for parameter in model.parameters():
        if not bool(parameter.any()):
            parameter.normal_(std=0.1)
    score = from_flow_matching(model, protocol="torchcfm")
    sigma = torch.tensor(1.5)  # in double precision the network itself fails: it embeds time in single
    x, t = normal(2, 1, 8, 8).float(), 1 / (1 + sigma)
    velocity = model(t.expand(2), t * x)
    # v = x₀ − ε and x = x₀ + σ ε give ε = (x − v)/(1 + σ), and s = −ε/σ.
    assert_close(score(x, sigma), -(x - velocity) / ((1 + sigma) * sigma), rtol=1e-5)
