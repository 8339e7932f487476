"""Posterior scores, samples and evidences of linear observations: right routes, and the samplers of inverse problems.

`y = A X + n`, `n ~ N(0, R)`. The score of the noised posterior is `s_σ(x) + ∇ log p(y | X_σ = x)`; samplers of inverse
problems take a prior's score and put an approximation for the second term, each exact where its assumption is:

- DPS (Chung et al., arXiv 2209.14687): X given x is its mean `x̂ = x + σ² s_σ(x)`: exact nowhere;
- ΠGDM (Song et al., ICLR 2023): X given x is `N(x̂, σ²/(1 + σ²) I)`: exact for a Gaussian prior of unit covariance;
- TMPD (Boys et al., arXiv 2310.06721): X given x is `N(x̂, σ² ∂x̂/∂x)`: exact for every Gaussian prior;
- ALD (Jalal et al., NeurIPS 2021): y is compared with `A x` at noise `R + σ²`;
- replacement (Song et al., arXiv 2011.13456, appendix I.2): seen coordinates take the score of y noised, the others
  the prior's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp

from studies.verification.faults.base import planting, variant
from studies.verification.faults.products import along, generator
from studies.verification.problem import Problem
from studies.verification.tasks.base import Case

__all__ = ["CORRECT", "FAULTS", "conditioned", "evidence", "guided", "posterior_score"]

Score = Callable[[Tensor, Tensor, Tensor], Tensor]  # of x (n, d), σ and y (n, p)


def conditioned(
    problem: Problem, seen: Tensor, *, sign: float = 1.0, noise: float | None = None, reweigh: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Log weights (n, K), means (n, K, d) and covariances (K, d, d) of the posteriors of observations (n, p)."""
    law, matrix = problem.law, problem.operator
    prior, r = law.covariances, problem.noise if noise is None else noise
    cross = prior @ matrix.T
    spread = matrix @ cross + r * torch.eye(len(matrix), dtype=torch.float64)
    gain = torch.linalg.solve(spread, cross.mT).mT
    gap = seen[:, None] - law.means @ matrix.T
    logs = law.weights.log().expand(len(seen), -1)
    if reweigh:
        logs = logs + torch.distributions.MultivariateNormal(law.means @ matrix.T, spread).log_prob(seen[:, None])
    means = law.means + sign * torch.einsum("kdp,nkp->nkd", gain, gap)
    return logs - logs.logsumexp(1, keepdim=True), means, prior - gain @ cross.mT


