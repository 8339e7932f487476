"""The measure of points that lie anywhere: `Points` whose data are read shard by shard, once for all states.

A shard with mass m gives log Σ_j c_j e^{−|x − y_j|²/2τ²} with its own weights and the mean Σ_j γ_j y_j. Two of them are
one: L = log(m_1 e^{L_1} + m_2 e^{L_2}) and the mean weighed by m_k e^{L_k − L}, in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensitivity._checks import check_positive_number, check_sigma, check_states, check_weights
from sensitivity.measures.distances import wide
from sensitivity.measures.points import Points
from sensitivity.recordings.folder import Content, Folder
from sensitivity.recordings.identity import name_of
from sensitivity.recordings.run import ShardFailure, run
from sensitivity.sources import PreparedSource, as_source
from sensitivity.sources.arrays import digest
from sensitivity.sources.source import SHARD

# States that meet a block of 2048 points at once: 16 MB of exponents in double precision.
STATES = 1024


@dataclass(frozen=True)
class Moments:
    """What some points say to states: L, (batch,) and the mean, (batch, d) or (batch, 0), in double precision."""

    log_sum: Tensor
    mean: Tensor


@dataclass
class Together:
    """The moments of all shards so far."""

    total: Moments | None = None

    def take(self, new: Moments) -> None:
        """Those of the next shard."""
        self.total = new if self.total is None else together(self.total, new)

    def result(self) -> Moments | None:
        """Those of all."""
        return self.total


def together(one: Moments, other: Moments) -> Moments:
    """The moments of two sets of points."""
    log_sum = torch.logaddexp(one.log_sum, other.log_sum)
    # A shard without weight has L = −∞, whose difference from another −∞ is no number.
    shares = [torch.where(part.log_sum > -torch.inf, (part.log_sum - log_sum).exp(), 0.0) for part in (one, other)]
    return Moments(log_sum, shares[0][:, None] * one.mean + shares[1][:, None] * other.mean)


@dataclass(frozen=True)
class Weights:
    """The weights of the points, (N,), summing to 1; None where all are equal, 1/N."""

    values: Tensor | None
    count: int

    def of(self, first: int, size: int) -> Weights:
        """Those of a shard."""
        return Weights(None if self.values is None else self.values[first : first + size], self.count)


@dataclass(frozen=True)
class States:
    """The states x at levels σ that every shard is asked for."""

    x: Tensor
    sigma: Tensor
    data: PreparedSource
    bandwidth: float
    mean: bool

    def answer(self, shard: int, question: Weights) -> Moments:
        """What the points of a shard say."""
        points = self.data.read(shard)[0].to(self.x.device)
        weights = question.values
        mass = len(points) / question.count if weights is None else float(weights.sum())
        if mass == 0:
            mean = torch.zeros_like(self.x.flatten(1)[:, : None if self.mean else 0], dtype=wide(self.x))
            return Moments(mean.new_full((len(mean),), -torch.inf), mean)
        law = Points(points, None if weights is None else weights.to(points), self.bandwidth)
        levels = self.sigma.expand(len(self.x))
        both = [
            law.posterior(x, sigma, mean=self.mean)
            for x, sigma in zip(self.x.split(STATES), levels.split(STATES), strict=True)
        ]
        log_sum, mean = (torch.cat([pair[k] for pair in both]).to(wide(self.x)) for k in (0, 1))
        return Moments(log_sum + math.log(mass), mean)


class ShardedPoints:
    """`Points` whose data lie anywhere and are read once a call, in shards, for all states together.

    Values are those of `Points` to rounding; no derivative goes through them. Memory is bounded by a shard and the
    states, whatever N.

    Args:
        points: where they lie, as for `Recording.influence`.
        weights: c, (N,), ≥ 0, normalised to sum 1; equal where None.
        bandwidth: b ≥ 0, see `Points`.

    Other args:
        client, transform, encoder, encoder_batch, column, shard_rows, progress: as for `Recording.influence`.

    Raises:
        ValueError, TypeError: for arguments that do not fit. A call raises `ShardFailure`, after all other shards, that
            names those that could not be used.

    Source: Karras et al. 2022, arXiv 2206.00364, appendix B.3.

    Example:
        >>> data = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
        >>> law = ShardedPoints(data, shard_rows=1)
        >>> law.score(torch.tensor([[0.0, 2.0]], dtype=torch.float64), 1.0)
        tensor([[ 0., -2.]], dtype=torch.float64)
    """

    def __init__(
        self,
        points: Any,
        weights: Any = None,
        bandwidth: float = 0.0,
        *,
        client: Any = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        encoder: Callable[[Tensor], Tensor] | None = None,
        encoder_batch: int = 256,
        column: Any = None,
        shard_rows: int = SHARD,
        progress: Any = False,
    ):
        self.source = as_source(points, shard_rows=shard_rows, column=column)
        self.bandwidth = check_positive_number(bandwidth, "bandwidth", zero=True)
        self.weights = None if weights is None else _normalised(weights, len(self.source))
        self.client, self.progress = client, progress
        self._prepared = partial(
            PreparedSource, self.source, transform=transform, encoder=encoder, encoder_batch=encoder_batch
        )

    def __len__(self) -> int:
        return len(self.source)

    def log_density(self, x: Tensor, sigma: Tensor | float, *, folder: str | Path | None = None) -> Tensor:
        """`log ν_σ(x)` in nats, (batch,); `folder` as for `log_density_and_score`."""
        return _log_density(x, *self._asked(x, sigma, folder, mean=False))

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`s^ν(x) = ∇ log ν_σ(x)`, like `x`."""
        return self.log_density_and_score(x, sigma)[1]

    def log_density_and_score(
        self, x: Tensor, sigma: Tensor | float, *, folder: str | Path | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both in one pass over the data: (batch,) and like `x`.

        Args:
            x: states, (batch, *shape).
            sigma: the level, a number, 0-d or (batch,).
            folder: where answers of finished shards are kept, so that a call that was killed goes on from there; it
                belongs to these states and levels.
        """
        moments, tau2 = self._asked(x, sigma, folder, mean=True)
        score = (moments.mean - x.detach().flatten(1)) / tau2[:, None]
        return _log_density(x, moments, tau2), score.to(x.dtype).reshape(x.shape)

    def _asked(
        self, x: Tensor, sigma: Tensor | float, folder: str | Path | None, *, mean: bool
    ) -> tuple[Moments, Tensor]:
        """The moments of all points, and τ², (batch,)."""
        check_states(x, "x")
        levels = check_sigma(sigma, x).detach().expand(len(x))
        states = States(x.detach(), levels, self._prepared(x.detach()[:0]), self.bandwidth, mean)
        weights, kept = Weights(self.weights, len(self)), None
        if folder is not None:
            kept = Folder(folder, self._key(states), _content, _restored)
        ran = run(states, weights, Together(), self.client, kept, self.progress)
        if ran.answer is None or ran.failures:
            total = len(self.source.sizes)
            raise ShardFailure(ran.failures, total, kept is not None, "mend or leave out what is named")
        moments = Moments(ran.answer.log_sum.to(x.device), ran.answer.mean.to(x.device))
        return moments, levels.to(wide(x)) ** 2 + self.bandwidth**2

    def _key(self, states: States) -> dict[str, Any]:
        weights = None if self.weights is None else digest(self.weights)
        made = [name_of(states.data.transform), name_of(states.data.encoder), self.bandwidth, weights, states.mean]
        return {"question": [digest(states.x), digest(states.sigma.contiguous()), len(self), *made]}


def _normalised(weights: Any, count: int) -> Tensor:
    """Weights as double precision in host memory."""
    values = weights.detach().cpu().double() if isinstance(weights, Tensor) else weights
    return check_weights(values, torch.empty(count, 0, dtype=torch.float64))


def _log_density(x: Tensor, moments: Moments, tau2: Tensor) -> Tensor:
    """L with the volume of the kernels, (batch,), like x."""
    return (moments.log_sum - (0.5 * math.prod(x.shape[1:])) * (2 * math.pi * tau2).log()).to(x.dtype)


def _content(moments: Moments) -> Content:
    return {"log_sum": moments.log_sum, "mean": moments.mean}, {}


def _restored(content: Content) -> Moments:
    return Moments(**content[0])
