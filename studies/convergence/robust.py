"""Part (b): what errors of the ingredients do to the sensitivity, on laws where all of it is known.

- An error e of the log density multiplies the source, and so the sensitivity, by `exp(−e)` (the flow is linear in its
  source): for e ~ N(0, s²) the relative error is `|exp(−e) − 1|`.
- A relative error κ of the score moves samples and sensitivities; to first order the error is proportional to κ.
- Against `(x_η − x_0)/η` the linearisation adds its own error, proportional to η.
- Random probes: the log density's error falls as the inverse root of their number.
- The anchor at σ_max: a Gaussian with the law's moments in place of the law itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensitivity import GaussianAnchor
from studies.bridge import ExactLaw, exact_anchor, exact_score
from studies.convergence import truth
from studies.convergence.config import Config
from studies.convergence.engine import predict, relative, spread
from studies.convergence.problems import SIGMA_MAX, Problem, problem
from studies.study import Cell

DIMENSION = 10
CLASSIC = 80.0  # the highest level of Karras et al. 2022


def cells(config: Config) -> list[Cell]:
    """One cell for errors of the ingredients, one for probes, one for anchors."""
    return [Cell(f"robust-{part}", {"part": part}, seed=1) for part in ("errors", "probes", "anchors")]


def run(cell: Cell, config: Config) -> list[dict[str, Any]]:
    """Rows of one cell."""
    return {"errors": _errors, "probes": _probes, "anchors": _anchors}[cell.parameters["part"]](cell.seed, config)


class Shifted:
    """An anchor with a known error: log p + e, e given for each latent."""

    def __init__(self, anchor: ExactLaw, error: Tensor) -> None:
        self.anchor, self.error = anchor, error

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The shifted log density, (batch,)."""
        return self.anchor.log_density(x, sigma) + self.error


def disturbed(score: Callable[[Tensor, Tensor], Tensor], size: float, dimension: int) -> Callable[..., Tensor]:
    """`s(x, σ) + κ u(x, σ)`: a smooth field with a divergence, of root mean square `1/√(σ² + 1)` a coordinate.

    That is about the size of the score itself, so κ is a relative error. `u = √2 cos(W x/√(σ² + 1) + b)/√(σ² + 1)`.
    """
    generator = torch.Generator().manual_seed(23)
    turns = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64) / dimension**0.5
    phases = 2 * np.pi * torch.rand(dimension, generator=generator, dtype=torch.float64)

    def field(x: Tensor, sigma: Tensor) -> Tensor:
        level = torch.as_tensor(sigma, dtype=x.dtype)
        width = torch.sqrt(level**2 + 1).reshape(-1, 1) if level.ndim else torch.sqrt(level**2 + 1)
        return score(x, sigma) + size * 2**0.5 * torch.cos(x / width @ turns + phases) / width

    return field


def _errors(seed: int, config: Config) -> list[dict[str, Any]]:
    case = problem(DIMENSION, config.robust_latents, seed)
    exact, quotients = truth.sensitivity(case), truth.quotients(case, config.robust_etas)
    normal = np.random.default_rng(seed).standard_normal(config.robust_latents)
    errors = np.concatenate([size * normal for size in config.log_errors])
    anchor = Shifted(exact_anchor(case.base), torch.from_numpy(errors))
    latents = np.tile(case.latents, (len(config.log_errors), 1))
    rows = []
    for kappa in config.score_errors:
        score = disturbed(exact_score(case.base), kappa, DIMENSION)
        result = predict(case, config.robust_steps, score=score, anchor=anchor, latents=latents).sensitivity.numpy()
        parts = np.split(result, len(config.log_errors))
        for size, part in zip(config.log_errors, parts, strict=True):
            rows += _against(part, size, kappa, exact, quotients, size * normal)
    return rows


def _against(
    values: np.ndarray,
    size: float,
    kappa: float,
    exact: np.ndarray,
    quotients: dict[float, np.ndarray],
    errors: np.ndarray,
) -> list[dict[str, Any]]:
    """Rows of one pair of errors: against δ itself (η = 0) and against the quotient at each η."""
    shared = {"part": "errors", "log_error": size, "score_error": kappa}
    law = float(np.median(np.abs(np.exp(-errors) - 1)))
    rows = [shared | {"eta": 0.0, "predicted": law} | spread(relative(values, exact))]
    return rows + [shared | {"eta": eta} | spread(relative(values, q)) for eta, q in quotients.items()]


def _probes(seed: int, config: Config) -> list[dict[str, Any]]:
    """Hutchinson probes at 40 Heun steps: errors of log p at the samples, and their own standard errors."""
    case = problem(DIMENSION, config.probe_latents, seed)
    options: dict[str, Any] = {"solver": "heun", "spacing": "karras"}
    exact = predict(case, 40, **options)
    rows = []
    for count in config.probes:
        result = predict(case, 40, trace="hutchinson", probes=count, seed=seed, **options)
        error = required(result.log_density) - required(exact.log_density)
        stated = required(result.log_density_error)
        covered = None if count < 4 else float((error.abs() <= 2 * stated).double().mean())
        rows.append(
            {"part": "probes", "probes": count, "rms": float(error.square().mean().sqrt()), "covered": covered}
            | {"latents": len(error)}
            | spread(relative(result.sensitivity, exact.sensitivity))
        )
    return rows


def required(value: Tensor | None) -> Tensor:
    """The log density that this path is known to carry."""
    if value is None:
        raise ValueError("the engine carried no log density: the perturbation toward a measure needs one.")
    return value


def _anchors(seed: int, config: Config) -> list[dict[str, Any]]:
    """The Gaussian with the law's moments, and the standard Gaussian, against the law itself at σ_max = 20 and 80."""
    rows = []
    for dimension in config.anchor_dimensions:
        case = problem(dimension, 256, seed)
        for sigma in (SIGMA_MAX, CLASSIC):
            rows += [_anchor(case, kind, sigma, seed) for kind in ("moments", "standard")]
    return rows


def _anchor(case: Problem, kind: str, sigma: float, seed: int) -> dict[str, Any]:
    """Error of log p over latents, which is the log of the factor on the sensitivity; checked by a run in small d."""
    latents = np.asarray(case.base.noised(sigma).sample(256, seed))
    mean, covariance = torch.tensor(np.asarray(case.base.mean)), torch.tensor(np.asarray(case.base.covariance))
    if kind == "standard":
        mean, covariance = torch.zeros_like(mean), torch.zeros_like(covariance)
    anchor, level = GaussianAnchor(mean, covariance), torch.tensor(sigma, dtype=torch.float64)
    states = torch.from_numpy(latents)
    error = anchor.log_density(states, level) - exact_anchor(case.base).log_density(states, level)
    row = {"part": "anchors", "dimension": case.dimension, "anchor": kind, "sigma": sigma, "effect": None}
    row |= {"rms": float(error.square().mean().sqrt()), "largest": float(error.abs().max())}
    if case.dimension <= DIMENSION:
        few = states[:16]
        # The factor is exact in any discretisation, so a coarse one will do.
        options = {"latents": few, "sigma_max": sigma, "solver": "heun"}
        exact, moment_matched = (predict(case, 12, anchor=a, **options) for a in (exact_anchor(case.base), anchor))
        factor = torch.exp(-error[:16])[:, None] * exact.sensitivity
        row["effect"] = float(relative(moment_matched.sensitivity, factor).max())
    return row
