"""zuko: continuous flows (likelihood and samples) and mixtures, with the exact velocity of a known law.

The flow here runs from data (t = 0) to noise (t = 1) on the straight path `z = (1 − t) x + t ε`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studies.conformance.common import Check, Measured, exact, largest, relative

__all__ = ["CHECKS"]

PACKAGE = "zuko"


def transform(exactly: bool, rtol: float) -> Any:
    """zuko's free-form Jacobian transformation along the exact velocity."""
    from zuko.transforms import FreeFormJacobianTransform

    network = exact()

    def velocity(t: Tensor, z: Tensor) -> Tensor:
        time = torch.as_tensor(t, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
        one = torch.ones_like(time)
        return network.velocity(z, 1 - time, time, -one, one)

    return FreeFormJacobianTransform(velocity, t0=0.0, t1=1.0, atol=rtol, rtol=rtol, exact=exactly)


def likelihood(rtol: float, allowed: float) -> Measured:
    """`log N(z(1)) + log |det|` against the exact log density."""
    network = exact()
    x = network.states(8, 0.0, 11)
    z, change = transform(True, rtol).call_and_ladj(x)
    value = -0.5 * (z**2 + torch.log(torch.tensor(2 * torch.pi))).sum(1) + change
    return Measured(float((value - network.log_density(x)).abs().max().detach()), allowed, "nats")


def stochastic(seed: int, size: int) -> Measured:
    """The same with one random projection per path: mean over repeats against the exact log density."""
    network, count, times = exact(), 8, 16 * size
    x = network.states(count, 0.0, 11)
    torch.manual_seed(seed)
    z, change = transform(False, 1e-5).call_and_ladj(x.repeat(times, 1))
    value = -0.5 * (z**2 + torch.log(torch.tensor(2 * torch.pi))).sum(1) + change
    values = value.detach().reshape(times, count)
    error = (values.mean(0) - network.log_density(x)).abs() / (values.std(0) / times**0.5)
    note = f"one Gaussian projection kept for the path: standard deviation {float(values.std(0).median()):.2g} nats."
    return Measured(float(error.median()), 2.0, "standard errors", note=note)


def inverse() -> Measured:
    """The inverse transformation brings samples back, and noise to the exact flow's end."""
    network = exact()
    flow = transform(True, 1e-8)
    x = network.states(8, 0.0, 11)
    return Measured(relative(flow.inv(flow(x)).detach(), x), 1e-5)


def mixture() -> Measured:
    """`zuko.distributions.Mixture` of Gaussians: log density at the law's own points."""
    from zuko.distributions import Mixture

    network = exact()
    base = torch.distributions.MultivariateNormal(network.torch.means, network.torch.covariances)
    made = Mixture(base, network.torch.weights.log())
    x = network.states(32, 0.0, 3)
    return Measured(largest(made.log_prob(x), network.log_density(x)), 1e-9)


def unnormalised() -> Measured:
    """`GMM`, a mixture as a flow: its density against one built from its own parameters by the oracle."""
    import zuko

    from oracles import GaussianMixture

    torch.manual_seed(0)
    made = zuko.flows.GMM(3, components=4).double()()
    weights = made.logits.softmax(-1)
    law = GaussianMixture(weights.detach(), made.base.loc.detach(), made.base.covariance_matrix.detach())
    x = torch.randn(32, 3, dtype=torch.float64)
    return Measured(largest(made.log_prob(x).detach(), law.log_density(x)), 1e-9)


CHECKS = (
    Check(PACKAGE, "likelihood-exact", "density", "flat", lambda seed, size: likelihood(1e-6, 1e-3)),
    Check(PACKAGE, "likelihood-exact-tight", "density", "flat", lambda seed, size: likelihood(1e-9, 1e-6)),
    Check(PACKAGE, "likelihood-hutchinson", "density", "flat", stochastic),
    Check(PACKAGE, "inverse", "sampler", "flat", lambda seed, size: inverse()),
    Check(PACKAGE, "mixture", "density", "flat", lambda seed, size: mixture()),
    Check(PACKAGE, "GMM", "density", "flat", lambda seed, size: unnormalised()),
    Check(PACKAGE, "likelihood-image", "density", "image", None, "transformations are defined on vectors"),
)
