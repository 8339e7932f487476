"""torchcfm: conditional paths and their velocities.

Along a path `x_t = μ_t(x0, x1) + σ_t ε` with ε kept, the conditional velocity must be `dx_t/dt`; averaged over the
pairs given `x_t`, it is the marginal velocity, known for a mixture.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studies.conformance.common import Measured, exact, of_package, relative

__all__ = ["CHECKS"]

PACKAGE = "torchcfm"
_check = of_package(PACKAGE)
KINDS = {
    "ConditionalFlowMatcher": 0.0,
    "TargetConditionalFlowMatcher": 0.1,
    "VariancePreservingConditionalFlowMatcher": 0.0,
    "SchrodingerBridgeConditionalFlowMatcher": 0.5,
}


def matcher(kind: str, sigma: float) -> Any:
    from torchcfm import conditional_flow_matching

    return getattr(conditional_flow_matching, kind)(sigma=sigma)


def velocity(kind: str, shape: tuple[int, ...]) -> Measured:
    """Conditional velocity against the derivative of the path at fixed noise."""
    made = matcher(kind, KINDS[kind])
    network = exact("image", shape)
    x0, x1 = network.states(8, 1.0, 1), network.states(8, 0.0, 2)
    noise = network.states(8, 1.0, 3)
    t = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    h = 1e-5

    def at(time: Tensor) -> Tensor:
        return made.sample_xt(x0, x1, time, noise)

    quotient = (at(t + h) - at(t - h)) / (2 * h)
    return Measured(relative(made.compute_conditional_flow(x0, x1, t, at(t)), quotient), 1e-6)


def marginal(seed: int, size: int) -> Measured:
    """The straight path's velocity, regressed on `x_t` in the exact way: its mean over pairs weighs to the truth.

    For any test function f, `E[f(x_t) u_t(x0, x1)] = E[f(x_t) v_t(x_t)]`; f is the identity and the error is in
    standard errors of the difference.
    """
    made = matcher("ConditionalFlowMatcher", 0.0)
    network = exact()
    n = 4000 * size
    generator = torch.Generator().manual_seed(seed)
    x1 = network.states(n, 0.0, seed)
    x0 = torch.randn(x1.shape, generator=generator, dtype=torch.float64)
    t = torch.full((n,), 0.6, dtype=torch.float64)
    xt = made.sample_xt(x0, x1, t, torch.zeros_like(x0))
    given = made.compute_conditional_flow(x0, x1, t, xt)
    one = torch.ones((), dtype=torch.float64)
    true = network.velocity(xt, 0.6 * one, 0.4 * one, one, -one)
    gap = (xt * (given - true)).sum(1)
    return Measured(float(gap.mean().abs() / (gap.std() / n**0.5)), 4.0, "standard errors")


CHECKS = (
    *[
        _check(f"velocity-{kind}-{where}", "conversion", where, lambda seed, size, k=kind, s=s: velocity(k, s))
        for kind in KINDS
        for where, s in (("flat", (16,)), ("image", (1, 4, 4)))
    ],
    _check("marginal-velocity", "conversion", "flat", marginal),
    _check("likelihood", "density", "none", None, "no likelihoods in this package"),
)
