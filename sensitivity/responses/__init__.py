"""How a score answers a change of its data: the answers of the population, parameters, local patches, training.

Lives here: what a reading asks of a response, and the responses themselves, each in modules of its own.
May touch: scores, Jacobian products, measures, perturbations and the laws of a run.
May not touch: the readings (forward, finite, influences), which import this folder and never the other way round.
A response replaces the source ṡ and its transpose; the transport of ṡ to the samples stays with the readings.
"""

from __future__ import annotations

from sensitivity.responses.local import LocalResponse
from sensitivity.responses.losses import DenoisingLoss
from sensitivity.responses.parameters import ParameterResponse
from sensitivity.responses.response import (
    POPULATION,
    Condensed,
    PopulationResponse,
    Response,
    SourceResponse,
    Stage,
    chosen,
    note,
    recommendation,
)
from sensitivity.responses.unrolled import TrainingRecord, UnrolledResponse

__all__ = [
    "POPULATION",
    "Condensed",
    "DenoisingLoss",
    "LocalResponse",
    "ParameterResponse",
    "PopulationResponse",
    "Response",
    "SourceResponse",
    "Stage",
    "TrainingRecord",
    "UnrolledResponse",
    "chosen",
    "note",
    "recommendation",
]
