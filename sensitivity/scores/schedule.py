"""What a schedule is: the map `t ↔ (α, σ′)` of a process `z = α x₀ + σ′ ε`, used only at the border of a network.

The engine works with `x = z/α` at level `σ = σ′/α`, the same for every schedule. A schedule says which time and
which coefficients belong to a level, where sampling starts (`sigma_max`) and ends (`sigma_min`), and carries
states over. The coordinates need α > 0: where a process ends in pure noise, with α = 0 and σ = ∞, sampling starts at
the last α > 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sensitivity._checks import check_choice, check_sigma, check_states, per_sample
from sensitivity.grid import SPACINGS, Grid

__all__ = ["Schedule", "check_interval"]


class Schedule(ABC):
    """A map `t ↔ (α, σ′)`; times, levels and coefficients are tensors of one shape.

    Attributes:
        start: the time at which sampling starts, at level `sigma_max`.
        stop: the time at which it stops, at level `sigma_min`.

    Example (a process of one's own, `z = cos(t) x + sin(t) ε`):
        >>> class Turning(Schedule):
        ...     start, stop = 1.5, 0.01
        ...     def time(self, sigma):
        ...         return torch.atan(sigma)
        ...     def coefficients(self, t):
        ...         return torch.cos(t), torch.sin(t)
        ...     def rates(self, t):
        ...         return -torch.sin(t), torch.cos(t)
        >>> print(f"{float(Turning().sigma_max):.2f}")  # tan 1.5
        14.10
    """

    start: float
    stop: float

    @abstractmethod
    def time(self, sigma: Tensor) -> Tensor:
        """The time t at which the level is σ."""

    @abstractmethod
    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(α, σ′)` at time t."""

    @abstractmethod
    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(dα/dt, dσ′/dt)` at time t."""

    def process(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(t, α, σ′)` at level σ."""
        t = self.time(sigma)
        return t, *self.coefficients(t)

    def level(self, t: Tensor) -> Tensor:
        """`σ = σ′/α` at time t."""
        alpha, noise = self.coefficients(t)
        return noise / alpha

    @property
    def domain(self) -> tuple[float, float]:
        """The lowest and highest level that the process has a time for: outside, a network was never trained."""
        return 0.0, math.inf

    @property
    def sigma_max(self) -> float:
        """The level at `start`."""
        return self._level_at(self.start)

    @property
    def sigma_min(self) -> float:
        """The level at `stop`."""
        return self._level_at(self.stop)

    def grid(self, steps: int, spacing: str = "time") -> Grid:
        """A grid of `steps` intervals from `sigma_max` to `sigma_min`.

        Args:
            steps: the number of intervals.
            spacing: `"time"`, equal intervals of t as the schedule's own samplers take, or a spacing of `Grid`.
        """
        check_choice(spacing, ("time", *SPACINGS), "spacing")
        if spacing != "time":
            return Grid(self.sigma_max, self.sigma_min, steps, spacing)
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps = {steps!r} counts intervals: pass an integer ≥ 1.")
        return Grid.from_levels(self.level(torch.linspace(self.start, self.stop, steps + 1, dtype=torch.float64)))

    def to_latents(self, z: Tensor) -> Tensor:
        """Latents `x = z/α` at `sigma_max`, like `z`: states of the process at its start.

        Noise ε alone is no state: those are `α x₀ + σ′ ε`, so that latents from noise are `sigma_max * ε`.
        """
        check_states(z, "z")
        alpha, _ = self.coefficients(torch.tensor(self.start, dtype=torch.float64))
        return z / float(alpha)

    def to_process(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """States `z = α x` of the process, like `x`."""
        check_states(x)
        alpha = self.process(check_sigma(sigma, x))[1]
        return per_sample(alpha.to(x.dtype), x) * x

    def same_process(self, other: Schedule) -> bool:
        """Whether the other one has the same ends and, at levels between them, the same coefficients."""
        ends = [(one.sigma_max, one.sigma_min) for one in (self, other)]
        if ends[0] != ends[1]:
            return False
        levels = torch.linspace(math.log(self.sigma_max), math.log(max(self.sigma_min, 1e-12)), 9, dtype=torch.float64)
        mine, theirs = (torch.stack(one.process(levels.exp())) for one in (self, other))
        return torch.allclose(mine, theirs, rtol=1e-9, atol=0.0)

    def _level_at(self, t: float) -> float:
        return float(self.level(torch.tensor(t, dtype=torch.float64)))


def check_interval(low: float, high: float, names: str, bound: tuple[float, float] = (0.0, float("inf"))) -> None:
    """`bound[0] ≤ low < high ≤ bound[1]`, finite; `names` are those of the two numbers.

    Raises:
        ValueError: naming both.
    """
    if not (bound[0] <= low < high <= bound[1] and high < float("inf")):
        raise ValueError(f"{names} = {low}, {high}: pass two numbers in ascending order within {list(bound)}.")
