"""Denoisers of the azula package: `denoiser(z, t).mean = E[x₀ | z]` with a schedule `t ↦ (α, σ′)`.

Any schedule whose `σ′/α` grows with t in [0, 1] is inverted numerically, from a table and five secant steps.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sensitivity._callables import refuse_training_mode
from sensitivity.adapters._calling import NetworkCall, require
from sensitivity.scores.schedule import Schedule
from sensitivity.scores.score import NetworkScore, as_score

__all__ = ["AzulaTime", "from_azula"]

TABLE = 4097


def from_azula(denoiser: Any, **conditions: Any) -> NetworkScore:
    """The score of an azula denoiser.

    Args:
        denoiser: an `azula.denoise.Denoiser`, with its own `schedule`.
        conditions: one condition for all samples: tensors with a leading axis of size 1, a whole number for a label.

    Returns:
        A score whose `schedule` starts at t = 1, where azula's schedules still have α > 0, and stops at t = 0.

    Raises:
        ImportError: without azula, naming the extra.
        TypeError: for anything but a denoiser of azula.

    Example:
        >>> import torch
        >>> from azula.denoise import GaussianDenoiser
        >>> from azula.linalg.covariance import IsotropicCovariance
        >>> from azula.noise import VESchedule
        >>> law = GaussianDenoiser(torch.zeros(2), IsotropicCovariance(torch.tensor(1.0)), VESchedule())
        >>> from_azula(law)(torch.ones(1, 2), torch.tensor(2.0))
        tensor([[-0.2000, -0.2000]])
    """
    package = require("azula.denoise", "from_azula")
    if not isinstance(denoiser, package.Denoiser):
        raise TypeError(f"denoiser is a {type(denoiser).__name__}: pass a Denoiser of azula.denoise.")
    refuse_training_mode(denoiser)
    return as_score(AzulaCall(denoiser, conditions), "denoiser", AzulaTime(denoiser.schedule))


class AzulaCall(NetworkCall):
    """`denoiser(z, t).mean`."""

    def predicted(self, z: Tensor, t: Tensor, arguments: dict[str, Any]) -> Tensor:
        """E[x₀ | z]; denoisers with a full covariance take one time for the batch, the others one for each sample."""
        package = require("azula.denoise", "from_azula")
        if not isinstance(self.model, package.GaussianDenoiser):
            mean: Tensor = self.model(z, t, **arguments).mean
            return mean
        return torch.cat([self.model(row[None], time).mean for row, time in zip(z, t, strict=True)])


class AzulaTime(Schedule):
    """An azula schedule with its inverse.

    Args:
        schedule: `t ↦ (α, σ′)` on [0, 1].
    """

    def __init__(self, schedule: Any):
        self.schedule, self.start, self.stop = schedule, 1.0, 0.0
        # Dense at both ends, where log σ bends most.
        self._times = (1 - (torch.linspace(0, 1, TABLE, dtype=torch.float64) * math.pi).cos()) / 2
        self._table = self._log_level(self._times)
        if not bool((self._table.diff() > 0).all() & torch.isfinite(self._table).all()):
            raise ValueError("schedule has a σ′/α that does not rise with t in [0, 1]: pass one that does.")

    def time(self, sigma: Tensor) -> Tensor:
        """t by table and secant steps; levels outside the schedule's have no time, see `domain`."""
        times, table = self._times.to(sigma), self._table.to(sigma)
        log = sigma.log().clamp(table[0], table[-1])
        right = torch.searchsorted(table, log.contiguous()).clamp(1, TABLE - 1)
        low, high = times[right - 1], times[right]
        below, above = table[right - 1] - log, table[right] - log
        # Regula falsi: within one cell of the table log σ is nearly a line in t.
        for _ in range(5):
            t = low - below * (high - low) / (above - below)
            value = self._log_level(t) - log
            # The end that is replaced is the one on the same side of the root.
            low, below = torch.where(value <= 0, t, low), torch.where(value <= 0, value, below)
            high, above = torch.where(value > 0, t, high), torch.where(value > 0, value, above)
        return torch.where(above > below, low - below * (high - low) / (above - below), low)

    @property
    def domain(self) -> tuple[float, float]:
        """The levels at t = 0 and t = 1."""
        return math.exp(float(self._table[0])), math.exp(float(self._table[-1]))

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(α, σ′)` of the schedule."""
        return self.schedule(t)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Refused: azula's denoisers predict x₀, which needs no rates.

        Raises:
            ValueError: always.
        """
        raise ValueError("an azula schedule has no rates: its denoisers are parametrization='denoiser'.")

    def _log_level(self, t: Tensor) -> Tensor:
        alpha, noise = self.schedule(t)
        return (noise / alpha).log()
