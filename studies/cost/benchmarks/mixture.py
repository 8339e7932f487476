"""The score of a Gaussian mixture in closed form, beside `torch.distributions` with autograd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oracles import GaussianMixture
from studies.cost.benchmarks import Bound, Setup

QUESTION = "What does the exact score of a mixture cost beside autograd of its log density?"
SIZES = {
    "smoke": [{"components": 10, "dimension": 50, "states": 4000}],
    "quick": [{"components": 10, "dimension": 50, "states": 10_000}],
    "full": [{"components": 10, "dimension": 50, "states": 10_000}],
}
AUTOGRAD, OWN, NUMPY = "torch.distributions + autograd", "GaussianMixture (torch)", "GaussianMixture (NumPy)"
EXPECTED = (
    Bound(OWN, AUTOGRAD, 0.2, "one product per component in blocks that fit the cache, and no graph"),
    Bound(NUMPY, AUTOGRAD, 0.2, "the same code on NumPy"),
)


def prepare(parameters: Mapping[str, Any], device: str, seed: int) -> Setup:
    """Full covariances with eigenvalues from about .1 to 4, float64; the law is noised anew in every call."""
    size, dimension, states = (parameters[key] for key in ("components", "dimension", "states"))
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((size, dimension, dimension)) / np.sqrt(dimension)
    covariances = factors @ factors.transpose(0, 2, 1) + 0.1 * np.eye(dimension)
    arrays = rng.dirichlet(np.full(size, 5.0)), rng.standard_normal((size, dimension)), covariances
    x = rng.standard_normal((states, dimension))
    law, plain = GaussianMixture(*(torch.tensor(a, device=device) for a in arrays)), GaussianMixture(*arrays)
    tensor = torch.tensor(x, device=device)
    noise = 0.04 * torch.eye(dimension, dtype=torch.float64, device=device)
    return Setup(
        {
            AUTOGRAD: lambda: _autograd(law.weights, law.means, law.covariances + noise, tensor),
            OWN: lambda: law.noised(0.2).score(tensor),
            NUMPY: lambda: plain.noised(0.2).score(x),
        }
    )


def _autograd(weights: Tensor, means: Tensor, covariances: Tensor, x: Tensor) -> Tensor:
    states = x.clone().requires_grad_()
    components = torch.distributions.MultivariateNormal(means, covariances)
    law = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), components)
    return torch.autograd.grad(law.log_prob(states).sum(), states)[0]
