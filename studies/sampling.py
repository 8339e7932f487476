"""Plain sampling with the engine's own solvers, for networks whose samples are only compared."""

from __future__ import annotations

import torch
from torch import Tensor

from sensitivity import Grid, Score
from sensitivity.jacobians.products import Products
from sensitivity.sampler.local_maps import Law, Laws
from sensitivity.sampler.path import run, sampling
from sensitivity.sampler.step import State
from sensitivity.sampler.tableau import find, of_grid


def sample(score: Score, latents: Tensor, grid: Grid, *, solver: str = "heun") -> Tensor:
    """Samples x(σ_min) of the probability flow from latents x(σ_max), as the engine computes them.

    Args:
        score: s(x, σ). latents: states at the grid's σ_max (batch, *shape). grid, solver: as for `sample_sensitivity`.

    >>> grid = Grid(10.0, 0.1, 20)
    >>> x = sample(lambda x, sigma: -x / (1 + sigma**2), torch.tensor([[10.0]]), grid)
    >>> bool((x - 10 * (1.01 / 101) ** 0.5).abs() < 0.05)  # N(0, 1) scales by its standard deviations
    True
    """
    laws = Laws((Law(Products(score), 1.0),))
    with torch.no_grad():
        return run(State(latents), of_grid(grid, find(solver), latents)[:-1], sampling(laws)).x
