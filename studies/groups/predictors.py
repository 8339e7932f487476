"""What can be said of the samples of a network retrained without a group, without retraining it, and what it costs.

Every predictor gives samples for each group, (G, n, *shape), or class shares, (G, classes), and its processor seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sensitivity import (
    Counterfactual,
    DenoisingLoss,
    KernelRatio,
    ParameterResponse,
    Points,
    Score,
    Toward,
    UnrolledResponse,
    as_score,
    counterfactual,
    resample,
)
from studies.bandwidths import likeliest
from studies.groups.bench import GroupBench
from studies.groups.outcomes import Shares
from studies.retraining.bench import OBJECTIVE
from studies.sampling import sample

SHARE = 1e-1  # damping of projected gradients, over the largest eigenvalue of their Gram matrix
CHUNK = 100


@dataclass(frozen=True)
class Predicted:
    """What a predictor says.

    Attributes:
        shares: class shares (G, classes).
        samples: (G, n, *shape), or None.
        seconds: of one processor, for all groups.
    """

    shares: np.ndarray
    samples: Tensor | None
    seconds: float


def of_samples(shares: Shares, samples: Tensor, seconds: float) -> Predicted:
    """With the class shares of samples."""
    return Predicted(np.stack([shares(each).double().cpu().numpy() for each in samples]), samples, seconds)


def unrolled(bench: GroupBench, members: dict[str, np.ndarray]) -> tuple[Counterfactual, float]:
    """The derivative of the base's run, at finite mass, with first order and radius of trust."""
    start = time.process_time()
    score = as_score(bench.base.module, "denoiser")
    predicted = counterfactual(
        score, bench.latents, bench.groups(members), bench.grid, response=UnrolledResponse(bench.base)
    )
    return predicted, time.process_time() - start


def parameters(bench: GroupBench, members: dict[str, np.ndarray]) -> Tensor:
    """The parameters' answer at an optimum."""
    config, scale = bench.config, bench.base.module.scale
    loss = DenoisingLoss(scale=scale, quantile=lambda u: OBJECTIVE.quantile(u, scale), draws=config.draws)
    score = as_score(bench.base.module, "denoiser")
    response = ParameterResponse(
        score, loss, bench.images, "ggn", pairs=config.products, steps=config.solve, tolerance=1e-3
    )
    return counterfactual(score, bench.latents, bench.groups(members), bench.grid, response=response).samples


def kernel(bench: GroupBench, members: dict[str, np.ndarray]) -> Tensor:
    """The population's removal, its ratio that of two kernel densities."""
    score, width, samples = as_score(bench.base.module, "denoiser"), likeliest(bench.images, bench.split[1].images), []
    for change, rows in zip(bench.groups(members).changes(), members.values(), strict=True):
        ratio = Toward(KernelRatio(bench.images[rows.tolist()], bench.images, width))
        samples.append(resample(score, bench.latents, ratio, change.eta, bench.grid).samples)
    return torch.stack(samples)


def guidance(bench: GroupBench, members: dict[str, np.ndarray]) -> Tensor:
    """Away from the group: s + γ (s − s_group), γ = W/(1 − W), as a removal would be if its ratio were 1."""
    score, width, samples = as_score(bench.base.module, "denoiser"), likeliest(bench.images, bench.split[1].images), []
    for rows in members.values():
        share = len(rows) / len(bench.images)
        away = _away(score, Points(bench.images[rows.tolist()], bandwidth=width), share / (1 - share))
        samples.append(sample(away, bench.latents, bench.grid))
    return torch.stack(samples)


def _away(score: Score, group: Points, weight: float) -> Score:
    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        own = score(x, sigma)
        return own + weight * (own - group.score(x, sigma))

    return guided


def tuned(bench: GroupBench, members: dict[str, np.ndarray]) -> Tensor:
    """The base network fine-tuned without the group."""
    return bench.tuned([*bench.without(members)])


