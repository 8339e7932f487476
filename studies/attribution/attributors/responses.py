"""Attributors that wrap a response of the engine: influences of the points on an output that is one of samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensitivity import GaussianAnchor, Grid, LocalResponse, Points, as_score, influence
from studies.attribution.attributors.parameter_gradients import Problem


def population(problem: Problem) -> Any:
    """Ours, the population's response: through the network's score, its own log density and the data's moments."""
    if problem.functional is None:
        return NotImplemented
    score = as_score(problem.network, "denoiser")
    return _influence(problem, score, anchor=GaussianAnchor.from_data(problem.data), trace="exact")


def empirical(problem: Problem) -> Any:
    """The population's response with the score of the training points themselves."""
    if problem.functional is None:
        return NotImplemented
    points = Points(problem.data)
    return _influence(problem, points.score, anchor=points, trace="exact")


def local(problem: Problem) -> Any:
    """Ours, the response of a machine of patches whose sides are calibrated on the network (arXiv 2412.20292)."""
    if problem.functional is None:
        return NotImplemented
    score = as_score(problem.network, "denoiser")
    return _influence(problem, score, response=LocalResponse(problem.data, levels=6, states=8))


def _influence(problem: Problem, score: Any, **options: Any) -> np.ndarray:
    levels = problem.levels
    grid = Grid(float(levels[0]), float(levels[-1]), len(levels) - 1)
    influences = influence(score, problem.latents, problem.functional, problem.data, grid, **options)
    return np.asarray(influences.values.detach().double())
