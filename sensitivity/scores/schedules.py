"""The schedules in use: VP-linear, VP-cosine, VE, EDM, rectified flow and discrete DDPM tables.

Each says its time, its coefficients, its levels, and which `sigma_max` sampling starts at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sensitivity._checks import check_finite, transformed
from sensitivity.grid import Grid
from sensitivity.scores.schedule import Schedule, check_interval

__all__ = ["EDM", "VE", "DiscreteDDPM", "RectifiedFlow", "Schedule", "VPCosine", "VPLinear"]


class _VariancePreserving(Schedule):
    """`α² + σ′² = 1`, so that `α = (1 + σ²)^{−1/2}` whatever the time."""

    def process(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(t, α, σ′)` at level σ, the coefficients from σ itself."""
        alpha = (1 + sigma**2).rsqrt()
        return self.time(sigma), alpha, sigma * alpha

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(α̇, σ̇′)` with `σ̇′ = −α α̇/σ′`."""
        alpha, noise = self.coefficients(t)
        rate = alpha * self._log_rate(t)
        return rate, -alpha * rate / noise

    def _log_rate(self, t: Tensor) -> Tensor:
        """`d log α/dt`."""
        raise NotImplementedError


class VPLinear(_VariancePreserving):
    """`log α = −t²(β₁ − β₀)/4 − tβ₀/2`, `σ′² = 1 − α²`, for t in [0, 1].

    Sampling starts at t = 1, `σ_max = (e^{(β₀+β₁)/2} − 1)^{1/2}` (152 by default), and stops at `t_min`.

    Args:
        beta_min, beta_max: β₀ and β₁.
        t_min: the last time, > 0.

    Source: Song et al. 2021, arXiv 2011.13456, appendix C, eq. 33; t_min from their section C.

    Example:
        >>> round(VPLinear().sigma_max, 1)
        152.2
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3):
        check_interval(beta_min, beta_max, "beta_min, beta_max")
        check_interval(t_min, 1.0, "t_min, 1", (1e-12, 1.0))
        self.beta_min, self.beta_max, self.start, self.stop = beta_min, beta_max, 1.0, t_min

    @property
    def domain(self) -> tuple[float, float]:
        """Levels up to that of t = 1."""
        return 0.0, self.sigma_max

    def time(self, sigma: Tensor) -> Tensor:
        """The positive root of `t²(β₁ − β₀)/2 + tβ₀ = log(1 + σ²)`."""
        log = (sigma**2).log1p()
        # As 2c/(b + root): the usual (root − b)/2a subtracts nearly equal numbers at low noise.
        root = (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * log).sqrt()
        return 2 * log / (self.beta_min + root)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(α, σ′)` at time t."""
        log_alpha = -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2
        # σ′² = 1 − α² by expm1: at small t α is 1 to rounding.
        return log_alpha.exp(), (-(2 * log_alpha).expm1()).sqrt()

    def _log_rate(self, t: Tensor) -> Tensor:
        return -(self.beta_min + t * (self.beta_max - self.beta_min)) / 2


class VPCosine(_VariancePreserving):
    """`α = cos θ/cos θ₀`, `θ = (π/2)(t + ς)/(1 + ς)`, `θ₀` that of t = 0, `σ′² = 1 − α²`, for t in [0, 1].

    At t = 1 nothing but noise is left and σ = ∞: sampling starts at `t_max` < 1, by default 0.9946 with
    `σ_max` = 119, and stops at `t_min`.

    Args:
        offset: ς.
        t_max, t_min: the first and the last time.

    Source: Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17; t_max of Lu et al. 2022, arXiv 2206.00927, appendix.

    Example:
        >>> round(VPCosine().sigma_max)
        119
    """

    def __init__(self, offset: float = 0.008, t_max: float = 0.9946, t_min: float = 1e-3):
        check_interval(t_min, t_max, "t_min, t_max", (1e-12, 1 - 1e-9))
        check_interval(0.0, offset, "0, offset")
        self.offset, self.start, self.stop = offset, t_max, t_min
        self._rate = math.pi / 2 / (1 + offset)
        self._first = self._rate * offset

    def time(self, sigma: Tensor) -> Tensor:
        """`t` from `tan θ = (σ² + sin² θ₀)^{1/2}/cos θ₀`."""
        sine = (sigma**2 + math.sin(self._first) ** 2).sqrt()
        angle = torch.atan2(sine, torch.full_like(sine, math.cos(self._first)))
        return angle / self._rate - self.offset

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(α, σ′)` at time t; `σ′² = sin(θ − θ₀) sin(θ + θ₀)/cos² θ₀` keeps small levels exact."""
        cosine, turned = math.cos(self._first), self._rate * t
        angle = turned + self._first
        return angle.cos() / cosine, (turned.sin() * (angle + self._first).sin()).sqrt() / cosine

    def _log_rate(self, t: Tensor) -> Tensor:
        return -self._rate * (self._rate * (t + self.offset)).tan()


