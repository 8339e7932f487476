"""Empirical scores as targets.

The empirical law of points x_i has the score `s⋆(x) = (Σ_i γ_i x_i − x)/σ²`, `γ = softmax(−|x − x_i|²/2σ²)`, and the
denoiser `D⋆ = x + σ² s⋆ = Σ_i γ_i x_i`. `Distilled` trains on states noised from one set, D_region, toward the D⋆ of
another, D_score: where both are one set this is denoising score matching with its targets replaced by their conditional
means (equal expected gradient, less noise); where D_region is larger the optimum is unchanged but the region in which
it is supervised is broader (Song et al. 2025, arXiv 2510.01378).
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass

import torch
from torch import Tensor

from sensitivity import Points
from sensitivity._checks import per_sample
from studies.training import Objective
from studies.training.batches import Draw
from studies.training.loop import digest
from studies.training.objectives import Predictor

__all__ = ["Distilled", "Empirical", "conditional"]


class Empirical:
    """The empirical law of points, as a network: `score(x, σ)`, and D⋆(x, σ) when called.

    Args:
        data: x_i, (N, *shape).

    Example:
        >>> memoriser = Empirical(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
        >>> memoriser(torch.tensor([[0.9]], dtype=torch.float64), 0.1)
        tensor([[1.]], dtype=torch.float64)
    """

    def __init__(self, data: Tensor) -> None:
        self.points = Points(data)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """D⋆, like x (batch, *shape); σ a number, 0-d or (batch,)."""
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        return x + per_sample(level, x) ** 2 * self.score(x, level)

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """s⋆, like x."""
        return self.points.score(x, sigma).to(x.dtype)  # levels (batch,) are handled in double precision


def conditional(data: Tensor, labels: Tensor, label: int) -> Empirical:
    """The empirical law of one class.

    Args:
        data: (N, *shape).
        labels: (N,) integers.
        label: the class.

    Raises:
        ValueError: labels of another length, or a class that has no points.

    Example:
        >>> conditional(torch.tensor([[0.0], [5.0]]), torch.tensor([0, 1]), 1)(torch.zeros(1, 1), 1.0)
        tensor([[5.]])
    """
    if labels.shape != data.shape[:1]:
        raise ValueError(f"labels {tuple(labels.shape)} do not fit {len(data)} points: give one a point.")
    mask = labels == label
    if not bool(mask.any()):
        raise ValueError(f"label={label} occurs nowhere: the labels are {labels.unique().tolist()}.")
    return Empirical(data[mask])


@dataclass(frozen=True)
class Distilled(Objective):
    """`|D(Y, σ) − D⋆(Y, σ)|²/τ²` at `Y = X + u σ ε`, X from D_region (the training pool), D⋆ of D_score.

    The weight is the same at all levels: those that grow as 1/σ² are meant for targets within σ of the state, but
    outside the shells of D_score the target stays far as σ falls, and low levels would drown all others.

    Attributes:
        data: D_score, (N, *shape); needed at construction.
        thickness: κ ≥ 1; `log u` is uniform in ±log κ. 1 leaves the shells as thin as noise makes them; above 1 they
            are thickened, while the network is told σ and its targets are those of σ.
        teacher: filled in: a digest of D_score, so that cached networks are told apart.

    Raises:
        ValueError: without data, or κ < 1.

    Example:
        >>> objective = Distilled(data=torch.tensor([[0.0], [1.0]]))
        >>> objective.kind, objective.thickness, len(objective.teacher)
        ('edm', 1.0, 16)
    """

    thickness: float = 1.0
    teacher: str = ""
    data: InitVar[Tensor | None] = None

    def __post_init__(self, data: Tensor | None) -> None:
        super().__post_init__()
        if data is None:
            raise ValueError("Distilled needs data=: the points of D_score whose empirical score is the target.")
        if not self.thickness >= 1:
            raise ValueError(f"thickness={self.thickness} must be at least 1: it widens the shells.")
        object.__setattr__(self, "teacher", digest(data))
        object.__setattr__(self, "target", Empirical(data))

    def losses(self, network: Predictor, draw: Draw) -> Tensor:
        """The loss of every draw, of the shape of draw.level."""
        sigma = self.quantile(draw.level, network.scale)
        axes = tuple(range(sigma.ndim, draw.clean.ndim))
        spread = (sigma * self.factor(draw.level)).reshape(sigma.shape + (1,) * len(axes))
        state = draw.clean + spread * draw.noise
        target = self.targets(state, sigma)
        return self.weight(sigma, network.scale) * (network(state, sigma) - target).square().mean(dim=axes)

    def targets(self, state: Tensor, sigma: Tensor) -> Tensor:
        """D⋆ of D_score at states of any leading shape, that of sigma."""
        rows = state.reshape(-1, *state.shape[sigma.ndim :])
        best: Empirical = self.target  # type: ignore[attr-defined]  # set in __post_init__, not a field
        return best(rows, sigma.reshape(-1)).reshape(state.shape)

    def weight(self, sigma: Tensor, scale: float) -> Tensor:
        """1/τ² at every level."""
        return torch.full_like(sigma, 1 / scale**2)

    def factor(self, level: Tensor) -> Tensor:
        """u, from the low digits of the uniform that chose σ: uniform and, to a part in a thousand, independent."""
        # A level's draw decides σ by its high digits: 1009, a prime, brings the next ones to the front.
        return self.thickness ** (2 * (1009 * level).frac() - 1)
