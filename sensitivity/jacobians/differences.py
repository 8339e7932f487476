"""Differences of a score's own values: lengths of steps, and central differences of first order.

Symbols: `x` states of shape `(batch, *shape)`, `σ` their level, `t_k` tangents of shape
`(K, batch, *shape)`, ε the unit roundoff.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sensitivity._callables import evaluate, unit_of

Score = Callable[[Tensor, Tensor], Tensor]


def differences(score: Score, x: Tensor, sigma: Tensor, tangents: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """`(s, [s(x + c t_k) − s(x − c t_k)]/2c)` in one network call, `c` of shape `(K, batch)`."""
    count, batch = tangents.shape[:2]
    scale = scale.reshape(count, batch, *[1] * (x.dim() - 1))
    states = torch.cat([x[None], x + scale * tangents, x - scale * tangents]).flatten(0, 1)
    levels = sigma if sigma.dim() == 0 else sigma.repeat(2 * count + 1)
    values = evaluate(score, states, levels).reshape(2 * count + 1, batch, *x.shape[1:])
    return values[0], (values[1 : count + 1] - values[count + 1 :]) / (2 * scale)


def step_length(x: Tensor, sigma: Tensor, order: int = 1, unit: float | None = None) -> Tensor:
    """Length of a difference step, shape `(batch,)`: `h = σ (ε |x|/σ)^{1/(order + 2)}`, at most σ/2.

    `order` is that of the derivative for central differences, and 0 for the first derivative by forward ones;
    `unit` is ε, by default that of the state's dtype, or of autocast's or a GPU's coarser one.
    """
    noise = (unit or unit_of(x)) * (x.flatten(1).norm(dim=1) / sigma).clamp(min=1.0)
    return sigma * noise.pow(1 / (order + 2)).clamp(max=0.5)


def norms(tangents: Tensor) -> Tensor:
    """Lengths `(K, batch)` of the tangents, 1 where a tangent is zero."""
    lengths = tangents.flatten(2).norm(dim=2)
    return torch.where(lengths > 0, lengths, torch.ones_like(lengths))
