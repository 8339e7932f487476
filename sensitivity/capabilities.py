"""What automatic differentiation can do with each result of the engine, found by trying.

An entry moves one argument along a fixed direction, `θ + t θ̇`, and compares `d/dt` of a fixed functional of the
result at t = 0, by torch's reverse and forward mode, with central differences of the same result. Results are
computed with `differentiable=True` where they have that option. Verdicts:

============ ===================================================================================================
both         reverse and forward mode agree with the differences
reverse      reverse mode does; forward mode gives none, or raises an error
forward      forward mode does; reverse mode gives none, or raises an error
cut          the result depends on the argument, but neither mode gives a derivative
independent  the result does not depend on the argument
wrong        anything else; a test watches that no entry says so
============ ===================================================================================================

With `differentiable=False`, the default, every result that has the option is cut. `python -m
sensitivity.capabilities` tries everything and stores the table; `stored` reads it; tests try it again.

Example:
    >>> probe("score_derivative", "states").verdict
    'both'
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import jvp

from sensitivity.densities.log_density import log_density
from sensitivity.densities.ratio import log_density_ratio
from sensitivity.grid import Grid
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.measures.points import Points
from sensitivity.perturbations.contamination import Toward
from sensitivity.perturbations.derivative import score_derivative
from sensitivity.readings.finite_mass import resample
from sensitivity.readings.first_order import sample_sensitivity
from sensitivity.readings.influences import influence
from sensitivity.readings.sampling import sample
from sensitivity.scores.score import guided

__all__ = ["ARGUMENTS", "RESULTS", "Row", "markdown", "probe", "store", "stored", "table"]

STEP, AGREEMENT = 1e-4, 1e-6
STORED = "capabilities.json"
GRID = Grid(2.0, 0.5, 2)
_STATES = torch.tensor([[0.3, -0.2], [-0.5, 1.0]], dtype=torch.float64)
_POINTS = torch.tensor([[0.7, -0.2], [0.1, 0.5], [-0.4, 0.3]], dtype=torch.float64)
_WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


@dataclass(frozen=True)
class Setting:
    """Everything that a result is computed from, at one value of t."""

    states: Tensor = _STATES
    level: Any = 0.7
    slope: Any = 1.0
    points: Tensor = _POINTS
    weights: Tensor = _WEIGHTS
    centre: Any = 0.0
    mass: Any = 0.2

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """A small non-linear network with one parameter, `slope`."""
        return -self.slope * torch.tanh(x + 0.3 * x.flip(-1)) / (0.6 + sigma.reshape(-1, 1) ** 2)

    @property
    def change(self) -> Toward:
        return Toward(Points(self.points, self.weights, bandwidth=0.4))

    @property
    def anchor(self) -> GaussianAnchor:
        return GaussianAnchor(torch.zeros(2, dtype=torch.float64) + self.centre, 1.0)


class Row(NamedTuple):
    """One entry of the table."""

    result: str
    argument: str
    verdict: str
    reason: str = ""


def _density(method: str, s: Setting) -> Tensor:
    options: dict[str, Any] = {"grid": GRID, "evaluations": 64, "data": s.points, "seed": 0, "differentiable": True}
    return log_density(s.score, s.states, s.level, anchor=s.anchor, method=method, **options).value


def _samples(s: Setting, **options: Any) -> Any:
    return sample_sensitivity(s.score, s.states, s.change, GRID, anchor=s.anchor, differentiable=True, **options)


def _plain(s: Setting, **options: Any) -> Any:
    return sample(s.score, s.states, GRID, differentiable=True, **options)


def _influence(s: Setting) -> Tensor:
    return influence(s.score, s.states, lambda x: x.square().sum(1), Points(s.points), GRID, anchor=s.anchor).values


def _resample(s: Setting) -> Tensor:
    return resample(s.score, s.states, s.change, s.mass, GRID, anchor=s.anchor, differentiable=True).samples


def _ratio(s: Setting) -> Tensor:
    other = GaussianAnchor(torch.ones(2, dtype=torch.float64), 1.0)
    anchors: dict[str, Any] = {"new_anchor": other, "anchor": s.anchor}
    level = float(torch.as_tensor(s.level).detach())
    return log_density_ratio(other.score, s.score, s.states, level, grid=GRID, differentiable=True, **anchors).value


RESULTS: dict[str, Callable[[Setting], Tensor]] = {
    "guided score": lambda s: guided(s.score, lambda x, sigma: -x, 1.5)(s.states, torch.as_tensor(s.level).reshape(1)),
    "score_derivative": lambda s: score_derivative(
        s.score, s.states, s.level, s.change, log_density=s.anchor, differentiable=True
    ),
    "log_density, flow": partial(_density, "flow"),
    "log_density, formula": partial(_density, "formula"),
    "log_density, kernel": partial(_density, "kernel"),
    "log_density_ratio": _ratio,
    "sample: samples": lambda s: _plain(s).samples,
    "sample: log density": lambda s: _plain(s, log_density=True, anchor=s.anchor).log_density,
    "sample_sensitivity: samples": lambda s: _samples(s).samples,
    "sample_sensitivity: sensitivity": lambda s: _samples(s).sensitivity,
    "sample_sensitivity: sensitivity, 2m": lambda s: _samples(s, solver="2m").sensitivity,
    "sample_sensitivity: curvature": lambda s: _samples(s, order=2).curvature,
    "resample: samples": _resample,
    "influence: values": _influence,
}
ARGUMENTS: dict[str, Callable[[Any], Setting]] = {
    "states": lambda t: Setting(states=_STATES + t * _STATES.flip(0)),
    "network": lambda t: Setting(slope=1.0 + t),
    "level": lambda t: Setting(level=0.7 + t),
    "points": lambda t: Setting(points=_POINTS + t * _POINTS.flip(0)),
    "weights": lambda t: Setting(weights=_WEIGHTS + t * torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)),
    "anchor": lambda t: Setting(centre=t),
    "mass": lambda t: Setting(mass=0.2 + t),
}


def probe(result: str, argument: str) -> Row:
    """Try one entry.

    Raises:
        ValueError: for a result or an argument that the table does not have.
    """
    for name, known in ((result, RESULTS), (argument, ARGUMENTS)):
        if name not in known:
            raise ValueError(f"{name!r} is not in the table; choose from {', '.join(known)}")

    def value(t: Any) -> Tensor:
        values = RESULTS[result](ARGUMENTS[argument](t)).flatten()
        return (values * torch.cos(torch.arange(1.0, 1.0 + len(values), dtype=torch.float64))).sum()

    verdict, reason = _verdict(value, _difference(value))
    return Row(result, argument, verdict, reason)


def table() -> list[Row]:
    """Every result by every argument."""
    return [probe(result, argument) for result in RESULTS for argument in ARGUMENTS]


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table, a line for a result, a column for an argument."""
    cells = {(row.result, row.argument): row.verdict for row in rows}
    lines = ["| result | " + " | ".join(ARGUMENTS) + " |", "|---|" + "---|" * len(ARGUMENTS)]
    for result in RESULTS:
        lines.append(f"| {result} | " + " | ".join(cells[result, argument] for argument in ARGUMENTS) + " |")
    return "\n".join(lines)


