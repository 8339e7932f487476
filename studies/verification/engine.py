"""The engine's own estimators, posed as estimators of the tasks: what `studies verify --engine` judges.

Each is the shortest use of a public function of `sensitivity`; they double as examples of how to write an estimator.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import sensitivity
import sensitivity.noise
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.traces import Trace
from sensitivity.jacobians.trial import choose
from studies.verification.problem import Problem
from studies.verification.replies import Estimator
from studies.verification.report import Report
from studies.verification.session import verify

__all__ = ["ENGINE", "verify_engine"]


def measure(law: Any) -> sensitivity.Mixture | sensitivity.Points:
    """The engine's measure of given parameters, in their leanest form."""
    if getattr(law, "form", "full") == "points":
        return sensitivity.Points(law.means, law.weights)
    if getattr(law, "form", "full") == "isotropic":
        return sensitivity.Mixture(law.weights, law.means, law.variances)
    return sensitivity.Mixture(law.weights, law.means, law.covariances)


def grid(problem: Problem) -> sensitivity.Grid:
    """The proposed grid as the engine's."""
    return sensitivity.Grid.from_levels(problem.grid.levels)


def toward(problem: Problem) -> sensitivity.Toward:
    """The perturbation as the engine's."""
    return sensitivity.Toward(measure(problem.perturbation.measure))


def score(problem: Problem) -> Tensor:
    """`Mixture.score`, at `z/α` and `σ/α`, over α."""
    return measure(problem.law).score(problem.x / problem.alpha, problem.sigma / problem.alpha) / problem.alpha


def denoiser(problem: Problem) -> Tensor:
    """`D = y + τ² s_τ(y)` with the engine's mixture."""
    return (problem.x + problem.sigma**2 * score(problem)) / problem.alpha


def _field(problem: Problem) -> tuple[Products, Tensor]:
    level = torch.tensor(problem.sigma, dtype=torch.float64)
    return choose(Products(problem.score), problem.x, level), level


def jacobian_product(problem: Problem) -> Tensor:
    """`Products.jvp` by the method that its trial chooses."""
    products, level = _field(problem)
    return products.jvp(problem.x, level, problem.vectors[None])[1][0]


def divergence(problem: Problem, *, trace: str = "exact") -> Any:
    """`Trace.divergence`, exact or by probes with a standard error over the groups."""
    products, level = _field(problem)
    probes = None if trace == "exact" else problem.probes
    kind = Trace.resolve(trace, probes, problem.x.shape[1])
    noise = sensitivity.noise.Noise.draw(len(problem.x), seed=problem.seed)
    groups = kind.divergence(products, problem.x, level, noise, step=0)[1]
    if kind.exact:
        return groups[0]
    return groups.mean(0), groups.std(0) / len(groups) ** 0.5


def log_density(problem: Problem, *, trace: str = "exact") -> Any:
    """`sensitivity.log_density` by the flow."""
    probes = None if trace == "exact" else problem.probes
    estimate = sensitivity.log_density(
        problem.score,
        problem.x,
        problem.sigma,
        anchor=problem.anchor,
        grid=grid(problem),
        trace=trace,
        probes=probes,
        seed=problem.seed,
        solver="heun",
    )
    return estimate.value if trace == "exact" else (estimate.value, estimate.standard_error)


def log_density_ratio(problem: Problem) -> Tensor:
    """`Toward.log_ratio` with the flow's log density."""
    level = torch.tensor(problem.sigma, dtype=torch.float64)
    return toward(problem).log_ratio(problem.x, level, log_density(problem))


def score_derivative(problem: Problem) -> Tensor:
    """`sensitivity.score_derivative` with the exact log density given."""
    density = problem.log_density(problem.x, problem.sigma)
    return sensitivity.score_derivative(problem.score, problem.x, problem.sigma, toward(problem), log_density=density)


def sample(problem: Problem) -> Tensor:
    """`sensitivity.sample` by Heun's method."""
    return sensitivity.sample(problem.score, problem.latents, grid(problem)).samples


