"""Squared distances `|x_i − y_j|²` that stay accurate when they are divided by a small noise variance.

`|x|² − 2 x·y + |y|²` loses everything below `ε |x|²`; divided by 2σ² with σ = .002 of the data's scale that is
tens of nats in float32. So it is formed in double precision about a common centre (twice the cost of float32 on a
CPU), and the nearest points, which carry the sum, are evaluated again directly as `Σ (x − y)²`. Small problems are
evaluated directly throughout.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["kernel", "kernel_", "squared_distances", "squared_lengths", "wide"]

# Below this many elements of the difference array the direct form is at least as fast.
DIRECT = 1 << 18
LEADING = 8


def wide(x: Tensor) -> torch.dtype:
    """Double precision where the device has it."""
    return x.dtype if x.device.type == "mps" else torch.float64


# Exponents below these give kernels of zero; their exponentials are the last normal numbers.
_LOWEST = {torch.float64: -708.0, torch.float32: -87.0}


def kernel(exponents: Tensor) -> Tensor:
    """`e^x`, zero where it is below all normal numbers: on those processors spend up to a hundred times the time."""
    lowest = _LOWEST.get(exponents.dtype)
    if lowest is None:
        return exponents.exp()
    values = exponents.clamp(min=lowest).exp_()
    return functional.threshold(values, *_above(lowest))


def kernel_(exponents: Tensor) -> Tensor:
    """`kernel` in the place of its exponents, which no derivative needs: no second array passes through the cache."""
    lowest = _LOWEST.get(exponents.dtype)
    if lowest is None:
        return exponents.exp_()
    return functional.threshold(exponents.clamp_(min=lowest).exp_(), *_above(lowest), inplace=True)


def _above(lowest: float) -> tuple[float, float]:
    """Threshold and what is below it: all that was clamped is now e^lowest, rounded either way."""
    return math.exp(lowest) * (1 + 1e-5), 0.0


def squared_lengths(y: Tensor, centre: Tensor) -> Tensor:
    """`|y_j − c|²`, `(n,)`, in double precision: computed once for all states."""
    return ((y.to(wide(y)) - centre.to(wide(y))) ** 2).sum(1)


def squared_distances(x: Tensor, y: Tensor, centre: Tensor, lengths: Tensor) -> Tensor:
    """`|x_i − y_j|²` of `x` `(batch, d)` and `y` `(n, d)`: `(batch, n)`, in double precision.

    `lengths` are `squared_lengths(y, centre)`.
    """
    if x.shape[0] * y.numel() <= DIRECT:
        return _direct(x, y)
    return _leading_again(_expanded(x.to(wide(x)), y.to(wide(x)), centre.to(wide(x)), lengths), x, y)


def _direct(x: Tensor, y: Tensor) -> Tensor:
    difference = x[:, None].to(wide(x)) - y.to(wide(x))
    return (difference * difference).sum(-1)


def _expanded(x: Tensor, y: Tensor, centre: Tensor, lengths: Tensor) -> Tensor:
    """`|x−c|² + 2(x−c)·c + |y−c|² − 2(x−c)·y`: no pass over the data but the product itself."""
    offset = x - centre
    squares = (offset * (offset + 2 * centre)).sum(1, keepdim=True)
    return torch.addmm(squares + lengths, offset, y.T, alpha=-2.0)


def _leading_again(approximate: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Replace the values of the nearest points of each row; derivatives in `x` stay those of the expanded form."""
    near = approximate.detach().topk(min(LEADING, y.shape[0]), dim=1, largest=False).indices
    difference = x.detach()[:, None].to(approximate.dtype) - y[near].to(approximate.dtype)
    exact = (difference * difference).sum(-1)
    # A detached correction changes the value only: both forms have the same derivative, 2 (x − y), and topk has none.
    correction = exact - approximate.detach().gather(1, near)
    return approximate + torch.zeros_like(approximate.detach()).scatter(1, near, correction)
