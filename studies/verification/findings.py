"""What was found of one estimator on one task: verdicts, sentences, rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.verification.judge import Verdict
from studies.verification.metrics import errors
from studies.verification.sight import sentence
from studies.verification.tasks.base import SUITES, Task, rownorm

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Findings"]

EXIT_CODES = {"holds": 0, "falls short": 1, "could not run": 2}


@dataclass(frozen=True)
class Findings:
    """What `verify` found, as numbers and sentences; `studies.verification.report.Report` shows them.

    Attributes:
        task: the task.
        estimator: what the estimator is called.
        suite: `quick` or `full`.
        backend: the array library.
        seed: 0 for the published suite.
        verdicts: one per case, in the suite's order.
        orders: observed orders, see `studies.verification.orders`.
        seconds: wall time of the whole.
        slack: factor by which every limit was widened; 1 for the task's own.
        chosen: the problems, where not the whole suite was posed.
    """

    task: Task
    estimator: str
    suite: str
    backend: str
    seed: int
    verdicts: tuple[Verdict, ...]
    orders: tuple[dict[str, Any], ...]
    seconds: float
    slack: float = 1.0
    chosen: tuple[str, ...] | None = None

    @property
    def judged(self) -> list[Verdict]:
        """The verdicts of the cases that the estimator did not decline."""
        return [verdict for verdict in self.verdicts if verdict.applicable]

    @property
    def retrained(self) -> bool:
        """Whether truths are retrained networks, and estimates attributions."""
        return all(case.judge == "lds" for case in self.task.cases)

    @property
    def status(self) -> str:
        """`holds`, `falls short`, or `could not run` (no case was answered at all)."""
        if not self.judged or all(verdict.failed == ("runs",) for verdict in self.judged):
            return "could not run"
        return "holds" if all(verdict.holds for verdict in self.judged) else "falls short"

    @property
    def holds(self) -> bool:
        """Whether every answered case holds, and at least one was answered."""
        return self.status == "holds"

    @property
    def exit_code(self) -> int:
        """0 holds, 1 falls short, 2 could not run."""
        return EXIT_CODES[self.status]

    @property
    def failing(self) -> list[Verdict]:
        """The verdicts that do not hold."""
        return [verdict for verdict in self.judged if not verdict.holds]

    @property
    def failed_checks(self) -> tuple[str, ...]:
        """Names of the checks that fail anywhere, in order of first appearance."""
        return tuple(dict.fromkeys(name for verdict in self.failing for name in verdict.failed))

    @property
    def where(self) -> list[str]:
        """Tags that tell failing cases from holding ones: every case with the tag fails, none without it does."""
        failing = {verdict.case.name for verdict in self.failing}
        tags = sorted({tag for verdict in self.judged for tag in verdict.case.tags})
        return [tag for tag in tags if failing == {v.case.name for v in self.judged if tag in v.case.tags}]

    @property
    def summary(self) -> str:
        """One sentence."""
        if self.status == "could not run":
            reason = self.judged[0].checks[0].sentence if self.judged else "it declined every problem."
            return f"{self.estimator} could not run on task {self.task.name}: {reason.rstrip('.')}."
        good, total = len(self.judged) - len(self.failing), len(self.judged)
        if self.holds:
            declined = len(self.verdicts) - total
            answered = (
                f"all {total} problems" if not declined else f"the {total} problems it answered ({declined} declined)"
            )
            return f"{self.estimator} holds on {answered} of task {self.task.name}{self._terms()}."
        place = f", exactly where the tag is {' or '.join(map(repr, self.where))}" if self.where else ""
        return (
            f"{self.estimator} falls short on {total - good} of {total} problems of task {self.task.name}{place} "
            f"(checks: {', '.join(self.failed_checks)}){self._terms()}."
        )

    def _terms(self) -> str:
        """What the caller chose that makes the verdict say less than the suite's."""
        terms = [f"every limit widened {self.slack:g} times"] if self.slack != 1 else []
        if self.chosen is not None:
            terms.append(
                f"only {', '.join(self.chosen)}" if len(self.chosen) < 4 else f"only {len(self.chosen)} chosen"
            )
        return f" ({'; '.join(terms)})" if terms else ""

    def findings(self) -> list[str]:
        """What fails, one sentence each; observed orders, the summary, the worst case and how to see it again, cost."""
        lines = [
            f"{verdict.case.name}, {check.name}: {check.sentence}"
            for verdict in self.failing
            for check in verdict.checks
            if not check.holds
        ]
        known = [entry for entry in self.orders if np.isfinite(entry["order"])]
        lines += [f"Observed order in {e['in']} on {e['problem']}: {e['order']:.2f}." for e in known]
        seen = [self.sees] if self.holds and self.sees else []
        lines += [_attributed(verdict) for verdict in self.judged if "lds" in verdict.measures]
        lacking = [] if self.chosen is not None else self.task.left_out(self.suite)
        return [*lines, self.summary, *self._worst_again(), *lacking, *self.beside(), *seen, *self._cost()]

    def beside(self) -> list[str]:
        """What the estimator did beside its answers, each with the problems where it did; all of it was undone."""
        places: dict[str, list[str]] = {}
        for verdict in self.verdicts:
            for habit in dict.fromkeys(habit for reply in verdict.replies for habit in reply.beside):
                places.setdefault(habit, []).append(verdict.case.name)
        return [
            f"Beside its answer it {habit} (undone; {names[0]}{f' and {len(names) - 1} more' if names[1:] else ''})."
            for habit, names in places.items()
        ]

    def _worst_again(self) -> list[str]:
        if not self.failing:
            return []
        command = self.command()
        again = [f"The worst problem alone: {command}"] if command else []
        return [*self._worst_row(), *again, f"In Python: {self.reproduce()}"]

    def _worst_row(self) -> list[str]:
        verdict = self.worst()
        if verdict is None or not verdict.scaled.size:
            return []
        row, name = verdict.worst, verdict.case.name
        values = np.stack([reply.value for reply in verdict.replies if reply.value is not None])
        error = float(np.median(errors(values, verdict.truth)[:, row]))
        size, allowed = float(rownorm(verdict.truth)[row]), error / float(verdict.scaled[row])
        return [
            f"Worst row: {name}, row {row}: error {error:.3g}, allowed {allowed:.3g}, size of the truth {size:.3g}."
        ]

    def _cost(self) -> list[str]:
        timed = [verdict for verdict in self.judged if "seconds" in verdict.measures]
        if not timed:
            return []
        most = max(timed, key=lambda verdict: verdict.measures["seconds"])
        calls, seconds, memory = (most.measures[key] for key in ("calls", "seconds", "megabytes"))
        return [f"Cost, at most: {calls:,.0f} score calls, {seconds:.2g} s and {memory:.0f} MB ({most.case.name})."]

    @property
    def sees(self) -> str:
        """The smallest faults that this suite was measured to see; empty where problems were left out."""
        posed = {verdict.case.name for verdict in self.judged}
        whole = [suite for suite in SUITES if {case.name for case in self.task.suite(suite)} <= posed]
        return sentence(self.task.name, whole[-1]) if whole else ""

    def worst(self) -> Verdict | None:
        """The failing verdict with the largest scaled error, or the worst of all if none fails."""
        from_failing = self.failing or self.judged
        if self.retrained:
            return min(from_failing, key=lambda v: v.measures.get("lds", -1.0), default=None)
        return max(from_failing, key=lambda v: float(np.max(v.scaled, initial=-1.0)), default=None)

    def reproduce(self) -> str:
        """Python that poses the worst problem again, with the seed that the estimator's first run had."""
        verdict = self.worst()
        if verdict is None:
            return ""
        given = f'"{self.task.name}", "{verdict.case.name}", seed={self.seed}, backend="{self.backend}"'
        return f"from studies.verification import reproduce; problem, truth = reproduce({given})  # row {verdict.worst}"

    def command(self) -> str:
        """The command line that judges the worst problem alone; empty where the estimator has no name to load it by."""
        verdict = self.worst()
        if verdict is None or ":" not in self.estimator or " " in self.estimator:
            return ""
        parts = ["studies verify", self.estimator, "--task", self.task.name, "--problem", verdict.case.name]
        parts += ["--backend", self.backend] if self.backend != "torch" else []
        parts += ["--slack", f"{self.slack:g}"] if self.slack != 1 else []
        return " ".join(parts + (["--seed", str(self.seed)] if self.seed else []))

    def problems(self) -> pd.DataFrame:
        """One row per case: verdict, error quantiles, bias, deviation, coverage, cost."""
        import pandas as pd

        return pd.DataFrame([self._summary_row(verdict) for verdict in self.verdicts])

    def _summary_row(self, verdict: Verdict) -> dict[str, Any]:
        case = verdict.case
        state = "declined" if not verdict.applicable else "holds" if verdict.holds else "falls short"
        return {
            "task": self.task.name,
            "estimator": self.estimator,
            "problem": case.name,
            "verdict": state,
            "failed": ", ".join(verdict.failed),
            "sentence": " ".join(check.sentence for check in verdict.checks if not check.holds),
            "dimension": case.dimension,
            "sigma": case.sigma,
            "tags": ", ".join(case.tags),
            "law": case.digest,
            **verdict.measures,
        }

    def rows(self) -> pd.DataFrame:
        """One row per case, repeat and row of the value: error, size of the truth, reported standard error."""
        import pandas as pd

        frames = [frame for verdict in self.judged if (frame := _row_frame(verdict)) is not None]
        empty = pd.DataFrame(columns=["problem", "repeat", "row", "error", "truth", "standard_error"])
        return pd.concat(frames, ignore_index=True) if frames else empty


