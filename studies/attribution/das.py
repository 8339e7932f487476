"""The diffusion attribution score: how far the noise predicted at a sample moves when a training point is left out.

    τ(q, i) = E |ε_θ(x_q + σ n, σ) − ε_θ∖i(x_q + σ n, σ)|² / d,   to first order in θ∖i − θ,

the mean over levels, noises and pixels (Lin et al. 2025, arXiv 2410.18639); θ∖i is one Newton step on the loss of the
others. With G the gradients of the network's output at the points and r their residuals,

    θ − θ∖i = (GᵀG + λ)⁻¹ g_i r_i / (1 − h_i),   h_i = g_iᵀ (GᵀG + λ)⁻¹ g_i,

where a point has one number as its output, and the same with a small matrix for h_i where it has many. Two readings:

- `score_of_numbers`, that of the authors' code: the output is the mean magnitude of the predicted noise over pixels,
  levels and noises, and r_i the root mean square error of the prediction, mean over levels;
- `score_of_images`, the definition: all pixels at all draws are outputs, `GᵀG` is the Gauss-Newton matrix of the
  training loss (here from the residuals along random signs) and `Σ g_i r_i` the gradient of the point's loss.

Published are random projections to 32 768 numbers (not needed here: the networks have few more parameters), 10 or 100
levels evenly spaced (here the training's own law) and 27 dampings from 10⁻² to 5·10⁶, of which the best on the queries
is reported (here chosen elsewhere, see `studies.attribution.tuning`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp

__all__ = ["left_out", "magnitude", "misses", "score_of_images", "score_of_numbers"]

PROBES = 8  # random sign vectors a point


def magnitude(denoise: Callable[[Tensor, Tensor], Tensor], clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """The mean magnitude over pixels of the predicted noise, row by row (n,)."""
    level = sigma[:, None, None, None]
    state = clean + level * noise
    sizes: Tensor = ((state - denoise(state, sigma)) / level).flatten(1).abs().mean(1)
    return sizes


def misses(of: Any) -> Tensor:
    """Every point's root mean square error of the predicted noise, mean over draws (N,).

    Args:
        of: the network's gradients, as `studies.attribution.attributors.parameter_gradients` has them.
    """
    sigma, noise = of.draws()
    level = sigma[:, None, None, None]
    rows = []
    with torch.no_grad():
        for image in of.problem.data:
            gap = (of.at(of.theta)(image + level * noise, sigma) - image) / level
            rows.append(gap.flatten(1).square().mean(1).sqrt().mean())
    return torch.stack(rows)


def score_of_numbers(at_samples: Tensor, at_points: Tensor, residuals: Tensor, share: float) -> Tensor:
    """`(φ_qᵀ (ΦᵀΦ + λ)⁻¹ φ_i r_i / (1 − h_i))²`, (queries, N).

    Args:
        at_samples: gradients of each sample's output φ_q (queries, P).
        at_points: Φ, of each point's (N, P).
        residuals: r (N,).
        share: λ over the mean eigenvalue of ΦΦᵀ.
    """
    gram = (at_points @ at_points.T).double()
    damping = share * gram.diagonal().mean()
    inverse = torch.linalg.inv(gram + damping * torch.eye(len(gram), dtype=gram.dtype))
    left = damping * inverse.diagonal()  # 1 − h_i, without a difference of near numbers
    moved = (at_samples @ at_points.T).double() @ inverse
    return (moved * residuals.double() / left).square()


def score_of_images(of: Any, g: Tensor, share: float, samples: Tensor) -> Tensor:
    """τ by its definition (queries, N).

    Args:
        of: the network's gradients, as `studies.attribution.attributors.parameter_gradients` has them.
        g: gradients of the points' losses (N, P).
        share: λ over the mean eigenvalue of the Gauss-Newton matrix.
        samples: x_q (queries, 1, h, w).
    """
    changes = left_out(g, of.jacobians(PROBES), share)
    sigma, noise = of.draws()
    levels, draws = sigma.repeat(len(samples)), len(sigma)
    level = levels[:, None, None, None]
    states = samples.repeat_interleave(draws, 0) + level * noise.repeat(len(samples), 1, 1, 1)

    def predicted(theta: Tensor) -> Tensor:
        return (states - of.at(theta)(states, levels)) / level

    columns = []
    for change in changes:
        moved = jvp(predicted, (of.theta,), (change,))[1]
        columns.append(moved.detach().unflatten(0, (len(samples), draws)).flatten(1).square().mean(1))
    return torch.stack(columns, 1)


def left_out(g: Tensor, rows: Tensor, share: float) -> Tensor:
    """`(H − H_i + λ)⁻¹ g_i / N`, how the parameters move when point i is left out (N, P).

    Args:
        g: gradients of the points' losses (N, P).
        rows: R of `H = RᵀR`, the same number for every point, in the order of points.
        share: λ over the mean eigenvalue of H, of those that are not zero.
    """
    size, each = len(g), len(rows) // len(g)
    gram = rows @ rows.T
    damping = share * gram.diagonal().sum() / min(rows.shape)
    inverse = torch.linalg.inv(gram + damping * torch.eye(len(gram), dtype=gram.dtype))
    seen = inverse @ (rows @ g.T)  # R (H + λ)⁻¹ g of every point
    blocks = inverse.view(size, each, size, each).diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # (1 − h_i)/λ, (N, k, k)
    diagonal = seen.view(size, each, size).diagonal(dim1=0, dim2=2).T  # (N, k)
    # Woodbury for H − H_i: what a point's diagonal rows had seen of its gradient comes back.
    back = torch.zeros_like(seen).view(size, each, size)
    back[torch.arange(size), :, torch.arange(size)] = torch.linalg.solve(damping * blocks, diagonal)
    return ((g - seen.T @ rows) / damping + (inverse @ back.flatten(0, 1)).T @ rows) / size
