"""Noise levels of a sampler.

A grid with n steps is σ_max = σ_0 > σ_1 > … > σ_n = σ_min > 0, in variance-exploding coordinates. Spacings:

- karras: σ_i = (σ_max^{1/ϱ} + (i/n)(σ_min^{1/ϱ} − σ_max^{1/ϱ}))^ϱ, ϱ = 7 (Karras et al. 2022, arXiv 2206.00364, eq. 5);
- log:    σ_i = σ_max (σ_min/σ_max)^{i/n};
- linear: σ_i = σ_max + (i/n)(σ_min − σ_max).

Levels live on the CPU in float64 whatever the device of the samples, so that step sizes never force a synchronisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from sensitivity._checks import check_real_number

SPACINGS = ("karras", "log", "linear")


class Grid:
    """Descending noise levels from σ_max to σ_min.

    Args:
        sigma_max: σ_max, the level of the latents.
        sigma_min: σ_min > 0, the level of the samples.
        steps: n, the number of intervals.
        spacing: "karras", "log" or "linear".
        exponent: ϱ of the karras spacing.

    Raises:
        ValueError: if the levels are not positive and descending, or the spacing is unknown.

    Example:
        >>> Grid(80.0, 0.002, 3, spacing="log").levels
        tensor([8.0000e+01, 2.3392e+00, 6.8399e-02, 2.0000e-03], dtype=torch.float64)
    """

    def __init__(
        self, sigma_max: float, sigma_min: float, steps: int, spacing: str = "karras", *, exponent: float = 7.0
    ) -> None:
        top, bottom = _finite_positive(sigma_max, "sigma_max"), _finite_positive(sigma_min, "sigma_min")
        if bottom >= top:
            raise ValueError(f"sigma_min={bottom} is not below sigma_max={top}; a grid descends, so exchange them.")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps={steps!r} counts the intervals of the grid; give an integer of at least 1.")
        if spacing not in SPACINGS:
            raise ValueError(f"spacing={spacing!r} is unknown; choose one of {', '.join(SPACINGS)}.")
        self.spacing = spacing
        self.exponent = check_real_number(exponent, "exponent")
        if not 0 < self.exponent < 1e3:
            raise ValueError(
                f"exponent={exponent} is no exponent of the karras spacing; give a number above 0, such as 7."
            )
        self.levels = _spaced(top, bottom, steps, spacing, self.exponent)

    @classmethod
    def from_levels(cls, levels: Iterable[float] | Tensor) -> Grid:
        """The grid with exactly these descending positive levels (at least two).

        Example:
            >>> Grid.from_levels([10.0, 1.0, 0.1]).steps
            2
        """
        try:
            numbers = [] if isinstance(levels, Tensor) else [float(level) for level in levels]
            values = levels.detach().cpu() if isinstance(levels, Tensor) else torch.tensor(numbers, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            raise TypeError(
                f"levels={levels!r} are no numbers; give a sequence of at least two noise levels."
            ) from error
        if values.is_complex() or values.layout != torch.strided:
            raise TypeError(f"levels={levels!r} are no real numbers; give a sequence of at least two noise levels.")
        values = values.double()
        if values.ndim != 1 or values.numel() < 2:
            raise ValueError(f"levels has shape {tuple(values.shape)}; give a sequence of at least two noise levels.")
        if not bool(torch.isfinite(values).all() and (values > 0).all() and (values.diff() < 0).all()):
            raise ValueError("levels must be finite, positive and strictly descending; sort them and drop repetitions.")
        grid = cls.__new__(cls)
        grid.spacing, grid.exponent, grid.levels = "given", 7.0, values
        return grid

    @property
    def steps(self) -> int:
        """Number of intervals n."""
        return len(self.levels) - 1

    @property
    def sigma_max(self) -> float:
        """First level σ_0."""
        return float(self.levels[0])

    @property
    def sigma_min(self) -> float:
        """Last level σ_n."""
        return float(self.levels[-1])

    def refined(self, factor: int = 2) -> Grid:
        """The grid with every interval cut into `factor` parts; the old levels stay (to the last bit).

        Example:
            >>> Grid(4.0, 1.0, 1, spacing="log").refined().levels
            tensor([4., 2., 1.], dtype=torch.float64)
        """
        if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
            raise ValueError(f"factor={factor!r} counts the parts of an interval; give an integer of at least 1.")
        spacing = "log" if self.spacing == "given" else self.spacing
        return self._cut(lambda top, bottom: factor, spacing)

    def filled(self, widest: float = 1.2) -> Grid:
        """The grid with levels added, evenly in log σ, where σ falls more than `widest`-fold in one interval.

        A few of the times of a DDPM's table or of flow matching end with steps that divide σ by 2 to 50: no rule
        follows log p over them (see `grid_error` of the results). The old levels stay.

        Args:
            widest: largest ratio of neighbouring levels, above 1.

        Example:
            >>> Grid.from_levels([4.0, 3.6, 1.0]).filled(2.0).levels
            tensor([4.0000, 3.6000, 1.8974, 1.0000], dtype=torch.float64)
        """
        limit = check_real_number(widest, "widest")
        if not 1 < limit < math.inf:
            raise ValueError(f"widest={widest} is no ratio of descending levels; give a number above 1, such as 1.2.")

        def parts(top: float, bottom: float) -> int:
            # Rounding must not cut an interval of just this ratio.
            return max(math.ceil(math.log(top / bottom) / math.log(limit) - 1e-9), 1)

        return self._cut(parts, "log")

    def _cut(self, parts: Callable[[float, float], int], spacing: str) -> Grid:
        """Every interval cut into `parts(top, bottom)` parts."""
        pairs = zip(self.levels[:-1].tolist(), self.levels[1:].tolist(), strict=True)
        levels = [_spaced(top, low, parts(top, low), spacing, self.exponent)[:-1] for top, low in pairs]
        return Grid.from_levels(torch.cat([*levels, self.levels[-1:]]))

    def reversed_from(self, sigma: float) -> Tensor:
        """Ascending levels from σ (any level in (0, σ_max]) up to σ_max: σ itself, then the grid's levels above it.

        Example:
            >>> Grid(4.0, 1.0, 2, spacing="log").reversed_from(1.5)
            tensor([1.5000, 2.0000, 4.0000], dtype=torch.float64)
        """
        start = _finite_positive(sigma, "sigma")
        if start > self.sigma_max:
            raise ValueError(f"sigma={start} lies above sigma_max={self.sigma_max}; take a grid that starts higher.")
        above = self.levels.flip(0)
        return torch.cat([torch.tensor([start], dtype=torch.float64), above[above > start]])

    def __len__(self) -> int:
        return self.steps

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and torch.equal(self.levels, other.levels)

    def __hash__(self) -> int:
        return hash(tuple(self.levels.tolist()))

    def __repr__(self) -> str:
        return f"Grid({self.sigma_max:g}, {self.sigma_min:g}, {self.steps}, spacing={self.spacing!r})"


def _finite_positive(value: float, name: str) -> float:
    number = check_real_number(value, name)
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"{name}={value} is not a noise level; give a finite number above 0.")
    return number


def _spaced(top: float, bottom: float, steps: int, spacing: str, exponent: float) -> Tensor:
    share = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)
    if spacing == "karras":
        ends = top ** (1 / exponent), bottom ** (1 / exponent)
        levels = (ends[0] + share * (ends[1] - ends[0])) ** exponent
    elif spacing == "log":
        levels = top * (bottom / top) ** share
    else:
        levels = top + share * (bottom - top)
    # Powers may miss the ends by a rounding, and a latent is a state at σ_max itself.
    levels[0], levels[-1] = top, bottom
    return levels
