"""Attributors by the gradients of the training losses at the final network.

Up-weighting point i moves the parameters by `−H⁻¹ g_i`, hence the minus signs: positive means that the output rises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from studies.attribution.attributors.parameter_gradients import SHARE, Gradients, Problem, kept, kernel, unit
from studies.attribution.attributors.pulls import pulls
from studies.attribution.das import magnitude, misses, score_of_images, score_of_numbers
from studies.attribution.ekfac import solved
from studies.training.loop import digest

SQUARE_SHARES = (10.0, 1.0)  # `SHARE` of D-TRAK in its two forms, chosen by `studies.attribution.tuning`
SCORE_SHARE = 1.0  # the same of the diffusion attribution score as its authors compute it, chosen there too


def parameters(problem: Problem) -> Any:
    """Ours, the parameters' response: `−Γ (H + λ)⁻¹ g_i`, H the Gauss-Newton matrix from drawn residuals."""
    return _with_gradients(problem, _gauss_newton)


def gradient_product(problem: Problem) -> Any:
    """`−Γ·g_i` at the final network: TracIn with one checkpoint (arXiv 2002.08484)."""
    return _with_gradients(problem, lambda g, of: -of.gradients @ g.T)


def gradient_cosine(problem: Problem) -> Any:
    """The cosine of the same."""
    return _with_gradients(problem, lambda g, of: -unit(of.gradients) @ unit(g).T)


def ekfac(problem: Problem) -> Any:
    """Influence functions with the factored curvature, its eigenvalues corrected: see `studies.attribution.ekfac`."""

    def scored(g: Tensor, of: Gradients) -> Any:
        influences = kept("curvature", of, lambda: solved(of, g))
        return influences if influences is NotImplemented else -of.gradients @ influences.T

    return _with_gradients(problem, scored)


def d_trak(problem: Problem, share: float = SQUARE_SHARES[0]) -> Any:
    """D-TRAK (arXiv 2311.00500): `φ_q (ΦᵀΦ + λ)⁻¹ φ_i`, φ gradients of the mean square of the predicted noise.

    The published kernel compares sample and point, and is the same for every output: it is multiplied by the pull.
    Without projection: the networks have no more parameters than the published one keeps numbers.
    """
    if not list(problem.network.parameters()):
        return NotImplemented
    of = Gradients(problem, outputs=False)
    features = kept("square", of, lambda: of.points(_square))
    at_samples = of.points(_square, problem.samples.to(problem.data))
    return -kernel(at_samples, features, share) * pulls(problem)


def d_trak_outputs(problem: Problem, share: float = SQUARE_SHARES[1]) -> Any:
    """D-TRAK's features of the points with the gradient of the output in the place of the sample's features.

    How those features move with the loss is left open: the sign is that of their mean product over the points.
    """

    def scored(g: Tensor, of: Gradients) -> Tensor:
        features = kept("square", of, lambda: of.points(_square))
        return torch.sign((features * g).sum(1).mean()) * kernel(of.gradients, features, share)

    return _with_gradients(problem, scored)


def trak(problem: Problem) -> Any:
    """TRAK (arXiv 2303.14186): `−Γ (GᵀG + λ)⁻¹ g_i`, G the gradients of the training losses."""
    return _with_gradients(problem, lambda g, of: kernel(of.gradients, g))


def leveraged(problem: Problem) -> Any:
    """TRAK over one less the point's leverage, an ingredient of the diffusion attribution score (arXiv 2410.18639)."""

    def scored(g: Tensor, of: Gradients) -> Tensor:
        gram = g @ g.T
        damping = SHARE * gram.diagonal().mean()
        inverse = torch.linalg.inv(gram + damping * torch.eye(len(gram), dtype=gram.dtype))
        leverage = (gram @ inverse).diagonal()
        return -(of.gradients @ g.T @ inverse) / (1 - leverage)

    return _with_gradients(problem, scored)


def das(problem: Problem, share: float = SCORE_SHARE) -> Any:
    """The diffusion attribution score (arXiv 2410.18639) as its authors compute it, see `studies.attribution.das`.

    Published for no output in particular: how far the prediction at a sample moves, whatever way. It is multiplied by
    the pull, as D-TRAK's kernel.
    """
    if not list(problem.network.parameters()):
        return NotImplemented
    of, samples = Gradients(problem, outputs=False), problem.samples.to(problem.data)
    features = kept("magnitude", of, lambda: of.points(magnitude))
    at_samples = kept(f"magnitude at {digest(samples)}", of, lambda: of.points(magnitude, samples))
    residuals = kept("misses", of, lambda: misses(of))
    return score_of_numbers(at_samples, features, residuals, share) * pulls(problem)


def das_images(problem: Problem, share: float = SHARE) -> Any:
    """The same by its definition, every pixel an output; damped by the fixed share, not tuned."""
    if not list(problem.network.parameters()):
        return NotImplemented
    of, samples = Gradients(problem, outputs=False), problem.samples.to(problem.data)
    g = kept("points", of, lambda: of.points(problem.loss))
    moved = kept(f"moved by {share} at {digest(samples)}", of, lambda: score_of_images(of, g, share, samples))
    return moved * pulls(problem)


def _gauss_newton(g: Tensor, of: Gradients) -> Tensor:
    return -of.gradients @ kept("Gauss-Newton", of, lambda: _damped(g, of))


def _damped(g: Tensor, of: Gradients) -> Tensor:
    """`(H + λ)⁻¹ g_i` (P, N)."""
    rows = of.jacobians(8)
    gram = rows @ rows.T
    damping = SHARE * gram.diagonal().sum() / min(rows.shape)
    # Mass that comes to a point leaves all points alike. And (RᵀR + λ)⁻¹ = [1 − Rᵀ(RRᵀ + λ)⁻¹R]/λ: a matrix of the size
    # of the rows, not of the parameters.
    centred = g - g.mean(0)
    solution = torch.linalg.solve(gram + damping * torch.eye(len(gram), dtype=gram.dtype), rows @ centred.T)
    return (centred.T - rows.T @ solution) / damping


def _with_gradients(problem: Problem, score: Callable[[Tensor, Gradients], Tensor]) -> Any:
    if not list(problem.network.parameters()):
        return NotImplemented
    of = Gradients(problem)
    return score(kept("points", of, lambda: of.points(problem.loss)), of)


def _square(denoise: Any, clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """The mean square over pixels of the predicted noise, row by row."""
    level = sigma[:, None, None, None]
    state = clean + level * noise
    squares: Tensor = ((state - denoise(state, sigma)) / level).flatten(1).square().mean(1)
    return squares
