"""Implication (d): a generator's likelihood as a weighted score-matching term with its own score.

`G_θ` draws `e^c (m_k + √C_k z) + b`, θ = (b_1, b_2, c), from two components in the plane. By the density formula
`E_data[−log p_G] = const + ½ ∫ E_data E|s_G(X + τZ) + Z/τ|² dv` with s_G the score of the generator's noised law, so
that the gradient in θ of the right side is the likelihood's. The score is that of a denoiser trained on draws of G_θ
and told θ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oracles import GaussianMixture
from sensitivity import GaussianAnchor, Grid, log_density
from studies.density_formula.classifier import unweighted
from studies.density_formula.conditional import Conditional, train_conditional
from studies.density_formula.problems import SIGMA, SIGMA_MAX
from studies.study import Cell, Context

Rows = list[dict[str, Any]]
WEIGHTS = (0.4, 0.6)
MEANS = ((-1.0, -0.4), (0.8, 0.5))
VARIANCES = ((0.25, 0.08), (0.1, 0.3))
BOX = (0.5, 0.5, 0.35)  # half-widths of θ where gradients are compared; the network is trained on a box 1.4 times wider
PART = 64  # data whose graph is held at once
Told = Callable[[Tensor, Tensor, Tensor], Tensor]  # (y (n, 2), σ, θ (n, 3))
Loss = Callable[[Tensor], Tensor]


def cells(config: Any) -> list[Cell]:
    """One cell."""
    del config
    return [Cell("generator", {"part": "generator"}, seed=12)]


def law(theta: Tensor) -> GaussianMixture:
    """The generator's law; gradients in θ pass through."""
    scale = theta[2].exp()
    means = theta[:2] + scale * torch.tensor(MEANS, dtype=theta.dtype)
    covariances = scale**2 * torch.diag_embed(torch.tensor(VARIANCES, dtype=theta.dtype))
    return GaussianMixture(torch.tensor(WEIGHTS, dtype=theta.dtype), means, covariances)


def data_law() -> GaussianMixture:
    """ρ: three components, outside the generator's family."""
    means = np.array([[-0.9, -0.7], [0.9, 0.2], [0.2, 1.1]])
    covariances = np.array([[[0.2, 0.08], [0.08, 0.1]], [[0.15, -0.05], [-0.05, 0.2]], [[0.1, 0.0], [0.0, 0.06]]])
    return GaussianMixture(np.array([0.4, 0.4, 0.2]), means, covariances)


def exact_score(y: Tensor, sigma: Tensor, theta: Tensor) -> Tensor:
    """The score of the noised generator, each state with its own θ (n, 3)."""
    scale = theta[:, 2:].exp()[:, None]
    means = theta[:, None, :2] + scale * torch.tensor(MEANS, dtype=y.dtype)
    variances = scale**2 * torch.tensor(VARIANCES, dtype=y.dtype) + sigma.to(y).expand(len(y))[:, None, None] ** 2
    offsets = means - y[:, None]
    logits = torch.tensor(WEIGHTS, dtype=y.dtype).log() - 0.5 * (offsets.square() / variances + variances.log()).sum(-1)
    return (torch.softmax(logits, 1)[..., None] * offsets / variances).sum(1)


