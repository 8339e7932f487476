"""torchsde: the reverse SDE of a known law (law of its samples), and strong orders where the solution is known.

In `v = σ²`, downward: `dx = s_σ(x) dv + dB` has the same marginals as noising (κ = 1 of the family of samplers between
flow and reverse SDE).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studies.conformance.common import Measured, exact, lawful, of_package, order

__all__ = ["CHECKS"]

PACKAGE = "torchsde"
_check = of_package(PACKAGE)
SIGMA_MAX, SIGMA_MIN = 9.0, 0.1
STRONG = {"euler": 0.5, "milstein": 1.0, "srk": 1.5}


class Reverse(torch.nn.Module):
    """The reverse SDE in `u = −log σ`: `dx = 2σ² s du + √2 σ dB`."""

    noise_type = "diagonal"
    sde_type = "ito"

    def f(self, u: Tensor, x: Tensor) -> Tensor:
        sigma = torch.exp(-u)
        return 2 * sigma**2 * exact("plane").score(x, torch.ones_like(sigma), sigma)

    def g(self, u: Tensor, x: Tensor) -> Tensor:
        return (2**0.5 * torch.exp(-u)).expand_as(x)


def reverse(method: str, size: int, seed: int) -> Measured:
    """Law of the samples of the reverse SDE."""
    import torchsde

    torch.manual_seed(seed)
    x = exact("plane").states(1000 * size, SIGMA_MAX, seed)
    times = torch.tensor([-math.log(SIGMA_MAX), -math.log(SIGMA_MIN)], dtype=torch.float64)
    area = "space-time" if method == "srk" else "none"
    bm = torchsde.BrownianInterval(
        t0=times[0], t1=times[1], size=tuple(x.shape), dtype=x.dtype, entropy=seed, levy_area_approximation=area
    )
    step = float(times[1] - times[0]) / 256
    end = torchsde.sdeint(Reverse(), x, times, bm=bm, method=method, dt=step)[-1].detach()
    return lawful(end, "plane", SIGMA_MIN, note="256 steps.")


class Geometric(torch.nn.Module):
    """`dx = a x dt + b x dB`, with solution `x exp((a − b²/2) t + b B)`."""

    noise_type = "diagonal"
    sde_type = "ito"
    a, b = 0.5, 0.8

    def f(self, t: Tensor, x: Tensor) -> Tensor:
        return self.a * x

    def g(self, t: Tensor, x: Tensor) -> Tensor:
        return self.b * x


def strong(method: str, size: int, seed: int) -> Measured:
    """Strong error against the exact solution on the same Brownian path, and its order."""
    import torchsde

    sde, x = Geometric(), torch.ones(200 * size, 1, dtype=torch.float64)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    options: dict[str, Any] = {"levy_area_approximation": "space-time"} if method == "srk" else {}
    bm = torchsde.BrownianInterval(t0=0.0, t1=1.0, size=tuple(x.shape), dtype=x.dtype, entropy=seed, **options)
    truth = x * torch.exp((sde.a - sde.b**2 / 2) + sde.b * bm(0.0, 1.0))
    sizes = [8, 16, 32, 64]
    ends = [torchsde.sdeint(sde, x, times, bm=bm, method=method, dt=1 / n)[-1].detach() for n in sizes]
    errors = [float((end - truth).square().mean().sqrt() / truth.square().mean().sqrt()) for end in ends]
    return Measured(errors[-1], 0.1, order=order(sizes, errors), expected=STRONG[method])


def increments(seed: int) -> Measured:
    """`BrownianInterval`: increments add up, whatever the order of the queries."""
    import torchsde

    bm = torchsde.BrownianInterval(t0=0.0, t1=1.0, size=(100, 3), dtype=torch.float64, entropy=seed)
    cuts = np.sort(np.random.default_rng(seed).uniform(0, 1, 20))
    whole = bm(0.0, 1.0)
    parts = [bm(a, b) for a, b in zip([0.0, *cuts], [*cuts, 1.0], strict=True)]
    return Measured(float((sum(parts) - whole).abs().max()), 1e-10)


CHECKS = (
    *[
        _check(f"reverse-{m}", "law", "flat", lambda seed, size, m=m: reverse(m, size, seed))
        for m in ("euler", "milstein", "srk")
    ],
    *[_check(f"strong-{m}", "solver", "flat", lambda seed, size, m=m: strong(m, size, seed)) for m in STRONG],
    _check("brownian-increments", "law", "none", lambda seed, size: increments(seed)),
    _check("reverse-image", "law", "image", None, "sdeint takes states (batch, channels) and refuses other shapes"),
    _check("likelihood", "density", "none", None, "no likelihoods of samples in this package"),
)
