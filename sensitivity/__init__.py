"""The engine: how scores and samples of a diffusion model change when its data change.

From a black-box torch score in variance-exploding coordinates (see `as_score`) to score derivatives, sensitivities of
samples, influences of training points and samples under finite changes, on CPU or GPU.
"""

from __future__ import annotations

from . import functionals
from .adapters import from_azula, from_diffusers, from_edm, from_flow_matching
from .adaptive import Adaptive
from .anchors import GaussianAnchor
from .branches import PerBranch, conditional_mass
from .classifier import RatioClassifier
from .classifier_training import RatioNetwork, TrainedRatio, train_ratio_classifier
from .density import log_density
from .estimate import Estimate
from .finite import Resampled, resample
from .formula import Formula
from .forward import sample_sensitivity
from .grid import Grid
from .influences import Influence, influence
from .ito import ito_step_bias
from .kernel_ratio import KernelRatio
from .measures import Measure, Mixture, Points
from .network_measure import NetworkMeasure
from .outcome import Outcome, Outcomes
from .perturbations import Move, Perturbation, Remove, Reweight, Toward
from .ratio import log_density_ratio
from .results import SampleSensitivity, Trajectory
from .schedules import EDM, VE, DiscreteDDPM, RectifiedFlow, Schedule, VPCosine, VPLinear
from .scores import Score, as_score, guided
from .sde import SDE
from .source import score_derivative

__all__ = [
    "EDM",
    "SDE",
    "VE",
    "Adaptive",
    "DiscreteDDPM",
    "Estimate",
    "Formula",
    "GaussianAnchor",
    "Grid",
    "Influence",
    "KernelRatio",
    "Measure",
    "Mixture",
    "Move",
    "NetworkMeasure",
    "Outcome",
    "Outcomes",
    "PerBranch",
    "Perturbation",
    "Points",
    "RatioClassifier",
    "RatioNetwork",
    "RectifiedFlow",
    "Remove",
    "Resampled",
    "Reweight",
    "SampleSensitivity",
    "Schedule",
    "Score",
    "Toward",
    "TrainedRatio",
    "Trajectory",
    "VPCosine",
    "VPLinear",
    "as_score",
    "conditional_mass",
    "from_azula",
    "from_diffusers",
    "from_edm",
    "from_flow_matching",
    "functionals",
    "guided",
    "influence",
    "ito_step_bias",
    "log_density",
    "log_density_ratio",
    "resample",
    "sample_sensitivity",
    "score_derivative",
    "train_ratio_classifier",
]
