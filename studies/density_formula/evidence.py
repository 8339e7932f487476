"""Implication (a): maximising the N-step evidence bound against maximising the likelihood, both by quadrature.

The family is `p_θ = .4 N(m − 1, τ²) + .6 N(m + 1, τ²)`, θ = (m, log τ), with its own exact scores; ρ lies outside. With
right ends (the score at the noisier level) the bound is

    E log p_θ,N(Y_N) − Σ_k Δv_k E[s_k(Y_k)·(Y_k − x)/(v_k − v_0) + ½ s_k(Y_k)²],    Y_k = x + √(v_k − v_0) Z,

whose weights are those of the variational bound of a discrete diffusion (Li & Yan 2024, arXiv 2408.16765, section on
the evidence lower bound; Ho et al. 2020, arXiv 2006.11239, eq. 5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studies.density_formula.config import Config
from studies.density_formula.problems import SIGMA, SIGMA_MAX
from studies.study import Cell

Rows = list[dict[str, Any]]
WEIGHTS, CENTRES = (0.4, 0.6), (-1.0, 1.0)
TRUE = ((0.35, 0.45, 0.2), (-1.2, 0.7, 1.9), (0.5, 0.35, 0.6))  # weights, means, deviations of ρ
DATA_NODES, NOISE_NODES = 32, 40


def cells(config: Config) -> list[Cell]:
    """One cell."""
    del config
    return [Cell("evidence", {"part": "evidence"}, seed=0)]


def run(config: Config) -> Rows:
    """Rows: the likelihood's maximiser, and the bound's for each N."""
    x, mass = data_nodes()
    best = maximise(lambda theta: (mass * log_density(theta, x, torch.tensor(SIGMA).double())).sum())
    top = float((mass * log_density(best, x, torch.tensor(SIGMA).double())).sum())
    rows = []
    for steps in config.elbo_steps:
        theta = maximise(lambda t, n=steps: (mass * bound(t, x, n)).sum())  # type: ignore[misc]
        at_best = float((mass * bound(best, x, steps)).sum())
        gap = float((theta - best).norm())
        rows.append({"steps": steps, "gap": gap, "theta": theta.tolist(), "slack": top - at_best})
    return [{"part": "evidence", "best": best.tolist()} | row for row in rows]


def log_density(theta: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """`log p_θ,σ(x)`, like x."""
    variance = (2 * theta[1]).exp() + sigma**2
    parts = [
        np.log(w) - (x - theta[0] - c).square() / (2 * variance) - 0.5 * (2 * torch.pi * variance).log()
        for w, c in zip(WEIGHTS, CENTRES, strict=True)
    ]
    return torch.logsumexp(torch.stack(parts), 0)


def score(theta: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """`∂ log p_θ,σ/∂x`."""
    variance = (2 * theta[1]).exp() + sigma**2
    offsets = [theta[0] + c - x for c in CENTRES]
    logits = [np.log(w) - o.square() / (2 * variance) for w, o in zip(WEIGHTS, offsets, strict=True)]
    shares = torch.softmax(torch.stack(logits), 0)
    return (shares * torch.stack(offsets)).sum(0) / variance


def bound(theta: Tensor, x: Tensor, steps: int) -> Tensor:
    """The N-step evidence bound at states (n,), by Gauss–Hermite quadrature in the noise."""
    levels = torch.logspace(np.log10(SIGMA), np.log10(SIGMA_MAX), steps + 1, dtype=torch.float64)
    widths, v = levels.square().diff(), levels.square()
    z, weight = hermite(NOISE_NODES)
    tau = (v[1:] - v[0]).sqrt()[:, None, None]
    y = x[:, None] + tau * z
    s = score(theta, y, levels[1:, None, None])
    terms = (weight * (s * z / tau + 0.5 * s.square())).sum(-1)
    end = (weight * log_density(theta, y[-1], levels[-1])).sum(-1)
    return end - (widths[:, None] * terms).sum(0)


def data_nodes() -> tuple[Tensor, Tensor]:
    """Nodes and masses of ρ noised to SIGMA."""
    z, weight = hermite(DATA_NODES)
    places = [m + (s**2 + SIGMA**2) ** 0.5 * z for m, s in zip(TRUE[1], TRUE[2], strict=True)]
    return torch.cat(places), torch.cat([w * weight for w in TRUE[0]])


def hermite(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights for a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def maximise(objective: Callable[[Tensor], Tensor]) -> Tensor:
    """Maximiser in θ from (0, log ½), by L-BFGS to a gradient of 1e-10."""
    theta = torch.tensor([0.0, np.log(0.5)], dtype=torch.float64, requires_grad=True)
    options: dict[str, Any] = {"max_iter": 60, "tolerance_grad": 1e-10, "tolerance_change": 1e-14}
    solver = torch.optim.LBFGS([theta], line_search_fn="strong_wolfe", **options)

    def closure() -> Tensor:
        solver.zero_grad()
        loss = -objective(theta)
        loss.backward()
        return loss

    solver.step(closure)
    return theta.detach()
