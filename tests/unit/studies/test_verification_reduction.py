"""Image-sized problems: laws taken apart into a small mixture and a Gaussian agree with the laws taken whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.close import assert_close
from torch import Tensor

from oracles import AdditivePerturbation, flow
from studies.errors import StudyError
from studies.verification import TASKS, verify
from studies.verification.faults.densities import upward
from studies.verification.laws import Law, law, oracle
from studies.verification.reduction import Reduction, is_reducible, reduction
from studies.verification.tasks.base import states

RNG = np.random.default_rng(0)


def pair(d: int = 30) -> tuple[Law, Law]:
    """A low-rank mixture and an isotropic one with the same variance across."""
    base = Law(
        "base",
        np.array([0.3, 0.7]),
        RNG.standard_normal((2, d)),
        factors=RNG.standard_normal((2, d, 2)),
        variances=np.full(2, 0.2),
    )
    return base, Law("toward", np.ones(1), RNG.standard_normal((1, d)), variances=np.full(1, 0.2))


@pytest.mark.parametrize("d", [784, 3072])
@pytest.mark.parametrize("which", [0, 1])
def test_densities_and_scores_are_those_of_the_whole_law(d: int, which: int) -> None:
    """Assert that the product's log density and score equal the low-rank oracle's, at image size."""
    laws = law(f"photo-{d}"), law(f"photo-{d}-toward")
    small, case = reduction(*laws), TASKS["sample"].case(f"photo-{d}-s0.3")
    x = states(case, np.random.default_rng(1), 0.3)
    whole = oracle(laws[which]).noised(0.3)
    assert_close(small.log_density(x, 0.3, which), whole.log_density(x), rtol=1e-10, atol=1e-9)
    assert_close(small.score(x, 0.3, which), whole.score(x), rtol=1e-9, atol=1e-9)


def test_flows_and_sensitivities_are_those_of_the_whole_law() -> None:
    """Assert that ends of the flow and their derivatives equal those integrated in all dimensions."""
    base, toward = pair()
    latents = 5.0 * RNG.standard_normal((3, 30))
    small = reduction(base, toward)
    perturbation = AdditivePerturbation(oracle(base), oracle(toward))
    samples, delta = flow.sensitivity(perturbation, latents, 5.0, 0.4)
    assert_close(small.sample(latents, 5.0, 0.4), samples, rtol=1e-9, atol=1e-9)
    assert_close(small.sensitivity(latents, 5.0, 0.4), delta, rtol=1e-7, atol=1e-9)
    assert np.linalg.norm(delta) > 1e-3


def test_laws_that_do_not_split_are_refused() -> None:
    """Assert that several variances across, and full covariances, are refused in a sentence."""
    base, toward = pair()
    with pytest.raises(StudyError, match="several variances across"):
        reduction(base, replace(toward, variances=np.full(1, 0.3)))
    with pytest.raises(StudyError, match="do not split"):
        reduction(law("plane"))
    assert not is_reducible(base)
    assert not is_reducible(law("fifty"))


def test_every_task_of_the_engine_that_can_has_an_image_sized_problem() -> None:
    """Assert that d = 784 or 3072 is in the quick suite, and d = 3072 in the full one."""
    names = {"score", "score-jacobian-product", "divergence", "log-density", "log-density-ratio", "sample"}
    for name in names | {"score-derivative", "sample-sensitivity"}:
        task = TASKS[name]
        assert max(case.base.dimension for case in task.suite("quick")) >= 784, name
        assert max(case.base.dimension for case in task.suite("full")) == 3072, name


def test_a_density_carried_by_heuns_method_is_rejected_at_image_size() -> None:
    """Assert that what this package did before (Heun's steps for log p, too) errs by nats there, and is told so."""

    small = reduction(law("photo-784"))

    def rate(x: Tensor, sigma: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        level, at = float(sigma), x.numpy()
        return -sigma * torch.tensor(small.score(at, level)), sigma * torch.tensor(_divergence(small, at, level))

    def carried(problem: Any, order: int) -> Tensor:
        end, total = upward(rate, problem.x, problem.grid.levels.flip(0), order)
        return problem.anchor.log_density(end, problem.grid.sigma_max) - total

    def heun(problem: Any) -> Tensor:
        return carried(problem, 2)

    def runge_kutta(problem: Any) -> Tensor:
        return carried(problem, 4)

    assert verify(runge_kutta, "log-density", problems=["photo-784-s0.14"], orders=False).holds
    report = verify(heun, "log-density", problems=["photo-784-s0.14"], orders=False)
    assert report.failed_checks == ("accuracy",)
    assert report.verdicts[0].measures["absolute_median"] > 1.0


def _divergence(small: Reduction, x: np.ndarray, sigma: float) -> np.ndarray:
    """`div s` (n,) of the product: inside by the small law, across `−1/(v + σ²)` each."""
    d, m = small.basis.shape
    inner = small.laws[0].noised(sigma).score_divergence(small.split(x)[0])
    return inner - (d - m) / (small.variance + sigma**2)
