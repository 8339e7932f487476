"""A measure known by a score network: its log density is integrated along its own probability flow, up to its anchor.

`log ν_σ(x) = log ν_{σ_max}(x_max) − ∫_σ^{σ_max} σ′ div s^ν dσ′` (Song et al. 2021, arXiv 2011.13456, section 4.3).
One evaluation is one solve, so this is the slow, general way; a run that carries the density along does without it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sensitivity._checks import check_like, check_sigma, check_states
from sensitivity.densities.estimate import Estimate
from sensitivity.densities.log_density import log_density
from sensitivity.grid import Grid
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.trial import choose
from sensitivity.scores.score import Score

__all__ = ["NetworkMeasure"]


class NetworkMeasure:
    """The law of a second network as a measure.

    Args:
        score: `s^ν(x, sigma)` in variance-exploding coordinates, see `as_score`.
        anchor: the law at `σ_max`: anything with `log_density(x, sigma)`, e.g. `GaussianAnchor.from_data`.
        grid: levels of the flow; by default as in `log_density`.
        trace, probes, solver: how the divergence is taken and the flow followed, see `log_density`.
        seed: seed of random probes; every evaluation draws the same ones.

    Raises:
        TypeError: where `score` is not callable or `anchor` has no `log_density`.

    Source: Song et al. 2021, arXiv 2011.13456, section 4.3.

    Example:
        >>> import torch
        >>> from sensitivity.measures.mixture import Mixture
        >>> law = Mixture(None, torch.zeros(1, 2, dtype=torch.float64), 1.0)
        >>> measure = NetworkMeasure(law.score, law, grid=Grid(10.0, 0.1, 16, "log"), solver="rk4")
        >>> value = measure.log_density(torch.zeros(1, 2, dtype=torch.float64), 1.0)  # N(0, 2I): −log 4π
        >>> round(float(value), 3)
        -2.531
    """

    def __init__(
        self,
        score: Score,
        anchor: Any,
        *,
        grid: Grid | None = None,
        trace: str = "auto",
        probes: int | None = None,
        solver: str = "rk4",
        seed: int = 0,
    ):
        if not callable(score):
            raise TypeError(f"score is a {type(score).__name__}, not callable: pass a score, see as_score.")
        if not callable(getattr(anchor, "log_density", None)):
            raise TypeError(
                f"anchor is a {type(anchor).__name__} without log_density: pass GaussianAnchor.from_data(data)."
            )
        self.network, self.anchor = score, anchor
        self._options: dict[str, Any] = {"grid": grid, "trace": trace, "probes": probes, "solver": solver, "seed": seed}
        self._products = Products(score)

    def estimate(self, x: Tensor, sigma: Tensor | float) -> Estimate:
        """`log ν_σ(x)` in nats with its standard error, each of shape `(batch,)`."""
        return log_density(self.network, x, sigma, anchor=self.anchor, **self._options)

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`log ν_σ(x)` in nats, shape `(batch,)`."""
        return self.estimate(x, sigma).value

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`s^ν(x)`, like `x`."""
        check_states(x)
        return self.network(x, check_sigma(sigma, x))

    def log_density_and_score(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """Both: a solve and one evaluation."""
        return self.log_density(x, sigma), self.score(x, sigma)

    def score_product(self, x: Tensor, sigma: Tensor | float, tangent: Tensor) -> Tensor:
        """`∇s^ν(x) t`, like `x`, by the product that a trial on the first call finds to work."""
        check_like(tangent, x, "tangent")
        level = check_sigma(sigma, x)
        if self._products.method == "auto":
            self._products = choose(self._products, x[:1].detach(), _first(level))
        return self._products.jvp(x, level, tangent[None])[1][0]


def _first(level: Tensor) -> Tensor:
    return level.detach().reshape(-1)[0] if torch.numel(level) else level
