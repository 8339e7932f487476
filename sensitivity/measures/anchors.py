"""Gaussian anchors: the log density at the highest noise level, where a density integral ends.

With data mean `m` and covariance `C = U diag(λ) Uᵀ + τ (I − UUᵀ)` (`U` of rank `r`, `τ` the mean of the other
eigenvalues), the anchor at level `σ` is `q_σ = N(m, C + σ²I)`. The true `p_σ` has the same first two moments, so
that `log p_σ − log q_σ = O(κ_3/σ³)`, `κ_3` the third cumulants of the data; an unmatched mean or covariance
leaves `O(|m|/σ)` or `O(|C|/σ²)` (paper: Scarvelis and Solomon, arXiv 2509.23092, start from `N(0, σ²I)`).

The Poincaré inequality of `q_σ` (Brascamp and Lieb, *J. Funct. Anal.* 22, 1976) bounds the anchor's error in nats
from scores alone: `sd_q(log p_σ − log q_σ) ≤ √(λ_max + σ²) · rms_q |s − s^q|`; see `GaussianAnchor.error`.
An anchor is anything with `log_density(x, σ)`; an exact law, where one is known, has no error.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi, prod
from typing import Protocol

import torch
from torch import Tensor

from sensitivity._callables import evaluate
from sensitivity._checks import (
    check_count,
    check_dense,
    check_finite,
    check_positive_number,
    check_precision,
    check_same_home,
    check_sigma,
    check_states,
    check_values,
    full_precision,
)
from sensitivity.jacobians.products import Products
from sensitivity.measures.moments import moments_of_score
from sensitivity.noise import Noise


class Anchor(Protocol):
    """Anything with the log density, in nats, of a noised law."""

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """`log q_σ(x)` of shape `(batch,)`."""
        ...


class GaussianAnchor:
    """`N(mean, covariance + σ²I)`.

    Args:
        mean: `m`, shape `(*shape)`.
        covariance: `C`, a number (isotropic), variances of the shape of the mean, or a matrix `(d, d)` over the
            flattened sample.
        rank: keep this many leading eigenvectors, the others share their mean variance; `None` keeps all.

    Raises:
        ValueError: if shapes disagree, values are not finite or the covariance is not symmetric positive semi-definite.

    Example:
        >>> anchor = GaussianAnchor(torch.zeros(2, dtype=torch.float64), torch.tensor([3.0, 1.0]).double())
        >>> x = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
        >>> anchor.log_density(x, 1.0)  # N(0, diag(4, 2))
        tensor([-3.3776], dtype=torch.float64)
    """

    def __init__(self, mean: Tensor, covariance: Tensor | float, rank: int | None = None) -> None:
        _check_mean(mean)
        check_count(rank, "rank", 0)
        values, vectors, tail = _factorised(mean, covariance, rank)
        self._set(mean, values, vectors, tail)

    def _set(self, mean: Tensor, values: Tensor, vectors: Tensor, tail: Tensor) -> None:
        self.mean, self.eigenvalues, self.eigenvectors, self.tail = mean, values, vectors, tail

    @classmethod
    def from_factors(cls, mean: Tensor, values: Tensor, vectors: Tensor, tail: Tensor) -> GaussianAnchor:
        """From eigenvalues `(r,)`, orthonormal eigenvectors `(d, r)` and the variance of the other directions."""
        anchor = cls.__new__(cls)
        anchor._set(mean, values, vectors, tail)
        return anchor

    @classmethod
    def from_data(cls, data: Tensor, rank: int | None = None) -> GaussianAnchor:
        """Match the moments of `data` of shape `(N, *shape)`, through a singular value decomposition.

        The covariance divides by `N`: it is that of the empirical law. At most `min(N − 1, d)` directions vary.
        """
        if not isinstance(data, Tensor):
            raise TypeError(f"data is a {type(data).__name__}, not a tensor: pass torch.as_tensor(data).")
        check_dense(data, "data")
        if not data.dtype.is_floating_point:
            raise TypeError(f"data has dtype {data.dtype}, moments are real: pass data.float() or .double().")
        check_precision(data, "data")
        check_count(rank, "rank", 0)
        if data.dim() < 2 or data.shape[0] < 2 or data.numel() == 0:
            raise ValueError(f"data has shape {tuple(data.shape)}: moments need (N, *shape) with N at least 2.")
        if not bool(torch.isfinite(data).all()):
            raise ValueError("data has non-finite entries, so its moments are not finite: remove them.")
        mean = data.mean(0)
        values, vectors, tail = _decomposed((data - mean).flatten(1), rank)
        return cls.from_factors(mean, values, vectors, tail)

    @classmethod
    def from_score(
        cls,
        score: Callable[[Tensor, Tensor], Tensor],
        mean: Tensor,
        sigma: Tensor | float,
        *,
        rank: int | None = None,
        samples: int = 16,
        seed: int = 0,
    ) -> GaussianAnchor:
        """Match the moments of the model's own law, from its score at a high level `σ`; `mean` is a first guess.

        With the denoiser `D = x + σ² s`, `E D = m` and `E ∇D = C (C + σ²I)⁻¹` for Gaussian `p_σ`; both are
        averaged over `samples` antithetic states, the Jacobian on a random subspace of `rank` (plus a margin)
        directions (Halko, Martinsson, Tropp, arXiv 0909.4061, algorithm 5.3).
        """
        if not callable(score):
            raise TypeError(f"score is a {type(score).__name__}, not callable: pass a score, see as_score.")
        _check_mean(mean)
        check_finite(mean, "mean")
        sigma = check_positive_number(sigma, "sigma")
        check_count(rank, "rank", 0)
        check_count(samples, "samples")
        noise = Noise.draw(samples, seed=seed)
        return cls.from_factors(*moments_of_score(Products(score), mean, sigma, rank=rank, noise=noise))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.mean.shape)

    @property
    def dimension(self) -> int:
        return prod(self.shape)

    @full_precision
    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`log N(x; m, C + σ²I)` in nats, shape `(batch,)`."""
        coordinates, rest, level = self._split(x, sigma)
        leading, tail = self.eigenvalues + level[:, None], self.tail + level
        square = (coordinates.square() / leading).sum(1) + rest.square().sum(1) / tail
        spread = leading.log().sum(1) + (self.dimension - len(self.eigenvalues)) * tail.log()
        return -0.5 * (square + spread + self.dimension * log(2 * pi))

    @full_precision
    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`−(C + σ²I)⁻¹ (x − m)`."""
        coordinates, rest, level = self._split(x, sigma)
        leading = (coordinates / (self.eigenvalues + level[:, None])) @ self.eigenvectors.T
        return -(leading + rest / (self.tail + level)[:, None]).reshape(x.shape)

    def score_product(self, x: Tensor, sigma: Tensor | float, tangent: Tensor) -> Tensor:
        """`∇s^q · tangent`; the same for every x."""
        # s^q is linear in x − m.
        return self.score(tangent + self.mean, sigma)

    def divergence(self, sigma: Tensor) -> Tensor:
        """`div s^q = −tr (C + σ²I)⁻¹`, of the shape of `sigma`."""
        level = sigma.square()
        leading = 1 / (self.eigenvalues + level[..., None])
        return -(leading.sum(-1) + (self.dimension - len(self.eigenvalues)) / (self.tail + level))

    @full_precision
    def sample(self, noise: Noise, sigma: Tensor, *, step: int = 0, stream: int = 0) -> Tensor:
        """One state of `q_σ` for each key of `noise`."""
        white = noise.gaussian(self.shape, step=step, dtype=self.mean.dtype, stream=stream)[0].flatten(1)
        level = sigma.square()
        coordinates = white @ self.eigenvectors
        rest = (white - coordinates @ self.eigenvectors.T) * (self.tail + level).sqrt()
        leading = (coordinates * (self.eigenvalues + level).sqrt()) @ self.eigenvectors.T
        return self.mean + (leading + rest).reshape(-1, *self.shape)

    def error(
        self, score: Callable[[Tensor, Tensor], Tensor], sigma: Tensor | float, *, samples: int = 256, seed: int = 0
    ) -> float:
        """Bound in nats on the standard deviation of `log p_σ − log q_σ` over states of `q_σ`.

        `score` belongs to the law that is anchored: the model, or a measure of the data. The bound is Poincaré's
        (module docstring): attained by a shifted mean, √2 and √3 too large for errors of second and third order.
        """
        if not callable(score):
            raise TypeError(f"score is a {type(score).__name__}, not callable: pass a score, see as_score.")
        check_count(samples, "samples")
        level = self.mean.new_tensor(check_positive_number(sigma, "sigma"))
        x = self.sample(Noise.draw(samples, seed=seed, device=self.mean.device), level)
        with torch.no_grad():
            gap = (evaluate(score, x, level) - self.score(x, level)).flatten(1).square().sum(1).mean()
        return float((gap * (self._largest() + level.square())).sqrt())

    def _largest(self) -> Tensor:
        return torch.cat([self.eigenvalues, self.tail.reshape(1)]).max()

    def _split(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates in the leading eigenvectors, the rest of `x − m`, and `σ²` as `(1,)` or `(batch,)`."""
        check_states(x, shape=self.shape)
        check_same_home(x, self.mean, "x", "the anchor's mean")
        level = check_sigma(sigma, x).square().reshape(-1)
        centred = (x - self.mean).flatten(1)
        # Directions outside the leading ones share a variance, so that the length of the rest is all they need: no
        # (d, d) matrix, whatever d is.
        coordinates = centred @ self.eigenvectors
        return coordinates, centred - coordinates @ self.eigenvectors.T, level


