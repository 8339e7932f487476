"""Jacobian products and divergences of a black-box field, right by default and wrong by one option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap

from studies.verification.faults.base import planting, variant
from studies.verification.problem import Problem

__all__ = ["CORRECT", "FAULTS", "along", "at_level", "generator", "hutchinson", "trace"]


def at_level(score: Any, sigma: Any) -> Callable[[Tensor], Tensor]:
    """The field x ↦ s(x, σ)."""
    return lambda x: score(x, sigma)


def along(field: Any, x: Tensor, directions: Tensor) -> Tensor:
    """`J v_k` (K, n, d) for directions (K, n, d), in one call of the field."""
    return vmap(lambda v: jvp(field, (x,), (v,))[1])(directions)


def basis(x: Tensor) -> Tensor:
    """The unit vectors as directions (d, n, d)."""
    return torch.eye(x.shape[1], dtype=x.dtype)[:, None, :].expand(-1, *x.shape)


def trace(field: Any, x: Tensor) -> Tensor:
    """The exact divergence (n,)."""
    return torch.einsum("kni,kni->n", along(field, x, basis(x)), basis(x))


def generator(problem: Problem, stream: int = 0) -> torch.Generator:
    """Randomness from the problem's seed alone."""
    return torch.Generator().manual_seed(problem.seed + stream)


def rademacher(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    """Signs ±1, float64."""
    return torch.randint(0, 2, shape, generator=source).double() * 2 - 1


def forward_product(problem: Problem, *, transposed: bool = False) -> Tensor:
    """`J v` in forward mode, or `Jᵀ v` in reverse mode."""
    field = at_level(problem.score, problem.sigma)
    if transposed:
        return vjp(field, problem.x)[1](problem.vectors)[0]
    return jvp(field, (problem.x,), (problem.vectors,))[1]


def differences(problem: Problem, *, step: float = 1e-5, central: bool = True) -> Tensor:
    """Finite differences along v with a step relative to σ."""
    h = step * problem.sigma
    ahead = problem.score(problem.x + h * problem.vectors, problem.sigma)
    if not central:
        return (ahead - problem.score(problem.x, problem.sigma)) / h
    return (ahead - problem.score(problem.x - h * problem.vectors, problem.sigma)) / (2 * h)


def diagonal_product(problem: Problem) -> Tensor:
    """Keeps the diagonal of J alone."""
    directions = basis(problem.x)
    columns = along(lambda x: problem.score(x, problem.sigma), problem.x, directions)
    return torch.einsum("kni,kni->nk", columns, directions) * problem.vectors


def exact_divergence(problem: Problem, *, factor: float = 1.0, first: int | None = None) -> Tensor:
    """The trace of J from d products; `first` stops after so many of them."""
    directions = basis(problem.x)[:first] if problem.x.shape[1] > 1 else basis(problem.x)
    products = along(lambda x: problem.score(x, problem.sigma), problem.x, directions)
    return factor * torch.einsum("kni,kni->n", products, directions)


def summed_over_batch(problem: Problem) -> Tensor:
    """Differentiates the sum over the batch of each coordinate, and sums the batch too: rows mix."""
    whole = exact_divergence(problem)
    return whole.sum().expand_as(whole) / len(whole)


def hutchinson(
    problem: Problem, *, divide: bool = True, uniform: bool = False, bars: str = "honest"
) -> tuple[Tensor, Tensor]:
    """Mean of `v·Jv` over random signs v, and its standard error."""
    source, k = generator(problem), problem.probes
    if uniform:
        probes = torch.rand(k, *problem.x.shape, generator=source, dtype=torch.float64) * 2 - 1
    else:
        probes = rademacher((k, *problem.x.shape), source)
    values = (along(lambda x: problem.score(x, problem.sigma), problem.x, probes) * probes).sum(2)
    spread = values.std(0) / k**0.5
    if bars == "overconfident":
        spread = spread / k**0.5
    if bars == "timid":
        spread = spread * k**0.5
    return (values.mean(0) if divide else values.sum(0)), spread


of_hutchinson = planting("divergence", hutchinson)
of_exact_divergence = planting("divergence", exact_divergence)
FAULTS = (
    planting("score-jacobian-product", forward_product)(
        "transposed_jacobian",
        "Jᵀv is returned for Jv: invisible for an exact score, wrong for a network.",
        where=lambda case: case.tilt > 0 and case.base.dimension > 1,
        transposed=True,
    ),
    planting("score-jacobian-product", diagonal_product)(
        "diagonal_jacobian", "only the diagonal of the Jacobian acts.", where=lambda case: case.base.dimension > 1
    ),
    planting("score-jacobian-product", differences)(
        "one_sided_coarse_differences",
        "one-sided differences with a step of 0.1 σ.",
        where=lambda case: case.law not in ("hundred", "singular"),  # one component rules there: the score is linear
        step=0.1,
        central=False,
    ),
    of_hutchinson(
        "missing_probe_mean",
        "the sum over the probes is not divided by their number.",
        checks=("accuracy", "bias", "error bars"),
        says="16 × the truth",
        divide=False,
    ),
    of_hutchinson(
        "uniform_probes",
        "probes uniform in (−1, 1) have variance 1/3, and so has the trace.",
        checks=("bias",),
        says="0.33",
        uniform=True,
    ),
    of_hutchinson(
        "overconfident_bars",
        "the standard error is divided by √K twice.",
        checks=("error bars",),
        where=lambda case: case.base.dimension > 1,
        bars="overconfident",
    ),
    of_hutchinson(
        "timid_bars",
        "the standard deviation of one probe is reported as the error of their mean.",
        checks=("error bars",),
        where=lambda case: case.base.dimension > 1,
        bars="timid",
    ),
    of_exact_divergence("doubled_divergence", "the divergence is doubled.", says="2 × the truth", factor=2.0),
    of_exact_divergence(
        "last_axis_left_out",
        "the loop over coordinates stops one short.",
        where=lambda case: case.base.dimension > 1,
        first=-1,
    ),
    planting("divergence", summed_over_batch)(
        "summed_over_batch", "the trace is averaged over the batch instead of taken per row.", checks=("bias", "rows")
    ),
)

CORRECT = {
    "score-jacobian-product": {
        "forward_product": variant(forward_product, "forward_product"),
        "central_differences": variant(differences, "central_differences"),
    },
    "divergence": {
        "exact_divergence": variant(exact_divergence, "exact_divergence"),
        "hutchinson": variant(hutchinson, "hutchinson"),
    },
}
