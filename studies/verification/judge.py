"""Verdicts: named checks of one case, each with what was measured, what is allowed and a sentence.

Deterministic estimates are held to the limits row by row. Of stochastic ones, bias, noise and reported standard errors
are judged apart, from repeats with different seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from studies.verification import metrics
from studies.verification.bars import ALLOWED, Honesty, honesty
from studies.verification.laws import oracle
from studies.verification.replies import Reply
from studies.verification.tasks.base import Case, Task, rownorm

__all__ = ["Check", "Verdict", "judge", "reported", "two_digits"]


@dataclass(frozen=True)
class Check:
    """One thing that must hold: its name, the measured number, the limit, and a sentence."""

    name: str
    measured: float
    limit: float
    holds: bool
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The judgement of one case.

    Attributes:
        case: the case.
        checks: all that were made; the case holds if each does.
        replies: what the estimator returned, in order of the repeats.
        truth: the answer.
        scaled: error over limit of each row (n,), means over repeats where there are several.
        measures: numbers for the table and the stored rows.
        applicable: False where the estimator declined.
    """

    case: Case
    checks: tuple[Check, ...]
    replies: tuple[Reply, ...]
    truth: np.ndarray
    scaled: np.ndarray = field(default_factory=lambda: np.empty(0))
    measures: dict[str, float] = field(default_factory=dict)
    applicable: bool = True

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that do not hold."""
        return tuple(check.name for check in self.checks if not check.holds)

    @property
    def worst(self) -> int:
        """Index of the row with the largest scaled error (0 where there are none)."""
        return int(np.argmax(np.nan_to_num(self.scaled, nan=np.inf))) if self.scaled.size else 0


def judge(task: Task, case: Case, truth: np.ndarray, replies: list[Reply], slack: float) -> Verdict:
    """Hold the runs of one case against its truth; `slack` widens every limit."""
    kept = tuple(replies)
    if not all(reply.applicable for reply in replies):
        return Verdict(case, (), kept, truth, applicable=False)
    broken = next((reply for reply in replies if reply.error), None)
    if broken is not None:
        return Verdict(case, (Check(broken.check, np.nan, np.nan, False, broken.error),), kept, truth)
    values = np.stack([reply.value for reply in replies if reply.value is not None])
    finite = _finite(values)
    if not finite.holds:
        return Verdict(case, (finite,), kept, truth, measures=_cost(replies))
    if case.judge == "law":
        return _judge_law(case, values[0], kept, slack)
    if case.judge == "posterior":
        return _judge_posterior(case, values[0], truth, kept, slack)
    limit = slack * task.limit(truth)
    scaled = np.median(metrics.errors(values, truth), axis=0) / limit
    checks = [finite, *(_single if len(values) == 1 else _repeated)(task, values, truth, limit, replies, slack)]
    return Verdict(case, tuple(checks), kept, truth, scaled, _measures(values, truth, limit, replies))


def two_digits(value: float) -> str:
    """Two significant digits without needless exponents.

    Example:
        >>> two_digits(143.2), two_digits(0.00012)
        ('140', '0.00012')
    """
    return f"{float(f'{value:.2g}'):g}"


def _finite(values: np.ndarray) -> Check:
    share = float(np.isfinite(values).mean())
    return Check("finite", share, 1.0, share == 1.0, f"{share:.1%} of the values are finite.")


def _single(
    task: Task, values: np.ndarray, truth: np.ndarray, limit: np.ndarray, replies: list[Reply], slack: float
) -> list[Check]:
    error = float(np.quantile(metrics.errors(values, truth)[0] / limit, task.quantile, method="higher"))
    checks = [Check("accuracy", error, 1.0, error <= 1.0, _sentence(error, values, truth, task))]
    bars = reported(replies)
    if bars is not None and np.any(bars > 0):
        inside = metrics.coverage(values, bars, truth, limit)
        checks.append(Check("error bars", inside, 0.5, inside >= 0.5, f"{inside:.0%} within 1.96 standard errors."))
    return checks


def _repeated(
    task: Task, values: np.ndarray, truth: np.ndarray, limit: np.ndarray, replies: list[Reply], slack: float
) -> list[Check]:
    row = float(np.quantile(metrics.scaled_bias(values, truth, limit), task.quantile, method="higher"))
    shift = metrics.mean_shift(values, truth, limit)
    spread = metrics.noise(values, truth, task.absolute)
    worst = max(row, abs(shift))
    checks = [
        Check("bias", worst, 1.0, worst <= 1.0, _sentence(worst, values, truth, task)),
        Check("noise", spread, task.noise * slack, spread <= task.noise * slack, _noise(spread, task)),
    ]
    bars = reported(replies)
    honest = None if bars is None else honesty(values, bars)
    return checks if honest is None else [*checks, _honest(honest, len(values))]


def _honest(honest: Honesty, repeats: int) -> Check:
    sentence = (
        f"reported standard errors are {honest.ratio:.2f} × the observed standard deviation, "
        f"{honest.low:.2f} to {honest.high:.2f} by {repeats} repeats."
    )
    return Check("error bars", honest.ratio, 1 / ALLOWED if honest.ratio < 1 else ALLOWED, honest.holds, sentence)


def reported(replies: Sequence[Reply]) -> np.ndarray | None:
    """Reported standard errors of all repeats (R, ...), or None; NaN says that the estimator does not know."""
    bars = [reply.standard_error for reply in replies]
    if any(bar is None for bar in bars):
        return None
    shape = replies[0].value.shape[:1] if replies[0].value is not None else ()
    stacked = np.stack([np.broadcast_to(bar, shape) if np.ndim(bar) == 0 else bar for bar in bars if bar is not None])
    return stacked if np.all(np.isfinite(stacked)) else None


def _sentence(error: float, values: np.ndarray, truth: np.ndarray, task: Task) -> str:
    """How large the error is and what it looks like: a factor, a sign, an offset."""
    if error <= 1.0:
        return f"errors reach {two_digits(error)} of what is allowed."
    text = f"errors reach {two_digits(error)} times what is allowed"
    look = _look(values, truth, task)
    return f"{text}; {look}." if look else f"{text}."


def _look(values: np.ndarray, truth: np.ndarray, task: Task) -> str:
    mean = values.mean(axis=0)
    if task.absolute:
        offsets = mean - truth
        middle, spread = float(np.median(offsets)), float(np.std(offsets))
        if abs(middle) > 4 * spread:
            return f"a constant offset of {middle:+.3g}"
        negated = metrics.errors(-values, truth).mean()
        return "the sign is reversed" if negated < 0.2 * metrics.errors(values, truth).mean() else ""
    factor = metrics.scale(values, truth)
    flat, size = (mean - factor * truth), rownorm(truth)
    parallel = float(np.median(rownorm(flat) / np.maximum(np.abs(factor) * size, np.finfo(float).tiny)))
    if not np.isfinite(factor) or abs(factor - 1) < 0.02 or parallel > 0.2:
        return ""
    return "the sign is reversed" if abs(factor + 1) < 0.1 else f"about {factor:.3g} × the truth"


def _noise(spread: float, task: Task) -> str:
    return f"standard deviation {two_digits(spread)}" + (" (absolute)." if task.absolute else " of the truth's size.")


def _measures(values: np.ndarray, truth: np.ndarray, limit: np.ndarray, replies: list[Reply]) -> dict[str, float]:
    error = metrics.errors(values, truth)
    relative = error / np.maximum(rownorm(truth)[None], np.finfo(float).tiny)
    quantiles = {"median": 0.5, "q90": 0.9, "q99": 0.99, "largest": 1.0}
    out = {f"absolute_{name}": float(np.quantile(error, q)) for name, q in quantiles.items()}
    out |= {f"relative_{name}": float(np.quantile(relative, q)) for name, q in quantiles.items()}
    out["repeats"] = float(len(values))
    out["bias"] = float(np.median(metrics.bias(values, truth)))
    out["deviation"] = float(np.median(metrics.deviation(values))) if len(values) > 1 else 0.0
    bars = reported(replies)
    if bars is not None:
        out["coverage"] = metrics.coverage(values, bars, truth, limit)
        out["coverage_alone"] = metrics.coverage(values, bars, truth, 0.0 * limit)
        honest = honesty(values, bars) if len(values) > 1 else None
        out["calibration"] = honest.ratio if honest else float("nan")
        out |= {"calibration_low": honest.low, "calibration_high": honest.high} if honest else {}
    return out | _cost(replies)


def _cost(replies: list[Reply]) -> dict[str, float]:
    return {
        "calls": float(np.median([reply.calls for reply in replies])),
        "rows": float(np.median([reply.rows for reply in replies])),
        "seconds": float(np.median([reply.seconds for reply in replies])),
        "megabytes": float(max(reply.megabytes for reply in replies)),
    }


def _judge_law(case: Case, draws: np.ndarray, replies: tuple[Reply, ...], slack: float) -> Verdict:
    """Kolmogorov's test of the draws along the axes and fixed random directions, Bonferroni over all of them."""
    from studies.verification.draws import smallest_p

    p, direction = smallest_p(oracle(case.base), draws, case.sigma)
    limit = metrics.ONE_IN_A_MILLION / slack
    sentence = f"smallest p-value {p:.2g}, along direction {direction}; equal laws give less than {limit:g} that often."
    checks = (
        Check("finite", 1.0, 1.0, True, "100.0% of the values are finite."),
        Check("law", p, limit, p >= limit, sentence),
    )
    return Verdict(case, checks, replies, draws[:0], measures={"p": p, "repeats": 1.0} | _cost(list(replies)))


def _judge_posterior(
    case: Case, draws: np.ndarray, truth: np.ndarray, replies: tuple[Reply, ...], slack: float
) -> Verdict:
    """Calibration of ranks and energy distance to exact draws, each at one in a million."""
    from studies.verification.posteriors import calibration_p, energy_p, exact_draws

    hidden, observations = np.split(truth, [case.base.dimension], axis=1)
    limit = metrics.ONE_IN_A_MILLION / slack
    p_values = {
        "calibration": calibration_p(case, draws, hidden, observations),
        "energy": energy_p(draws, exact_draws(case, observations, draws.shape[1])),
    }
    words = {
        "calibration": "ranks of the hidden states among their draws are uniform with p-value",
        "energy": "the energy distance to exact draws has p-value",
    }
    checks = [
        Check(name, p, limit, p >= limit, f"{words[name]} {p:.2g}; right draws give less than {limit:g} that often.")
        for name, p in p_values.items()
    ]
    finite = Check("finite", 1.0, 1.0, True, "100.0% of the values are finite.")
    return Verdict(
        case, (finite, *checks), replies, truth[:0], measures={**p_values, "repeats": 1.0} | _cost(list(replies))
    )
