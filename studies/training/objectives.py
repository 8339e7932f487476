"""What a denoiser is trained to minimise.

With X a datum, `σ` drawn from the noise law π, `Y = X + σ ε`, `s(y, σ) = (D(y, σ) − y)/σ²` and τ the data's standard
deviation, the loss of one draw, averaged over the d dimensions, is

- "edm": `(σ² + τ²)/(στ)² |D(Y, σ) − X|²` (Karras et al. 2022, arXiv 2206.00364, table 1);
- "denoising": `|D(Y, σ) − X|²/σ² = σ² |s(Y, σ) + ε/σ|²`, the weighting λ = σ² of Song & Ermon 2019 (arXiv 1907.05600,
  eq. 6) and, with one level, Vincent 2011;
- "blind": `|f(Y) − X|²` for a network that is not told σ; its optimum is the posterior mean over X **and** σ;
- "sliced": `σ² (v·∇s(Y, σ) v + ½|s(Y, σ)|²)`, v Rademacher (Song et al. 2019, arXiv 1905.07088, eq. 8, the form with
  reduced variance), whose infimum is `−½ E σ²|s⋆|²/d`.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from studies.training.batches import Draw


class Predictor(Protocol):
    """What an objective needs of a network."""

    @property
    def scale(self) -> float: ...
    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor: ...
    def score(self, x: Tensor, sigma: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Objective:
    """A loss and the law π of its noise levels.

    Attributes:
        kind: "edm", "denoising", "blind" or "sliced".
        noise: "lognormal": `log(σ/τ) ~ N(mean, spread²)`; "loguniform" on [low, high]; "levels": `count` levels,
            geometric from high down to low, equally likely (`count=1`: high alone).
        mean, spread: in e-folds, of "lognormal".
        low, high, count: of the other two, in the data's units.
    """

    kind: Literal["edm", "denoising", "blind", "sliced"] = "edm"
    noise: Literal["lognormal", "loguniform", "levels"] = "lognormal"
    mean: float = -0.5
    spread: float = 1.4
    low: float = 0.01
    high: float = 1.0
    count: int = 10

    def __post_init__(self) -> None:
        if self.kind not in ("edm", "denoising", "blind", "sliced"):
            raise ValueError(f"kind={self.kind!r} is not an objective: choose 'edm', 'denoising', 'blind' or 'sliced'.")
        if self.noise not in ("lognormal", "loguniform", "levels"):
            raise ValueError(f"noise={self.noise!r} is not a noise law: choose 'lognormal', 'loguniform' or 'levels'.")
        if not 0 < self.low <= self.high or self.count < 1 or self.spread <= 0:
            raise ValueError(f"the noise law needs 0 < low ≤ high, count ≥ 1 and spread > 0, not {self}.")

    @property
    def levels(self) -> tuple[float, ...]:
        """The discrete levels, high to low."""
        if self.count == 1:
            return (self.high,)
        ratio = (self.low / self.high) ** (1 / (self.count - 1))
        return tuple(self.high * ratio**k for k in range(self.count))

    def quantile(self, u: Tensor, scale: float) -> Tensor:
        """The noise level at probability u in (0, 1): σ ~ π for uniform u."""
        if self.noise == "lognormal":
            return scale * torch.exp(self.mean + self.spread * torch.special.ndtri(u))
        if self.noise == "loguniform":
            return self.low * (self.high / self.low) ** u
        # u may round to 1 in single precision.
        index = (u * self.count).long().clamp(max=self.count - 1)
        return torch.tensor(self.levels, dtype=u.dtype, device=u.device)[index]

    def weight(self, sigma: Tensor, scale: float) -> Tensor:
        """The factor before `|D − X|²`."""
        if self.kind == "edm":
            return (sigma**2 + scale**2) / (sigma * scale) ** 2
        return torch.ones_like(sigma) if self.kind == "blind" else 1 / sigma**2

    def losses(self, network: Predictor, draw: Draw) -> Tensor:
        """The loss of every draw, of the shape of draw.level."""
        sigma = self.quantile(draw.level, network.scale)
        axes = tuple(range(sigma.ndim, draw.clean.ndim))
        state = draw.clean + sigma.reshape(sigma.shape + (1,) * len(axes)) * draw.noise
        if self.kind == "sliced":
            return sigma**2 * sliced(network, state, sigma, draw.probe, axes)
        return self.weight(sigma, network.scale) * (network(state, sigma) - draw.clean).square().mean(dim=axes)


def sliced(network: Predictor, state: Tensor, sigma: Tensor, probe: Tensor, axes: tuple[int, ...]) -> Tensor:
    """`(v·∇s v + ½|s|²)/d`, v the probe."""
    both = torch.func.jvp(lambda y: network.score(y, sigma), (state,), (probe,))
    score, product = both[0], both[1]
    return (probe * product + score.square() / 2).mean(dim=axes)


def standard_levels(objective: Objective, scale: float, points: int = 128) -> Tensor:
    """Equally likely levels that stand for π (all of them where they are discrete), (points,), float64."""
    if objective.noise == "levels":
        return torch.tensor(objective.levels, dtype=torch.float64)
    u = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    return objective.quantile(u, scale)


def check_noise(objective: Objective, conditioned: bool) -> None:
    """Refuse an objective that cannot train the network."""
    if objective.kind == "blind" and conditioned:
        raise ValueError("objective 'blind' trains a network that is not told σ: use Architecture(conditioned=False).")
    if objective.kind == "sliced" and not conditioned and not math.isclose(objective.low, objective.high):
        raise ValueError("objective 'sliced' over several levels needs a network that is told σ: use conditioned=True.")