def _attributed(verdict: Verdict) -> str:
    """The score of an attribution, its ceiling, and what else was measured, in words."""
    numbers = verdict.measures
    words = [f"{numbers['share']:.0%} of the ceiling {numbers['ceiling']:.2f}", f"slope {numbers['slope']:.2g}"]
    words += [f"rank correlation with the derivative {numbers['rank']:.2f}"] if "rank" in numbers else []
    if "removal" in numbers:
        words += [f"removing the ten points it names does {numbers['removal']:.0%} of what is possible"]
    words += [f"worst query {numbers['worst_query']:.0f} ({numbers['worst']:.2f})"]
    interval = f"[{numbers['lds_low']:.2f}, {numbers['lds_high']:.2f}]"
    return f"{verdict.case.name}: score {numbers['lds']:.2f} {interval}, {', '.join(words)}."


def _row_frame(verdict: Verdict) -> pd.DataFrame | None:
    import pandas as pd

    values = [reply.value for reply in verdict.replies]
    if verdict.case.judge != "rows" or any(value is None for value in values):
        return None
    stacked = np.stack([value for value in values if value is not None])
    repeats, n = stacked.shape[:2]
    bars = np.concatenate([_row_bar(reply.standard_error, n) for reply in verdict.replies])
    return pd.DataFrame(
        {
            "problem": verdict.case.name,
            "repeat": np.repeat(np.arange(repeats), n),
            "row": np.tile(np.arange(n), repeats),
            "error": errors(stacked, verdict.truth).ravel(),
            "truth": np.tile(rownorm(verdict.truth), repeats),
            "standard_error": bars,
        }
    )


def _row_bar(bar: np.ndarray | None, n: int) -> np.ndarray:
    if bar is None:
        return np.full(n, np.nan)
    return np.full(n, float(bar)) if bar.ndim == 0 else rownorm(bar)
