"""The score derivative: how fast a score changes when mass moves.

For ρ_η = ρ + η χ noised to level σ, ṡ = ∇(χ_σ/p_σ); toward a measure ν it is ṡ = r (s^ν − s) with r = ν_σ/p_σ
(Scarvelis & Solomon 2025, arXiv 2509.23092, section 3). The same law holds for every affine parametrisation, so that
σ² ṡ is the derivative of the denoiser.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sensitivity._callables import anchor_log_density, evaluate, outside_inference_mode, ready
from sensitivity._checks import at_least_single, check_finite, check_levels, check_sigma, check_states
from sensitivity.perturbations.perturbation import Perturbation
from sensitivity.scores.per_branch import PerBranch
from sensitivity.scores.score import GuidedScore, Score


@outside_inference_mode
def score_derivative(
    score: Score,
    x: Tensor,
    sigma: Tensor | float,
    perturbation: Any,
    *,
    log_density: Any = None,
    differentiable: bool = False,
) -> Tensor:
    """ṡ(x) = ds_σ(x)/dη at η = 0, per unit mass moved.

    Args:
        score: s(x, σ), see `as_score`; or `guided(...)`.
        x: states, (batch, *shape).
        sigma: σ, a number, 0-d or (batch,).
        perturbation: χ, such as `Toward(measure)`; under guidance `PerBranch`.
        log_density: log p_σ(x) in nats, where the perturbation needs it: a tensor (batch,), an `Estimate`, or anything
            with log_density(x, sigma), such as a measure or an anchor that knows every level; under guidance
            `PerBranch`.
        differentiable: keep the graph through the score.

    Returns:
        ṡ, like x.

    Raises:
        ValueError: if a needed log density is missing, or shapes and levels do not fit.
        TypeError: if the perturbation is not one.

    Example:
        >>> from sensitivity import Mixture, Toward
        >>> base = Mixture(torch.tensor([1.0]), torch.zeros(1, 1), torch.ones(1, 1, 1))
        >>> new = Mixture(torch.tensor([1.0]), torch.ones(1, 1), torch.ones(1, 1, 1))
        >>> score_derivative(base.score, torch.zeros(1, 1), 1.0, Toward(new), log_density=base)  # e^{-1/4}/2
        tensor([[0.3894]])
    """
    check_states(x)
    check_finite(x, "x")
    if not callable(score):
        raise TypeError(f"score is a {type(score).__name__}; give a function score(x, sigma), see as_score.")
    x = at_least_single(x)
    level = check_sigma(sigma, x)
    check_levels(level)
    ready(score)
    state = x if differentiable else x.detach()
    result = _derivative(score, state, level, perturbation, log_density)
    return result if differentiable else result.detach()


def _derivative(score: Score, x: Tensor, sigma: Tensor, perturbation: Any, log_density: Any) -> Tensor:
    if isinstance(score, GuidedScore):
        if not isinstance(perturbation, PerBranch):
            raise TypeError("a guided score has two laws; give perturbation=PerBranch(unconditional, conditional).")
        logs = log_density if isinstance(log_density, PerBranch) else PerBranch(log_density, log_density)
        free = _derivative(score.unconditional, x, sigma, perturbation.unconditional, logs.unconditional)
        bound = _derivative(score.conditional, x, sigma, perturbation.conditional, logs.conditional)
        return (1 - score.weight) * free + score.weight * bound
    if perturbation is None:
        return torch.zeros_like(x)
    if not isinstance(perturbation, Perturbation):
        raise TypeError(
            f"perturbation is a {type(perturbation).__name__}; give a perturbation such as Toward(measure)."
        )
    value = _log_density(log_density, x, sigma) if perturbation.needs_density else None
    return perturbation.source(x, sigma, evaluate(score, x, sigma), value)


def _log_density(log_density: Any, x: Tensor, sigma: Tensor) -> Tensor | None:
    if callable(getattr(log_density, "log_density", None)):
        return anchor_log_density(log_density, x, sigma, "log_density")
    if callable(getattr(log_density, "noised", None)):
        return anchor_log_density(log_density, x, sigma, "log_density")
    value: Tensor | None = getattr(log_density, "value", log_density)
    if isinstance(value, Tensor):
        check_finite(value, "log_density")
    return value
