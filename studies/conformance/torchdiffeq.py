"""torchdiffeq: every solver on the probability flow of a known law, against its exact end; orders; batch coupling.

In `u = log σ`: `dx/du = −σ² s_σ(x)`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from studies.conformance.common import Check, Measured, converging, exact, relative

__all__ = ["CHECKS"]

PACKAGE = "torchdiffeq"
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


def _check(name: str, quantity: str, shape: str, run: Any, note: str = "") -> Check:
    return Check(PACKAGE, name, quantity, shape, run, note)


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
)
