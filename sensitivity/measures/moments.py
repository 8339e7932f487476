"""Moments of a model's own data law, read off its score at one high noise level (see `GaussianAnchor`)."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from sensitivity._checks import full_precision
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.trial import choose
from sensitivity.noise import Noise

_MARGIN = 8  # directions beyond the rank, as in Halko, Martinsson and Tropp, section 4.2
_POWER = 2  # subspace iterations


def moments_of_score(
    products: Products, mean: Tensor, sigma: Tensor | float, *, rank: int | None, noise: Noise
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, variances, directions, remaining variance: `m = E D`, `C = σ² G (I − G)⁻¹`, `G = E ∇D` at m ± σz."""
    level = torch.as_tensor(sigma, dtype=mean.dtype, device=mean.device)
    products = choose(products, mean[None], level)
    white = level * noise.to(mean.device).gaussian(tuple(mean.shape), step=0, dtype=mean.dtype)[0]
    # Antithetic states: D of a Gaussian law is affine, and its mean over ±z has no error of sampling.
    for _ in range(2):  # the first round finds the mean, the second uses states centred on it
        x = torch.cat([mean + white, mean - white])
        mean = mean + (x - mean + level.square() * products.value(x, level)).mean(0)
    x = torch.cat([mean + white, mean - white])
    values, vectors, tail = _spectrum(products, x, level, rank, noise)
    return mean, _variance(values, level), vectors, _variance(tail, level)


def _variance(gain: Tensor, level: Tensor) -> Tensor:
    """`λ = σ² g/(1 − g)` for an eigenvalue `g` of `∇D`, zero where the model says less than none."""
    # For a law g = λ/(λ + σ²) < 1; a network's may reach one, which would give an infinite or a negative variance.
    gain = gain.clamp(min=0.0, max=1 - 1e-6)
    return level.square() * gain / (1 - gain)


def _spectrum(
    products: Products, x: Tensor, level: Tensor, rank: int | None, noise: Noise
) -> tuple[Tensor, Tensor, Tensor]:
    dimension = prod(x.shape[1:])
    width = dimension if rank is None else min(rank + _MARGIN, dimension)
    basis = torch.eye(dimension, dtype=x.dtype, device=x.device)
    if width < dimension:
        start = noise[:1].to(x.device).gaussian((width, dimension), step=1, dtype=x.dtype)[0, 0]
        basis = torch.linalg.qr(start.T).Q.T
        # A random basis has parts of all directions; each product with G leaves less of those with small eigenvalues.
        for _ in range(_POWER):
            basis = torch.linalg.qr(_gain(products, x, level, basis).T).Q.T
    values, vectors = _rotated(_gain(products, x, level, basis), basis)
    kept = width if rank is None else min(rank, width)
    outside = _outside(products, x, level, basis, noise) if width < dimension else values.new_zeros(())
    tail = (values[kept:].sum() + outside) / max(dimension - kept, 1)
    return values[:kept], vectors[:, :kept], tail


@full_precision
def _rotated(image: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, descending, and eigenvectors of `G` within the span of the rows of `basis`."""
    projected = image @ basis.T
    values, rotation = torch.linalg.eigh((projected + projected.T) / 2)
    return values.flip(0), basis.T @ rotation.flip(1)


def _gain(products: Products, x: Tensor, level: Tensor, rows: Tensor) -> Tensor:
    """`E[∇D] v` for each row `v`, one direction at a time so that a batch of images fits."""
    images = []
    for row in rows:
        tangent = row.reshape(1, 1, *x.shape[1:]).expand(1, *x.shape)
        _, image = products.quadratic(x, level, tangent)
        images.append(row + level.square() * image[0].mean(0).flatten())
    return torch.stack(images)


def _outside(products: Products, x: Tensor, level: Tensor, basis: Tensor, noise: Noise) -> Tensor:
    """`tr G` outside the span of the rows of `basis`, from one projected Rademacher probe for each state."""
    signs = noise.to(x.device).rademacher((basis.shape[1],), step=2, probes=2, dtype=x.dtype).flatten(0, 1)
    signs = _without(signs, basis).reshape(1, *x.shape)
    _, image = products.quadratic(x, level, signs)
    return (signs * (signs + level.square() * image)).flatten(2).sum(2).mean()


@full_precision
def _without(vectors: Tensor, basis: Tensor) -> Tensor:
    """The part of the vectors outside the span of the rows of `basis`."""
    return vectors - (vectors @ basis.T) @ basis
