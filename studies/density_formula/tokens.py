"""Implication (c): the per-token diffusion loss of an autoregressive model against its negative log-likelihood.

Tokens are scalars (continuous tokens with a diffusion loss: Li et al. 2024, arXiv 2406.11838); given h = X_{t−1},

    X_t ~ g(h) N(.8h + 1, .3²c²) + (1 − g(h)) N(−.6h − .5, (.25 + .15 h²/(1 + h²))²c²),     g(h) = 1/(1 + e^{−1.5h}),

with c = e^{w tanh(1.5h)}. The range w of scales is 0 in the process of the claims; with w > 0 tokens differ in scale,
and with the scale differs what a wrong weight does. To see where a network's error enters, its score replaces the exact
one in one band of levels at a time: the integrand is additive in σ, so are the changes of a loss.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import log
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from studies.density_formula.classifier import unweighted
from studies.density_formula.conditional import Conditional, train_conditional
from studies.density_formula.config import Config
from studies.density_formula.estimators import estimate
from studies.density_formula.problems import SIGMA, SIGMA_MAX, Setup
from studies.study import Cell, Context

Rows = list[dict[str, Any]]
LENGTH = 16
BANDS = (0.0, 0.1, 0.25, 0.6, 2.0, 100.0)  # of σ
Score = Callable[[Tensor, Tensor, Tensor], Tensor]  # (y (n, 1), σ (n,), h (n, 1))


def cells(config: Config) -> list[Cell]:
    """One for each range of scales; networks are trained for the first and the last."""
    ends = (config.token_ranges[0], config.token_ranges[-1])
    return [
        Cell(f"tokens-range={w:g}", {"part": "tokens", "wide": w, "trained": w in ends}, seed=8)
        for w in config.token_ranges
    ]


def parameters(h: Tensor, wide: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and variances of X_t given h (n, 1), each (n, 2); `wide` is w."""
    gate = torch.sigmoid(1.5 * h)
    means = torch.cat([0.8 * h + 1, -0.6 * h - 0.5], 1)
    spreads = torch.cat([torch.full_like(h, 0.3), 0.25 + 0.15 * h.square() / (1 + h.square())], 1)
    scale = (2 * wide * torch.tanh(1.5 * h)).exp()
    return torch.cat([gate, 1 - gate], 1), means, scale * spreads.square()


def log_density(y: Tensor, sigma: Tensor, h: Tensor, wide: float = 0.0) -> Tensor:
    """`log p_σ(y | h)`, (n,)."""
    weights, means, variances = parameters(h, wide)
    total = variances + sigma.to(y).expand(len(y))[:, None] ** 2
    terms = weights.log() - (y - means).square() / (2 * total) - 0.5 * (2 * torch.pi * total).log()
    return torch.logsumexp(terms, 1)


def exact_score(y: Tensor, sigma: Tensor, h: Tensor, wide: float = 0.0) -> Tensor:
    """`∂ log p_σ(y | h)/∂y`, (n, 1)."""
    weights, means, variances = parameters(h, wide)
    total = variances + sigma.to(y).expand(len(y))[:, None] ** 2
    terms = weights.log() - (y - means).square() / (2 * total) - 0.5 * total.log()
    return (torch.softmax(terms, 1) * (means - y) / total).sum(1, keepdim=True)


def step(h: Tensor, generator: torch.Generator, wide: float = 0.0) -> Tensor:
    """The next token after h (n, 1)."""
    weights, means, variances = parameters(h, wide)
    second = torch.rand(h.shape, generator=generator, dtype=h.dtype) > weights[:, :1]
    mean = torch.where(second, means[:, 1:], means[:, :1])
    spread = torch.where(second, variances[:, 1:], variances[:, :1]).sqrt()
    return mean + spread * torch.randn(h.shape, generator=generator, dtype=h.dtype)


