"""The engine: how scores and samples of a diffusion model change when its data change.

From a black-box torch score in variance-exploding coordinates (see `as_score`) to score derivatives, sensitivities of
samples, influences of training points and samples under finite changes, on CPU or GPU.
"""

from __future__ import annotations

from .adaptive import Adaptive
from .anchors import GaussianAnchor
from .branches import PerBranch, conditional_mass
from .density import log_density
from .estimate import Estimate
from .finite import Resampled, resample
from .formula import Formula
from .forward import SampleSensitivity, sample_sensitivity
from .grid import Grid
from .influences import Influence, influence
from .measures import Measure, Mixture, Points
from .outcome import Outcome, Outcomes
from .perturbations import Move, Perturbation, Remove, Reweight, Toward
from .scores import Score, as_score, guided
from .sde import SDE
from .source import score_derivative

__all__ = [
    "SDE",
    "Adaptive",
    "Estimate",
    "Formula",
    "GaussianAnchor",
    "Grid",
    "Influence",
    "Measure",
    "Mixture",
    "Move",
    "Outcome",
    "Outcomes",
    "PerBranch",
    "Perturbation",
    "Points",
    "Remove",
    "Resampled",
    "Reweight",
    "SampleSensitivity",
    "Score",
    "Toward",
    "as_score",
    "conditional_mass",
    "guided",
    "influence",
    "log_density",
    "resample",
    "sample_sensitivity",
    "score_derivative",
]
