"""Problems: what estimators see, what they do not, and that a name is always the same law."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.close import assert_close

from oracles.lines import NormalMixture
from oracles.transport import QuantileOracle
from studies.errors import StudyError
from studies.verification import TASKS, describe, reproduce
from studies.verification.backends import backend, to_numpy
from studies.verification.laws import LAWS, law, oracle
from studies.verification.problem import BudgetError
from studies.verification.regenerate import problem_digests
from studies.verification.replies import call, pose
from studies.verification.tasks import task as find_task
from studies.verification.truths import DIGESTS, PROBLEMS, computed, digest, prepared, stored_cases

CASES = [(task, case) for task in TASKS.values() for case in task.cases]
SMALL = [(task, case) for task, case in CASES if case.base.dimension <= 10 and not task.slow]


def test_every_name_is_the_published_law() -> None:
    """Assert that each law has the committed digest, and that none is missing."""
    published = json.loads(DIGESTS.read_text())
    assert published == {name: law(name).digest for name in LAWS}


def test_every_problem_is_the_published_one() -> None:
    """Assert that a task and a problem's name stand for the published digest."""
    assert problem_digests() == json.loads(PROBLEMS.read_text())


@pytest.mark.parametrize(
    "change",
    [
        {"sigma": 0.31},
        {"alpha": 0.9},
        {"count": 31},
        {"spread": 2.0},
        {"tilt": 0.1},
        {"sigma_max": 9.0},
        {"law": "plane"},
    ],
    ids=str,
)
def test_another_problem_has_another_digest(change: dict[str, Any]) -> None:
    """Assert that whatever changes the rows or the answer changes the digest, and that a grid's steps do not."""
    task = TASKS["score"]
    case = task.case("line-s0.3")
    assert digest(task, replace(case, **change)) != digest(task, case)
    assert digest(task, replace(case, steps=7)) == digest(task, case)


@pytest.mark.parametrize("field", ["weights", "means", "full"])
def test_another_law_has_another_digest(field: str) -> None:
    """Assert that a parameter's change in the ninth decimal shows."""
    given = law("plane")
    moved = replace(given, **{field: getattr(given, field) + 1e-9})
    assert moved.digest != given.digest


def test_case_names_are_unique_within_a_task() -> None:
    """Assert that no two cases of a task share a name (case ignored, for file systems)."""
    for task in TASKS.values():
        names = [case.name.lower() for case in task.cases]
        assert len(set(names)) == len(names), task.name


def test_suites_span_dimensions_levels_and_forms() -> None:
    """Assert that the suites reach from d = 1 to 784, σ from 1e-3 to 80, and use every covariance form."""
    dimensions = {case.base.dimension for _, case in CASES}
    levels = {case.sigma for _, case in CASES}
    assert {1, 2, 5, 10, 100, 784, 3072} <= dimensions
    assert min(levels) <= 1e-3
    assert max(levels) >= 80.0
    assert {case.base.form for _, case in CASES} == {"full", "isotropic", "low-rank", "points"}
    assert len(TASKS) == 13


@pytest.mark.parametrize("name", list(TASKS))
def test_a_problem_has_the_fields_its_task_lists_and_no_truth(name: str) -> None:
    """Assert that fields are as documented, and that neither truth nor law is reachable as an attribute."""
    task = TASKS[name]
    problem, _ = reproduce(name, task.cases[0].name)
    given = set(dir(problem)) - {"name", "task"}
    documented = {field for field in task.inputs if " " not in field}
    assert documented <= given | {"seed"}
    assert given <= documented | {"seed", "count"}
    if "law" not in task.inputs:
        assert not hasattr(problem, "law")
    for field in given & {"score", "denoiser", "log_density"}:
        assert not hasattr(getattr(problem, field), "__self__")
        assert not getattr(getattr(problem, field), "__dict__", {})


def test_an_unknown_field_is_refused_with_the_known_ones() -> None:
    """Assert that a missing field raises a sentence that names what there is."""
    problem, _ = reproduce("score", "line-s0.3")
    with pytest.raises(AttributeError, match="has no 'latents'; it has law, x, sigma, alpha, seed"):
        _ = problem.latents
    assert "E[X" not in repr(problem)
    assert "log density" not in repr(problem)


def test_the_anchor_refuses_levels_below_the_top() -> None:
    """Assert that the anchor cannot be used as the answer."""
    problem, _ = reproduce("log-density", "plane-s0.1")
    problem.anchor.log_density(problem.x, problem.grid.sigma_max)
    with pytest.raises(ValueError, match="known at sigma >= 10"):
        problem.anchor.log_density(problem.x, problem.sigma)


