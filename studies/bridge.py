"""Oracle laws as the engine wants them: torch callables of states (batch, *shape) and a noise level, 0-d or (batch,).

`oracles` and `sensitivity` never import each other; the studies, which hold one against the other, meet both here. The
oracle's own code is evaluated on torch tensors (`law.noised(σ).score(x)`), so that automatic differentiation and
`torch.func` pass through it; nothing is approximated. States keep their dtype: a float64 law is evaluated in float32
where x is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensitivity import Mixture
from sensitivity._checks import per_sample
from studies.levels import Levels

__all__ = ["ExactLaw", "engine_measure", "exact_anchor", "exact_denoiser", "exact_score", "on_torch"]


class ExactLaw:
    """An oracle law as a torch measure: `log_density(x, σ)`, `score(x, σ)`, both of the noised law, without error.

    Args:
        law: an oracle law of any array library with `noised(σ)`; states are flattened to its dimension.
    """

    def __init__(self, law: Any) -> None:
        self.law = law
        self._laws: dict[tuple[torch.dtype, torch.device], Levels] = {}

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`log p_σ(x)` in nats, (batch,)."""
        return self._evaluate(lambda law, rows: law.log_density(rows), x, sigma)

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`∇ log p_σ(x)`, like x."""
        value = self._evaluate(lambda law, rows: law.score(rows), x, sigma)
        return value if x.ndim == 2 else value.reshape(x.shape)

    def denoiser(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`E[X | X_σ = x] = x + σ² s_σ(x)`, like x."""
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        return x + per_sample(level, x) ** 2 * self.score(x, level)

    def _evaluate(self, method: Callable[[Any, Tensor], Tensor], x: Tensor, sigma: Tensor | float) -> Tensor:
        laws, level = self._like(x), torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        rows = x if x.ndim == 2 else x.flatten(1)
        if level.ndim == 0:
            return method(laws.at(level), rows)
        return torch.func.vmap(lambda row, own: method(laws.law.noised(own), row))(rows, level)

    def _like(self, x: Tensor) -> Levels:
        place = (x.dtype, x.device)
        if place not in self._laws:
            self._laws[place] = Levels(on_torch(self.law, dtype=x.dtype, device=x.device))
        return self._laws[place]


def exact_score(law: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact score of a law, as the engine's `Score`.

    Example:
        >>> from oracles import GaussianMixture
        >>> score = exact_score(GaussianMixture.isotropic([1.0], [[0.0, 0.0]], 1.0))
        >>> score(torch.ones(1, 2), torch.tensor(1.0))
        tensor([[-0.5000, -0.5000]])
    """
    return ExactLaw(law).score


def exact_denoiser(law: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The posterior mean `D(x, σ)` of a law."""
    return ExactLaw(law).denoiser


def exact_anchor(law: Any) -> ExactLaw:
    """The law itself as the engine's anchor: the log density at σ_max is exact."""
    return ExactLaw(law)


def engine_measure(law: Any, *, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Mixture:
    """The same mixture as the engine's own `Mixture`, which shares no code with the oracle.

    Example:
        >>> from oracles import GaussianMixture
        >>> engine_measure(GaussianMixture.isotropic([1.0], [[0.0, 0.0]], 1.0)).dimension
        2
    """
    weights, means, covariances = (_tensor(part, dtype, device) for part in (law.weights, law.means, law.covariances))
    return Mixture(weights, means, covariances)


def on_torch(law: Any, *, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu") -> Any:
    """The same law with every array in it a torch tensor; its covariances stay factorised as they are."""
    if isinstance(law, np.ndarray | Tensor):
        return _tensor(law, dtype, device)
    if isinstance(law, tuple):
        return tuple(on_torch(part, dtype=dtype, device=device) for part in law)
    if not type(law).__module__.startswith("oracles"):
        return law
    clone = copy.copy(law)
    for name, value in vars(law).items():
        object.__setattr__(clone, name, on_torch(value, dtype=dtype, device=device))
    return clone


def _tensor(array: Any, dtype: torch.dtype, device: str | torch.device) -> Tensor:
    value = array if isinstance(array, Tensor) else torch.tensor(np.asarray(array))
    return value.to(device=device, dtype=dtype if value.dtype.is_floating_point else value.dtype)