def stored() -> list[Row]:
    """The table as it was last generated."""
    text = resources.files("sensitivity").joinpath(STORED).read_text(encoding="utf-8")
    return [Row(*line) for line in json.loads(text)]


def store(rows: Iterable[Row]) -> None:
    """Write the table into the package."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    Path(__file__).with_name(STORED).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _difference(value: Callable[[Any], Tensor]) -> float:
    """The derivative at zero by central differences."""
    up, down = (float(value(torch.tensor(h, dtype=torch.float64))) for h in (STEP, -STEP))
    return (up - down) / (2 * STEP)


def _reverse(value: Callable[[Any], Tensor]) -> float:
    """The derivative by torch's tape; zero where the result has none."""
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    output = value(t)
    gradient = torch.autograd.grad(output, t, allow_unused=True)[0] if output.requires_grad else None
    return 0.0 if gradient is None else float(gradient)


def _forward(value: Callable[[Any], Tensor]) -> float:
    zero = torch.zeros((), dtype=torch.float64)
    return float(jvp(value, (zero,), (torch.ones_like(zero),))[1])


def _verdict(value: Callable[[Any], Tensor], slope: float) -> tuple[str, str]:
    derivatives, refusals = {}, {}
    for mode, derivative in (("reverse", _reverse), ("forward", _forward)):
        try:
            derivatives[mode] = derivative(value)
        except (TypeError, ValueError, RuntimeError) as error:
            refusals[mode] = str(error).split("\n")[0]
    reason = "; ".join(refusals.values())
    right = [mode for mode, got in derivatives.items() if abs(got - slope) <= AGREEMENT * max(1.0, abs(slope))]
    if abs(slope) <= AGREEMENT and len(right) == len(derivatives):
        return "independent", ""
    if any(got != 0 for mode, got in derivatives.items() if mode not in right):
        return "wrong", f"{derivatives} against {slope}"
    return ("both" if len(right) == 2 else right[0] if right else "cut"), reason


if __name__ == "__main__":
    store(table())
