"""What estimators do beside their answer is undone and reported."""

from __future__ import annotations

import os
import random
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from studies.running.waiting import waiting
from studies.verification import verify
from studies.verification.problem import Problem
from studies.verification.session import reproduce

HABITS = {
    "changed torch's default dtype": lambda problem: torch.set_default_dtype(torch.float16),
    "changed torch's number of threads": lambda problem: torch.set_num_threads(torch.get_num_threads() + 1),
    "changed whether torch records gradients": lambda problem: torch.set_grad_enabled(False),
    "changed NumPy's handling of errors": lambda problem: np.seterr(all="raise"),
    "changed the current folder": lambda problem: os.chdir(Path.cwd().parent),
    "changed the filters of warnings": lambda problem: warnings.simplefilter("ignore"),
    "drew from torch's global random numbers": lambda problem: torch.rand(1),
    "drew from NumPy's global random numbers": lambda problem: np.random.random(),  # noqa: NPY002
    "drew from Python's global random numbers": lambda problem: random.random(),
    "wrote into its input x": lambda problem: problem.x.zero_(),
    "wrote into its input law.means": lambda problem: problem.law.means.add_(1.0),
    "printed 'half way' and 1 lines more": lambda problem: print("half way\nthere"),
}


def state() -> list[Any]:
    """All that the habits touch."""
    return [
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        np.geterr(),
        Path.cwd(),
        list(warnings.filters),
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
    ]


def right(problem: Problem) -> Tensor:
    """The score of the law."""
    return problem.law and _mixture(problem).score(problem.x)


def _mixture(problem: Problem) -> Any:
    from oracles import GaussianMixture

    given = problem.law
    return GaussianMixture(given.weights, given.means, given.covariances).noised(problem.sigma)


@pytest.mark.parametrize(("said", "habit"), HABITS.items(), ids=list(HABITS))
def test_a_habit_is_undone_and_said(said: str, habit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that a right answer still holds, that the process is as before, and that the report names the habit."""

    def estimator(problem: Problem) -> Tensor:
        answer = right(problem)
        habit(problem)
        return answer

    before = state()
    report = verify(estimator, "score", problems=["line-s0.3", "plane-s0.1"], orders=False)
    assert state() == before
    assert report.holds
    assert [reply.beside for verdict in report.verdicts for reply in verdict.replies] == [(said,)] * 2
    assert f"Beside its answer it {said} (undone; line-s0.3 and 1 more)." in report.findings()
    assert capsys.readouterr().out == ""


def test_words_of_those_who_wait_are_not_the_estimators(capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that what another thread says while an estimator works is heard, and not taken for its printing."""

    def slow(problem: Problem) -> Tensor:
        time.sleep(0.2)
        return right(problem)

    with waiting(lambda: "it", every=0.05):
        report = verify(slow, "score", problems=["line-s0.3"], orders=False)
    assert [reply.beside for reply in report.verdicts[0].replies] == [()]
    assert "waiting for it" in capsys.readouterr().err


def test_habits_do_not_reach_the_next_problem() -> None:
    """Assert that what one call wrote into its inputs is not what the next one, or the judge, sees."""

    def spoiler(problem: Problem) -> Tensor:
        problem.x.fill_(7.0)
        problem.law.means.fill_(7.0)
        return problem.x

    verify(spoiler, "score", problems=["line-s0.3"], orders=False)
    assert verify(right, "score", problems=["line-s0.3"], orders=False).holds
    assert float(reproduce("score", "line-s0.3")[0].x.max()) < 7.0


def test_global_random_numbers_are_those_of_the_problems_seed() -> None:
    """Assert that an estimator without a generator of its own is told from a deterministic one, and can be repeated."""

    def noisy(problem: Problem) -> Tensor:
        return right(problem) + 1e-9 * torch.randn(problem.x.shape, dtype=torch.float64)

    values = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        report = verify(noisy, "score", problems=["line-s0.3"], orders=False)
        values.append([reply.value for reply in report.verdicts[0].replies])
    assert np.array_equal(values[0], values[1])
    problem, _ = reproduce("score", "line-s0.3")
    assert problem.seed != reproduce("score", "line-s0.3", seed=1)[0].seed
