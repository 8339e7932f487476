"""A test problem as the engine sees it, its truth, and checks that the engine must pass and planted faults must not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oracles import AdditivePerturbation, GaussianMixture
from oracles.transport import QuantileOracle
from sensitivity import Grid, Mixture, Toward, sample_sensitivity
from studies.bridge import ExactLaw, engine_measure
from support.close import assert_close
from support.problems import PROBLEMS

SIGMA_MAX, SIGMA_MIN = 20.0, 0.2


@dataclass(frozen=True)
class Case:
    """Base law ρ, new law ν and latents at σ_max."""

    base: GaussianMixture
    toward: GaussianMixture
    latents: Tensor

    @property
    def truth(self) -> AdditivePerturbation:
        return AdditivePerturbation(self.base, self.toward)

    @cached_property
    def exact(self) -> ExactLaw:
        return ExactLaw(self.base)

    @cached_property
    def score(self) -> Any:
        """The exact score by the engine's own mixture: cheaper to differentiate than the oracle that judges it."""
        return engine_measure(self.base).score

    @cached_property
    def measure(self) -> Mixture:
        return engine_measure(self.toward)

    @property
    def change(self) -> Toward:
        return Toward(self.measure)


def case(name: str, samples: int = 5, seed: int = 0, sigma_max: float = SIGMA_MAX) -> Case:
    """The named problem with latents drawn from the base law at `sigma_max`."""
    problem = PROBLEMS[name]
    base, toward = (GaussianMixture(law.weights, law.means, law.covariances) for law in (problem.base, problem.toward))
    rng = np.random.default_rng(seed)
    clean = np.asarray(base.sample(samples, seed))
    return Case(base, toward, torch.from_numpy(clean + sigma_max * rng.standard_normal(clean.shape)))


def local_orders(errors: list[float], floor: float = 1e-12) -> list[float]:
    """log2 of the ratios of successive errors, steps doubling; errors at the rounding floor are refused."""
    if min(errors) < floor:
        raise AssertionError(f"an error of {min(errors):.1e} lies below the floor {floor:.0e}: the slope means nothing")
    return [float(np.log2(a / b)) for a, b in pairwise(errors)]


def assert_order(errors: list[float], order: int, within: float = 0.1) -> None:
    """Fail unless the last three local slopes are within `within` of the order."""
    slopes = local_orders(errors)[-3:]
    if len(slopes) != 3 or any(not abs(slope - order) <= within for slope in slopes):
        raise AssertionError(f"local slopes {np.round(slopes, 2).tolist()} are not within {within} of order {order}")


def check_line(**options: Any) -> None:
    """Fail unless samples and sensitivities in one dimension equal the quantile oracle to 1e-6."""
    problem = case("d1_k3_s0", samples=3)
    oracle = QuantileOracle(problem.base, problem.toward)
    samples, slope = oracle.sensitivity(problem.latents.numpy(), SIGMA_MAX, SIGMA_MIN)
    result = sample_sensitivity(
        problem.score,
        problem.latents,
        problem.change,
        Grid(SIGMA_MAX, SIGMA_MIN, 128),
        anchor=problem.exact,
        solver="rk4",
        products="double-vjp",
        **options,
    )
    assert_close(result.samples, torch.from_numpy(np.asarray(samples)), rtol=0, atol=1e-6)
    assert_close(result.sensitivity, torch.from_numpy(np.asarray(slope)), rtol=1e-6, atol=0)
