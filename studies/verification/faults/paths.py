"""Samples, score derivatives, sensitivities and influences, right by default and wrong by one option.

Downward from the latents: `dx/dσ = −σ s`, `dL/dσ = σ div s`, `dδ/dσ = −σ (J δ + ṡ)`, `ṡ = r (s^ν − s)`,
`log r = log ν_σ − L` (Scarvelis & Solomon, arXiv 2509.23092).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from studies.verification.faults.base import planting, variant
from studies.verification.faults.densities import STAGES, fitting_order
from studies.verification.faults.products import along, at_level, basis, generator
from studies.verification.problem import Problem

__all__ = ["CORRECT", "FAULTS", "influence", "sample", "score_derivative", "sensitivity"]

State = tuple[Tensor, ...]


def downward(rate: Callable[[State, Tensor], State], state: State, levels: Tensor) -> State:
    """Heun steps through descending levels; at image size steps of Runge and Kutta."""
    stages = STAGES[fitting_order(state[0].shape[-1])]
    for high, low in pairwise(levels):
        h, slopes = low - high, []  # type: ignore[var-annotated]  # states of any number of parts
        for node, _ in stages:
            ahead = tuple(a + node * h * b for a, b in zip(state, slopes[-1], strict=True)) if slopes else state
            slopes.append(rate(ahead, high + node * h))
        weighted = [tuple(weight * part for part in slope) for (_, weight), slope in zip(stages, slopes, strict=True)]
        state = tuple(a + h * sum(parts) for a, parts in zip(state, zip(*weighted, strict=True), strict=True))
    return state


def sample(
    problem: Problem, *, drift: float = 1.0, power: int = 1, scale: bool = False, denoise: bool = False
) -> Tensor:
    """The flow's end (n, d)."""
    start = problem.latents * (problem.grid.sigma_max if scale else 1.0)

    def rate(state: State, sigma: Tensor) -> State:
        return (-drift * sigma**power * problem.score(state[0], sigma),)

    end = downward(rate, (start,), problem.grid.levels)[0]
    if denoise:
        end = end + problem.grid.sigma_min**2 * problem.score(end, problem.grid.sigma_min)
    return end


def ancestral(problem: Problem, *, one_component: bool = False, noised: bool = True) -> Tensor:
    """Law cases: a component, a Gaussian draw, noise; the flow elsewhere."""
    if "law" not in dir(problem):
        return sample(problem)
    law, source = problem.law, generator(problem)
    n, d = problem.count, law.means.shape[1]
    which = torch.multinomial(law.weights, 1 if one_component else n, replacement=True, generator=source)
    level = problem.grid.sigma_min if noised else 0.0
    factor = torch.linalg.cholesky(law.covariances + level**2 * torch.eye(d, dtype=torch.float64))
    normal = torch.randn(n, d, generator=source, dtype=torch.float64)
    return law.means[which] + torch.einsum("nij,nj->ni", factor[which].expand(n, d, d), normal)


def score_derivative(
    problem: Problem, *, sign: float = 1.0, use_ratio: bool = True, invert: bool = False, noised: bool = True
) -> Tensor:
    """`ṡ = r (s^ν − s)` (n, d)."""
    measure = problem.perturbation.measure
    level = problem.sigma if noised else 0.1 * problem.sigma
    log_ratio = measure.log_density(problem.x, problem.sigma) - problem.log_density(problem.x, problem.sigma)
    if invert:
        log_ratio = -log_ratio
    factor = torch.exp(log_ratio)[:, None] if use_ratio else 1.0
    return sign * factor * (measure.score(problem.x, level) - problem.score(problem.x, problem.sigma))


def noisy_ratio(problem: Problem, *, correct: bool = False, spread: float = 0.7) -> Tensor:
    """A log density with Gaussian error, exponentiated; `correct` takes the factor `exp(spread²/2)` out."""
    noise = spread * torch.randn(len(problem.x), generator=generator(problem), dtype=torch.float64)
    bias = math.exp(-0.5 * spread**2) if correct else 1.0
    return score_derivative(problem) * bias * torch.exp(noise)[:, None]


def coarse_quotient(problem: Problem, *, eta: float = 0.1) -> Tensor:
    """`(s^η − s)/η` at a finite η: the gate `r/(1 − η + ηr)` instead of r."""
    measure = problem.perturbation.measure
    log_ratio = measure.log_density(problem.x, problem.sigma) - problem.log_density(problem.x, problem.sigma)
    gate = torch.sigmoid(math.log(eta / (1 - eta)) + log_ratio) / eta
    return gate[:, None] * (measure.score(problem.x, problem.sigma) - problem.score(problem.x, problem.sigma))


def sensitivity(
    problem: Problem,
    *,
    divergence: float = 1.0,
    jacobian: bool = True,
    stale: bool = False,
    power: int = 1,
    sign: float = 1.0,
    prior: str = "anchor",
) -> Tensor:
    """`δ = dx/dη` (n, d) at the flow's end, exact trace."""
    top, measure = problem.grid.sigma_max, problem.perturbation.measure
    logs = problem.anchor.log_density(problem.latents, top)
    if prior == "none":
        logs = torch.zeros_like(logs)

    def rate(state: State, sigma: Tensor) -> State:
        x, density, delta = state
        field = at_level(problem.score, sigma)
        columns = along(field, x, torch.cat([basis(x), delta[None]]))
        div = torch.einsum("kni,kni->n", columns[:-1], basis(x))
        s = field(x)
        source = torch.exp(measure.log_density(x, sigma) - density)[:, None] * (measure.score(x, sigma) - s)
        moved = (columns[-1] if jacobian else 0.0) + sign * source
        return -sigma * s, (0.0 if stale else divergence) * sigma * div, -(sigma**power) * moved

    start = (problem.latents, logs, torch.zeros_like(problem.latents))
    return downward(rate, start, problem.grid.levels)[2]


