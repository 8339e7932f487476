"""Gradients in the parameters of a problem's network, of its outputs and of its training losses, and their kernels.

What depends on network and data alone is kept between the outputs of a network (`kept`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from studies.training.loop import digest

Problem = Any
DRAWS = 32  # noises a training point
SHARE = 0.1  # of the mean eigenvalue, the damping (Grosse et al. 2023, arXiv 2308.03296)


class Gradients:
    """Gradients in the parameters of a problem's network; `outputs` says whether those of the output too."""

    def __init__(self, problem: Problem, outputs: bool = True) -> None:
        self.problem, self.network = problem, problem.network.requires_grad_(True)
        self.names = [name for name, _ in self.network.named_parameters()]
        self.theta = torch.cat([value.detach().flatten() for _, value in self.network.named_parameters()])
        self.sizes = [value.shape for _, value in self.network.named_parameters()]
        self.gradients = self._of_outputs() if outputs else torch.empty(0)

    def at(self, theta: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The network with other parameters."""
        parts = theta.split([size.numel() for size in self.sizes])
        given = {name: part.reshape(size) for name, part, size in zip(self.names, parts, self.sizes, strict=True)}
        return lambda x, sigma: functional_call(self.network, given, (x, sigma))

    def _of_outputs(self) -> Tensor:
        theta = self.theta.clone().requires_grad_(True)
        values = self.problem.output(self.at(theta))
        rows = [torch.autograd.grad(value, theta, retain_graph=True)[0] for value in values]
        return torch.stack(rows).detach()

    def points(self, loss: Any, images: Tensor | None = None) -> Tensor:
        """Of the mean over draws of a loss at every training point, or at images (n, P)."""
        sigma, noise = self.draws()

        def mean(theta: Tensor, image: Tensor) -> Tensor:
            losses: Tensor = loss(self.at(theta), image.expand(len(sigma), *image.shape), sigma, noise)
            return losses.mean()

        rows = [grad(mean)(self.theta, image) for image in (self.problem.data if images is None else images)]
        return torch.stack(rows).detach()

    def draws(self) -> tuple[Tensor, Tensor]:
        """Levels and noises of a training point."""
        drawn: tuple[Tensor, Tensor] = self.problem.loss.draw(DRAWS, self.problem.data)
        return drawn

    def jacobians(self, probes: int) -> Tensor:
        """Rows whose sum of squares estimates the Gauss-Newton matrix over points and draws, (N·probes, P).

        Each is the gradient of the residual along a random sign vector at all draws of a point, whose outer product has
        the matrix as its mean.
        """
        sigma, noise = self.draws()
        generator = torch.Generator().manual_seed(5)

        def along(theta: Tensor, image: Tensor, signs: Tensor) -> Tensor:
            clean = image.expand(len(sigma), *image.shape)
            gap = self.at(theta)(clean + sigma[:, None, None, None] * noise, sigma)
            return (self.weight(sigma)[:, None, None, None] * gap * signs).sum() / len(sigma) ** 0.5

        rows = []
        for image in self.problem.data:
            shape = (probes, len(sigma), *image.shape)
            signs = (torch.randint(0, 2, shape, generator=generator) * 2 - 1).to(image)
            rows.append(vmap(grad(along), in_dims=(None, None, 0))(self.theta, image, signs))
        return torch.cat(rows).detach() / (len(rows) * probes) ** 0.5

    def weight(self, sigma: Tensor) -> Tensor:
        """Square roots of the loss's weights, times √2: the Hessian of a square."""
        loss, shape = self.problem.loss, self.problem.data.shape[1:]
        if loss.exact:
            return torch.full_like(sigma, 2**0.5)
        size = shape.numel()
        return (2 * (sigma**2 + loss.scale**2) / size).sqrt() / (sigma * loss.scale)


_KEEP: dict[str, dict[str, Any]] = {}


def kept(name: str, of: Gradients, build: Callable[[], Any], state: dict[str, Tensor] | None = None) -> Any:
    """What depends on network and data alone, built once for all outputs; of one network (or run) at a time.

    Args:
        state: parameters that stand for the run, where `of` is at another of its steps.
    """
    key = digest(of.problem.data, of.theta if state is None else torch.cat([part.flatten() for part in state.values()]))
    kind = "run" if state is not None else "network"
    if key not in _KEEP.get(kind, {}):
        _KEEP[kind] = {key: {}}
    kept = _KEEP[kind][key]
    if name not in kept:
        kept[name] = build()
    return kept[name]


def kernel(of_outputs: Tensor, features: Tensor, share: float = SHARE) -> Tensor:
    gram = features @ features.T
    damping = share * gram.diagonal().mean()
    # (ΦᵀΦ + λ)⁻¹Φᵀ = Φᵀ(ΦΦᵀ + λ)⁻¹: a matrix of the points, not of the parameters.
    inverse = torch.linalg.inv(gram + damping * torch.eye(len(gram), dtype=gram.dtype))
    return -(of_outputs @ features.T) @ inverse


def unit(rows: Tensor) -> Tensor:
    """Rows of length one."""
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
