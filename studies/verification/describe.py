"""A task in words, as Markdown: question, inputs, truth, limits, suite, and how to compute it anew."""

from __future__ import annotations

from studies.verification.problem import FIELDS
from studies.verification.tasks import task as find_task
from studies.verification.tasks.base import Case, Task

__all__ = ["describe"]

REGENERATE = "python -m studies.verification.regenerate"


def describe(name: str) -> str:
    """The task as Markdown.

    Args:
        name: one of `studies.verification.TASKS`.

    Raises:
        StudyError: unknown task.

    Example:
        >>> print(describe("score").splitlines()[0])
        ## score
    """
    task = find_task(name)
    parts = [
        f"## {task.name}",
        f"Asked: {task.question}.",
        "Given:\n\n" + "\n".join(_field(field) for field in task.inputs),
        f"Truth: {task.qualifies}. {_stored(task)}",
        _limits(task),
        _suite(task),
    ]
    return "\n\n".join(parts)


def _field(field: str) -> str:
    return f"- `{field}`: {FIELDS[field]}" if field in FIELDS else f"- {field}"


def _stored(task: Task) -> str:
    if not task.slow:
        return "Computed when it is needed."
    return f"The published rows (seed 0) are stored with the package; `{REGENERATE}` computes them anew."


def _limits(task: Task) -> str:
    share = "every row" if task.quantile == 1.0 else f"{task.quantile:.0%} of the rows"
    unit = "nats" if task.absolute else "of the truth's size"
    noise = f"a standard deviation of {task.noise:g} {unit}" if task.noise else "none"
    return (
        f"Holds if {share} err by at most {task.atol:g} + {task.rtol:g} |truth|; allowed noise: {noise}; "
        f"at most {task.budget:,} score calls a problem."
    )


def _suite(task: Task) -> str:
    head = "| problem | suite | d | K | σ | rows | laws (digests) | special |\n|---|---|---|---|---|---|---|---|"
    return "\n".join([head, *(_case(case) for case in task.cases)])


def _case(case: Case) -> str:
    laws = f"{case.law} ({case.base.digest})"
    if case.toward is not None:
        laws += f", {case.toward} ({case.other.digest})"
    base = case.base
    cells = (case.name, case.suite, base.dimension, len(base.weights), f"{case.sigma:g}", case.count, laws)
    return "| " + " | ".join(map(str, (*cells, ", ".join(case.tags)))) + " |"
