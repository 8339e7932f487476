"""Was a training point copied, and was a point trained on? Statistics, and a detector whose threshold the data give.

A statistic is small where a copy, or membership, is suspected. The detector compares it with values of a reference that
is known to be neither: with n of them and no ties

    p = (1 + #{reference ≤ value})/(n + 1)

is uniform for a point drawn like the reference, whatever the statistic, so that flagging p ≤ level has a false alarm in
at most that share of such points: no threshold is tuned on copies or members.

- `NearestRatio`: squared distance to the nearest training point over the mean to the k nearest, of samples; the
  reference are held-out points, or each training point against the others.
- `denoising_loss`: what is lost of a point that the network denoises; low where it was trained on.
- `concentration`: the share of one training point in all influence on a sample, negative.

Source: Carlini et al. 2023, arXiv 2301.13188, and Yoon et al. 2023 (copies by relative distance); Yeom et al. 2018,
arXiv 1709.01604, and Matsumoto et al. 2023, arXiv 2302.03262 (membership by the loss); Vovk, Gammerman & Shafer 2005
(p-values by ranks).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sensitivity._callables import evaluate, outside_inference_mode
from sensitivity._checks import (
    check_callable,
    check_count,
    check_finite,
    check_positive_number,
    check_real_number,
    check_same_home,
    check_states,
    check_tensor,
)
from sensitivity.scores.score import Score

__all__ = ["Detector", "NearestRatio", "concentration", "denoising_loss"]

BLOCK = 256  # points compared with all data at once


@dataclass(frozen=True)
class Detector:
    """A threshold for a statistic that is small where something is suspected.

    Attributes:
        reference: values of the statistic where nothing is to be suspected, (n,).
        level: the share of false alarms among points like the reference.

    Raises:
        ValueError, TypeError: for a reference that is no list of finite numbers, or a level outside (0, 1).

    Source: Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World, 2005.

    Example:
        >>> detector = Detector(torch.arange(1.0, 100.0), level=0.05)
        >>> detector.threshold
        5.0
        >>> detector.pvalues(torch.tensor([0.5, 50.0])), detector.flagged(torch.tensor([0.5, 50.0]))
        (tensor([0.0100, 0.5100]), tensor([ True, False]))
    """

    reference: Tensor
    level: float = 0.01

    def __post_init__(self) -> None:
        check_tensor(self.reference, "reference")
        if self.reference.ndim != 1 or not len(self.reference):
            raise ValueError(f"reference has shape {tuple(self.reference.shape)}; give one value for each point, (n,).")
        check_finite(self.reference, "reference")
        if not 0 < check_real_number(self.level, "level") < 1:
            raise ValueError(f"level={self.level} is no share between 0 and 1; give 0.01, say.")

    @property
    def threshold(self) -> float:
        """Values below it are flagged, and no others; −∞ where the reference is too short for the level."""
        # 100 · 0.29 is 28.999… in floating point: without the slack the rank would fall by one.
        rank = math.floor((len(self.reference) + 1) * self.level + 1e-9)
        return float(self.reference.sort().values[rank - 1]) if rank > 0 else -math.inf

    def pvalues(self, values: Tensor) -> Tensor:
        """(1 + #{reference ≤ value})/(n + 1), like `values`."""
        check_tensor(values, "values")
        check_finite(values, "values")
        ordered = self.reference.to(values).sort().values
        return (1 + torch.searchsorted(ordered, values.contiguous(), right=True)).to(values) / (len(ordered) + 1)

    def flagged(self, values: Tensor) -> Tensor:
        """Where p ≤ level, a mask."""
        # The same slack: p = k/(n + 1) in the dtype of the values may exceed the level it equals.
        return self.pvalues(values) <= self.level * (1 + 1e-9)


class NearestRatio:
    """|x − y_(1)|²/mean_{j ≤ k} |x − y_(j)|² over the k nearest of N training points.

    0 for a copy, towards 1 where no point is nearer than the others.

    Args:
        data: the training points y, (N, *shape).
        neighbours: k, at least 2, at most N − 1.

    Raises:
        ValueError, TypeError: for data that are not finite states, or k beyond what there is.

    Source: Carlini et al. 2023, arXiv 2301.13188 (k = 50).

    Example (a sample on a training point, and one between them):
        >>> data = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
        >>> ratio = NearestRatio(data, neighbours=2)
        >>> ratio(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        tensor([0., 1.])
        >>> ratio.of_data()
        tensor([1.0000, 0.6667, 0.6667])
    """

    def __init__(self, data: Tensor, neighbours: int = 50):
        check_states(data, "data")
        check_finite(data, "data")
        check_count(neighbours, "neighbours", 2)
        if neighbours > len(data) - 1:
            raise ValueError(
                f"neighbours={neighbours} of {len(data)} points: leaving one out, {len(data) - 1} are left; give fewer."
            )
        self.data, self.neighbours = data.detach(), neighbours

    def __call__(self, x: Tensor) -> Tensor:
        """Of states (batch, *shape), (batch,)."""
        return self._ratio(self._nearest(x, self.neighbours))

    def of_data(self) -> Tensor:
        """Of every training point against the others, (N,): a reference that needs no held-out points.

        It is that of a new point to the extent that N − 1 points stand for N, and that no training point has a twin: a
        twin looks like a copy, and lowers the threshold.
        """
        return self._ratio(self._nearest(self.data, self.neighbours, own=True))

    def nearest(self, x: Tensor) -> Tensor:
        """The index of the nearest training point of each state, (batch,)."""
        check_states(x, "x", self.data.shape[1:])
        return torch.cat([self._squares(rows).argmin(1) for rows in x.detach().split(BLOCK)])

    def _nearest(self, x: Tensor, count: int, own: bool = False) -> Tensor:
        """Squared distances to the nearest points in order, (batch, count); with `own` without each point itself."""
        check_states(x, "x", self.data.shape[1:])
        check_same_home(x, self.data, "x", "the data")
        parts, first = [], 0
        for rows in x.detach().split(BLOCK):
            squares = self._squares(rows)
            if own:
                here = torch.arange(len(rows), device=x.device)
                squares[here, first + here] = math.inf
            parts.append(squares.topk(count, largest=False).values)
            first += len(rows)
        return torch.cat(parts)

    def _squares(self, rows: Tensor) -> Tensor:
        # Directly: |x|² − 2xy + |y|² loses the small distances that a copy is told by.
        return torch.cdist(rows.flatten(1), self.data.flatten(1), compute_mode="donot_use_mm_for_euclid_dist").square()

    @staticmethod
    def _ratio(squares: Tensor) -> Tensor:
        mean = squares.mean(1)
        return torch.where(mean > 0, squares[:, 0] / mean, torch.zeros_like(mean))


@outside_inference_mode
def denoising_loss(
    score: Score, x: Tensor, levels: Sequence[float], *, draws: int = 8, seed: int = 0, chunk_size: int = 256
) -> Tensor:
    """mean over levels and noises of |D(x + σε) − x|²/(d σ²), D = x + σ² s, (batch,); low where the score knows x.

    Args:
        score: s(x, σ).
        x: points (batch, *shape); all meet the same noises, so that differences between them are not noise.
        levels: σ, at which the loss is taken.
        draws: noises a level.
        seed: of the noises.
        chunk_size: points in one call.

    Raises:
        ValueError, TypeError: for arguments that do not fit.

    Source: Matsumoto et al. 2023, arXiv 2302.03262.

    Example (the law of two points knows them, and not a point between):
        >>> from sensitivity import Points
        >>> score = Points(torch.tensor([[-1.0], [1.0]])).score
        >>> loss = denoising_loss(score, torch.tensor([[1.0], [0.4]]), [0.2])
        >>> bool(loss[0] < 0.01 * loss[1])
        True
    """
    check_callable(score, "score")
    check_states(x, "x")
    check_finite(x, "x")
    check_count(draws, "draws")
    check_count(chunk_size, "chunk_size")
    if isinstance(levels, str) or not isinstance(levels, Sequence) or not len(levels):
        raise TypeError(f"levels={levels!r} is no list of noise levels; give [0.1, 0.3], say.")
    generator = torch.Generator().manual_seed(seed)
    total = x.new_zeros(len(x))
    for level in levels:
        sigma = torch.tensor(check_positive_number(level, "levels"), dtype=torch.float64).to(x)
        noise = torch.randn(draws, *x.shape[1:], generator=generator, dtype=torch.float64).to(x)
        total += torch.cat([_losses(score, rows, sigma, noise) for rows in x.detach().split(chunk_size)])
    return total / (len(levels) * draws)


def _losses(score: Score, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Σ over the noises of |D(x + σε) − x|²/(d σ²), (rows,)."""
    total = x.new_zeros(len(x))
    with torch.no_grad():
        for each in noise:
            state = x + sigma * each
            gap = each + sigma * evaluate(score, state, sigma)
            total += gap.flatten(1).square().mean(1)
    return total


def concentration(values: Tensor) -> Tensor:
    """−max_i |v_i|/Σ_i |v_i| of influences (…, N), (…): −1 where one training point has all of the influence.

    Args:
        values: as of `influence`.

    Raises:
        ValueError, TypeError: for values that are no finite influences of at least two points.

    Example:
        >>> concentration(torch.tensor([[0.0, 4.0, 0.0], [1.0, -1.0, 2.0]]))
        tensor([-1.0000, -0.5000])
    """
    check_tensor(values, "values")
    check_finite(values, "values")
    if values.ndim < 1 or values.shape[-1] < 2:
        raise ValueError(f"values has shape {tuple(values.shape)}; give influences of two points at least, (…, N).")
    size = values.abs()
    total = size.sum(-1)
    return torch.where(total > 0, -size.amax(-1) / total, torch.zeros_like(total))
