"""Attribution by the score: ours with the exact score and with the network, the empirical score, and simple controls.

Each gives one number per query and point (n, N): the predicted rate of `φ(x_0)` per unit mass moved to the point.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sensitivity import GaussianAnchor, Points, as_score, influence
from studies.attribution.problem import Setup
from studies.bridge import ExactLaw
from studies.networks import Denoiser
from studies.sampling import sample

__all__ = ["METHODS"]


def ours_exact(setup: Setup, network: Denoiser) -> np.ndarray:
    """The engine's influence with the exact score and the exact law at σ_max: what no network limits."""
    law = ExactLaw(setup.exact)
    return _influence(setup, law.score, law)


def ours(setup: Setup, network: Denoiser) -> np.ndarray:
    """The engine's influence with the trained network and the data's moments at σ_max; one backward pass per query."""
    return _influence(setup, as_score(network.double(), "denoiser"), GaussianAnchor.from_data(setup.data))


def empirical(setup: Setup, network: Denoiser) -> np.ndarray:
    """The same with the score of the training points themselves: what a network that memorises would have."""
    points = Points(setup.data)
    return _influence(setup, points.score, points)


def _influence(setup: Setup, score: Callable[[Tensor, Tensor], Tensor], anchor: object) -> np.ndarray:
    result = influence(score, setup.latents, setup.functional, setup.data, setup.grid, anchor=anchor, trace="exact")
    return result.values.detach().numpy()


def kernel(setup: Setup, network: Denoiser) -> np.ndarray:
    """Pull of the points near the sample: `softmax_i(−|x_0 − y_i|²/2h²) a·(y_i − x_0)`, h by Scott's rule."""
    with torch.no_grad():
        x = sample(as_score(network.double(), "denoiser"), setup.latents, setup.grid)
    n, d = setup.data.shape
    h = float(setup.data.std(0).mean()) * n ** (-1 / (d + 4))
    gap = setup.data[None] - x[:, None]
    shares = torch.softmax(-gap.square().sum(-1) / (2 * h**2), 1)
    return (shares * (gap @ setup.direction)).numpy()


def random(setup: Setup, network: Denoiser) -> np.ndarray:
    """Standard normal numbers."""
    return np.random.default_rng([setup.seed, 5]).standard_normal((setup.queries, setup.points))


METHODS: dict[str, Callable[[Setup, Denoiser], np.ndarray]] = {
    "influence, exact score": ours_exact,
    "influence, network": ours,
    "empirical score": empirical,
    "kernel at the sample": kernel,
    "random": random,
}
