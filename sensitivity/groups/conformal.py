"""Prediction intervals from errors on groups that were really retrained (split conformal prediction).

For calibration group g, the functional φ of the retrained network's sample and its prediction differ by the score
R_g = |φ_g − φ̂_g|/t_g, t_g ≥ 1 how far the group lies beyond its radius of trust. If the groups and a new one are
exchangeable — drawn in the same way, retrained in the same way, each with a seed of its own — the rank of the new R
among the n + 1 is uniform, so that with k = ⌈(n + 1) level⌉

    φ̂ ± t R_(k)    holds φ with a probability in [level, level + 1/(n + 1)],

and no interval of finite length does where k > n, that is for fewer than level/(1 − level) groups. What is in R is
everything by which a retrained network differs from its prediction: the model's error and the noise of its seed.

Pooled over latents: the samples of one group are dependent, and groups are the unit. The quantile is that of
Σ_g Σ_b δ(R_gb)/(m (n + 1)) + δ(∞)/(n + 1), m latents, and the statement holds for a latent drawn at random of a new
group.

Source: Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World, 2005 (split conformal prediction); Lei et al.,
J. Amer. Stat. Assoc. 113, 2018 (scaled residuals); Lee, Barber & Willett 2023, arXiv 2306.06342 (groups as the unit).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from sensitivity._checks import check_finite, check_like, check_real_number, check_tensor, per_sample

ROUNDING = 1e-9  # of (n + 1)·level, which for n = 9 and level = .9 is 9.000000000000002 or so


class Predicted(Protocol):
    """What `counterfactual` says of groups, as far as a calibration asks."""

    @property
    def samples(self) -> Tensor: ...
    @property
    def values(self) -> Tensor: ...
    @property
    def stretch(self) -> Tensor: ...
    def measured(self, samples: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Calibration:
    """Predicted and retrained outcomes of groups that were really retrained.

    Exchangeability is assumed, of calibration groups and the groups asked about: draw them from one pool, do the same
    to them, retrain all with the same recipe and a fresh seed each.

    Attributes:
        predicted: φ of the predicted samples, (n, batch, *out), or (n,) for a functional of all samples together.
        retrained: φ of the retrained networks' samples from the same latents, like `predicted`.
        level: the probability with which an interval is to hold an outcome.
        pooled: whether samples of all latents share a quantile; False has one for each latent.
        stretch: t, how far each group lies beyond its radius of trust, (n,), ≥ 1; None is 1.

    Raises:
        ValueError, TypeError: for outcomes that do not belong together, or a level that is not between 0 and 1.

    Source: Vovk, Gammerman & Shafer 2005; Lei et al. 2018; Lee, Barber & Willett 2023, arXiv 2306.06342.

    Example:
        >>> errors = torch.arange(1.0, 10.0)  # nine groups, one latent
        >>> calibration = Calibration(torch.zeros(9, 1), errors[:, None], level=0.8)
        >>> calibration.margin, calibration.needed
        (tensor([8.]), 4)
        >>> Calibration(torch.zeros(9, 1), errors[:, None], level=0.95).margin  # 19 groups are the least
        tensor([inf])
    """

    predicted: Tensor
    retrained: Tensor
    level: float = 0.9
    pooled: bool = False
    stretch: Tensor | None = field(default=None)

    def __post_init__(self) -> None:
        check_tensor(self.predicted, "predicted")
        check_like(self.retrained, self.predicted, "retrained", "predicted")
        if not self.predicted.ndim or not len(self.predicted):
            raise ValueError(
                f"predicted has shape {tuple(self.predicted.shape)}; give one outcome for each calibration group, "
                "(n, batch, ...)."
            )
        check_finite(self.predicted, "predicted")
        check_finite(self.retrained, "retrained")
        if not 0 < check_real_number(self.level, "level") < 1:
            raise ValueError(f"level={self.level} is no probability between 0 and 1; give 0.9, say.")
        if self.pooled and self.predicted.ndim < 2:
            raise ValueError("pooled=True shares a quantile among latents, and the functional has one value for all.")
        if self.stretch is not None:
            check_tensor(self.stretch, "stretch")
            if self.stretch.shape != self.predicted.shape[:1] or not bool((self.stretch >= 1).all()):
                raise ValueError(
                    f"stretch has shape {tuple(self.stretch.shape)}; give a number ≥ 1 for each of the "
                    f"{len(self.predicted)} calibration groups."
                )

    @classmethod
    def of(cls, found: Predicted, retrained: Tensor, *, level: float = 0.9, pooled: bool = False) -> Calibration:
        """From predictions and the samples (n, batch, *shape) of networks that were retrained without the groups.

        Args:
            found: what `counterfactual` said of the calibration groups.
            retrained: samples of the retrained networks from the same latents, in the order of its groups.
            level, pooled: as above.

        Raises:
            ValueError: for samples that do not fit the groups and latents, or that are not finite.
        """
        check_tensor(retrained, "retrained")
        check_like(retrained, found.samples, "retrained", "the predicted samples")
        check_finite(retrained, "retrained")
        outcomes = torch.stack([found.measured(samples) for samples in retrained])
        return cls(found.values, outcomes, level, pooled, found.stretch)

    def __len__(self) -> int:
        return len(self.predicted)

    @property
    def needed(self) -> int:
        """The least number of groups that have an interval of finite length at this level."""
        return math.ceil(self.level / (1 - self.level) - ROUNDING)

    @property
    def scores(self) -> Tensor:
        """R, like `predicted`."""
        error = (self.retrained - self.predicted).abs()
        return error if self.stretch is None else error / per_sample(self.stretch.to(error), error)

    @property
    def margin(self) -> Tensor:
        """Half the length of an interval within the radius of trust, (batch, *out) or (*out) where pooled."""
        return self._pooled() if self.pooled else self._each()

    def interval(self, values: Tensor, stretch: Any = 1.0) -> tuple[Tensor, Tensor]:
        """φ̂ − t R_(k) and φ̂ + t R_(k) for predictions (K, batch, *out) with stretches (K,).

        Raises:
            ValueError: for values of another shape than the calibration's.
        """
        expected, given = tuple(self.predicted.shape[1:]), tuple(values.shape[1:])
        if given[1:] != expected[1:] if self.pooled else given != expected:
            raise ValueError(
                f"calibration has outcomes of shape {expected} a group, and {given} are asked for; calibrate with the "
                "same functional" + (" on these latents." if not self.pooled else ".")
            )
        wider = per_sample(torch.as_tensor(stretch).to(values).expand(len(values)), values)
        margin = wider * self.margin.to(values)
        return values - margin, values + margin

    def _each(self) -> Tensor:
        # Among n + 1 exchangeable errors the new one's rank is uniform: it is at most the k-th smallest of the others
        # with probability k/(n + 1), whatever their law.
        rank = math.ceil((len(self) + 1) * self.level - ROUNDING)
        if rank > len(self):
            return torch.full_like(self.predicted[0], math.inf)
        return self.scores.sort(0).values[rank - 1]

    def _pooled(self) -> Tensor:
        # Every group has mass 1/(n + 1) in equal parts on its samples, the new one at infinity.
        groups, latents = self.predicted.shape[:2]
        rank = math.ceil((groups + 1) * latents * self.level - ROUNDING)
        if rank > groups * latents:
            return torch.full_like(self.predicted[0, 0], math.inf)
        return self.scores.flatten(0, 1).sort(0).values[rank - 1]