def draws(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws of G_θ with θ uniform in the wider box."""
    theta = 1.4 * torch.tensor(BOX) * (2 * torch.rand(count, 3, generator=generator) - 1)
    second = (torch.rand(count, generator=generator) > WEIGHTS[0]).long()
    z = torch.randn(count, 2, generator=generator)
    inner = torch.tensor(MEANS)[second] + torch.tensor(VARIANCES)[second].sqrt() * z
    return theta[:, :2] + theta[:, 2:].exp() * inner, theta


def run(cell: Cell, context: Context) -> Rows:
    """Rows: gradients at each θ, the decomposition, and minimisers."""
    config = context.config
    network: Conditional = train_conditional(
        "generator", 2, 3, config.conditional_width, config.conditional_steps, draws, context.cache
    )
    x = torch.from_numpy(np.asarray(data_law().noised(SIGMA).sample(config.generator_data, cell.seed)))
    budget = config.generator_budget
    losses: dict[str, Loss] = {
        "likelihood": lambda theta: -law(theta).noised(SIGMA).log_density(x).mean(),
        "exact": lambda theta: regulariser(exact_score, theta, x, budget).mean(),
        "network": lambda theta: regulariser(network.score, theta, x, budget).mean(),
        "unweighted": lambda theta: _unweighted(network.score, theta, x, budget),
        "unweighted, exact": lambda theta: _unweighted(exact_score, theta, x, budget),
    }
    rng = np.random.default_rng(cell.seed)
    points = torch.from_numpy(rng.uniform(-1, 1, (config.generator_points, 3)) * np.array(BOX))
    rows = [row for theta in points for row in _gradients(losses, theta)]
    rows += [_decomposition(theta, x, budget) for theta in points]
    return [*rows, *_minimisers(losses, min(config.generator_points, 12))]


def regulariser(score: Told, theta: Tensor, x: Tensor, budget: int) -> Tensor:
    """Weighted score matching of the data with the generator's own score, up to a constant in θ: (n,) nats."""
    anchor = GaussianAnchor.from_data(x.detach())
    values = [
        log_density(
            lambda y, sigma: score(y, sigma, theta.expand(len(y), 3)), part, SIGMA, anchor=anchor, method="formula",
            grid=Grid(SIGMA_MAX, SIGMA, 1), evaluations=budget, seed=121 + k, differentiable=True, chunk_size=32768,
        ).value
        for k, part in enumerate(x.split(PART))
    ]  # fmt: skip
    return -torch.cat(values)


def _unweighted(score: Told, theta: Tensor, x: Tensor, budget: int) -> Tensor:
    def told(y: Tensor, sigma: Tensor) -> Tensor:
        return score(y, sigma, theta.expand(len(y), 3))

    return unweighted(told, x, budget, 131, differentiable=True).mean() / 2


def gradient(loss: Loss, theta: Tensor) -> Tensor:
    """∂loss/∂θ, (3,)."""
    point = theta.clone().requires_grad_(True)
    return torch.autograd.grad(loss(point), point)[0]


def _gradients(losses: dict[str, Loss], theta: Tensor) -> Rows:
    true = gradient(losses["likelihood"], theta)
    rows = []
    for name, loss in losses.items():
        value = gradient(loss, theta)
        cosine = float(value @ true / value.norm() / true.norm())
        error = float((value - true).norm() / true.norm())
        rows.append({"part": "gradient", "score": name, "cosine": cosine, "error": error, "theta": theta.tolist()})
    return rows


def _decomposition(theta: Tensor, x: Tensor, budget: int) -> dict[str, Any]:
    """The closed form with the exact score against the negative log-likelihood, paired over data."""
    with torch.no_grad():
        gaps = regulariser(exact_score, theta, x, budget) + law(theta).noised(SIGMA).log_density(x)
    return {
        "part": "decomposition",
        "gap": float(gaps.mean()),
        "gap_error": float(gaps.std() / len(gaps) ** 0.5),
        "theta": theta.tolist(),
    }


def _minimisers(losses: dict[str, Loss], iterations: int) -> Rows:
    best = minimise(losses["likelihood"], 40)
    rows = []
    for name, loss in losses.items():
        theta = minimise(loss, iterations)
        excess = float(losses["likelihood"](theta) - losses["likelihood"](best))
        distance = float((theta - best).norm())
        rows.append(
            {"part": "minimiser", "score": name, "theta": theta.tolist(), "distance": distance, "excess": excess}
        )
    return rows


def minimise(loss: Loss, iterations: int) -> Tensor:
    """Minimiser in θ from 0 by L-BFGS with a line search; the noise of a loss is fixed by its seed."""
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([theta], max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        value = loss(theta)
        value.backward()
        return value

    solver.step(closure)
    return theta.detach()
