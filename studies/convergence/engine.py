"""The engine's answers on the study's problems, and how errors are measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sensitivity import Grid, SampleSensitivity, Toward, sample_sensitivity
from studies.bridge import engine_measure, exact_anchor, exact_score
from studies.convergence.problems import SIGMA_MAX, SIGMA_MIN, Problem

Array = np.ndarray


def predict(problem: Problem, steps: int, **options: Any) -> SampleSensitivity:
    """The engine's sensitivity: exact score, anchor and trace, dopri5 on a logarithmic grid, unless told otherwise.

    Args:
        problem: laws and latents.
        steps: of the grid.
        options: `score`, `latents`, `spacing`, `sigma_max`, `sigma_min` and any keyword of `sample_sensitivity`.
    """
    score = options.pop("score", None) or exact_score(problem.base)
    latents = options.pop("latents", problem.latents)
    top, bottom = options.pop("sigma_max", SIGMA_MAX), options.pop("sigma_min", SIGMA_MIN)
    grid = Grid(top, bottom, steps, spacing=options.pop("spacing", "log"))
    defaults: dict[str, Any] = {"anchor": exact_anchor(problem.base), "trace": "exact", "solver": "dopri5"}
    toward = Toward(engine_measure(problem.toward))
    with torch.no_grad():
        return sample_sensitivity(score, torch.as_tensor(latents), toward, grid, **(defaults | options))


def relative(values: Array | torch.Tensor, truth: Array | torch.Tensor) -> Array:
    """`|found − truth|/|truth|` of each row, (n,)."""
    a, b = np.asarray(values).reshape(len(values), -1), np.asarray(truth).reshape(len(truth), -1)
    return np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)


def spread(errors: Array) -> dict[str, float]:
    """Median and 99 % quantile."""
    return {"median": float(np.median(errors)), "q99": float(np.quantile(errors, 0.99))}