class VE(Schedule):
    """`α = 1`, `σ′ = σ_min (σ_max/σ_min)^t`, for t in [0, 1]; sampling starts at `σ_max`.

    Args:
        sigma_min, sigma_max: the levels at t = 0 and t = 1.

    Source: Song et al. 2021, arXiv 2011.13456, appendix C, eq. 30.

    Example:
        >>> VE(0.01, 100.0).grid(2).levels
        tensor([1.0000e+02, 1.0000e+00, 1.0000e-02], dtype=torch.float64)
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0):
        check_interval(sigma_min, sigma_max, "sigma_min, sigma_max", (1e-12, math.inf))
        self._low, self._ratio, self.start, self.stop = float(sigma_min), math.log(sigma_max / sigma_min), 1.0, 0.0

    @property
    def domain(self) -> tuple[float, float]:
        """`(σ_min, σ_max)`."""
        return self.sigma_min, self.sigma_max

    def time(self, sigma: Tensor) -> Tensor:
        """`log(σ/σ_min)/log(σ_max/σ_min)`."""
        return (sigma / self._low).log() / self._ratio

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(1, σ)` at time t."""
        return torch.ones_like(t), self._low * (t * self._ratio).exp()

    def process(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(t, 1, σ)`."""
        return self.time(sigma), torch.ones_like(sigma), sigma

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(0, σ log(σ_max/σ_min))`."""
        return torch.zeros_like(t), self._ratio * self.coefficients(t)[1]


class EDM(Schedule):
    """`α = 1`, `σ′ = t = σ`; sampling starts at `σ_max` and its own grid is Karras'.

    Args:
        sigma_min, sigma_max: the last and the first level.

    Source: Karras et al. 2022, arXiv 2206.00364, table 1 and eq. 5.

    Example:
        >>> EDM().grid(2).levels
        tensor([8.0000e+01, 2.5152e+00, 2.0000e-03], dtype=torch.float64)
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0):
        check_interval(sigma_min, sigma_max, "sigma_min, sigma_max", (1e-12, math.inf))
        self.start, self.stop = float(sigma_max), float(sigma_min)

    def time(self, sigma: Tensor) -> Tensor:
        """σ itself."""
        return sigma

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(1, t)`."""
        return torch.ones_like(t), t

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(0, 1)`."""
        return torch.zeros_like(t), torch.ones_like(t)

    def grid(self, steps: int, spacing: str = "karras") -> Grid:
        """A grid of `steps` intervals, by default of Karras' spacing."""
        return super().grid(steps, spacing)


class RectifiedFlow(Schedule):
    """`α = 1 − t`, `σ′ = t`, so `σ = t/(1 − t)` for t in [0, 1): data at t = 0, noise at t = 1.

    At t = 1 the level is infinite: sampling starts at `t_max` < 1, `σ_max = t_max/(1 − t_max)` (99 by default),
    where a state of pure noise ε is the latent `σ_max ε`. The velocity is `dz/dt = ε − x₀`.

    Args:
        t_max, t_min: the first and the last time.

    Source: Liu et al. 2022, arXiv 2209.03003; Lipman et al. 2023, arXiv 2210.02747 (their time is 1 − t).

    Example:
        >>> round(RectifiedFlow().sigma_max, 6)
        99.0
    """

    def __init__(self, t_max: float = 0.99, t_min: float = 1e-3):
        check_interval(t_min, t_max, "t_min, t_max", (1e-12, 1 - 1e-9))
        self.start, self.stop = float(t_max), float(t_min)

    def time(self, sigma: Tensor) -> Tensor:
        """`σ/(1 + σ)`."""
        return sigma / (1 + sigma)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(1 − t, t)`."""
        return 1 - t, t

    def process(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(t, α, σ′)` without the cancellation in 1 − t."""
        t = self.time(sigma)
        return t, 1 / (1 + sigma), t

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(−1, 1)`."""
        return -torch.ones_like(t), torch.ones_like(t)


