"""Verdicts on attributions: what must hold in each tier, what is only measured, and what a wrong one looks like.

Checks, by name:

- `correlation`: the lower end of the score's (LDS) 95 % interval is above what the same numbers reach when the points
  of every query are shuffled (one in a thousand). In the tier `images` this is all that is asked: better than chance
  on networks that were retrained; the share of the ceiling is reported.
- `derivative`, where the first-order truth is known: the attribution's score, less that of the derivative itself, is
  not below −0.05 by its interval (paired over subsets). What is as good as the derivative is right: no linear
  attribution was shown to be better than it by more than a few hundredths.
- `queries`: the numbers of different queries are not one ranking (mean rank correlation at most 0.99).
- `fresh`, in the tier `exact`: the score on latents and halves that were never published is not below the published one
  by more than 0.1 and two standard errors over queries and subsets: what was tuned on the queries falls.

Measured beside: ceiling and share of it, slope of the actual on the predicted change, rank correlation with the
derivative, worst query, what removing the ten most influential of each query does (exact tier), cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from studies.datamodelling import by_query, lds, paired
from studies.verification.attributions import exact, looks
from studies.verification.attributions.tiers import Truth, exact_setting, truth
from studies.verification.judge import Check, Verdict
from studies.verification.replies import Reply
from studies.verification.tasks.attribution import RetrainedCase, retrained
from studies.verification.tasks.base import Case

__all__ = ["judge_attribution", "posed"]

SHORT, TUNED, ALIKE, REMOVED = -0.05, 0.1, 0.99, 10
SHUFFLES, CHANCE = 40, 3.1  # one in a thousand of a normal law


def posed(case: Case) -> list[tuple[RetrainedCase, tuple[int, int]]]:
    """The problems that are put, with the shapes of their values: in the exact tier also one with fresh latents."""
    case = retrained(case)
    known = truth(case.setting, case.functional, case.seed)
    shape = (known.values.shape[2], known.masks.shape[1])
    return [(case, shape), (case.twin, shape)] if case.setting in exact.SETTINGS else [(case, shape)]


def judge_attribution(case: Case, replies: Sequence[Reply]) -> Verdict:
    """Hold an attribution of one problem against its truth.

    Args:
        case: a `RetrainedCase`.
        replies: to the published problem and, in the exact tier, of one with other latents.
    """
    case = retrained(case)
    name, functional, seed = case.setting, case.functional, case.seed
    known = truth(name, functional, seed)
    first = replies[0]
    broken = next((reply for reply in replies if reply.error), None)
    if not first.applicable:
        return Verdict(case, (), tuple(replies), known.values, applicable=False)
    if broken is not None:
        return Verdict(case, (Check(broken.check, np.nan, np.nan, False, broken.error),), tuple(replies), known.values)
    values = np.asarray(first.value)
    share = float(np.isfinite(values).mean())
    finite = Check("finite", share, 1.0, share == 1.0, f"{share:.1%} of the values are finite.")
    if not finite.holds:
        return Verdict(case, (finite,), tuple(replies), known.values, measures=_cost(first))
    score = _Score(case, values, known)
    checks = [finite, score.correlation(), *score.beside_derivative(), *score.queries()]
    if len(replies) > 1 and replies[1].value is not None:
        checks += [score.fresh(replies[1].value, truth(name, functional, case.twin.seed))]
    return Verdict(case, tuple(checks), tuple(replies), known.values, measures=score.measures() | _cost(first))


def _cost(reply: Reply) -> dict[str, float]:
    return {
        "repeats": 1.0,
        "calls": reply.calls,
        "rows": reply.rows,
        "seconds": reply.seconds,
        "megabytes": reply.megabytes,
    }


@dataclass
class _Score:
    """One attribution's score and what is said of it."""

    case: RetrainedCase
    values: np.ndarray
    known: Truth

    def __post_init__(self) -> None:
        self.lds = lds(self.known.masks, self.known.values, self.values)
        self.each = by_query(self.known.masks, self.known.values, self.values)

    def correlation(self) -> Check:
        (low, high), limit = self.lds.interval, self.chance()
        reason = "" if low > limit else f"; {looks.words(self.case, self.values)}"
        sentence = (
            f"score {self.lds.value:.2f} [{low:.2f}, {high:.2f}] over subsets and seeds, by chance up to {limit:.2f}"
        )
        return Check("correlation", low, limit, low > limit, f"{sentence}{reason}.")

    def chance(self) -> float:
        """What shuffled numbers reach."""
        rng = np.random.default_rng(0)
        ranks = [
            by_query(self.known.masks, self.known.values, rng.permuted(self.values, axis=1)) for _ in range(SHUFFLES)
        ]
        return CHANCE * float(np.sqrt(np.mean(np.square(np.mean(ranks, axis=1)))))

    def beside_derivative(self) -> list[Check]:
        if self.known.derivative is None:
            return []
        gap = paired(self.known.masks, self.known.values, self.values, self.known.derivative)
        holds = gap.bounds[1] >= SHORT
        look = "" if holds else f"; {looks.words(self.case, self.values)}"
        sentence = f"score less that of the derivative: {gap.estimate:.3f} [{gap.bounds[0]:.3f}, {gap.bounds[1]:.3f}]"
        return [Check("derivative", gap.bounds[1], SHORT, holds, f"{sentence}{look}.")]

    def queries(self) -> list[Check]:
        alike = _alike(self.values)
        sentence = f"the rankings of two queries correlate by {alike:.2f} on average"
        look = ": these are numbers of the points, not of their influence on a query" if alike > ALIKE else ""
        return [Check("queries", alike, ALIKE, alike <= ALIKE, f"{sentence}{look}.")]

    def fresh(self, values: np.ndarray, known: Truth) -> Check:
        """Against the score on other latents."""
        if not np.isfinite(values).all():
            return Check("fresh", np.nan, TUNED, False, "values on other latents are not finite.")
        each = by_query(known.masks, known.values, values)
        fall = float(self.each.mean() - each.mean())
        error = np.sqrt(self.each.var(ddof=1) / len(self.each) + each.var(ddof=1) / len(each))
        half = 2 * float(error)
        holds = bool(fall - half <= TUNED)
        words = f"score {each.mean():.2f} on latents that were never published, {self.lds.value:.2f} on the published"
        return Check("fresh", fall - half, TUNED, holds, words + ("." if holds else ": it was tuned on the queries."))

    def measures(self) -> dict[str, float]:
        low, high = self.lds.interval
        ceiling = self.lds.ceiling if np.isfinite(self.lds.ceiling) else 1.0
        numbers = {
            "lds": self.lds.value,
            "lds_low": low,
            "lds_high": high,
            "ceiling": ceiling,
            "share": self.lds.value / ceiling if ceiling > 0 else float("nan"),
            "slope": self.slope(),
            "worst": float(self.each.min()),
            "worst_query": float(self.each.argmin()),
        }
        if self.known.derivative is not None:
            numbers["rank"] = _rank(self.values, self.known.derivative)
        if self.case.setting in exact.SETTINGS and not self.case.seed:
            numbers["removal"] = removal(self.case, self.values)
        return numbers

    def slope(self) -> float:
        """Median over queries of the slope of actual on predicted changes; 1 for derivatives toward unit mass."""
        shares = self.known.masks / self.known.masks.sum(1, keepdims=True)
        predicted, actual = shares @ self.values.T, self.known.values.mean(0)
        predicted, actual = predicted - predicted.mean(0), actual - actual.mean(0)
        size = (predicted**2).sum(0)
        slopes = (predicted * actual).sum(0)[size > 0] / size[size > 0]
        return float(np.median(slopes)) if len(slopes) else float("nan")


