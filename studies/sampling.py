"""Plain sampling with the engine's own solvers, for networks whose samples are only compared."""

from __future__ import annotations

import torch
from torch import Tensor

import sensitivity
from sensitivity import Grid, Outcome, Score
from sensitivity._checks import per_sample

_HALTED = [outcome.value for outcome in Outcome if outcome.halts]


def sample(score: Score, latents: Tensor, grid: Grid, *, solver: str = "heun") -> Tensor:
    """Samples x(σ_min) of the probability flow from latents x(σ_max), by the engine; NaN where one halted.

    Args:
        score: s(x, σ).
        latents: states at the grid's σ_max (batch, *shape).
        grid, solver: as for `sensitivity.sample`.

    Example:
        >>> grid = Grid(10.0, 0.1, 20)
        >>> x = sample(lambda x, sigma: -x / (1 + sigma**2), torch.tensor([[10.0]]), grid)
        >>> bool((x - 10 * (1.01 / 101) ** 0.5).abs() < 0.05)  # N(0, 1) scales by its standard deviations
        True
    """
    result = sensitivity.sample(score, latents, grid, solver=solver)
    halted = torch.isin(result.outcome.codes, torch.tensor(_HALTED)).to(latents.device)
    return result.samples.masked_fill(per_sample(halted, latents), float("nan"))