def influence(problem: Problem, *, centred: bool = True, average: bool = False, sign: float = 1.0) -> Tensor:
    """`dφ(x_0)/dη` toward each point (n, N): one tangent a point."""
    points = problem.data
    logs = problem.anchor.log_density(problem.latents, problem.grid.sigma_max)
    tangents = torch.zeros(len(points), *problem.latents.shape, dtype=torch.float64)

    def rate(state: State, sigma: Tensor) -> State:
        x, density, delta = state
        field = at_level(problem.score, sigma)
        columns = along(field, x, torch.cat([basis(x), delta]))
        div = torch.einsum("kni,kni->n", columns[: x.shape[1]], basis(x))
        s = field(x)
        pull = (points[:, None] - x) / sigma**2
        constant = 0.5 * x.shape[1] * torch.log(2 * math.pi * sigma**2)
        log_point = -0.5 * (pull * sigma).square().sum(2) - constant
        source = torch.exp(log_point - density)[:, :, None] * (pull - (s if centred else 0.0))
        return -sigma * s, sigma * div, -sigma * (columns[x.shape[1] :] + source)

    x, _, delta = downward(rate, (problem.latents, logs, tangents), problem.grid.levels)
    values = (problem.functional.gradient(x) * delta).sum(2).T
    return sign * values / (len(points) if average else 1)


def _law(case: Any) -> bool:
    return case.judge == "law"


def _flow(case: Any) -> bool:
    return case.judge == "rows"


of_ancestral = planting("sample", ancestral)
of_sample = planting("sample", sample)
of_score_derivative = planting("score-derivative", score_derivative)
of_sensitivity = planting("sample-sensitivity", sensitivity)
of_influence = planting("influence", influence)
FAULTS = (
    of_ancestral(
        "one_component_per_batch",
        "the mixture component is drawn once for the whole batch (a published benchmark had this).",
        checks=("law",),
        where=_law,
        one_component=True,
    ),
    of_ancestral(
        "noise_left_out",
        "draws from ρ where draws at noise σ_min are asked for.",
        checks=("law",),
        where=lambda case: _law(case) and case.law != "five",  # five axes, ten times the draws would show it
        noised=False,
    ),
    of_sample(
        "reverse_sde_drift",
        "the drift of the reverse SDE, twice that of the flow, without its noise.",
        checks=("accuracy", "law"),
        drift=2.0,
    ),
    of_sample(
        "sigma_squared_in_the_flow",
        "dx/dσ = −σ² s: the factor of d log σ with the steps of dσ.",
        checks=("accuracy", "law"),
        power=2,
    ),
    of_sample(
        "latents_scaled_twice",
        "latents that are already scaled are multiplied by σ_max.",
        checks=("accuracy", "law"),
        scale=True,
    ),
    of_sample(
        "denoised_end",
        "the denoised state is returned for the state at σ_min.",
        checks=("accuracy", "law"),
        denoise=True,
    ),
    of_score_derivative("source_sign", "s − s^ν: the change of moving away.", says="the sign is reversed", sign=-1.0),
    of_score_derivative("ratio_left_out", "the scores' difference without the density ratio.", use_ratio=False),
    of_score_derivative("ratio_upside_down", "p/ν instead of ν/p.", invert=True),
    of_score_derivative(
        "measure_at_another_level", "the added law's score is taken at a tenth of the noise.", noised=False
    ),
    planting("score-derivative", noisy_ratio)(
        "biased_exponential",
        "the exponential of a noisy log ratio is larger on average than the ratio, by exp(var/2).",
        checks=("bias",),
        where=lambda case: case.count > 8,
    ),
    planting("score-derivative", coarse_quotient)(
        "finite_eta", "a difference quotient at η = 0.1 is called a derivative."
    ),
    of_sensitivity(
        "doubled_divergence_in_the_ratio",
        "the divergence counts twice in the carried log density, and every ratio is off.",
        divergence=2.0,
    ),
    of_sensitivity(
        "jacobian_left_out", "the source is integrated but not transported by the flow's Jacobian.", jacobian=False
    ),
    of_sensitivity("stale_log_density", "the log density of the latents is used all the way down.", stale=True),
    of_sensitivity("dropped_sigma", "the tangent's equation lacks its factor σ.", power=0),
    of_sensitivity(
        "sensitivity_sign", "the source enters with the wrong sign.", says="the sign is reversed", sign=-1.0
    ),
    of_influence("points_not_centred", "the source lacks −s: mass is added, not moved.", centred=False),
    of_influence(
        "averaged_influence",
        "influences are divided by the number of points asked about.",
        says="× the truth",
        average=True,
    ),
    of_influence("influence_sign", "positive means that the functional falls.", says="the sign is reversed", sign=-1.0),
)

CORRECT = {
    "sample": {"flow_sample": variant(sample, "flow_sample"), "ancestral": variant(ancestral, "ancestral")},
    "score-derivative": {
        "score_derivative": variant(score_derivative, "score_derivative"),
        "corrected_exponential": variant(noisy_ratio, "corrected_exponential", correct=True),
    },
    "sample-sensitivity": {"sensitivity": variant(sensitivity, "sensitivity")},
    "influence": {"influence": variant(influence, "influence")},
}
