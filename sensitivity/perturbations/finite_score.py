"""The score at finite mass, exactly, without linearisation.

With masses w_j moved from ρ to ν_j, r_j = ν_j,σ/p_σ and s_j the scores of the ν_j,

    s^w = [(1−Σw) s + Σ w_j r_j s_j] / [(1−Σw) + Σ w_j r_j] = s + Σ_j g_j (s_j − s).

For one mass 0 < η < 1 this is g = sigmoid(logit η + log r); for a removal, η < 0, it is g = −e^a/(1 − e^a) with
a = log(|η|/(1+|η|)) + log r, and the denominator is positive only for a < 0 (Scarvelis & Solomon 2025,
arXiv 2509.23092, section 3). Both are one formula here: with P and N the sums of the positive and of the negative
terms of the denominator, a = log N − log P and g_j = w_j r_j/(P (1 − e^a)), so that nothing overflows and only the
cancellation that the problem itself has is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sensitivity._checks import full_precision, per_sample
from sensitivity.measures.measure import Measure, Ratio
from sensitivity.perturbations.perturbation import Perturbation

Mass = tuple[Tensor, Measure]


def masses_of(change: Perturbation, eta: Tensor) -> list[Mass]:
    """(w_j, ν_j) for mass η, (batch,), of a perturbation.

    Raises:
        ValueError: if the perturbation is known to first order only.
    """
    if change.masses is None:
        raise ValueError(
            f"perturbation={type(change).__name__} moves points and has no exact finite mass; use sample_sensitivity, "
            "or remove the old points and add the moved ones."
        )
    return [(c * eta, measure) for c, measure in change.masses]


@full_precision
def gate(
    x: Tensor, sigma: Tensor, score: Tensor, log_density: Tensor | None, masses: Sequence[Mass]
) -> tuple[Tensor, Tensor]:
    """s^w, like x, and a, (batch,); where a ≥ 0 the perturbed density would not be positive and s^w means nothing.

    Args:
        x: states, (batch, *shape).
        sigma: σ, 0-d.
        score: s(x).
        log_density: log p_σ(x), (batch,); None if all measures are ratios.
        masses: (w_j, ν_j), each w_j of shape (batch,).
    """
    weights = [1 - sum((w for w, _ in masses), torch.zeros_like(masses[0][0]))]
    logs, directions = [torch.zeros_like(weights[0])], []
    for w, measure in masses:
        value, gradient = measure.log_density_and_score(x, sigma)
        known = isinstance(measure, Ratio)
        weights.append(w)
        logs.append(value if known else value - _needed(log_density))
        directions.append(gradient if known else gradient - score)
    signed = torch.stack(weights)
    ratios = torch.stack(logs)
    top = log_sum(signed, ratios)
    excess = log_sum(-signed, ratios) - top
    # A ratio may overflow where no mass moves; the gate there is 0 times a number that must be finite.
    largest = math.log(torch.finfo(ratios.dtype).max) - 1
    gates = signed * (ratios - top).clamp(max=largest).exp() / -torch.expm1(excess)
    total = score
    for g, direction in zip(gates[1:], directions, strict=True):
        total = total + per_sample(g, x) * direction
    return total, excess


def log_sum(masses: Tensor, logs: Tensor) -> Tensor:
    """log Σ w_j e^{l_j} over the positive masses; without any, a constant −∞, whose derivatives are 0 and not NaN."""
    chosen = masses > 0
    terms = torch.where(chosen, torch.where(chosen, masses, 1.0).log() + logs, float("-inf"))
    some = chosen.any(0)
    return torch.where(some, torch.logsumexp(torch.where(some, terms, 0.0), 0), float("-inf"))


def _needed(log_density: Tensor | None) -> Tensor:
    if log_density is None:
        raise ValueError("log_density is missing; this perturbation needs log p_sigma(x).")
    return log_density
