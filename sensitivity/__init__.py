"""The engine: how scores and samples of a diffusion model change when its data change.

From a black-box torch score in variance-exploding coordinates (see `as_score`) to score derivatives, sensitivities of
samples, influences of training points and samples under finite changes, on CPU or GPU.

Lives here: one folder a family, in the order of the data's way, each of which imports only those before it.
May touch: torch and NumPy; heavier packages where they are asked for. Never the oracles, which judge it.
"""

from __future__ import annotations

from sensitivity import functionals, membership
from sensitivity.adapters import from_azula, from_diffusers, from_edm, from_flow_matching
from sensitivity.densities.estimate import Estimate
from sensitivity.densities.formula import Formula
from sensitivity.densities.log_density import log_density
from sensitivity.densities.network_measure import NetworkMeasure
from sensitivity.densities.ratio import log_density_ratio
from sensitivity.grid import Grid
from sensitivity.groups import (
    Calibration,
    Counterfactual,
    GroupOutcomes,
    Groups,
    GroupValues,
    Trust,
    counterfactual,
    group_values,
)
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.measures.classifier import RatioClassifier
from sensitivity.measures.classifier_training import RatioNetwork, TrainedRatio, train_ratio_classifier
from sensitivity.measures.kernel_ratio import KernelRatio
from sensitivity.measures.measure import Measure
from sensitivity.measures.mixture import Mixture
from sensitivity.measures.points import Points
from sensitivity.perturbations.contamination import Remove, Reweight, Toward
from sensitivity.perturbations.derivative import score_derivative
from sensitivity.perturbations.displacement import Move
from sensitivity.perturbations.perturbation import Perturbation
from sensitivity.readings.finite_mass import Resampled, resample
from sensitivity.readings.first_order import sample_sensitivity
from sensitivity.readings.influences import Influence, influence
from sensitivity.readings.ito_bias import ito_step_bias
from sensitivity.readings.results import SampleSensitivity, Trajectory
from sensitivity.readings.sampling import Sampled, sample
from sensitivity.recordings import Recording, ShardedPoints, ShardFailure, gallery, record
from sensitivity.responses import (
    DenoisingLoss,
    LocalResponse,
    ParameterResponse,
    PopulationResponse,
    TrainingRecord,
    UnrolledResponse,
    recommendation,
)
from sensitivity.sampler.adaptive import Adaptive
from sensitivity.sampler.outcome import Outcome, Outcomes
from sensitivity.sampler.sde import SDE
from sensitivity.scores.per_branch import PerBranch, conditional_mass
from sensitivity.scores.schedules import EDM, VE, DiscreteDDPM, RectifiedFlow, Schedule, VPCosine, VPLinear
from sensitivity.scores.score import Score, as_score, guided
from sensitivity.sources import Affine, PointSource, as_source

__all__ = [
    "EDM",
    "SDE",
    "VE",
    "Adaptive",
    "Affine",
    "Calibration",
    "Counterfactual",
    "DenoisingLoss",
    "DiscreteDDPM",
    "Estimate",
    "Formula",
    "GaussianAnchor",
    "Grid",
    "GroupOutcomes",
    "GroupValues",
    "Groups",
    "Influence",
    "KernelRatio",
    "LocalResponse",
    "Measure",
    "Mixture",
    "Move",
    "NetworkMeasure",
    "Outcome",
    "Outcomes",
    "ParameterResponse",
    "PerBranch",
    "Perturbation",
    "PointSource",
    "Points",
    "PopulationResponse",
    "RatioClassifier",
    "RatioNetwork",
    "Recording",
    "RectifiedFlow",
    "Remove",
    "Resampled",
    "Reweight",
    "SampleSensitivity",
    "Sampled",
    "Schedule",
    "Score",
    "ShardFailure",
    "ShardedPoints",
    "Toward",
    "TrainedRatio",
    "TrainingRecord",
    "Trajectory",
    "Trust",
    "UnrolledResponse",
    "VPCosine",
    "VPLinear",
    "as_score",
    "as_source",
    "conditional_mass",
    "counterfactual",
    "from_azula",
    "from_diffusers",
    "from_edm",
    "from_flow_matching",
    "functionals",
    "gallery",
    "group_values",
    "guided",
    "influence",
    "ito_step_bias",
    "log_density",
    "log_density_ratio",
    "membership",
    "recommendation",
    "record",
    "resample",
    "sample",
    "sample_sensitivity",
    "score_derivative",
    "train_ratio_classifier",
]