def sequences(count: int, seed: int, wide: float = 0.0) -> Tensor:
    """Sequences (count, LENGTH + 1) after eight discarded tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = [torch.zeros(count, 1, dtype=torch.float64)]
    for _ in range(LENGTH + 8):
        tokens.append(step(tokens[-1], generator, wide))
    return torch.cat(tokens[8:], 1)


def _draws(count: int, generator: torch.Generator, wide: float = 0.0) -> tuple[Tensor, Tensor]:
    """Pairs (next token, token) near stationarity."""
    h = torch.zeros(count, 1)
    for _ in range(4):
        h = step(h, generator, wide)
    return step(h, generator, wide), h


def told(score: Score, h: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The score with its conditions fixed; states come in whole repetitions of the batch, the batch last."""

    def field(y: Tensor, sigma: Tensor) -> Tensor:
        return score(y, sigma, h.repeat(len(y) // len(h), 1))

    return field


def run(cell: Cell, context: Context) -> Rows:
    """Rows of the trained network and of the exact score on one process, and of the network in single bands."""
    config, wide = context.config, cell.parameters["wide"]
    data = sequences(config.sequences, cell.seed, wide)
    generator = torch.Generator().manual_seed(cell.seed)
    noisy = data[:, 1:] + SIGMA * torch.randn(data[:, 1:].shape, generator=generator, dtype=data.dtype)
    y, h = noisy.reshape(-1, 1), data[:, :-1].reshape(-1, 1)
    exact: Score = partial(exact_score, wide=wide)
    shared, budget = {"part": "tokens", "wide": wide}, config.token_budget
    rows = [shared | {"score": "exact", "steps": 0} | measured(exact, y, h, budget, wide)]
    if not cell.parameters["trained"]:
        return rows
    for steps in config.token_steps:
        network = _trained(steps, wide, context).score
        rows.append(shared | {"score": "network", "steps": steps} | measured(network, y, h, budget, wide))
        for band in pairwise(BANDS if wide == 0 else ()):
            row = measured(banded(network, exact, band), y, h, budget, wide)
            rows.append(shared | {"score": "network in a band", "steps": steps, "low": band[0], "high": band[1]} | row)
    return rows


def _trained(steps: int, wide: float, context: Context) -> Conditional:
    name = "tokens" if wide == 0 else f"tokens-{wide:g}"
    width = context.config.conditional_width
    return train_conditional(name, 1, 1, width, steps, partial(_draws, wide=wide), context.cache)


def banded(network: Score, exact: Score, band: tuple[float, float]) -> Score:
    """The network's score at levels of the band, the exact one elsewhere."""

    def score(y: Tensor, sigma: Tensor, h: Tensor) -> Tensor:
        level = sigma.to(y).expand(len(y))[:, None]
        inside = (level >= band[0]) & (level < band[1])
        return torch.where(inside, network(y, sigma, h), exact(y, sigma, h))

    return score


def measured(score: Score, y: Tensor, h: Tensor, budget: int, wide: float) -> dict[str, Any]:
    """Losses of sequences against their negative log-likelihoods, and the excess against the score's error."""
    with torch.no_grad():
        loss = weighted_loss(score, y, h, budget)
        plain = unweighted(told(score, h), y, budget, 82)
        theory = _score_error(score, y, h, wide)
    truth = -log_density(y, torch.tensor(SIGMA).double(), h, wide)
    sums = [each.reshape(-1, LENGTH).sum(1).numpy() for each in (loss, plain, truth)]
    gaps = (loss - truth).reshape(-1, LENGTH).mean(1).numpy()
    return {
        "nll": float(truth.mean()),
        "loss": float(loss.mean()),
        "excess": float(gaps.mean()),
        "excess_error": float(gaps.std(ddof=1) / len(gaps) ** 0.5),
        "excess_sd": float((sums[0] - sums[2]).std(ddof=1)),
        "theory": float(theory.mean()),
        "theory_error": float(theory.std() / len(theory) ** 0.5),
        "rank": float(spearmanr(sums[0], sums[2])[0]),
        "unweighted_rank": float(spearmanr(sums[1], sums[2])[0]),
        "weighted": sums[0].tolist(),
        "unweighted": sums[1].tolist(),
        "exact": sums[2].tolist(),
    }


def weighted_loss(score: Score, y: Tensor, h: Tensor, budget: int) -> Tensor:
    """Minus the density formula of every token given the one before, (n,)."""
    values = []
    for k, (part, before) in enumerate(zip(y.split(400), h.split(400), strict=True)):
        result = estimate("formula", Setup(told(score, before), y), part, budget, 8100 + k)
        values.append(-result.value if result is not None else torch.full_like(part[:, 0], float("nan")))
    return torch.cat(values)


def _score_error(score: Score, y: Tensor, h: Tensor, wide: float) -> Tensor:
    """Terms with mean ½ ∫ E|s_θ − s|² dv over tokens; σ log-uniform, sixteen draws a token, the noise from SIGMA on."""
    generator = torch.Generator().manual_seed(83)
    y, h = y.repeat(16, 1), h.repeat(16, 1)
    span = log(SIGMA_MAX / SIGMA)
    levels = SIGMA * torch.exp(span * torch.rand(len(y), generator=generator, dtype=y.dtype))
    tau = (levels.square() - SIGMA**2).sqrt()[:, None]
    states = y + tau * torch.randn(y.shape, generator=generator, dtype=y.dtype)
    gap = score(states, levels, h) - exact_score(states, levels, h, wide)
    return span * levels.square() * gap.square().sum(1)