def _check_mean(mean: Tensor) -> None:
    if not isinstance(mean, Tensor):
        raise TypeError(f"mean is a {type(mean).__name__}, not a tensor: pass torch.as_tensor(mean).")
    check_dense(mean, "mean")
    if not mean.dtype.is_floating_point:
        raise TypeError(f"mean has dtype {mean.dtype}, a mean is real: pass mean.float() or .double().")
    check_precision(mean, "mean")
    if mean.ndim == 0 or mean.numel() == 0:
        raise ValueError(f"mean has shape {tuple(mean.shape)}: pass that of one sample, with at least one entry.")


def _matrix(covariance: Tensor | float, mean: Tensor) -> Tensor:
    if isinstance(covariance, Tensor):
        check_dense(covariance, "covariance")
        check_values(covariance, "covariance")
        if covariance.is_complex():
            raise TypeError(f"covariance has dtype {covariance.dtype}: pass a real one.")
        return covariance.to(mean)
    if isinstance(covariance, bool | str):
        raise TypeError(f"covariance={covariance!r} is a {type(covariance).__name__}: pass a number or a tensor.")
    try:
        return torch.as_tensor(covariance, dtype=mean.dtype, device=mean.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"covariance is a {type(covariance).__name__}: pass a number or a tensor.") from error


