"""Ready-made functionals φ of samples, for `influence`: each maps samples (batch, *shape) to (batch,).

A functional is any differentiable torch function of the samples; these are the usual ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sensitivity._callables import as_anchor, evaluate
from sensitivity._checks import check_callable, check_same_home, check_sigma, check_tensor
from sensitivity.densities.log_density import log_density
from sensitivity.scores.score import Score

Functional = Callable[[Tensor], Tensor]

__all__ = ["class_logit", "feature_distance", "linear", "own_log_density", "patch"]


def patch(*region: int | slice) -> Functional:
    """φ(x) = mean of x over a region of the sample: one pixel, or a patch.

    Args:
        region: index into a sample of shape `shape`: integers and slices, as in x[0, 3:5, 2].

    Raises:
        ValueError: at the call, if the region is empty or does not fit the samples.

    Example:
        >>> patch(0, slice(0, 2))(torch.tensor([[[1.0, 3.0, 9.0]]]))
        tensor([2.])
    """
    if not region:
        raise ValueError("region is empty; give integers or slices, such as patch(0, slice(2, 5), slice(2, 5)).")

    for axis in region:
        if isinstance(axis, bool) or not isinstance(axis, int | slice):
            raise TypeError(f"region={region} holds a {type(axis).__name__}; give integers or slices.")

    def value(x: Tensor) -> Tensor:
        if len(region) > x.ndim - 1:
            raise ValueError(f"region={region} has {len(region)} axes, samples have {x.ndim - 1}; drop the extra ones.")
        for axis, size in zip(region, x.shape[1:], strict=False):
            if isinstance(axis, int) and not -size <= axis < size:
                raise ValueError(f"region={region} lies outside samples of shape {tuple(x.shape[1:])}; give less.")
        chosen = (
            x[(slice(None), *region)].flatten(1)
            if x.ndim - 1 > _integers(region)
            else x[(slice(None), *region)][:, None]
        )
        if chosen.shape[1] == 0:
            raise ValueError(f"region={region} holds no entry of samples of shape {tuple(x.shape[1:])}; widen it.")
        return chosen.mean(1)

    return value


def _integers(region: tuple[int | slice, ...]) -> int:
    return sum(isinstance(axis, int) for axis in region)


def linear(weights: Tensor) -> Functional:
    """φ(x) = Σ w·x, weights of the shape of one sample.

    Example:
        >>> linear(torch.tensor([1.0, -1.0]))(torch.tensor([[3.0, 2.0]]))
        tensor([1.])
    """

    check_tensor(weights, "weights")

    def value(x: Tensor) -> Tensor:
        if weights.shape != x.shape[1:]:
            raise ValueError(
                f"weights has shape {tuple(weights.shape)}, samples have {tuple(x.shape[1:])}; give one an entry."
            )
        check_same_home(weights, x, "weights", "the samples")
        return (x * weights).flatten(1).sum(1)

    return value


def class_logit(classifier: Callable[[Tensor], Tensor], label: int) -> Functional:
    """φ(x) = logit of a class under a classifier that returns logits (batch, classes).

    Example:
        >>> class_logit(lambda x: torch.stack([x[:, 0], -x[:, 0]], 1), 1)(torch.tensor([[2.0]]))
        tensor([-2.])
    """

    check_callable(classifier, "classifier")
    if isinstance(label, bool) or not isinstance(label, int):
        raise TypeError(f"label is a {type(label).__name__}; give the number of a class.")

    def value(x: Tensor) -> Tensor:
        logits = classifier(x)
        check_tensor(logits, "the output of classifier")
        if logits.ndim != 2 or logits.shape[0] != x.shape[0]:
            raise ValueError(
                f"classifier returns {tuple(logits.shape)}; it must return logits ({x.shape[0]}, classes)."
            )
        if not -logits.shape[1] <= label < logits.shape[1]:
            raise ValueError(
                f"label={label} is none of the {logits.shape[1]} classes; give 0 to {logits.shape[1] - 1}."
            )
        return logits[:, label]

    return value


def feature_distance(features: Callable[[Tensor], Tensor], target: Tensor) -> Functional:
    """φ(x) = |f(x) − f(target)|², the squared distance of features to those of one target (or one for each sample).

    Args:
        features: f, samples (batch, *shape) -> (batch, *any).
        target: one sample of shape `shape`, or (batch, *shape).

    Example:
        >>> feature_distance(lambda x: 2 * x, torch.tensor([1.0, 1.0]))(torch.tensor([[1.0, 2.0]]))
        tensor([4.])
    """

    check_callable(features, "features")
    check_tensor(target, "target")

    def value(x: Tensor) -> Tensor:
        aim = target[None] if target.ndim == x.ndim - 1 else target
        if aim.shape[1:] != x.shape[1:] or aim.shape[0] not in (1, x.shape[0]):
            raise ValueError(
                f"target has shape {tuple(target.shape)}, samples have {tuple(x.shape)}; give one, or one for each."
            )
        check_same_home(aim, x, "target", "the samples")
        with torch.no_grad():
            goal = features(aim)
        return (features(x) - goal).flatten(1).square().sum(1)

    return value


def own_log_density(score: Score, sigma: float, *, anchor: Any, **options: Any) -> Functional:
    """φ(x) = log p_σ(x) in nats of the model's own law, with gradient s_σ(x).

    Moving the sample is what φ measures: the change of the law itself at a fixed sample, r − 1 per unit mass, is not in
    ∇φ·δ; add `log_ratio.exp() - 1` for the total derivative of log p_σ(x).

    Args:
        score: s(x, σ).
        sigma: the level, usually σ_min of the grid.
        anchor: log density at σ_max.
        options: further arguments of `log_density`, such as grid, trace, probes and seed.

    Example:
        >>> from sensitivity import GaussianAnchor
        >>> law = GaussianAnchor(torch.zeros(2).double(), 1.0)
        >>> x = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
        >>> value = own_log_density(law.score, 1.0, anchor=law)(x)
        >>> torch.autograd.grad(value.sum(), x)[0]
        tensor([[-0.5000, -0.5000]], dtype=torch.float64)
    """

    check_callable(score, "score")
    as_anchor(anchor)

    def value(x: Tensor) -> Tensor:
        state = x.detach()
        density = log_density(score, state, sigma, anchor=anchor, **options).value
        with torch.no_grad():
            slope = evaluate(score, state, check_sigma(sigma, state))
        # The value is the flow's; only its gradient, which is the score, passes to the samples.
        return density + (slope * (x - state)).flatten(1).sum(1)

    return value