def removal(case: RetrainedCase, values: np.ndarray, count: int = REMOVED) -> float:
    """How far outputs fall when their `count` most raising points are removed, over what the derivative's choice does.

    The mean fall over queries, networks retrained exactly, as a share of the fall by the exact derivative's own points.
    """
    setting = exact_setting(case.setting, case.seed)
    best = np.asarray(truth(case.setting, case.functional, case.seed).derivative)
    whole = np.ones((1, values.shape[1]), dtype=bool)
    (base,) = setting.values(whole, (case.functional,))[0]
    falls = [_fall(setting.values, case.functional, base, scores, count) for scores in (values, best)]
    return falls[0] / falls[1] if falls[1] else float("nan")


def _fall(
    outputs: Callable[..., np.ndarray], functional: str, base: np.ndarray, scores: np.ndarray, count: int
) -> float:
    masks = np.ones(scores.shape, dtype=bool)
    np.put_along_axis(masks, np.argsort(-scores, axis=1)[:, :count], False, axis=1)
    return float((base - np.diagonal(outputs(masks, (functional,))[0])).mean())


def _alike(values: np.ndarray) -> float:
    """Mean rank correlation of the numbers of two queries."""
    ranks = stats.rankdata(values, axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    size = np.linalg.norm(ranks, axis=1)
    kept = ranks[size > 0] / size[size > 0, None]
    if len(kept) < 2:
        return 0.0
    products = kept @ kept.T
    return float((products.sum() - len(kept)) / (len(kept) * (len(kept) - 1)))


def _rank(values: np.ndarray, derivative: np.ndarray) -> float:
    """Mean over queries of the rank correlation with the derivative, over points."""
    ranks = [stats.spearmanr(a, b).statistic if a.std() > 0 else 0.0 for a, b in zip(values, derivative, strict=True)]
    return float(np.mean(ranks))