def test_black_boxes_take_one_level_a_row() -> None:
    """Assert that sigma (n,) gives row by row what scalars give."""
    problem, _ = reproduce("log-density", "plane-s0.1", backend="numpy")
    levels = np.linspace(0.1, 2.0, len(problem.x))
    expected = np.stack([problem.score(row[None], level)[0] for row, level in zip(problem.x, levels, strict=True)])
    assert_close(problem.score(problem.x, levels), expected)
    with pytest.raises(ValueError, match="one level a row"):
        problem.score(problem.x, levels[:3])


def test_the_budget_ends_a_runaway_estimator() -> None:
    """Assert that a meter stops at its budget and the run says so."""
    task = dataclasses.replace(find_task("denoiser"), budget=20)
    case = task.case("line-s0.3")
    inputs, truth = prepared(task, case, 0)

    def endless(problem: Any) -> Any:
        while True:
            problem.score(problem.x, problem.sigma)

    run = call(endless, task, case, inputs, truth.shape, backend("numpy"), 0)
    assert run.check == "budget"
    assert run.calls == task.budget + 1
    assert issubclass(BudgetError, RuntimeError)


@pytest.mark.parametrize(("task", "case"), SMALL, ids=[f"{t.name}/{c.name}" for t, c in SMALL])
def test_fresh_seeds_draw_other_rows_of_the_same_problem(task: Any, case: Any) -> None:
    """Assert that seed 1 gives finite truths of equal shape for other rows."""
    (first, truth), (other, another) = prepared(task, case, 0), prepared(task, case, 1)
    assert truth.shape == another.shape
    assert np.isfinite(another).all()
    assert not np.array_equal(next(iter(first.values())), next(iter(other.values())))


def test_stored_truths_are_current() -> None:
    """Assert that every case of a slow task has a stored record under its present digest, and one is recomputed."""
    from studies.verification.truths import _stored

    assert {digest(task, case) for task, case in stored_cases()} == set(_stored())
    task = TASKS["sample-sensitivity"]
    case = task.case("gaussian-s0.1")
    inputs, truth = prepared(task, case, 0)
    again, value = computed(task, case, 0)
    assert_close(again["latents"], inputs["latents"], rtol=1e-9)
    assert_close(value, truth, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["sample-sensitivity", "influence"])
def test_stored_truths_on_the_line_equal_the_quantile_oracle(name: str) -> None:
    """Assert that truths by the flow equal the transport of distribution functions, which has no solver."""
    task = TASKS[name]
    case = next(case for case in task.cases if case.law == "line")
    inputs, truth = prepared(task, case, 0)
    base = _line(case.base.weights, case.base.means[:, 0], case.base.full[:, 0, 0])
    if name == "sample-sensitivity":
        others = [_line(case.other.weights, case.other.means[:, 0], case.other.full[:, 0, 0])]
    else:
        others = [_line(np.ones(1), point, np.zeros(1)) for point in inputs["data"]]
    samples, columns = None, []
    for other in others:
        samples, delta = QuantileOracle(base, other).sensitivity(inputs["latents"][:, 0], case.sigma_max, case.sigma)
        columns.append(delta)
    assert samples is not None
    if name == "influence":
        problem = pose(task, case, inputs, backend("numpy"), 0)
        gradient = problem.functional.gradient(samples[:, None])
        columns = [gradient[:, 0] * delta for delta in columns]
    assert_close(np.stack(columns, axis=1), truth, rtol=1e-6, atol=1e-8)


def _line(weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> NormalMixture:
    return NormalMixture(weights, means, variances)


def test_dense_covariances_match_the_oracle_in_every_form() -> None:
    """Assert that the parameters handed out describe the law that judges."""
    for name in ("plane", "singular", "ball", "points"):
        given = law(name)
        assert_close(given.covariances, oracle(given).covariances, rtol=1e-12, atol=1e-12)
        torch_side = given.map(backend("torch").array)
        assert_close(to_numpy(torch_side.covariances), given.covariances)


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    """Assert that laws, tasks, cases, suites and backends name what was probably meant."""
    for refused, words in (
        (lambda: law("plain"), "plane"),
        (lambda: find_task("log_density"), "log-density"),
        (lambda: find_task("score").case("line-s0.4"), "line-s0.3"),
        (lambda: find_task("score").suite("quik"), "quick"),
        (lambda: backend("pytorch"), "torch"),
    ):
        with pytest.raises(StudyError, match=words):
            refused()


@pytest.mark.parametrize("name", list(TASKS))
def test_a_task_describes_itself(name: str) -> None:
    """Assert that the description names every field, every case and every law with its digest."""
    text = describe(name)
    task = TASKS[name]
    assert all(case.name in text and case.base.digest in text for case in task.cases)
    assert all(field in text for field in task.inputs)
    assert all(digest(task, case)[:8] in text for case in task.cases)
    assert ("regenerate" in text) == task.slow
