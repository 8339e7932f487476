"""Part (a): exact scores. Does `(x_η − x_0)/η` tend to the predicted sensitivity, at first order in η?

x_η is never the engine's: it is the exact mixture ρ_η carried by a high-precision flow (in one dimension by
quantiles). The engine predicts from the exact score and anchor on a fine grid. The floor below which errors say
nothing about η is what the engine's own grid and the oracle's tolerance leave: it is measured by halving the steps,
not by looking at the truth, so that an engine that is wrong cannot hide behind it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sensitivity import Toward, score_derivative
from studies.bridge import engine_measure, exact_anchor, exact_score
from studies.convergence import truth
from studies.convergence.config import Config
from studies.convergence.engine import predict, relative, spread
from studies.convergence.problems import Problem, problem
from studies.study import Cell

LEVELS = (0.05, 0.3, 1.0, 5.0)
HALVING = 16.0  # a fifth-order solver's error falls 32-fold; half of that is counted on

# Solver: its order, and the fewest and most steps at which it is run.
SOLVERS = {"euler": (1, 40, 160), "heun": (2, 10, 160), "rk4": (4, 10, 480), "exponential": (2, 10, 160)}


def cells(config: Config) -> list[Cell]:
    """One cell a dimension, one for the solvers."""
    sizes = zip(config.dimensions, config.latents, config.steps, strict=True)
    exact = [Cell(f"exact-d={d}", {"part": "exact", "dimension": d, "latents": n, "steps": k}) for d, n, k in sizes]
    return [*exact, Cell("solvers", {"part": "solvers"})]


def run(cell: Cell, config: Config) -> list[dict[str, Any]]:
    """Rows of one dimension: one for each η, and one for the engine against the oracle."""
    case = problem(cell.parameters["dimension"], cell.parameters["latents"], cell.seed)
    steps = cell.parameters["steps"]
    # On the line random signs give the divergence exactly, so the probes' arithmetic is judged here too.
    trace = {"trace": "hutchinson", "probes": 3, "seed": cell.seed} if case.dimension == 1 else {}
    result = predict(case, steps, **trace)
    delta = result.sensitivity.numpy()
    grid = relative(predict(case, max(1, steps // 2), **trace).sensitivity, delta) / HALVING
    rounding = truth.tolerance(case) / np.linalg.norm(delta, axis=1)
    rows = [_agreement(case, result.samples.numpy(), delta, steps)]
    curvature = truth.worst_curvature(case, max(config.etas)) if case.dimension == 1 else None
    for eta, quotient in truth.quotients(case, config.etas).items():
        errors, floor = relative(delta, quotient), float(np.median(grid + rounding / eta))
        shared = {"part": "exact", "dimension": case.dimension, "eta": eta}
        rows.append(
            shared
            | {"errors": errors, "floor": floor, "bounded": _bounded(curvature, eta, quotient, delta)}
            | spread(errors)
        )
    return rows


def _bounded(curvature: np.ndarray | None, eta: float, quotient: np.ndarray, delta: np.ndarray) -> float | None:
    """In one dimension, the share of latents with `|x_η − x_0 − ηδ| ≤ ½ η² max |x″|`, rounding allowed for."""
    if curvature is None:
        return None
    remainder = np.abs(quotient - delta)[:, 0]
    allowed = 0.5 * eta * curvature * (1 + 1e-3) + 1e-6 * np.abs(delta[:, 0])
    return float(np.mean(remainder <= allowed))


def _agreement(case: Problem, samples: np.ndarray, delta: np.ndarray, steps: int) -> dict[str, Any]:
    """The engine against the oracle: samples, sensitivity, score derivative."""
    exact = truth.sensitivity(case)
    return {
        "part": "agreement",
        "dimension": case.dimension,
        "steps": steps,
        "samples": float(np.abs(samples - truth.samples(case, 0.0)).max()),
        "score_derivative": _local(case),
        "size": float(np.median(np.linalg.norm(exact, axis=1))),
    } | spread(relative(delta, exact))


def _local(case: Problem) -> float:
    """The largest relative error of ṡ over levels and states, against the closed form."""
    score, anchor, toward = exact_score(case.base), exact_anchor(case.base), Toward(engine_measure(case.toward))
    worst = 0.0
    for level in LEVELS:
        x = np.asarray(case.base.noised(level).sample(64, 11))
        derivative = score_derivative(score, torch.from_numpy(x), level, toward, log_density=anchor)
        worst = max(worst, float(relative(derivative, case.perturbation.score_derivative(x, level)).max()))
    return worst


def run_solvers(cell: Cell, config: Config) -> list[dict[str, Any]]:
    """Error of δ against the oracle, for each solver and number of steps, d = 2: its order, and coarse grids."""
    case = problem(2, config.solver_latents, cell.seed)
    exact = truth.sensitivity(case)
    rows = []
    for solver in config.solvers:
        order, fewest, most = SOLVERS[solver]
        for steps in (k for k in config.solver_steps if fewest <= k <= most):
            result = predict(case, steps, solver=solver, spacing="karras").sensitivity
            errors = relative(result, exact)
            rows.append({"part": "solvers", "solver": solver, "order": order, "steps": steps, **spread(errors)})
    return rows
