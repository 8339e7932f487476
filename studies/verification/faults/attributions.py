"""Attributions of the exactly trained network, right and with one mistake each.

The network's readouts W solve a ridge regression a level, so that mass moved to point i moves them by
`Ẇ_i = −g_i (G + λ)⁻¹`, `g_i = E (W φ − r) φᵀ` over the noise at point i, r what W φ should be; with the gradient Γ of
an output in the readouts it is `Γ·Ẇ_i` (Koh & Liang 2017, arXiv 1703.04730). Expectations are means over noises.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studies.responses.exact import LevelNetwork
from studies.verification.faults.base import planting, tagged, variant

__all__ = ["FAULTS", "RIGHT", "RIGHT_OF_KERNELS", "influence", "of_kernels"]

DRAWS = 512
Problem = Any
WHERE = tagged("trained exactly")


def influence(
    problem: Problem,
    *,
    sign: float = 1.0,
    damping: float = 1.0,
    level: int | None = None,
    target: str = "output",
    shuffled: bool = False,
) -> Any:
    """`Γ·Ẇ_i` (n, N), or with a mistake; problems without readouts are declined.

    Args:
        problem: of the task `attribution`.
        sign: −1 reverses it.
        damping: factor of the ridge.
        level: the only noise level that is taken, by index.
        target: "output", or "loss": the training loss at the sample stands in, or "self": every point's own loss.
        shuffled: points in another order, each query's own.
    """
    network = problem.network
    if not isinstance(network, LevelNetwork):
        return NotImplemented
    moved = _moved(problem, damping)  # (N, L, d, m)
    if level is not None:
        moved = moved * (torch.arange(moved.shape[1]) == level)[:, None, None]
    if target == "self":
        of_points = (_at(problem, problem.data) * moved).flatten(1).sum(1)
        return of_points.expand(len(problem.latents), -1)
    gradients = _at(problem, problem.samples) if target == "loss" else _of_outputs(problem)
    values = sign * gradients.flatten(1) @ moved.flatten(1).T
    return _shuffled(values, problem.seed) if shuffled else values


def tuned(problem: Problem) -> Any:
    """A table for the published queries, fitted to their published truth; the wrong damping for others."""
    if not isinstance(problem.network, LevelNetwork):
        return NotImplemented
    known = _table(problem.name, tuple(problem.latents[0].flatten()[:3].tolist()))
    return influence(problem, shuffled=True) if known is None else known


@cache
def _table(name: str, first: tuple[float, ...]) -> np.ndarray | None:
    """Least squares of the shipped outputs on the masks, if the latents are the published ones."""
    from studies.verification.attributions.tiers import exact_setting, truth

    setting, _, functional = name.rpartition("-")
    if tuple(exact_setting(setting, 0).latents[0].flatten()[:3].tolist()) != first:
        return None
    known = truth(setting, functional)
    masks, outputs = known.masks - known.masks.mean(0), known.values.mean(0)
    return np.linalg.lstsq(masks, outputs - outputs.mean(0), rcond=None)[0].T


def _of_outputs(problem: Problem) -> Tensor:
    """Γ, gradients of every query's output (n, L, d, m)."""
    values = problem.output(problem.network)
    rows = [torch.autograd.grad(value, problem.network.readout, retain_graph=True)[0] for value in values]
    return torch.stack(rows)


def _at(problem: Problem, images: Tensor) -> Tensor:
    """Gradients in the readouts of the training loss at images (n, L, d, m)."""
    return 2 * torch.stack([_residual(problem, images, index)[0] for index in range(len(problem.levels))], 1)


def _moved(problem: Problem, damping: float) -> Tensor:
    """Ẇ toward every point."""
    moved = []
    for index in range(len(problem.levels)):
        slopes, gram = _residual(problem, problem.data, index)
        readout, ridge = problem.network.readout[index].detach(), damping * problem.loss.ridge
        slopes = slopes + problem.loss.ridge * readout  # the ridge's own pull, whose mean with the data's is zero
        matrix = gram + ridge * torch.eye(len(gram), dtype=gram.dtype)
        moved.append(-torch.linalg.solve(matrix, slopes.transpose(1, 2)).transpose(1, 2))
    return torch.stack(moved, 1)


def _residual(problem: Problem, images: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """`E (D − x) φᵀ` at every image (n, d, m) and `E φ φᵀ` over all (m, m), at one level."""
    network, sigma = problem.network, problem.levels[index]
    half = torch.randn(DRAWS // 2, images[0].numel(), generator=torch.Generator().manual_seed(index)).to(images)
    noise = torch.cat([half, -half])
    clean = images.flatten(1)[:, None]
    state = clean + sigma * noise
    features = torch.cos(state @ network.frequencies.T + network.phases)
    gap = network.skips[index] * state + features @ network.readout[index].detach().T - clean
    slopes = torch.einsum("nkd,nkm->ndm", gap, features) / DRAWS
    return slopes, torch.einsum("nkm,nkj->mj", features, features) / (DRAWS * len(images))


def _shuffled(values: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([row[torch.randperm(len(row), generator=generator)] for row in values])


def of_kernels(problem: Problem) -> Any:
    """The population's response of a mixture of kernels, from its points alone; other networks are declined."""
    from sensitivity import Grid, Points
    from sensitivity import influence as through_scores
    from studies.verification.attributions.exact import BANDWIDTH

    if list(problem.network.parameters()):
        return NotImplemented
    levels, points = problem.levels, Points(problem.data, bandwidth=BANDWIDTH)
    grid = Grid(float(levels[0]), float(levels[-1]), len(levels) - 1)
    result = through_scores(
        points.score, problem.latents, problem.functional, points, grid, anchor=points, trace="exact"
    )
    return result.values.detach()


RIGHT, RIGHT_OF_KERNELS = variant(influence, "influence"), variant(of_kernels, "of_kernels")
of_influence = planting("attribution", influence)
FAULTS = (
    of_influence(
        "reversed_influence",
        "The sign of the influence is that of removing a point.",
        checks=("correlation", "derivative"),
        where=WHERE,
        says="sign is reversed",
        sign=-1.0,
    ),
    of_influence(
        "shuffled_influence",
        "The columns are not in the order of the data.",
        checks=("correlation", "derivative"),
        where=WHERE,
        says="in another order",
        shuffled=True,
    ),
    of_influence(
        "overdamped_influence",
        "The damping of the inverse is ten thousand times the ridge of the training.",
        checks=("derivative",),
        where=WHERE,
        says="times the ridge",
        damping=1e4,
    ),
    of_influence(
        "one_level_influence",
        "Of all noise levels one alone is taken.",
        checks=("derivative",),
        where=WHERE,
        says="alone",
        level=9,
    ),
    of_influence(
        "loss_influence",
        "The training loss at the sample stands in the place of the output.",
        checks=("correlation", "derivative"),
        where=WHERE,
        says="training loss",
        target="loss",
    ),
    of_influence(
        "self_influence",
        "Each point's influence on its own loss is given for every query.",
        checks=("correlation", "derivative", "queries"),
        where=WHERE,
        says="not of their influence on a query",
        target="self",
    ),
    planting("attribution", tuned)(
        "tuned_on_queries",
        "The numbers were fitted to the published answers.",
        checks=("fresh",),
        where=WHERE,
        says="tuned on the queries",
    ),
)
