"""Exact denoisers that networks are held against: the population's and the data set's own, blind where they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sensitivity import Points
from studies.bridge import ExactLaw
from studies.training import Objective, blind_optimum

Function = Callable[[Tensor, float], Tensor]


class Memory:
    """The noised empirical law of data (N, d): the engine's `Points`, with the denoiser `x + σ² s`."""

    def __init__(self, data: Tensor) -> None:
        self.points = Points(data)

    def log_density(self, x: Tensor, sigma: float) -> Tensor:
        """`log p_σ(x)`, (n,)."""
        return self.points.log_density(x, sigma)

    def denoiser(self, x: Tensor, sigma: float) -> Tensor:
        """The mean of the data given the noisy state."""
        return x + float(sigma) ** 2 * self.points.score(x, sigma)


def optimum(law: ExactLaw | Memory, objective: Objective, scale: float) -> Function:
    """What the objective's best network computes on that law."""
    if objective.kind != "blind":
        return law.denoiser
    blind = blind_optimum(law, objective, scale)  # type: ignore[arg-type]  # of a law only these two methods are used
    return lambda x, sigma: blind(x, torch.as_tensor(sigma))
