"""The loss of a network against the least loss possible.

All objectives are quadratic in the denoiser D, so in the mean over draws `loss(D) − loss(D⋆) = E w |D − D⋆|²/d`
(half of it for sliced score matching), with D⋆ the denoiser of the law that the data come from: known for a mixture,
and for a finite data set too (its empirical law), where it is the memorising optimum. The right side is reported as
the excess: it is never negative and free of the noise of that part of the loss which no network can remove.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sensitivity._checks import per_sample
from studies.bridge import ExactLaw
from studies.training.batches import Batches, Draw
from studies.training.objectives import Objective, Predictor, standard_levels

Function = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Excess:
    """Means over draws, with standard errors.

    Attributes:
        loss: of the network.
        optimum: of the best denoiser, on the same draws.
        excess: `E w |D − D⋆|²/d`, ≥ 0.
        loss_error, excess_error: standard errors of the first and the last.
    """

    loss: float
    optimum: float
    excess: float
    loss_error: float
    excess_error: float


@dataclass(frozen=True)
class Optimum:
    """D⋆ with the attributes of a network that objectives use."""

    denoiser: Function
    scale: float

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D⋆(x, σ)."""
        return self.denoiser(x, sigma).to(x.dtype)

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """`(D⋆(x, σ) − x)/σ²`."""
        return (self(x, sigma) - x) / per_sample(sigma, x) ** 2


def excess_loss(network: Predictor, objective: Objective, clean: Tensor, optimum: Function, *, seed: int = 0) -> Excess:
    """Hold a network against the best possible one, one draw of noise for each datum.

    Args:
        network: D.
        objective: the loss it was trained on.
        clean: data (N, *shape) from the law that `optimum` belongs to: fresh draws of a known law, or the training set.
        optimum: `D⋆(x, σ)` with σ (N,); for the objective "blind" see `blind_optimum`.
        seed: of the draws.
    """
    batch = Batches(clean, [None], [seed], len(clean)).draw(0)
    draw = Draw(*(part[0] for part in batch))
    best = Optimum(optimum, network.scale)
    with torch.no_grad():
        losses, least = objective.losses(network, draw), objective.losses(best, draw)
        gap = _gaps(network, best, objective, draw)
    root = len(clean) ** 0.5
    errors = float(losses.std()) / root, float(gap.std()) / root
    return Excess(float(losses.mean()), float(least.mean()), float(gap.mean()), *errors)


def _gaps(network: Predictor, best: Optimum, objective: Objective, draw: Draw) -> Tensor:
    sigma = objective.quantile(draw.level, network.scale)
    state = draw.clean + per_sample(sigma, draw.clean) * draw.noise
    squares = (network(state, sigma) - best(state, sigma)).flatten(1).square().mean(dim=1)
    return objective.weight(sigma, network.scale) * squares / (2 if objective.kind == "sliced" else 1)


def blind_optimum(law: ExactLaw, objective: Objective, scale: float) -> Function:
    """The best denoiser that is not told σ: `E[X | y] = Σ_σ π(σ) p_σ(y) D_σ(y) / Σ_σ π(σ) p_σ(y)`, π the noise law.

    Args:
        law: of the data.
        objective: its noise law is π (continuous laws are replaced by 128 equally likely levels).
        scale: τ, the network's.
    """
    levels = standard_levels(objective, scale)

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        del sigma  # the optimum, like the network, is not told
        logs = torch.stack([law.log_density(x, float(level)) for level in levels])
        means = torch.stack([law.denoiser(x, float(level)) for level in levels])
        shares = torch.softmax(logs, dim=0).reshape(logs.shape + (1,) * (x.ndim - 1))
        return (shares * means).sum(dim=0)

    return denoiser