def _factorised(mean: Tensor, covariance: Tensor | float, rank: int | None) -> tuple[Tensor, Tensor, Tensor]:
    dimension = prod(mean.shape)
    matrix = _matrix(covariance, mean)
    if not bool(torch.isfinite(mean).all() & torch.isfinite(matrix).all()):
        raise ValueError("the mean or covariance of the anchor has non-finite entries: check the data they come from.")
    if matrix.numel() == 1:
        return _checked(mean.new_zeros(0), mean.new_zeros(dimension, 0), matrix.reshape(()))
    if matrix.shape == mean.shape:
        matrix = torch.diag(matrix.flatten())
    if matrix.shape != (dimension, dimension):
        raise ValueError(
            f"covariance has shape {tuple(matrix.shape)} and mean {tuple(mean.shape)}: "
            f"give a number, variances shaped like the mean, or a ({dimension}, {dimension}) matrix."
        )
    # Loose enough for a covariance that was summed in float32, over as many data as there may be.
    if not torch.allclose(matrix, matrix.T, rtol=1e-4, atol=1e-6 * float(matrix.abs().max())):
        raise ValueError("covariance is not symmetric, so it is no covariance: symmetrise it as (C + Cᵀ)/2.")
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return _checked(*_truncated(values.flip(0), vectors.flip(1), rank, dimension))


def _decomposed(centred: Tensor, rank: int | None) -> tuple[Tensor, Tensor, Tensor]:
    _, singular, rows = torch.linalg.svd(centred, full_matrices=False)
    # Singular values of the centred data, not eigenvalues of a (d, d) covariance, which for images is never formed.
    return _truncated(singular.square() / centred.shape[0], rows.T, rank, centred.shape[1])


def _truncated(values: Tensor, vectors: Tensor, rank: int | None, dimension: int) -> tuple[Tensor, Tensor, Tensor]:
    """Leading `rank` eigenpairs (descending) and the mean variance of the remaining directions."""
    kept = len(values) if rank is None else min(rank, len(values))
    if kept < 0:
        raise ValueError(f"rank={rank} is negative: give at least 0, or None for all directions.")
    # Where no direction is left there is nothing to share: the sum of no values is zero.
    rest = max(dimension - kept, 1)
    return values[:kept], vectors[:, :kept], values[kept:].sum() / rest


def _checked(values: Tensor, vectors: Tensor, tail: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Refuse negative variances beyond rounding and set the others to at least zero."""
    spectrum = torch.cat([values, tail.reshape(1)])
    if bool((spectrum < -1e-6 * spectrum.abs().max()).any()):
        raise ValueError(
            f"covariance has the negative eigenvalue {float(spectrum.min()):.3g}: it must be positive semi-definite."
        )
    return values.clamp(min=0.0), vectors, tail.clamp(min=0.0)
