"""Scores and denoisers of a known mixture, right by default and wrong by one option.

`log p(z) = log Σ_k w_k N(z; α μ_k, C_k)`, `C_k = α² Σ_k + σ² I`, `s = Σ_k γ_k g_k`, `g_k = −C_k⁻¹ (z − α μ_k)`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from studies.verification.faults.base import planting, tagged, variant
from studies.verification.problem import Problem

__all__ = ["CORRECT", "FAULTS", "denoiser", "score", "tweedie"]


def score(
    problem: Problem,
    *,
    use_alpha: bool = True,
    power: int = 2,
    isotropic: bool = False,
    even_weights: bool = False,
    determinant: bool = True,
    stable: bool = True,
    floor: float = 0.0,
) -> Tensor:
    """`∇ log p(z)` (n, d)."""
    logs, parts = _terms(problem, use_alpha, power, isotropic, even_weights, determinant, floor)
    shares = torch.softmax(logs, dim=1) if stable else torch.exp(logs) / torch.exp(logs).sum(1, keepdim=True)
    return (shares[:, :, None] * parts).sum(1)


def _terms(
    problem: Problem,
    use_alpha: bool = True,
    power: int = 2,
    isotropic: bool = False,
    even_weights: bool = False,
    determinant: bool = True,
    floor: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`log w_k + log N` (n, K) up to a constant, and `g_k` (n, K, d)."""
    law, alpha = problem.law, problem.alpha if use_alpha else 1.0
    d = law.means.shape[1]
    eye = torch.eye(d, dtype=torch.float64)
    inner = law.covariances
    if isotropic:
        inner = inner.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * eye
    factor = torch.linalg.cholesky(alpha**2 * inner + (problem.sigma**power + floor) * eye)
    gap = problem.x[:, None, :] - alpha * law.means
    white = torch.linalg.solve_triangular(factor, gap.permute(1, 2, 0), upper=False)
    logs = -0.5 * white.square().sum(1).T
    if determinant:
        logs = logs - factor.diagonal(dim1=1, dim2=2).log().sum(1)
    parts = -torch.linalg.solve_triangular(factor.mT, white, upper=True).permute(2, 0, 1)
    return logs if even_weights else logs + law.weights.log(), parts


def clipped(problem: Problem) -> Tensor:
    """The score clipped to ±20 in each coordinate."""
    return score(problem).clamp(-20.0, 20.0)


def single_precision_distances(problem: Problem) -> Tensor:
    """Right for points and balls, but `|x − μ|²` is taken as `|x|² − 2 x·μ + |μ|²` in float32."""
    if problem.law.form not in ("points", "isotropic"):
        return score(problem)
    x, means = problem.x.float(), problem.alpha * problem.law.means.float()
    products = (x[:, None] * means).sum(2)  # a matrix product rounds as the batch does on some processors
    squares = x.square().sum(1)[:, None] - 2 * products + means.square().sum(1)
    spread = problem.alpha**2 * problem.law.covariances[:, 0, 0] + problem.sigma**2
    d = problem.x.shape[1]
    logs = -0.5 * squares.double() / spread - 0.5 * d * spread.log() + problem.law.weights.log()
    parts = (problem.alpha * problem.law.means - problem.x[:, None]) / spread[:, None]
    return (torch.softmax(logs, 1)[:, :, None] * parts).sum(1)


def noise_as_score(problem: Problem) -> Tensor:
    """Returns `−E[ε | z] = σ s`: the noise prediction, not divided by σ."""
    return problem.sigma * score(problem)


def denoiser(problem: Problem, *, use_alpha: bool = True) -> Tensor:
    """`E[X | z] = (z + σ² s(z))/α`, from the parameters."""
    alpha = problem.alpha if use_alpha else 1.0
    return (problem.x + problem.sigma**2 * score(problem)) / alpha


def tweedie(problem: Problem, *, sign: float = 1.0, power: int = 2) -> Tensor:
    """`E[X | z] = y + τ² s_τ(y)`, `y = z/α`, `τ = σ/α`, from the black-box score."""
    y, tau = problem.x / problem.alpha, problem.sigma / problem.alpha
    return y + sign * tau**power * problem.score(y, tau)


def noise_as_data(problem: Problem) -> Tensor:
    """Returns `E[ε | z]`, the noise prediction, where the data prediction is asked for."""
    return -problem.sigma * score(problem)


def hard_assignment(problem: Problem) -> Tensor:
    """The posterior mean of the likeliest component alone."""
    logs, parts = _terms(problem)
    best = logs.argmax(1)
    chosen = parts[torch.arange(len(best)), best]
    return (problem.x + problem.sigma**2 * chosen) / problem.alpha


of_score = planting("score", score)
of_tweedie = planting("denoiser", tweedie)
FAULTS = (
    of_score(
        "alpha_ignored",
        "α is ignored: the law of X + σε is taken for that of αX + σε.",
        where=tagged("alpha"),
        use_alpha=False,
    ),
    of_score(
        "sigma_for_variance",
        "σ is added to the covariances where σ² belongs.",
        where=lambda case: case.sigma != 1.0,
        power=1,
    ),
    of_score(
        "isotropic_covariances",
        "each covariance is replaced by its mean variance.",
        where=tagged("anisotropic"),
        isotropic=True,
    ),
    of_score(
        "weights_ignored",
        "all components count alike.",
        where=lambda case: "separated" not in case.tags,
        even_weights=True,
    ),
    of_score(
        "determinant_dropped",
        "responsibilities lack the determinant of each covariance.",
        where=lambda case: case.base.form != "points" and not {"separated", "high noise"} & set(case.tags),
        determinant=False,
    ),
    of_score(
        "underflow",
        "densities are exponentiated one by one, and 0/0 follows far out.",
        checks=("finite",),
        where=lambda case: "tail" in case.tags or case.law == "sheet-784",
        stable=False,
    ),
    of_score(
        "variance_floor",
        "a floor of 1e-4 is added to the variance, which low noise does not forgive.",
        where=lambda case: case.sigma < 40.0,
        floor=1e-4,
    ),
    planting("score", clipped)(
        "clipped_score", "the score is clipped to ±20, silently.", where=tagged("tail", "low noise")
    ),
    planting("score", single_precision_distances)(
        "single_precision_distances",
        "squared distances are expanded in float32 and cancel.",
        where=tagged("far from the origin"),
    ),
    planting("score", noise_as_score)(
        "noise_as_score",
        "the noise prediction is returned as the score: a factor σ.",
        where=lambda case: case.sigma != 1.0,
        says="× the truth",
    ),
    planting("denoiser", noise_as_data)("noise_as_data", "the noise prediction ε is returned where x0 is asked for."),
    planting("denoiser", denoiser)(
        "denoiser_alpha_ignored",
        "E[αX | z] is returned for E[X | z].",
        where=tagged("alpha"),
        says="× the truth",
        use_alpha=False,
    ),
    of_tweedie("tweedie_sign", "the sign of Tweedie's correction is reversed.", sign=-1.0),
    of_tweedie(
        "tweedie_sigma",
        "Tweedie's correction carries σ where σ² belongs.",
        where=lambda case: case.sigma != 1.0,
        power=1,
    ),
    planting("denoiser", hard_assignment)(
        "hard_assignment", "the likeliest component answers for all.", where=lambda case: "separated" not in case.tags
    ),
)

CORRECT = {
    "score": {"mixture_score": variant(score, "mixture_score")},
    "denoiser": {"mixture_denoiser": variant(denoiser, "mixture_denoiser"), "tweedie": variant(tweedie, "tweedie")},
}
