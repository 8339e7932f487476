"""Steps chosen by an adaptive solver, used as a fixed grid.

torchdiffeq's dopri5 integrates the probability flow once, without tangents; the levels it accepts become a `Grid`, and
the Dormand–Prince tableau on that grid repeats its solution and carries every reading. The step sizes are those of the
whole batch of latents: they are fixed before any chunk is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sensitivity._callables import evaluate
from sensitivity._checks import check_real_number
from sensitivity.grid import Grid
from sensitivity.scores.score import Score


@dataclass(frozen=True)
class Adaptive:
    """The solver "adaptive" with its tolerances.

    Attributes:
        rtol, atol: relative and absolute tolerance of a step in the rms norm over the batch, as torchdiffeq has them.

    Example:
        >>> from sensitivity import GaussianAnchor
        >>> law = GaussianAnchor(torch.zeros(1).double(), 1.0)
        >>> latents = torch.tensor([[20.0]], dtype=torch.float64)
        >>> chosen = Adaptive(rtol=1e-4, atol=1e-4).accepted(law.score, latents, Grid(20.0, 0.1, 5))
        >>> bool(chosen.steps > 5)  # its own levels between the ends
        True
    """

    rtol: float = 1e-6
    atol: float = 1e-6

    def __post_init__(self) -> None:
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if not 0 < check_real_number(value, name) < 1:
                raise ValueError(f"{name}={value} is no tolerance; give a number between 0 and 1.")

    def accepted(self, score: Score, latents: Tensor, grid: Grid) -> Grid:
        """The accepted steps between the ends of `grid`; its inner levels play no part.

        Args:
            score: s(x, σ).
            latents: states at σ_max, (batch, *shape).
            grid: fixes σ_max and σ_min.

        Raises:
            ValueError: if the flow cannot be integrated, say because the score is not finite.

        Example:
            >>> solver = Adaptive(rtol=1e-4, atol=1e-4)
            >>> chosen = solver.accepted(lambda x, sigma: -x / (1 + sigma**2), torch.ones(2, 3), Grid(10.0, 0.1, 1))
            >>> chosen.sigma_max, chosen.sigma_min, chosen.steps > 1
            (10.0, 0.1, True)
        """
        from torchdiffeq import odeint  # brings scipy.integrate, which importing the engine need not load

        flow = _Flow(score, grid.sigma_max)
        ends = torch.tensor([0.0, grid.sigma_max - grid.sigma_min], dtype=torch.float64)
        # The solver steps onto σ_min instead of past it; times are double whatever the states are, or levels of short
        # steps would coincide.
        options = {"step_t": ends[1:], "dtype": torch.float64}
        try:
            with torch.no_grad():
                odeint(flow, latents.detach(), ends, rtol=self.rtol, atol=self.atol, method="dopri5", options=options)
        except AssertionError as error:
            raise ValueError(
                f"the adaptive solver stopped ({error}); use a fixed grid, a larger tolerance or a larger sigma_min."
            ) from error
        return Grid.from_levels([grid.sigma_max, *flow.levels[:-1], grid.sigma_min])


class _Flow(torch.nn.Module):
    """dx/dt = σ s(x, σ) in t = σ_max − σ, remembering the accepted steps."""

    def __init__(self, score: Score, sigma_max: float) -> None:
        super().__init__()
        self.score, self.sigma_max = score, sigma_max
        self.levels: list[float] = []

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        sigma = (self.sigma_max - t).to(x)
        return sigma * evaluate(self.score, x, sigma)

    def callback_accept_step(self, t: Tensor, x: Tensor, width: Tensor) -> None:
        self.levels.append(self.sigma_max - float(t + width))