SAMPLERS: dict[str, Callable[[GroupBench, dict[str, np.ndarray]], Tensor]] = {
    "parameters": parameters,
    "population, kernel ratio": kernel,
    "negative guidance": guidance,
    "fine-tuning": tuned,
    "retraining, same seed": lambda bench, members: bench.same_seed(members),
}


def counting(bench: GroupBench, members: dict[str, np.ndarray], base: np.ndarray) -> np.ndarray:
    """Class shares of the base's samples, each multiplied by what is left of its class."""
    sizes, shares = np.bincount(bench.labels).astype(float), []
    for rows in members.values():
        left = base * (1 - np.bincount(bench.labels[rows], minlength=len(sizes)) / sizes)
        shares.append(left / left.sum())
    return np.stack(shares)


def projected(bench: GroupBench, members: dict[str, np.ndarray], shares: Shares, base: np.ndarray) -> np.ndarray:
    """Class shares from products of gradients, summed over the group: g_qᵀ (Gram + λ)⁻¹ g_i over the images.

    All of the gradient is kept in the place of a projection; with N images the inverse is one of N × N.
    """
    network = bench.base.module
    theta = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
    gradients, queries = _gradients(bench, theta), _of_shares(bench, theta, shares)
    gram = gradients @ gradients.T
    damping = SHARE * float(torch.linalg.matrix_norm(gram, 2))
    both = torch.linalg.solve(gram + damping * torch.eye(len(gram)), gradients @ queries.T)
    # Less weight on image i moves θ along +H⁻¹ g_i; its scale is that of a Gauss–Newton step of the summed loss.
    return np.stack([base + both[rows.tolist()].sum(0).double().numpy() for rows in members.values()])


def _gradients(bench: GroupBench, theta: Tensor) -> Tensor:
    """Gradients of the loss of every image, (N, P)."""
    network, draws = bench.base.module, bench.config.draws
    generator = torch.Generator().manual_seed(7)
    scale = network.scale
    levels = OBJECTIVE.quantile((torch.arange(draws) + 0.5) / draws, scale)
    noise = torch.randn(draws, *bench.images.shape[1:], generator=generator)
    weight = OBJECTIVE.weight(levels, scale)
    names, sizes = zip(*[(n, p.numel()) for n, p in network.named_parameters()], strict=True)
    shapes = [p.shape for _, p in network.named_parameters()]

    def loss(vector: Tensor, image: Tensor) -> Tensor:
        parts = {n: v.reshape(s) for n, v, s in zip(names, vector.split(list(sizes)), shapes, strict=True)}
        state = image + levels.reshape(-1, 1, 1, 1) * noise
        denoised = torch.func.functional_call(network, parts, (state, levels))
        return (weight * (denoised - image).square().flatten(1).mean(1)).mean()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
    return torch.cat([each(theta, rows) for rows in bench.images.split(CHUNK)])


def _of_shares(bench: GroupBench, theta: Tensor, shares: Shares) -> Tensor:
    """Gradients of the class shares through the sampler, (classes, P)."""
    vector = theta.clone().requires_grad_()
    network = bench.base.network_at(vector.detach())
    names, sizes = zip(*[(n, p.numel()) for n, p in network.named_parameters()], strict=True)
    shapes = [p.shape for _, p in network.named_parameters()]
    parts = {n: v.reshape(s) for n, v, s in zip(names, vector.split(list(sizes)), shapes, strict=True)}
    x, levels = bench.latents, bench.grid.levels.to(bench.latents)
    for high, low in pairwise(levels):
        first = (x - torch.func.functional_call(network, parts, (x, high.expand(len(x))))) / high
        middle = x + (low - high) * first
        second = (middle - torch.func.functional_call(network, parts, (middle, low.expand(len(x))))) / low
        x = x + 0.5 * (low - high) * (first + second)
    return torch.stack([torch.autograd.grad(value, vector, retain_graph=True)[0] for value in shares(x)])
