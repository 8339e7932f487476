"""Attributions of the task `attribution` of `studies verify`, ours and published ones: `f(problem) -> (queries, N)`.

    studies verify studies.attribution.attributors:trak --task attribution --suite images

Gradient methods take the gradient of the output itself, through the sampler where it is one of samples: kinder to them
than the loss at the sample. Up-weighting point i moves the parameters by `−H⁻¹ g_i`, hence the minus signs: positive
means that the output rises. Methods of similarity are multiplied by what the pull of a point does to the output.

No query is looked at. Dampings are a fixed share of a training matrix's mean eigenvalue (Grosse et al. 2023, arXiv
2308.03296); what a method's authors choose by the score on the queries (dampings of D-TRAK and of the diffusion
attribution score; level and side of the patches' similarity) was chosen by the score on other images with latents and
halves of their own, see `studies.attribution.tuning`. What does not depend on the output is kept between the outputs of
a network.

`responses`, `gradients`, `runs` and `similarities` hold the methods by what they look at; `parameter_gradients` and
`pulls` what several of them need.
May touch: `studies.attribution.das` and `ekfac`, `studies.training`, the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from studies.attribution.attributors.gradients import (
    d_trak,
    d_trak_outputs,
    das,
    das_images,
    ekfac,
    gradient_cosine,
    gradient_product,
    leveraged,
    parameters,
    trak,
)
from studies.attribution.attributors.parameter_gradients import Problem
from studies.attribution.attributors.responses import empirical, local, population
from studies.attribution.attributors.runs import tracin, unrolled
from studies.attribution.attributors.similarities import cosine, nearest, patches, random

__all__ = ["ATTRIBUTORS"]

ATTRIBUTORS: dict[str, Callable[[Problem], Any]] = {
    "population response": population,
    "parameter response": parameters,
    "local response (patches)": local,
    "empirical score": empirical,
    "TracIn": tracin,
    "unrolled differentiation": unrolled,
    "gradient product": gradient_product,
    "gradient cosine": gradient_cosine,
    "EK-FAC influence": ekfac,
    "TRAK": trak,
    "TRAK with leverages": leveraged,
    "D-TRAK": d_trak,
    "D-TRAK features": d_trak_outputs,
    "DAS": das,
    "DAS, every pixel": das_images,
    "patch weights": patches,
    "cosine of pixels": cosine,
    "nearest points": nearest,
    "random": random,
}
