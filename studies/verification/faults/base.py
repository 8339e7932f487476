"""What a planted fault is: a wrong estimator, its task, the reason it is wrong, and where and how it must be caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from studies.verification.replies import Estimator
from studies.verification.report import Report
from studies.verification.tasks.base import Case

__all__ = ["Fault", "everywhere", "planting", "tagged", "variant"]

Where = Callable[[Case], bool]


def everywhere(case: Case) -> bool:
    """The fault shows on every case."""
    return True


def tagged(*tags: str) -> Where:
    """The fault shows on the cases with one of these tags, and on no other."""
    return lambda case: bool(set(tags) & set(case.tags))


@dataclass(frozen=True)
class Fault:
    """A wrong estimator.

    Attributes:
        name: unique.
        task: the task it fails.
        estimator: the wrong function.
        reason: what is wrong, one sentence.
        checks: checks that must fail, and no others.
        where: the cases on which it must fail; on all others it must hold.
        says: a part of the report's sentence that names the fault, where the report can see it.
    """

    name: str
    task: str
    estimator: Estimator
    reason: str
    checks: tuple[str, ...]
    where: Where
    says: str

    def caught(self, report: Report) -> str:
        """Empty if the report rejects the fault for its own reason; else what is amiss, one sentence."""
        failing = {verdict.case.name for verdict in report.failing}
        expected = {verdict.case.name for verdict in report.judged if self.where(verdict.case)}
        if failing != expected:
            return f"{self.name} fails on {sorted(failing)}, expected {sorted(expected)}."
        if set(report.failed_checks) != set(self.checks):
            return f"{self.name} fails the checks {report.failed_checks}, expected {self.checks}."
        sentences = [check.sentence for verdict in report.failing for check in verdict.checks if not check.holds]
        if self.says and not any(self.says in sentence for sentence in sentences):
            return f"{self.name} is not described as {self.says!r}: {sentences[0]}"
        return ""


def variant(function: Callable[..., Any], name: str, **options: Any) -> Estimator:
    """The estimator `function(problem, **options)`, with a name for reports."""
    made = partial(function, **options)
    made.__name__ = name  # type: ignore[attr-defined]  # partial objects take attributes; reports read this one
    return made


def planting(task: str, function: Callable[..., Any]) -> Callable[..., Fault]:
    """A function (name, reason, …) of the faults of `function(problem, **options)`, options and `Fault`'s by keyword.

    Without options the function itself is wrong.
    """

    def planted(
        name: str,
        reason: str,
        *,
        checks: tuple[str, ...] = ("accuracy",),
        where: Where = everywhere,
        says: str = "",
        **options: Any,
    ) -> Fault:
        estimator = variant(function, name, **options) if options else function
        return Fault(name, task, estimator, reason, checks, where, says)

    return planted
