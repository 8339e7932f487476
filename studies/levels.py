"""Noised laws, kept at the levels that were asked for last.

A path asks one law for scores, products and densities at the same noise level several times, and a step's last level is
the next one's first. For laws of few numbers making `noised(σ)` and its factors ready takes as long as evaluating them.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from oracles import GaussianMixture

__all__ = ["Levels"]

KEPT = 4
LARGEST = 1_000_000
"""Entries K d² of a law's covariances up to which its levels are kept."""


class Levels:
    """`at(σ)` is `law.noised(σ)`, the same object for a level that was asked for a moment ago.

    Args:
        law: anything with `noised(σ)`. Only Gaussian mixtures of moderate size are kept, and only where neither their
            parameters nor the level are traced by automatic differentiation.

    Example:
        >>> levels = Levels(GaussianMixture.isotropic([1.0], [[0.0]], 1.0))
        >>> levels.at(0.5) is levels.at(0.5), round(float(levels.at(0.5).score([[1.0]])[0, 0]), 9)
        (True, -0.8)
    """

    def __init__(self, law: Any) -> None:
        self.law = law
        self.kept: dict[float, Any] | None = {} if _moderate(law) else None

    def at(self, sigma: Any) -> Any:
        """The law of X + σ ε."""
        level = None if self.kept is None else _plain(sigma)
        if level is None or self.kept is None:
            return self.law.noised(sigma)
        if level not in self.kept:
            if len(self.kept) == KEPT:
                del self.kept[next(iter(self.kept))]
            self.kept[level] = self.law.noised(sigma).prepared()
        return self.kept[level]


def _moderate(law: Any) -> bool:
    if type(law) is not GaussianMixture or law.size * law.dimension**2 > LARGEST:
        return False
    torch = sys.modules.get("torch")
    return torch is None or not any(isinstance(each, torch.Tensor) and each.requires_grad for each in _arrays(law))


def _arrays(law: GaussianMixture) -> list[Any]:
    return [each for group in law.groups for each in (group.weights, group.means, *group.covariances.spectrum)]


def _plain(sigma: Any) -> float | None:
    """The level as a number, where it is one that nothing differentiates or traces; else None."""
    if isinstance(sigma, float | int | np.floating):
        return float(sigma)
    torch = sys.modules.get("torch")
    if torch is None or type(sigma) is not torch.Tensor:
        return None
    from sensitivity._checks import transformed

    # What is computed in inference mode could not enter a graph later.
    if sigma.requires_grad or transformed() or torch.is_inference_mode_enabled() or sigma.device.type != "cpu":
        return None
    moving = torch.autograd.forward_ad.unpack_dual(sigma).tangent is not None
    return None if moving else float(sigma)
