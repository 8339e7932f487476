"""What a denoiser does near its fixed points: eigenvalues of its Jacobian, and the limits of iterating it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studies.low_noise import measures
from studies.low_noise.bench import Bench
from studies.low_noise.references import Function
from studies.networks import Denoiser, split

Row = dict[str, Any]
JACOBIAN_LEVELS, ATTRACTOR_LEVELS = (0.1, 0.01), (0.3, 0.1)
POINTS, SHOWN = 6, 8
NEAR = 0.05  # of τ√d: limits nearer than this are one


def jacobians(bench: Bench, networks: Denoiser, replicate: int) -> list[Row]:
    """Eigenvalues of the symmetric part of ∇f for network A against the exact posterior covariance / σ²."""
    network, rows = split(networks)[0], []
    for level in JACOBIAN_LEVELS:
        sigma = level * bench.scale
        clean = bench.problem.fresh(replicate, POINTS)
        x = clean + sigma * bench.gaussian(replicate, 50, clean)
        row: Row = {"kind": "jacobian", "level": level} | _spectrum(_jacobian(network, x, sigma), "")
        if bench.problem.law is not None and bench.objective != "blind":
            covariance = np.asarray(bench.problem.law.posterior(x.numpy(), sigma)[1])
            row |= _spectrum(torch.as_tensor(covariance) / sigma**2, "exact_")
        rows.append(row)
    return rows


def _jacobian(network: Denoiser, x: Tensor, sigma: float) -> Tensor:
    level = torch.tensor(sigma, dtype=x.dtype)
    return torch.func.vmap(torch.func.jacrev(lambda y: network(y[None], level)[0]))(x)


def _spectrum(matrices: Tensor, prefix: str) -> Row:
    """Means over states of the largest eigenvalues, of the number above ½ and of the trace."""
    values = torch.linalg.eigvalsh((matrices + matrices.mT) / 2).flip(-1)
    return {
        f"{prefix}eigenvalues": values.mean(0)[:SHOWN].tolist(),
        f"{prefix}rank": float((values > 0.5).double().sum(-1).mean()),
        f"{prefix}trace": float(values.sum(-1).mean()),
    }


def attractors(bench: Bench, networks: Denoiser, count: int, replicate: int) -> list[Row]:
    """Limits of network A, and once of the population's denoiser."""
    network, rows = split(networks)[0], []
    data = bench.problem.set_of(replicate, "A", count)
    for level in ATTRACTOR_LEVELS:
        sigma = level * bench.scale
        clean = bench.problem.fresh(replicate, bench.config.states)
        start = clean + sigma * bench.gaussian(replicate, 60, clean)
        row: Row = {"kind": "attractors", "level": level}
        row |= limits(partial(network, sigma=sigma), start, data, bench.scale, bench.config.iterations, "")
        if bench.population is not None and replicate == 0 and count == bench.counts[0]:
            exact = partial(_at, bench.population, sigma)
            row |= limits(exact, start, data, bench.scale, bench.config.iterations, "exact_")
        rows.append(row)
    return rows


def _at(denoiser: Function, sigma: float, x: Tensor) -> Tensor:
    return denoiser(x, sigma)


def limits(
    f: Callable[[Tensor], Tensor], start: Tensor, data: Tensor, scale: float, iterations: int, prefix: str
) -> Row:
    """Number of distinct limits, share of them that moved less than 1e-3 τ√d last, share of states at data."""
    unit, x, last = scale * start.shape[-1] ** 0.5, start, start
    with torch.no_grad():
        # Iterated at one level, the denoiser climbs to a maximum of its own noised density; are those data?
        for _ in range(iterations):
            last, x = x, f(x)
    nearest = torch.cdist(x, data).min(dim=1).values
    return {
        f"{prefix}limits": measures.distinct(x, NEAR * unit),
        f"{prefix}settled": float(((x - last).norm(dim=-1) < 1e-3 * unit).double().mean()),
        f"{prefix}at_data": float((nearest < NEAR * unit).double().mean()),
    }
