"""Density ratios from a noise-conditional classifier: `ṡ` without any density.

Symbols: `P(new | x, σ)` the probability that a state x at level σ comes from the new law, `π = P(new)` its prior,
`ℓ = log P/(1 − P)` the classifier's logit. Two readings, by what the new law is set against:

- `base="all"`: the base law is all the data, of which the new are a part (a class, say): `r = P(new | x, σ)/π`;
- `base="old"`: the base law is the other class: `r = ν_σ/p_σ = e^ℓ (1 − π)/π`.

Since `ṡ = r (s^ν − s) = ∇r = r ∇ log r`, the classifier and its gradient are all that `Toward` needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sensitivity._callables import refuse_training_mode
from sensitivity._checks import check_choice, check_like, check_sigma, check_states
from sensitivity.measures.measure import Ratio

__all__ = ["RatioClassifier"]

BASES = ("all", "old")


class RatioClassifier(Ratio):
    """The ratio `r_σ(x)` of a new law to the base law, read off a classifier; goes where a measure goes.

    Args:
        network: `network(x, sigma) → logit`, sigma of shape `(batch,)`, logits `(batch,)` or `(batch, 1)`.
        prior: π, the share of new states that the classifier was trained with.
        base: `"all"`, `r = P(new | x, σ)/π`, or `"old"`, `r = e^ℓ (1 − π)/π`; see the module.

    Raises:
        ValueError, TypeError: for a prior outside (0, 1), an unknown base, a network in training mode.

    Source: the likelihood-ratio trick, Sugiyama et al. 2012, *Density Ratio Estimation in Machine Learning*, chapter 4;
    noise-conditional classifiers as in Dhariwal & Nichol 2021, arXiv 2105.05233, section 4.

    Example:
        >>> import torch
        >>> from sensitivity.perturbations.contamination import Toward
        >>> logit = lambda x, sigma: (x.sum(1) - 0.5) / (1 + sigma**2)  # N(1, 1) against N(0, 1), d = 1
        >>> toward = Toward(RatioClassifier(logit, base="old"))
        >>> toward.source(torch.tensor([[0.5]]), 1.0, torch.tensor([[-0.25]]))
        tensor([[0.5000]])
    """

    def __init__(self, network: Callable[[Tensor, Tensor], Tensor], prior: float = 0.5, base: str = "all"):
        if not callable(network):
            raise TypeError(f"network is a {type(network).__name__}, not callable: pass a function of (x, sigma).")
        if not (isinstance(prior, int | float) and 0 < prior < 1):
            raise ValueError(f"prior = {prior!r} is not the share of new states: pass a number in (0, 1).")
        check_choice(base, BASES, "base")
        refuse_training_mode(network)
        self.network, self.prior, self.base = network, float(prior), base

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`log r_σ(x)`, shape `(batch,)`."""
        return self._log_ratio(*self._enter(x, sigma))

    def log_density_and_score(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """`log r` and `∇ log r = s^ν − s`: one evaluation and one backward pass."""
        state, level = self._enter(x, sigma)

        def summed(y: Tensor) -> tuple[Tensor, Tensor]:
            value = self._log_ratio(y, level)
            return value.sum(), value

        gradient, value = torch.func.grad(summed, has_aux=True)(state)
        return value, gradient

    def score_product(self, x: Tensor, sigma: Tensor | float, tangent: Tensor) -> Tensor:
        """`∇² log r t`, like `x`, by two backward passes."""
        check_like(tangent, x, "tangent")
        state, level = self._enter(x, sigma)
        gradient = torch.func.grad(lambda y: self._log_ratio(y, level).sum())
        return torch.func.grad(lambda y: (gradient(y) * tangent).sum())(state)

    def _enter(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        check_states(x)
        return x, check_sigma(sigma, x).expand(x.shape[0])

    def _log_ratio(self, x: Tensor, sigma: Tensor) -> Tensor:
        logit = self.network(x, sigma)
        if not isinstance(logit, Tensor) or logit.shape not in ((x.shape[0],), (x.shape[0], 1)):
            shape = tuple(logit.shape) if isinstance(logit, Tensor) else type(logit).__name__
            raise ValueError(f"network returns {shape} for a batch of {x.shape[0]}: return one logit for each state.")
        logit = logit.reshape(-1).to(x.dtype)
        if self.base == "old":
            # e^ℓ is the odds of new against old, (1 − π)/π takes off what the shares of the training states put in.
            return logit + math.log1p(-self.prior) - math.log(self.prior)
        return nn.functional.logsigmoid(logit) - math.log(self.prior)