def mixture_score(x: Tensor, sigma: Any, logs: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """The score (n, d) at level σ of mixtures with their own weights and means in every row."""
    factor = torch.linalg.cholesky(covariances + sigma**2 * torch.eye(x.shape[1], dtype=x.dtype))
    gap = (x[:, None] - means).movedim(0, -1)
    white = torch.linalg.solve_triangular(factor, gap, upper=False)
    terms = logs - 0.5 * white.square().sum(1).T - factor.diagonal(dim1=1, dim2=2).log().sum(1)
    parts = -torch.linalg.solve_triangular(factor.mT, white, upper=True).movedim(-1, 0)
    return (torch.softmax(terms, 1)[:, :, None] * parts).sum(1)


def posterior_score(problem: Problem, **options: Any) -> Tensor:
    """Conditions every component; the options of `conditioned` make it wrong."""
    law = conditioned(problem, problem.observation[None], **options)
    return mixture_score(problem.x, problem.sigma, *law)


def by_likelihood(problem: Problem) -> Tensor:
    """The other route: the prior's score and the gradient of `log E[N(y; A X, R) | X_σ = x]`, by autograd."""
    law, matrix, x = problem.law, problem.operator, problem.x.clone().requires_grad_()
    d = x.shape[1]
    spread = law.covariances + problem.sigma**2 * torch.eye(d, dtype=torch.float64)
    gain = torch.linalg.solve(spread, law.covariances).mT
    inside = torch.distributions.MultivariateNormal(law.means, spread).log_prob(x[:, None]) + law.weights.log()
    centre = law.means + torch.einsum("kij,nkj->nki", gain, x[:, None] - law.means)
    left = matrix @ (law.covariances - gain @ law.covariances) @ matrix.T
    seen = torch.distributions.MultivariateNormal(
        centre @ matrix.T, (left + left.mT) / 2 + problem.noise * torch.eye(len(matrix), dtype=torch.float64)
    ).log_prob(problem.observation)
    value = (torch.log_softmax(inside, 1) + seen).logsumexp(1).sum()
    return problem.score(problem.x, problem.sigma) + torch.autograd.grad(value, x)[0]


def guided(problem: Problem, x: Tensor, sigma: Any, seen: Tensor, *, kind: str = "dps") -> Tensor:
    """The prior's score and the gradient of an approximate likelihood, one observation a row."""
    matrix, r = problem.operator, problem.noise
    pulled = vjp(lambda u: u + sigma**2 * problem.score(u, sigma), x)
    denoised, back = pulled[0], pulled[1]
    score = (denoised - x) / sigma**2
    eye = torch.eye(len(matrix), dtype=x.dtype)
    if kind == "none":
        return score
    if kind == "ald":
        return score + (seen - x @ matrix.T) @ matrix / (r + sigma**2)
    if kind == "replacement":
        swapped = score.clone()
        swapped[:, : len(matrix)] = (seen - x[:, : len(matrix)]) / (r + sigma**2)
        return swapped
    if kind == "tmpd":
        rows = matrix[:, None].expand(-1, *x.shape)
        moved = along(lambda u: u + sigma**2 * problem.score(u, sigma), x, rows)
        spread = r * eye + sigma**2 * torch.einsum("pnd,qd->nqp", moved, matrix)
    else:
        spread = r * eye + (sigma**2 / (1 + sigma**2) * matrix @ matrix.T if kind == "pigdm" else 0.0)
    pull = torch.linalg.solve(spread, (seen - denoised @ matrix.T)[..., None])[..., 0] @ matrix
    return score + (pull if kind == "straight" else back(pull)[0])


def guided_score(problem: Problem, *, kind: str) -> Any:
    """A sampler's approximation at one level; replacement declines operators that mix coordinates."""
    if kind == "replacement" and not _masks(problem):
        return NotImplemented
    seen = problem.observation.expand(len(problem.x), -1)
    return guided(problem, problem.x, problem.sigma, seen, kind=kind)


def _masks(problem: Problem) -> bool:
    p, d = problem.operator.shape
    return bool(torch.equal(problem.operator, torch.eye(d, dtype=torch.float64)[:p]))


def ancestral(problem: Problem, *, spread: float = 1.0, prior: bool = False, shared: bool = False) -> Tensor:
    """Draws (m, L, d): a component, a Gaussian draw about its posterior mean, noise of σ_min."""
    source, seen, count = generator(problem), problem.observations, problem.count
    logs, means, covariances = conditioned(problem, seen)
    if prior:
        logs, means = problem.law.weights.log().expand_as(logs), problem.law.means.expand_as(means)
        covariances = problem.law.covariances
    which = torch.multinomial(logs.exp(), count, replacement=True, generator=source)
    noised = covariances + problem.grid.sigma_min**2 * torch.eye(means.shape[2], dtype=torch.float64)
    normal = torch.randn(len(seen), count, means.shape[2], generator=source, dtype=torch.float64)
    if shared:
        normal = normal[:, :1].expand_as(normal)
    factor = spread * torch.linalg.cholesky(noised)
    moved = torch.einsum("kij,mlj->mlki", factor, normal)
    index = which[:, :, None, None].expand(-1, -1, 1, means.shape[2])
    return means.gather(1, which[:, :, None].expand(-1, -1, means.shape[2])) + moved.gather(2, index)[:, :, 0]


def by_flow(problem: Problem, *, kind: str = "exact") -> Any:
    """Draws (m, L, d) by Heun's steps down the flow of a posterior score.

    They start about the exact posterior mean at σ_max, so that what is wrong in the end is the score's own fault.
    """
    if kind == "replacement" and not _masks(problem):
        return NotImplemented
    m, d = len(problem.observations), problem.law.means.shape[1]
    rows = problem.observations.repeat_interleave(problem.count, 0)
    logs, means, covariances = conditioned(problem, rows)
    at_top = (logs.exp()[:, :, None] * means).sum(1)
    normal = torch.randn(len(rows), d, generator=generator(problem), dtype=torch.float64)
    x = at_top + problem.grid.sigma_max * normal

    def slope(state: Tensor, sigma: Tensor) -> Tensor:
        if kind == "exact":
            return -sigma * mixture_score(state, sigma, logs, means, covariances)
        return -sigma * guided(problem, state, sigma, rows, kind=kind)

    for high, low in pairwise(problem.grid.levels):
        first = slope(x, high)
        x = x + (low - high) / 2 * (first + slope(x + (low - high) * first, low))
    return x.reshape(m, problem.count, d)


def evidence(problem: Problem, *, noise: bool = True, best: bool = False, constant: bool = True) -> Tensor:
    """`log p(y)` (n,) from the law of `A X + n`."""
    law, matrix, seen = problem.law, problem.operator, problem.observations
    r = problem.noise if noise else 1e-3 * problem.noise
    spread = matrix @ law.covariances @ matrix.T + r * torch.eye(len(matrix), dtype=torch.float64)
    logs = torch.distributions.MultivariateNormal(law.means @ matrix.T, spread).log_prob(seen[:, None])
    logs = logs + law.weights.log()
    value = logs.max(1).values if best else logs.logsumexp(1)
    return value if constant else value + 0.5 * len(matrix) * math.log(2 * math.pi)


def _single(case: Case) -> bool:
    return "one Gaussian" in case.tags


of_guided_score = planting("posterior-score", guided_score)
of_posterior_score = planting("posterior-score", posterior_score)
of_ancestral = planting("posterior-sample", ancestral)
of_by_flow = planting("posterior-sample", by_flow)
of_evidence = planting("evidence", evidence)
FAULTS = (
    of_guided_score("observation_ignored", "the prior's score is returned, whatever is seen.", kind="none"),
    of_guided_score(
        "guidance_by_the_denoised_mean",
        "DPS: the likelihood of the denoised mean, which knows nothing of the spread that is left.",
        kind="dps",
    ),
    of_guided_score(
        "guidance_without_the_jacobian", "DPS whose gradient is not taken through the denoiser.", kind="straight"
    ),
    of_guided_score(
        "spread_of_a_unit_prior",
        "ΠGDM: what is left is N(x̂, σ²/(1 + σ²) I), as for a prior of unit covariance, where alone it is exact.",
        where=lambda case: "unit variance" not in case.tags,
        kind="pigdm",
    ),
    of_guided_score(
        "one_gaussian_left",
        "TMPD: what is left is one Gaussian with the right moments, exact for a Gaussian prior only.",
        where=lambda case: case.law in ("plane", "five"),  # in the others one component rules where y is known
        kind="tmpd",
    ),
    of_guided_score(
        "likelihood_of_the_noised_state",
        "the observation is compared with the noised state at noise R + σ².",
        kind="ald",
    ),
    of_guided_score(
        "replacement_score",
        "seen coordinates take the score of the noised observation, the others do not learn of it.",
        where=lambda case: case.operator == "mask",
        kind="replacement",
    ),
    of_posterior_score("innovation_reversed", "means move away from the observation.", sign=-1.0),
    of_posterior_score("noise_forgotten", "the observation is taken to be almost exact.", noise=1e-3),
    of_posterior_score(
        "prior_weights_kept",
        "components keep their prior weights whatever is seen.",
        where=lambda case: not _single(case) and case.base.dimension < 100,
        reweigh=False,
    ),
    of_ancestral(
        "prior_draws",
        "draws from the prior; their ranks are uniform, but for the likelihood's.",
        checks=("calibration", "energy"),
        prior=True,
    ),
    of_ancestral(
        "narrow_posterior", "draws half as wide as the posterior.", checks=("calibration", "energy"), spread=0.5
    ),
    of_ancestral(
        "one_draw_for_all",
        "one random draw serves all of an observation's.",
        checks=("calibration", "energy"),
        shared=True,
    ),
    of_by_flow(
        "sampled_by_the_denoised_mean", "the flow of DPS's score.", checks=("calibration", "energy"), kind="dps"
    ),
    of_by_flow(
        "sampled_by_replacement",
        "the flow of the replacement's score: unseen coordinates follow the prior.",
        checks=("energy",),
        where=lambda case: case.law == "plane",  # independent coordinates do not need to learn of each other
        kind="replacement",
    ),
    of_by_flow(
        "sampled_with_a_unit_prior",
        "the flow of ΠGDM's score, exact for a prior of unit covariance only.",
        checks=("calibration", "energy"),
        where=lambda case: case.law != "unit",
        kind="pigdm",
    ),
    of_evidence("evidence_without_noise", "the law of A X is taken for that of the observation.", noise=False),
    of_evidence(
        "evidence_of_the_best",
        "the likeliest component stands for the mixture.",
        where=lambda case: not _single(case) and case.law != "image",  # there the observation says which it was
        best=True,
    ),
    of_evidence(
        "evidence_without_constant", "the factor (2π)^(−p/2) is dropped.", says="constant offset", constant=False
    ),
)

CORRECT = {
    "posterior-score": {
        "conditioned_score": variant(posterior_score, "conditioned_score"),
        "by_likelihood": variant(by_likelihood, "by_likelihood"),
    },
    "posterior-sample": {
        "conditioned_draws": variant(ancestral, "conditioned_draws"),
        "posterior_flow": variant(by_flow, "posterior_flow"),
    },
    "evidence": {"evidence": variant(evidence, "evidence")},
}
