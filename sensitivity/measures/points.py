"""A measure made of points: the weighted empirical measure of data, noised.

`ν = Σ_j c_j δ_{y_j}`, optionally smoothed by a bandwidth b, so that at level σ with `τ² = σ² + b²`:
`log ν_σ(x) = logsumexp_j(log c_j − |x − y_j|²/2τ²) − (d/2) log 2πτ²` and `s^ν(x) = Σ_j γ_j (y_j − x)/τ²` with the
responsibilities `γ = softmax`. Data are streamed in blocks: no `batch × N × d` array is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sensitivity._checks import (
    check_finite,
    check_like,
    check_log_density,
    check_positive_number,
    check_precision,
    check_same_home,
    check_sigma,
    check_states,
    check_weights,
    full_precision,
    per_sample,
)
from sensitivity.measures.distances import LEADING, kernel, squared_distances, squared_lengths, wide

__all__ = ["Points", "whole"]

# Rows of data handled at once: a block of 2048 × 784 float64 numbers (13 MB) and its kernel values stay near the cache.
BLOCK = 2048


class Points:
    """The measure `Σ_j c_j N(y_j, b² I)` on data points, noised to any level.

    Args:
        data: the points y, shape `(N, *shape)`, floating; constants, which no derivative reaches: `Move` moves them.
        weights: the weights c, shape `(N,)`, ≥ 0, normalised to sum 1; equal when `None`.
        bandwidth: the standard deviation b ≥ 0 of a Gaussian put on every point; it adds b² to σ².
        block: rows of data handled at once (memory only; results do not depend on it beyond rounding).

    Raises:
        ValueError, TypeError: for data without rows or non-finite, negative weights, a negative bandwidth.

    Source: Scarvelis & Solomon 2025, arXiv 2509.23092 (contamination by points); the kernel form of the noised
    empirical measure is that of Karras et al. 2022, arXiv 2206.00364, appendix B.3.

    Example:
        >>> import torch
        >>> points = Points(torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64))
        >>> points.score(torch.tensor([[0.0, 2.0]], dtype=torch.float64), 1.0)
        tensor([[ 0., -2.]], dtype=torch.float64)
    """

    def __init__(self, data: Tensor, weights: Tensor | None = None, bandwidth: float = 0.0, *, block: int = BLOCK):
        check_states(data, "data")
        check_precision(data, "data")
        if data.numel() == 0:
            raise ValueError("data has no rows: a measure needs at least one point.")
        check_finite(data, "data")
        if isinstance(block, bool) or not isinstance(block, int) or block < 1:
            raise ValueError(f"block = {block!r} is refused: pass a number of rows ≥ 1.")
        self.data = data
        self.weights = check_weights(weights, data)
        self.bandwidth = check_positive_number(bandwidth, "bandwidth", zero=True)
        self.block = int(block)
        self.shape = tuple(data.shape[1:])
        self._rows = data.detach().reshape(data.shape[0], -1)
        self._centre = _origin(self._rows)
        blocks = self._rows.split(self.block)
        self._lengths = torch.cat([squared_lengths(rows, self._centre) for rows in blocks])
        self._log_weights = self.weights.to(wide(data)).log()

    def __len__(self) -> int:
        return self.data.shape[0]

    @cached_property
    def squares(self) -> Tensor:
        """`|y_j|²`, shape `(N,)`, in double precision: computed once, since it is a pass over all data."""
        if not self._centre.ndim:
            return self._lengths
        return torch.cat(
            [squared_lengths(rows, torch.zeros_like(self._centre)) for rows in self._rows.split(self.block)]
        )

    @property
    def dimension(self) -> int:
        """The number d of entries of one point."""
        return self._rows.shape[1]

    def to(self, *args: object, **kwargs: object) -> Points:
        """The same measure on another device or dtype, arguments as `Tensor.to`."""
        data = self.data.to(*args, **kwargs)  # type: ignore[call-overload]  # forwards Tensor.to's overloads unchanged
        return Points(data, self.weights.to(data), self.bandwidth, block=self.block)

    def reweighted(self, multipliers: Tensor) -> Points:
        """The law with weights `c_j · multipliers_j`, normalised; `multipliers` has shape `(N,)`, ≥ 0."""
        return Points(self.data, self.weights * multipliers, self.bandwidth, block=self.block)

    @full_precision
    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`log ν_σ(x)` in nats, shape `(batch,)`."""
        state, tau2 = self._enter(x, sigma)
        return self._normalised(self._log_sum(state, tau2), tau2).to(x.dtype)

    @full_precision
    def posterior(self, x: Tensor, sigma: Tensor | float, *, mean: bool = True) -> tuple[Tensor, Tensor]:
        """`log Σ_j c_j e^{−|x − y_j|²/2τ²}`, `(batch,)` in double precision, and the mean `Σ_j γ_j y_j`, `(batch, d)`.

        Without `mean`, `(batch, 0)` stands for it and a product is saved.
        """
        state, tau2 = self._enter(x, sigma)
        return self._posterior(state, tau2) if mean else (self._log_sum(state, tau2), state[:, :0])

    def _log_sum(self, state: Tensor, tau2: Tensor) -> Tensor:
        running = _Running.start(state)
        for log_terms, _ in self._log_terms(state, tau2):
            running.add(log_terms)
        return running.log_sum()

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`s^ν(x) = ∇ log ν_σ(x)`, shape of `x`."""
        return self.log_density_and_score(x, sigma)[1]

    @full_precision
    def log_density_and_score(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """Both in one pass over the data: shapes `(batch,)` and that of `x`."""
        state, tau2 = self._enter(x, sigma)
        log_sum, mean = self._posterior(state, tau2)
        score = (mean - state) / per_sample(tau2, state)
        return self._normalised(log_sum, tau2).to(x.dtype), score.to(x.dtype).reshape(x.shape)

    def _posterior(self, state: Tensor, tau2: Tensor) -> tuple[Tensor, Tensor]:
        """`logsumexp_j` of the log terms and the posterior mean; one block needs no running sums."""
        if len(self) <= self.block:
            ((log_terms, rows),) = self._log_terms(state, tau2)
            top = log_terms.detach().amax(1, keepdim=True)
            terms = kernel(log_terms - top)
            total = terms.sum(1, keepdim=True)
            mean = (terms / total).to(rows.dtype) @ self._centred(rows)
            return (top + total.log()).squeeze(1), self._centre + mean
        running = _Running.start(state, values=1)
        for log_terms, rows in self._log_terms(state, tau2):
            running.add(log_terms, lambda p, rows=rows: (p.to(rows.dtype) @ self._centred(rows),))
        return running.log_sum(), self._centre + running.average(0)

    @full_precision
    def score_product(self, x: Tensor, sigma: Tensor | float, tangent: Tensor) -> Tensor:
        """`∇s^ν(x) t = Σ_j γ_j (y_j − m)((y_j − m)·t)/τ⁴ − t/τ²` with m the posterior mean; shape of `x`."""
        check_like(tangent, x, "tangent")
        state, tau2 = self._enter(x, sigma)
        t = tangent.flatten(1)
        # One pass: the mean is known at its end only, so that moments are taken about the state, which at low noise is
        # as near to the points that count as they are to their mean: E[(y − x)(y − x)·t] − (m − x)(m − x)·t.
        origin = state - self._centre
        running = _Running.start(state, values=2, columns=(1,))
        for log_terms, rows in self._log_terms(state, tau2):
            running.add(log_terms, lambda p, rows=rows: _moments(p, self._centred(rows), origin, t))
        shift, along, outer = running.average(0), running.average(2), running.average(1)
        covariance = outer - shift * along
        tau2_column = per_sample(tau2, state)
        return (covariance / tau2_column**2 - t / tau2_column).to(x.dtype).reshape(x.shape)

    @full_precision
    def pairing(
        self,
        x: Tensor,
        sigma: Tensor | float,
        score: Tensor,
        log_density: Tensor,
        cotangent: Tensor,
        *,
        out: Tensor | None = None,
    ) -> Tensor:
        """`λ·ṡ_i` for `Toward` each single point i: `r_i (s_i − s)·λ`, shape `(batch, N)`.

        `r_i = N(x; y_i, τ²I)/p_σ(x)` and `s_i = (y_i − x)/τ²`; the weights of the measure play no part.

        Args:
            x: states, `(batch, *shape)`.
            sigma: the level, a number, 0-d or `(batch,)`.
            score: s(x) of the base law, like `x`.
            log_density: log p_σ(x) of the base law in nats, `(batch,)`.
            cotangent: λ, like `x`.
            out: where given, `(batch, N)`, the result is added to it in place and it is returned.
        """
        check_like(score, x, "score")
        check_like(cotangent, x, "cotangent")
        check_log_density(log_density, x)
        state, tau2 = self._enter(x, sigma)
        if out is None:
            out = torch.zeros(x.shape[0], len(self), dtype=x.dtype, device=x.device)
        elif out.shape != (x.shape[0], len(self)):
            raise ValueError(f"out has shape {tuple(out.shape)}: pass shape ({x.shape[0]}, {len(self)}).")
        self._add_pairing(out, state, tau2, score, log_density, cotangent.flatten(1))
        return out

    def _add_pairing(
        self, out: Tensor, state: Tensor, tau2: Tensor, score: Tensor, log_density: Tensor, cotangent: Tensor
    ) -> None:
        tau2_column = per_sample(tau2, state)
        offset = -(0.5 * self.dimension) * (2 * math.pi * tau2).log() - log_density.to(tau2.dtype)
        offset = offset.reshape(-1, 1)
        # λ·(s_i − s) = λ·(y_i − c)/τ² − [λ·(x − c)/τ² + λ·s]: the bracket is the same for all points, which then need
        # one product.
        fixed = ((state - self._centre) * cotangent).sum(1, keepdim=True) / tau2_column
        fixed = fixed + (score.flatten(1) * cotangent).sum(1, keepdim=True)
        first = 0
        for log_terms, rows in self._log_terms(state, tau2, weighted=False):
            along = cotangent @ self._centred(rows).T / tau2_column - fixed
            along = _nearest_again(along, log_terms, rows, (state, tau2_column, score.flatten(1), cotangent))
            out[:, first : first + rows.shape[0]].add_(kernel(log_terms + offset).to(out.dtype) * along)
            first += rows.shape[0]

    def normals(self, x: Tensor, sigma: Tensor | float) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Per block: `log c_j N(x; y_j, τ²I)`, `(batch, rows)`, the rows `(rows, d)`, τ² (0-d or a column)."""
        state, tau2 = self._enter(x, sigma)
        variance = per_sample(tau2, state)
        volume = (0.5 * self.dimension) * (2 * math.pi * variance).log()
        for log_terms, rows in self._log_terms(state, tau2):
            yield log_terms - volume, rows, variance

    def _enter(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        check_states(x, "x", self.shape)
        check_same_home(x, self.data, "x", "the data of Points")
        level = check_sigma(sigma, x).to(wide(x))
        return x.flatten(1), level**2 + self.bandwidth**2

    def _log_terms(self, state: Tensor, tau2: Tensor, weighted: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        """Per block: `log c_j − |x − y_j|²/2τ²` (`(batch, rows)`, double precision) and the rows themselves."""
        scale = -0.5 / per_sample(tau2, state)
        parts = (part.split(self.block) for part in (self._rows, self._lengths, self._log_weights))
        for rows, lengths, log_weights in zip(*parts, strict=True):
            terms = squared_distances(state, rows, self._centre, lengths) * scale
            yield (terms + log_weights if weighted else terms), rows

    def _centred(self, rows: Tensor) -> Tensor:
        return rows - self._centre if self._centre.ndim else rows

    def _normalised(self, log_sum: Tensor, tau2: Tensor) -> Tensor:
        return log_sum - (0.5 * self.dimension) * (2 * math.pi * tau2).log()


@dataclass
class _Running:
    """A log-sum-exp over blocks, with sums `Σ_j e^{terms_j} values_j` kept relative to the running maximum."""

    top: Tensor
    total: Tensor
    sums: list[Tensor]

    @classmethod
    def start(cls, state: Tensor, values: int = 0, columns: tuple[int, ...] = ()) -> _Running:
        batch = state.shape[0]
        top = torch.full((batch, 1), -math.inf, dtype=wide(state), device=state.device)
        sums = [torch.zeros_like(state) for _ in range(values)]
        sums += [torch.zeros(batch, width, dtype=state.dtype, device=state.device) for width in columns]
        return cls(top, torch.zeros_like(top), sums)

    def add(self, log_terms: Tensor, values=None) -> None:
        # The maximum only scales: without detach its derivative would be carried for nothing.
        top = torch.maximum(self.top, log_terms.detach().amax(1, keepdim=True))
        # A block of zero weights has top = −∞ and contributes nothing.
        anchor = torch.where(torch.isfinite(top), top, torch.zeros_like(top))
        # What was summed so far was relative to the old maximum: it fades as the maximum rises, and nothing overflows.
        shrink = (self.top - anchor).exp()
        terms = kernel(log_terms - anchor)
        self.total = self.total * shrink + terms.sum(1, keepdim=True)
        if values is not None:
            new = values(terms)
            self.sums = [old * shrink.to(old.dtype) + value for old, value in zip(self.sums, new, strict=True)]
        self.top = top

    def log_sum(self) -> Tensor:
        return (self.top + self.total.log()).squeeze(1)

    def average(self, index: int) -> Tensor:
        return self.sums[index] / self.total.to(self.sums[index].dtype)


def _origin(rows: Tensor) -> Tensor:
    """The mean of data that lie far from zero; zero for others, which saves a pass over them at every call."""
    mean = rows.mean(0)
    spread = (rows[:BLOCK] - mean).square().sum(1).mean()
    return mean if bool(mean.square().sum() > 10 * spread) else rows.new_zeros(())


def _moments(p: Tensor, rows: Tensor, origin: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First moment, second moment times t, and first moment along t, all about `origin` (the state)."""
    p = p.to(rows.dtype)
    along = tangent @ rows.T - (origin * tangent).sum(1, keepdim=True)
    q = p * along
    # Σ p (y − x) without the array of differences: a product, and the mass times x taken off.
    first = p @ rows - p.sum(1, keepdim=True) * origin
    second = q @ rows - q.sum(1, keepdim=True) * origin
    return first, second, q.sum(1, keepdim=True)


def _nearest_again(along: Tensor, log_terms: Tensor, rows: Tensor, stage: tuple[Tensor, ...]) -> Tensor:
    """`(s_i − s)·λ` of the nearest points anew in double precision: at low noise terms cancel while r_i is large."""
    if along.dtype == wide(along):
        return along
    state, tau2, score, cotangent = (part.to(wide(along)) for part in stage)
    near = log_terms.topk(min(LEADING, len(rows)), dim=1).indices
    direction = (rows[near].to(state.dtype) - state[:, None]) / tau2[..., None] - score[:, None]
    return along.scatter(1, near, (direction * cotangent[:, None]).sum(-1).to(along.dtype))


def whole(value: int, name: str) -> int:
    """`value` as a number of points ≥ 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a {type(value).__name__}: pass a whole number of points.")
    if value < 1:
        raise ValueError(f"{name} = {value}: pass a number of points ≥ 1.")
    return value
