"""The engine: how scores and samples of a diffusion model change when its data change.

From a black-box torch score in variance-exploding coordinates (see `as_score`) to score derivatives, sensitivities of
samples, influences of training points and samples under finite changes, on CPU or GPU.
"""

from __future__ import annotations

from .anchors import GaussianAnchor
from .branches import PerBranch, conditional_mass
from .forward import SampleSensitivity, sample_sensitivity
from .grid import Grid
from .measures import Measure, Mixture, Points
from .outcome import Outcome, Outcomes
from .perturbations import Perturbation, Toward
from .scores import Score, as_score, guided
from .source import score_derivative

__all__ = [
    "GaussianAnchor",
    "Grid",
    "Measure",
    "Mixture",
    "Outcome",
    "Outcomes",
    "PerBranch",
    "Perturbation",
    "Points",
    "SampleSensitivity",
    "Score",
    "Toward",
    "as_score",
    "conditional_mass",
    "guided",
    "sample_sensitivity",
    "score_derivative",
]
