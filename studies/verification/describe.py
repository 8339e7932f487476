"""A task in words, as Markdown: question, inputs, truth, limits, metrics, suite, and how to compute it anew."""

from __future__ import annotations

from studies.verification.metrics import ONE_IN_A_MILLION
from studies.verification.problem import FIELDS
from studies.verification.sight import sentence
from studies.verification.tasks import task as find_task
from studies.verification.tasks.base import Case, Task
from studies.verification.truths import digest

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
        _metrics(task),
        sentence(name),
        _suite(task),
    ]
    return "\n\n".join(part for part in parts if part)


def _field(field: str) -> str:
    return f"- `{field}`: {FIELDS[field]}" if field in FIELDS else f"- {field}"


def _stored(task: Task) -> str:
    if not task.slow:
        example = f'reproduce("{task.name}", "{task.cases[0].name}")'
        return f"It is computed when it is needed: `studies.verification.{example}` gives a problem and its truth."
    return f"The published rows (seed 0) are stored with the package; `{REGENERATE}` computes them anew."


def _limits(task: Task) -> str:
    if all(case.judge == "posterior" for case in task.cases):
        return f"Holds if both p-values are above {ONE_IN_A_MILLION:g}; at most {task.budget:,} score calls a problem."
    share = "every row errs" if task.quantile == 1.0 else f"{100 * task.quantile:.0f} % of the rows err"
    unit = ("nat" if task.noise == 1.0 else "nats") if task.absolute else "of the truth's size"
    noise = f"a standard deviation of {task.noise:g} {unit}" if task.noise else "none"
    return (
        f"Holds if {share} by at most {task.atol:g} + {task.rtol:g} |truth|; allowed noise: {noise}; "
        f"at most {task.budget:,} score calls a problem."
    )


def _metrics(task: Task) -> str:
    if all(case.judge == "law" for case in task.cases):
        return "Measured: Kolmogorov's distance along fixed directions."
    if all(case.judge == "posterior" for case in task.cases):
        return "Measured: ranks of hidden states (Kolmogorov's test), energy distance to exact draws (permutations)."
    size = "absolute, in nats" if task.absolute else "the norm over a row, absolute and relative to the truth's"
    text = (
        f"Measured: errors ({size}) by median, 90 %, 99 % and largest; of stochastic estimates bias, standard "
        "deviation, coverage and calibration of standard errors; score calls, seconds and memory."
    )
    laws = any(case.judge == "law" for case in task.cases)
    return text + (" Draws: Kolmogorov's test along axes and fixed random directions." if laws else "")


def _suite(task: Task) -> str:
    titles = ("problem", "digest", "suite", "d", "K", "σ", "rows", "laws (digests)", "special")
    head = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    return "\n".join([*head, *(_case(task, case) for case in task.cases)])


def _case(task: Task, case: Case) -> str:
    laws = f"{case.law} ({case.base.digest})"
    if case.toward is not None:
        laws += f", {case.toward} ({case.other.digest})"
    base = case.base
    cells = (
        case.name,
        digest(task, case)[:8],
        case.suite,
        base.dimension,
        len(base.weights),
        f"{case.sigma:g}",
        case.count,
        laws,
    )
    return "| " + " | ".join(map(str, (*cells, ", ".join(case.tags)))) + " |"
