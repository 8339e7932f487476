"""The bandwidth of a law smoothed from its points: the one under which held-out data of the law are likeliest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sensitivity import Points

CHOICES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)

# Densities have a noise level above 0; one far below every bandwidth leaves the kernels as they are.
LEVEL = 1e-4


def likeliest(data: Tensor, held_out: Tensor, choices: Sequence[float] = CHOICES, *, unit: float = 1.0) -> float:
    """The bandwidth of highest mean held-out log density: how far a datum speaks for others.

    Args:
        data: the points (N, *shape).
        held_out: other draws of their law (n, *shape).
        choices: candidates in units of `unit`.
        unit: the data's own scale.

    Example:
        >>> points = torch.linspace(0, 1, 100).double().unsqueeze(1)
        >>> likeliest(points, points[:50] + 0.005, (0.003, 0.01, 0.03))
        0.01
    """
    logs = [Points(data, bandwidth=b * unit).log_density(held_out, LEVEL * unit).mean() for b in choices]
    return unit * choices[int(torch.stack(logs).argmax())]
