"""What the figures of paths show: two-dimensional trajectories with their sensitivities, and log r with its error.

Trajectories and sensitivities on them are the oracle's. The log-ratio is the engine's, in ten dimensions, with an
exact trace and anchor with a moment-matched anchor, and with four random probes; its error is
against the exact law.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles import flow
from sensitivity import GaussianAnchor
from studies.bridge import on_torch
from studies.convergence.config import Config
from studies.convergence.engine import predict
from studies.convergence.problems import SIGMA_MAX, SIGMA_MIN, problem
from studies.study import Cell

SHOWN = 12
STEPS = 8


def cells(config: Config) -> list[Cell]:
    """One cell."""
    return [Cell("paths", {"part": "paths"}, seed=4)]


def run(cell: Cell, config: Config) -> list[dict[str, Any]]:
    """Rows of trajectories and of log-ratios."""
    levels = config.path_levels
    return [*_trajectories(cell.seed, levels), *_ratios(cell.seed, min(64, config.probe_latents), levels)]


def _trajectories(seed: int, shown: tuple[float, ...]) -> list[dict[str, Any]]:
    """States and sensitivities (SHOWN, 2), flattened, at levels from SIGMA_MAX down to SIGMA_MIN."""
    case = problem(2, SHOWN, seed)
    levels = np.geomspace(SIGMA_MAX, SIGMA_MIN, 25)
    states = flow.trajectory(case.base, case.latents, list(levels))
    rows = [{"part": "path", "sigma": float(s), "states": x.ravel()} for s, x in zip(levels, states, strict=True)]
    for level in shown:
        x, delta = flow.sensitivity(case.perturbation, case.latents, SIGMA_MAX, level)
        rows.append({"part": "arrows", "sigma": level, "states": np.ravel(x), "arrows": np.ravel(delta)})
    return rows


def _ratios(seed: int, count: int, levels: tuple[float, ...]) -> list[dict[str, Any]]:
    """log r at some levels and its error, for three ways to have the log density."""
    case = problem(10, count, seed)
    law = on_torch(case.base)
    ways: dict[str, dict[str, Any]] = {
        "exact anchor and trace": {},
        "moment-matched anchor": {"anchor": GaussianAnchor(law.mean, law.covariance)},
        "four probes": {"trace": "hutchinson", "probes": 4, "seed": seed},
    }
    rows = []
    for name, options in ways.items():
        for level in levels:
            result = predict(case, STEPS, sigma_min=level, **options)
            exact = np.asarray(case.perturbation.log_ratio(result.samples.numpy(), level))
            errors = result.log_ratio.numpy() - exact
            rows.append({"part": "ratio", "way": name, "sigma": level, "values": exact, "errors": errors})
    return rows
