"""A walkthrough: write a log density estimator, see it fail, mend it, see it hold.

The task: `log p_σ(x)` from a score alone. Along the probability flow `dx/dσ = −σ s_σ(x)` the log density rises by
`σ div s dσ`, so one walks from σ up to σ_max, where the law is known, and subtracts the integral (Song et al., arXiv
2011.13456, eq. 39). `print(problem)` says what an estimator is given; each row of `x` wants one number.

`wrong` walks by Runge and Kutta's method and takes the law at σ_max to be `N(0, σ_max² I)`, as samplers do:

    studies verify studies.verification.walkthrough:wrong --task log-density

Every problem falls short, by an error that does not fall with the number of steps (observed order 0): it is no
discretisation error. It is worst for the rows far out and grows with the mean and the spread of the data over σ_max:
it is the law assumed at σ_max. `right` asks the anchor instead, and holds, with observed order 4 (at image size a
method of order 2 would err by nats):

    studies verify studies.verification.walkthrough:right --task log-density

The same from Python: `verify(right, "log-density").holds`.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor
from torch.func import jacfwd, vmap

from studies.verification.problem import Problem

__all__ = ["right", "wrong"]


def rates(problem: Problem, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """`dx/dσ` (n, d) and `σ div s` (n,)."""
    jacobian = vmap(jacfwd(lambda u: problem.score(u, sigma)))(x)
    return -sigma * problem.score(x, sigma), sigma * jacobian.diagonal(dim1=1, dim2=2).sum(1)


def walk(problem: Problem) -> tuple[Tensor, Tensor]:
    """The state at σ_max (n, d) and the integral of `σ div s` on the way up (n,), by Runge and Kutta's method."""
    x, total = problem.x, 0.0 * problem.x[:, 0]
    for low, high in pairwise(problem.grid.levels.flip(0)):
        h, middle = high - low, (low + high) / 2
        a, first = rates(problem, x, low)
        b, second = rates(problem, x + h / 2 * a, middle)
        c, third = rates(problem, x + h / 2 * b, middle)
        d, fourth = rates(problem, x + h * c, high)
        x = x + h / 6 * (a + 2 * b + 2 * c + d)
        total = total + h / 6 * (first + 2 * second + 2 * third + fourth)
    return x, total


def wrong(problem: Problem) -> Tensor:
    """Takes the law at σ_max to be `N(0, σ_max² I)`."""
    x, total = walk(problem)
    variance = problem.grid.sigma_max**2
    return -0.5 * (x**2).sum(1) / variance - 0.5 * x.shape[1] * math.log(2 * math.pi * variance) - total


def right(problem: Problem) -> Tensor:
    """Asks the anchor at σ_max."""
    x, total = walk(problem)
    return problem.anchor.log_density(x, problem.grid.sigma_max) - total
