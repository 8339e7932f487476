"""lampe: the flow of its flow-matching posterior estimator, `z_t = (1 − t) θ + t ε`, with the exact velocity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studies.conformance.common import Measured, exact, flat_of_package, lawful

__all__ = ["CHECKS"]

PACKAGE = "lampe"


def flow(name: str) -> Any:
    """`FMPE.flow` of an estimator whose velocity is the law's, whatever is observed."""
    from lampe.inference import FMPE

    class Known(FMPE):
        def forward(self, theta: Tensor, x: Tensor, t: Tensor) -> Tensor:
            t = t.clamp(1e-6, 1 - 1e-6)
            one = torch.ones_like(t)
            return exact(name).velocity(theta, 1 - t, t, -one, one)

    return Known(exact(name).dimension, 1).double().flow(torch.zeros(1, dtype=torch.float64))


def density() -> Measured:
    """`log_prob`, exact divergence, in nats."""
    states = exact("five").states(8, 0.0, 3)
    with torch.no_grad():
        values = flow("five").log_prob(states)
    return Measured(float((values - exact("five").log_density(states)).abs().max()), 1e-3, "nats")


def drawing(seed: int, size: int) -> Measured:
    """`sample`: the law of its draws."""
    torch.manual_seed(seed)
    with torch.no_grad():
        draws = flow("plane").sample((500 * size,))
    return lawful(draws, "plane", 1e-3)


_check = flat_of_package(PACKAGE)
CHECKS = (
    _check("likelihood-exact", "density", lambda seed, size: density()),
    _check("law-flow", "law", drawing),
)
