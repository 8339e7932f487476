"""Explicit samplers of one and two steps as tables of weights.

The probability flow is dx/dσ = −σ s(x, σ). Every explicit step from σ to σ′ is

    x_i = x + Σ_{j<i} A_ij s_j,   x⁺ = x + Σ_j B_j s_j,   s_j = s^w(x_j, σ_j),

with weights that depend on the two levels only. Runge–Kutta methods in σ have A_ij = −(σ′−σ) a_ij σ_j. The exponential
step (second-order DPM-Solver++, Lu et al. 2022, arXiv 2211.01095, algorithm 1) integrates the linear part of
dx/dσ = (x − D)/σ exactly. Log densities are no matter of the step: see `carried_density`.

A two-step method adds h (D − D_before), the change of the denoiser D = x + σ² s since the node before, with a weight
that the three levels give (second-order multistep DPM-Solver++, ibid., algorithm 2): one network call a step.

The tangent of a step has the same weights on s-dot and the Jacobian products; the cotangent is their transpose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sensitivity.grid import Grid
from sensitivity.jacobians.traces import Trace
from sensitivity.sampler.windows import Window, size_of, windows

Row = tuple[float, ...]


class Table(NamedTuple):
    """Stage levels σ_j and the weights A, B of one step.

    A two-step method `remembers` its first stage's denoiser for the next step, where `history` = h weighs its change.
    """

    levels: Row
    stages: tuple[Row, ...]
    final: Row
    history: float = 0.0
    remembers: bool = False


@dataclass(frozen=True)
class Step:
    """Weights of one step.

    Attributes:
        index: which step of the path this is; with the stage it addresses the noise.
        start: σ.
        end: σ′.
        table: stage levels and weights.
        sigmas: the stage levels on the samples' device and in their dtype.
        windows: weights of the log density at each stage input; empty where none is carried.
    """

    index: int
    start: float
    end: float
    table: Table
    sigmas: Tensor
    windows: tuple[Window, ...] = ()

    def takes_divergence(self, stage: int) -> bool:
        """Whether this stage takes div s, where the run has a trace: at nodes, and along a stochastic path always."""
        return not self.windows or self.windows[stage].takes_divergence


class Tableau(Protocol):
    """A sampler's step: weights from two noise levels."""

    @property
    def name(self) -> str: ...

    @property
    def order(self) -> int: ...

    def weights(self, start: float, end: float) -> Table:
        """The table of the step from `start` to `end`."""
        ...


@dataclass(frozen=True)
class RungeKutta:
    """Explicit Runge–Kutta method in σ with nodes c, stages a and weights b."""

    name: str
    order: int
    nodes: Row
    stages: tuple[Row, ...]
    final: Row

    def weights(self, start: float, end: float) -> Table:
        """The table."""
        width = end - start
        # The last stage lies on the next step's level to the bit, which start + 1·width may miss by a rounding.
        levels = tuple(end if node == 1.0 else start + node * width for node in self.nodes)
        stages = tuple(tuple(-width * a * level for a, level in zip(row, levels, strict=False)) for row in self.stages)
        final = tuple(-width * b * level for b, level in zip(self.final, levels, strict=True))
        return Table(levels, stages, final)


@dataclass(frozen=True)
class Exponential:
    """Second-order exponential step: denoiser at the geometric mid-point (DPM-Solver++ 2S with r = 1/2)."""

    name: str = "exponential"
    order: int = 2

    def weights(self, start: float, end: float) -> Table:
        """The table.

        With D_j = x_j + σ_j² s_j: x_1 = (σ_1/σ) x + (1 − σ_1/σ) D_0 and x⁺ = (σ′/σ) x + (1 − σ′/σ) D_1.
        """
        middle = math.sqrt(start * end)
        first = (1 - middle / start) * start**2
        last = 1 - end / start
        stages = ((), (first,))
        # s_0 comes into D_1 through x_1, so that it counts in the end although D_0 does not.
        final = (last * first, last * middle**2)
        return Table((start, middle), stages, final)


@dataclass(frozen=True)
class TwoStep:
    """Second-order exponential step from the denoisers at two nodes (DPM-Solver++ 2M), one network call.

    x⁺ = (σ′/σ) x + (1 − σ′/σ) (D + (D − D_before)/(2r)), r = log(σ/σ_before)/log(σ′/σ); without a node before it is
    the first-order exponential step, which is Euler's in σ weighted otherwise.
    """

    name: str = "2m"
    order: int = 2

    def weights(self, start: float, end: float) -> Table:
        """The table of a first step."""
        return Table((start,), ((),), ((1 - end / start) * start**2,), 0.0, True)

    def continued(self, before: float, start: float, end: float) -> Table:
        """The table of a step with a node before it."""
        # The line in log σ through both denoisers, at the middle of the step.
        ratio = math.log(start / before) / math.log(end / start)
        return self.weights(start, end)._replace(history=(1 - end / start) / (2 * ratio))


EULER = RungeKutta("euler", 1, (0.0,), ((),), (1.0,))
HEUN = RungeKutta("heun", 2, (0.0, 1.0), ((), (1.0,)), (0.5, 0.5))
RK4 = RungeKutta(
    "rk4", 4, (0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)
)
# Dormand and Prince (1980), RK5(4)7M; torchdiffeq's dopri5 without its error weights and its seventh, unweighted stage.
DOPRI5 = RungeKutta(
    "dopri5",
    5,
    (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
EXPONENTIAL = Exponential()
TWO_STEP = TwoStep()

TABLEAUX: dict[str, Tableau] = {t.name: t for t in (EULER, HEUN, RK4, DOPRI5, EXPONENTIAL, TWO_STEP)}


def steps(levels: Tensor, tableau: Tableau, like: Tensor, trace: Trace | None = None) -> list[Step]:
    """Steps through consecutive `levels` (either direction), with stage levels placed beside the samples `like`.

    One more is appended, x⁺ = x + σ² s(x, σ) = D_σ(x) at the last level, which is Euler's step to σ′ = 0: it denoises,
    and its stage input is the last node of the log density. With a `trace`, steps have weights of the log density.
    """
    values = levels.tolist()
    tables = [tableau.weights(a, b) for a, b in pairwise(values)]
    if isinstance(tableau, TwoStep):
        tables[1:] = [tableau.continued(*levels) for levels in zip(values, values[1:], values[2:], strict=False)]
    ends = list(pairwise(values))
    last = values[-1]
    tables.append(Table((last,), ((),), (last**2,)))
    ends.append((last, 0.0))
    sigmas = torch.tensor([table.levels for table in tables[: len(values) - 1]], dtype=torch.float64).to(like)
    rows = [*sigmas.unbind(), torch.tensor([values[-1]], dtype=torch.float64).to(like)]
    places: list[tuple[Window, ...]] = [()] * len(tables)
    if trace is not None:
        places = windows(values, [table.levels for table in tables], like, size_of(tableau.order, not trace.exact))
    return [Step(k, *ends[k], table, rows[k], places[k]) for k, table in enumerate(tables)]


def of_grid(grid: Grid, tableau: Tableau, like: Tensor, trace: Trace | None = None) -> list[Step]:
    """Steps down a grid, and the denoising one."""
    return steps(grid.levels, tableau, like, trace)


def find(name: str) -> Tableau:
    """The tableau of this name.

    Raises:
        ValueError: for a name that no tableau has.

    Example:
        >>> find("heun").order
        2
    """
    if not isinstance(name, str) or name not in TABLEAUX:
        raise ValueError(f"solver={name!r} is unknown; choose one of {', '.join(TABLEAUX)}, adaptive, sde.")
    return TABLEAUX[name]
