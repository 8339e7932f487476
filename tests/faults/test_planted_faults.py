"""Planted faults are rejected for their own reasons; their right counterparts and the engine hold."""

from __future__ import annotations

from typing import Any

import pytest

from studies.verification import TASKS, power, verify
from studies.verification.engine import ENGINE, STOCHASTIC, verify_engine
from studies.verification.faults import CORRECT, FAULTS
from studies.verification.fresh import count_alarms, problems, right
from studies.verification.replies import Reply

RIGHT = [(task, name, estimator) for task, one in CORRECT.items() for name, estimator in one.items()]
OURS = [(task, estimator) for task, one in ENGINE.items() for estimator in one]
# Sixteen and more repeats of a whole path; the slow tests have them.
COSTLY = ("kept_probe", "overconfident_density", "probed_density", "probed_ratio")


def few(task: str, fault: Any = None) -> list[str]:
    """Names of cheap cases: the first on which the fault must show and the first on which it must not."""
    suite = [case for case in TASKS[task].suite("quick") if case.base.dimension <= 40]
    cheap = [case for case in suite if "tail" not in case.tags]
    if fault is None:
        return [case.name for case in cheap[:2]] + [case.name for case in cheap if case.judge == "law"][:1]
    bad = [case.name for case in (cheap, suite)["underflow" in fault.name] if fault.where(case)]
    good = [case.name for case in cheap if not fault.where(case)]
    return bad[:1] + good[:1]


def test_there_are_enough_faults_and_every_task_has_some() -> None:
    """Assert that at least 25 faults cover all tasks, ten those of posteriors, and that no reason is given twice."""
    assert len(FAULTS) >= 25
    assert {fault.task for fault in FAULTS.values()} == set(TASKS) == set(CORRECT)
    posterior = {"posterior-score", "posterior-sample", "evidence"}  # of which the engine has none
    assert set(ENGINE) == set(TASKS) - posterior
    assert sum(fault.task in posterior for fault in FAULTS.values()) >= 10
    assert len({fault.reason for fault in FAULTS.values()}) == len(FAULTS)


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in COSTLY])
def test_a_planted_fault_is_caught_for_its_own_reason(name: str) -> None:
    """Assert that it fails its checks, on its cases, in its words, and holds elsewhere."""
    fault = FAULTS[name]
    problems = list(dict.fromkeys(few(fault.task, fault)))
    report = verify(fault.estimator, fault.task, problems=problems, orders=False)
    assert report.status == "falls short"
    assert set(report.failed_checks) <= set(fault.checks)
    failing = {verdict.case.name for verdict in report.failing}
    assert failing == {verdict.case.name for verdict in report.judged if fault.where(verdict.case)}


@pytest.mark.parametrize(
    ("task", "name", "estimator"),
    [entry for entry in RIGHT if entry[1] not in COSTLY],
    ids=[name for _, name, _ in RIGHT if name not in COSTLY],
)
def test_a_right_counterpart_holds(task: str, name: str, estimator: Any) -> None:
    """Assert that the same code without its fault holds."""
    report = verify(estimator, task, problems=few(task), orders=False)
    assert report.holds, report.findings()


@pytest.mark.parametrize(("task", "estimator"), OURS, ids=[f"{task}/{e.__name__}" for task, e in OURS])
def test_the_engine_holds(task: str, estimator: Any) -> None:
    """Assert that the engine's own estimator holds on the first cases of the task."""
    report = verify(estimator, task, problems=few(task)[:2], orders=False)
    assert report.holds, report.findings()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FAULTS))
def test_a_planted_fault_is_caught_on_the_whole_quick_suite(name: str) -> None:
    """Assert that it is rejected by exactly its checks on exactly its cases."""
    fault = FAULTS[name]
    assert fault.caught(verify(fault.estimator, fault.task, orders=False)) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "name", "problem", "plant", "check"),
    [
        ("sample-sensitivity", "sensitivity", "line-s0.05", power.factor(-0.01), "accuracy"),
        ("log-density", "probed_density", "plane-s0.1", power.bars(0.5), "error bars"),
    ],
    ids=["a sensitivity 1 % too small", "a log density with half its standard errors"],
)
def test_what_once_passed_the_quick_suite_is_rejected(
    task: str, name: str, problem: str, plant: power.Plant, check: str
) -> None:
    """Assert that the two wrong estimators that an earlier judge let pass are rejected, each by its own check."""

    def wrong(posed: Any) -> Any:
        answer = CORRECT[task][name](posed)
        value, bar = answer if isinstance(answer, tuple) else (answer, None)
        reply = Reply(value.numpy(), None if bar is None else bar.numpy())
        planted = plant(TASKS[task], reply.value, reply)
        return planted.value if bar is None else (planted.value, planted.standard_error)

    report = verify(wrong, task, problems=[problem], orders=False)
    assert report.failed_checks == (check,)


@pytest.mark.slow
def test_the_engine_holds_on_the_whole_quick_suite() -> None:
    """Assert that every report of the engine holds."""
    assert all(report.holds for report in verify_engine("quick"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "estimator", "problem"),
    [(task, each, problem) for task in TASKS for each in right(task) for problem in problems(task, each)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_no_fresh_seed_rejects_a_right_estimator(task: str, estimator: Any, problem: str) -> None:
    """Assert that 300 seeds, each with fresh rows of the problem's law, all hold."""
    assert count_alarms(estimator, task, problem)["rejected"] == []


@pytest.mark.slow
@pytest.mark.parametrize("task", list(STOCHASTIC))
def test_the_engines_stochastic_paths_hold(task: str) -> None:
    """Assert that Hutchinson's paths are unbiased and their standard errors honest."""
    for estimator in STOCHASTIC[task]:
        report = verify(estimator, task, problems=few(task), orders=False)
        assert report.holds, report.findings()