class DiscreteDDPM(_VariancePreserving):
    """A table `ᾱ_0 > ᾱ_1 > … > ᾱ_{T−1}` of a discrete process, `α = ᾱ^{1/2}`, `σ′ = (1 − ᾱ)^{1/2}`, integer t.

    Sampling starts at the last t with ᾱ > 0 (all of them, but for tables with zero terminal SNR). Grids take integer
    times only. Between integers, log σ is linear in t; levels outside the table have no time (see `domain`).

    Args:
        alphas_cumprod: ᾱ, shape `(T,)`.
        integer_times: hand networks the nearest integer time, as int64, for those that look time up in a table.

    Source: Ho et al. 2020, arXiv 2006.11239, eq. 4; zero terminal SNR: Lin et al. 2023, arXiv 2305.08891.

    Example:
        >>> beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        >>> round(DiscreteDDPM((1 - beta).cumprod(0)).sigma_max, 1)
        157.4
    """

    def __init__(self, alphas_cumprod: Tensor | Sequence[float], *, integer_times: bool = False):
        table = torch.as_tensor(alphas_cumprod).detach().to("cpu", torch.float64)
        if table.ndim != 1 or table.numel() < 2:
            raise ValueError(f"alphas_cumprod has shape {tuple(table.shape)}: pass at least two values, shape (T,).")
        check_finite(table, "alphas_cumprod")
        kept = table[table > 0]
        if bool((table < 0).any() | (table >= 1).any() | (kept.diff() >= 0).any()) or kept.numel() < 2:
            raise ValueError(
                "alphas_cumprod does not fall strictly within (0, 1): pass the cumulative products of 1 − β."
            )
        self.integer_times = integer_times
        self.start, self.stop = float(kept.numel() - 1), 0.0
        self._levels = ((1 - kept) / kept).sqrt().log()
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    @property
    def domain(self) -> tuple[float, float]:
        """The ends of the table."""
        return math.exp(float(self._levels[0])), math.exp(float(self._levels[-1]))

    def time(self, sigma: Tensor) -> Tensor:
        """The time, fractional between the levels of the table unless `integer_times`."""
        table = self._on(sigma)
        log = sigma.log()
        right = torch.searchsorted(table, log.contiguous()).clamp(1, table.numel() - 1)
        low, high = table[right - 1], table[right]
        # An end of the table, rounded beyond it, has the end's own time.
        t = (right - 1) + ((log - low) / (high - low)).clamp(0, 1)
        return t.round() if self.integer_times else t

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(α, σ′)` at time t."""
        sigma = self._log_level(t).exp()
        alpha = (1 + sigma**2).rsqrt()
        return alpha, sigma * alpha

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Refused: a table has no rates.

        Raises:
            ValueError: always.
        """
        raise ValueError("a discrete table has no velocity dz/dt: v-prediction is parametrization='v'.")

    def grid(self, steps: int, spacing: str = "time") -> Grid:
        """`steps` intervals between integer times, equally spaced as far as integers allow."""
        if spacing != "time":
            return super().grid(steps, spacing)
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= self.start:
            raise ValueError(
                f"steps = {steps!r} does not fit a table of {int(self.start) + 1} times: pass 1 … {int(self.start)}."
            )
        times = torch.linspace(self.start, self.stop, steps + 1, dtype=torch.float64).round()
        return Grid.from_levels(self.level(times))

    def _log_level(self, t: Tensor) -> Tensor:
        table = self._on(t)
        left = t.floor().long().clamp(0, table.numel() - 2)
        return torch.lerp(table[left], table[left + 1], t - left)

    def _on(self, like: Tensor) -> Tensor:
        place = (like.device, like.dtype)
        if place in self._copies:
            return self._copies[place]
        copy = self._levels.to(device=like.device, dtype=like.dtype)
        if not transformed():  # what is made inside a transform dies with it
            self._copies[place] = copy
        return copy