def sample_sensitivity(problem: Problem, *, trace: str = "exact") -> Any:
    """`sensitivity.sample_sensitivity` by Heun's method."""
    result = sensitivity.sample_sensitivity(
        problem.score,
        problem.latents,
        toward(problem),
        grid(problem),
        anchor=problem.anchor,
        trace=trace,
        probes=None if trace == "exact" else problem.probes,
        seed=problem.seed,
        standard_error=trace != "exact",
    )
    return result.sensitivity if trace == "exact" else (result.sensitivity, result.standard_error)


def influence(problem: Problem) -> Tensor:
    """`sensitivity.influence`: one adjoint solve for all points."""
    return sensitivity.influence(
        problem.score,
        problem.latents,
        problem.functional,
        problem.data,
        grid(problem),
        anchor=problem.anchor,
        trace="exact",
    ).values


def _probed(function: Callable[..., Any], trace: str) -> Estimator:
    def estimator(problem: Problem) -> Any:
        return function(problem, trace=trace)

    estimator.__name__ = f"{function.__name__}[{trace}]"
    return estimator


# Estimators by random probes: they are told from exact ones on every problem, for in few dimensions some are exact.
RANDOM: dict[str, tuple[Estimator, ...]] = {
    "divergence": (_probed(divergence, "hutchinson"), _probed(divergence, "hutch++")),
}

ENGINE: dict[str, tuple[Estimator, ...]] = {
    "score": (score,),
    "denoiser": (denoiser,),
    "score-jacobian-product": (jacobian_product,),
    "divergence": (divergence, *RANDOM["divergence"]),
    "log-density": (log_density,),
    "log-density-ratio": (log_density_ratio,),
    "sample": (sample,),
    "score-derivative": (score_derivative,),
    "sample-sensitivity": (sample_sensitivity,),
    "influence": (influence,),
}

# Many repeats of a stochastic path: kept out of the quick suite.
STOCHASTIC: dict[str, tuple[Estimator, ...]] = {
    "log-density": (_probed(log_density, "hutchinson"),),
    "sample-sensitivity": (_probed(sample_sensitivity, "hutchinson"),),
}


def verify_engine(
    suite: str = "quick", *, seed: int = 0, workers: int = 1, progress: Callable[[str], None] | None = None
) -> list[Report]:
    """Hold every estimator of the engine against the truth: one report each.

    Args:
        suite: `"quick"`, or `"full"`, which adds cases and the stochastic paths.
        seed: 0 for the published suite.
        workers: processes; 1 stays in this one. Verdicts do not depend on it.
        progress: called with a line before each report, or with several processes after it.

    Raises:
        StudyError: unknown suite.
    """
    jobs = [(task, place) for task in ENGINE for place in range(len(_estimators(task, suite)))]
    if workers == 1:
        return [_report(task, place, suite, seed, progress) for task, place in jobs]
    return _on_workers(jobs, suite, seed, workers, progress)


def _on_workers(
    jobs: list[tuple[str, int]], suite: str, seed: int, workers: int, progress: Callable[[str], None] | None
) -> list[Report]:
    from distributed import as_completed

    from studies.running.execution import local_client

    reports = {}
    with local_client(workers) as client:
        # The dearest come last in the list and first to the workers.
        futures = {client.submit(_on_worker, *job, suite, seed, pure=False): job for job in reversed(jobs)}
        for future, report in as_completed(futures, with_results=True):
            reports[futures[future]] = report
            if progress is not None:
                progress(f"{report.task.name}: {report.estimator}, done")
    return [reports[job] for job in jobs]


def _on_worker(task: str, place: int, suite: str, seed: int) -> Report:
    torch.set_num_threads(1)  # of the thread that works
    gc.freeze()  # what is imported lives as long as this worker
    return _report(task, place, suite, seed)


def _estimators(task: str, suite: str) -> tuple[Estimator, ...]:
    return (*ENGINE[task], *(STOCHASTIC.get(task, ()) if suite == "full" else ()))


def _report(task: str, place: int, suite: str, seed: int, progress: Callable[[str], None] | None = None) -> Report:
    estimator = _estimators(task, suite)[place]
    if progress is not None:
        progress(f"{task}: {estimator.__name__}")
    exact = not any(estimator in each.get(task, ()) for each in (RANDOM, STOCHASTIC))
    return verify(estimator, task, suite=suite, seed=seed, name=f"sensitivity: {estimator.__name__}", seedless=exact)
