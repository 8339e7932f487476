"""Exact denoisers that networks are held against: the population's and the data set's own, blind where they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from oracles.empirical import EmpiricalLaw
from sensitivity import Points
from studies.bridge import ExactLaw
from studies.training import Objective, blind_optimum
from studies.training.objectives import standard_levels

Function = Callable[[Tensor, float], Tensor]
Pair = tuple[Tensor, Tensor]


class Memory:
    """The noised empirical law of data (N, d): the engine's `Points`, with the denoiser `x + σ² s`.

    Args:
        data: (N, d).
        bandwidth: b, a standard deviation put on every datum (a kernel density estimate).
    """

    def __init__(self, data: Tensor, bandwidth: float = 0.0) -> None:
        self.points = Points(data, bandwidth=bandwidth)

    def both(self, x: Tensor, sigma: Tensor | float) -> Pair:
        """`log p_σ(x)` (n,) and the mean of the clean datum given the noisy state (n, d), in one pass over the data."""
        level = torch.as_tensor(sigma, dtype=x.dtype)
        density, score = self.points.log_density_and_score(x, level)
        return density, x + (level.reshape(-1, 1) if level.ndim else level) ** 2 * score

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`log p_σ(x)`, (n,)."""
        return self.points.log_density(x, sigma)

    @cached_property
    def oracle(self) -> EmpiricalLaw:
        """The same law (b = 0) from the oracles, which share no code with the engine."""
        return EmpiricalLaw(self.points.data)

    def denoiser(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The mean of the data given the noisy state: the oracle's for one σ, the engine's for one σ a state."""
        if isinstance(sigma, Tensor) and sigma.ndim:
            return self.both(x, sigma)[1]
        return self.oracle.denoiser(x, float(sigma))

    def untold(self, x: Tensor, objective: Objective, scale: float) -> Tensor:
        """The best denoiser that is not told σ, as `blind_optimum`, with the distances taken once for all levels."""
        data = self.points.data
        squares = torch.cdist(x, data, compute_mode="donot_use_mm_for_euclid_dist").square()
        logs, means = [], []
        for level in standard_levels(objective, scale):
            terms = -squares / (2 * level**2)
            logs.append(terms.logsumexp(1) - x.shape[-1] * level.log())
            means.append(torch.softmax(terms, dim=1) @ data)
        return torch.einsum("ln,lnd->nd", torch.softmax(torch.stack(logs), dim=0), torch.stack(means))


def optimum(law: ExactLaw | Memory, objective: Objective, scale: float) -> Function:
    """What the objective's best network computes on that law."""
    if objective.kind != "blind":
        return law.denoiser
    if isinstance(law, Memory):
        return lambda x, sigma: law.untold(x, objective, scale)
    blind = blind_optimum(law, objective, scale)
    return lambda x, sigma: blind(x, torch.as_tensor(sigma))
