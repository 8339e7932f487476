"""torchdiffeq: every solver on the probability flow of a known law, against its exact end; orders; batch coupling;
the log density as a second part of the state.

In `u = log σ`: `dx/du = −σ² s_σ(x)`, `d log p/du = σ² div s_σ(x)`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from studies.conformance.common import Measured, converging, exact, of_package, relative

__all__ = ["CHECKS"]

PACKAGE = "torchdiffeq"
_check = of_package(PACKAGE)
IMAGE = ("image", (1, 4, 4))
SIGMA_MAX, SIGMA_MIN = 9.0, 0.05
FIXED = {"euler": 1.0, "midpoint": 2.0, "heun2": 2.0, "heun3": 3.0, "rk4": 4.0}
ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2")


def field(u: Tensor, x: Tensor) -> Tensor:
    """`−σ² s_σ(x)`."""
    sigma = u.exp()
    return -(sigma**2) * exact().score(x, torch.ones_like(sigma), sigma)


def ends() -> Tensor:
    """Log levels of a path."""
    return torch.tensor([math.log(SIGMA_MAX), math.log(SIGMA_MIN)], dtype=torch.float64)


def fixed(method: str, size: int, stated: float, **options: int) -> Measured:
    """A fixed-step method and its order."""
    from torchdiffeq import odeint

    x = exact().states(8, SIGMA_MAX, 5)
    truth = exact().end(x, SIGMA_MAX, SIGMA_MIN)

    def run(steps: int) -> Tensor:
        times = torch.linspace(math.log(SIGMA_MAX), math.log(SIGMA_MIN), steps + 1, dtype=torch.float64)
        return odeint(field, x, times, method=method, options=options)[-1]

    return converging(run, truth, [16 * size, 32 * size, 64 * size], 0.1, stated)


def adaptive(method: str) -> Measured:
    """An adaptive method at rtol 1e-7."""
    from torchdiffeq import odeint

    x = exact().states(8, SIGMA_MAX, 5)
    end = odeint(field, x, ends(), method=method, rtol=1e-7, atol=1e-8)[-1]
    return Measured(relative(end, exact().end(x, SIGMA_MAX, SIGMA_MIN)), 1e-5)


def coupling() -> Measured:
    """Eight states at once against one by one, rtol 1e-5: steps are chosen by the norm of the whole batch."""
    from torchdiffeq import odeint

    x = exact().states(8, SIGMA_MAX, 5)
    together = odeint(field, x, ends(), rtol=1e-5, atol=1e-6)[-1]
    alone = torch.cat([odeint(field, row[None], ends(), rtol=1e-5, atol=1e-6)[-1] for row in x])
    return Measured(relative(together, alone), 1e-3, note="a sample depends on its batch, within the tolerance.")


def adjoint() -> Measured:
    """`odeint_adjoint` against differentiation through the solver: gradient of the end in the start."""
    from torchdiffeq import odeint, odeint_adjoint

    gradients = []
    for solver, options in ((odeint, {}), (odeint_adjoint, {"adjoint_params": ()})):
        x = exact().states(4, SIGMA_MAX, 5).requires_grad_()
        end = solver(field, x, ends(), rtol=1e-9, atol=1e-10, **options)[-1]
        gradients.append(torch.autograd.grad(end.square().sum(), x)[0])
    return Measured(relative(gradients[1], gradients[0]), 1e-4)


def shaped() -> Measured:
    """Image-shaped states (n, 1, 4, 4) against the exact end."""
    from torchdiffeq import odeint

    network = exact(*IMAGE)
    x = network.states(8, SIGMA_MAX, 5)

    def slope(u: Tensor, z: Tensor) -> Tensor:
        return -(u.exp() ** 2) * network.score(z, torch.ones_like(u), u.exp())

    end = odeint(slope, x, ends(), rtol=1e-7, atol=1e-8)[-1]
    return Measured(relative(end, network.end(x, SIGMA_MAX, SIGMA_MIN)), 1e-5)


def likelihood(where: tuple[str, tuple[int, ...]] | None, size: int, seed: int, exactly: bool) -> Measured:
    """`odeint` on the pair (x, log p) from σ_min up, exact trace or one projection a path, against the exact law."""
    from torchdiffeq import odeint

    network = exact(*where) if where else exact()
    count, times = 8, 1 if exactly else 16 * size
    given = network.states(count, SIGMA_MIN, 11)
    x = given.repeat(times, *[1] * (given.ndim - 1))
    signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(seed)).double() * 2 - 1

    def slope(u: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        one, sigma = torch.ones_like(u), u.exp()
        if exactly:
            score = network.score(state[0], one, sigma)
            return -(sigma**2) * score, sigma**2 * network.torch.noised(sigma).score_divergence(_rows(state[0]))
        score, product, *_ = torch.func.jvp(lambda z: network.score(z, one, sigma), (state[0],), (signs,))
        return -(sigma**2) * score, sigma**2 * _rows(product * signs).sum(1)

    path = odeint(slope, (x, torch.zeros(len(x), dtype=x.dtype)), ends().flip(0), rtol=1e-6, atol=1e-7)
    top = network.torch.noised(SIGMA_MAX).log_density(_rows(path[0][-1]))
    values, truth = top - path[1][-1], network.torch.noised(SIGMA_MIN).log_density(_rows(given))
    if exactly:
        return Measured(float((values - truth).abs().max()), 1e-3, "nats")
    values = values.reshape(times, count)
    error = (values.mean(0) - truth).abs() / (values.std(0) / times**0.5)
    note = f"one projection kept for the whole path: standard deviation {float(values.std(0).median()):.2g} nats."
    return Measured(float(error.median()), 2.0, "standard errors", note=note)


def _rows(x: Tensor) -> Tensor:
    return x.flatten(1)


CHECKS = (
    *[_check(m, "solver", "flat", lambda seed, size, m=m, p=p: fixed(m, size, p)) for m, p in FIXED.items()],
    *[
        _check(f"{m}-order-4", "solver", "flat", lambda seed, size, m=m: fixed(m, size, 4.0, max_order=4))
        for m in ("explicit_adams", "implicit_adams")
    ],
    *[
        _check(f"{m}-default", "solver", "flat", lambda seed, size, m=m: fixed(m, size, 4.0))
        for m in ("explicit_adams", "implicit_adams")
    ],
    *[_check(m, "solver", "flat", lambda seed, size, m=m: adaptive(m)) for m in ADAPTIVE],
    _check("batch-coupling", "solver", "flat", lambda seed, size: coupling()),
    _check("adjoint", "solver", "flat", lambda seed, size: adjoint()),
    _check("dopri5-image", "solver", "image", lambda seed, size: shaped()),
    *[
        _check(
            f"likelihood-{kind}-{where}", "density", where, lambda seed, size, s=s, e=e: likelihood(s, size, seed, e)
        )
        for kind, e in (("exact", True), ("hutchinson", False))
        for where, s in (("flat", None), ("image", IMAGE))
    ],
)
