"""Bounds: what a claim expects, in a form that yields both its words and its verdict.

A claim has a measured value m and, where something was repeated, an interval [l, h]. Either the *point* m decides or
the *interval* does; which of the two is part of the bound and of its words. There are three verdicts. With an allowed
set A:

| decides  | holds      | fails          | open                                           |
|----------|------------|----------------|------------------------------------------------|
| point    | m ∈ A      | m ∉ A          | m could not be measured                        |
| interval | [l, h] ⊂ A | [l, h] ∩ A = ∅ | [l, h] reaches across an end, or there is none |

`agrees(value, resolution)` is for two routes to one number: it holds if the interval contains the value and is short
enough to have seen a difference of `resolution`; it fails if the value lies outside; it is open if the interval is
longer. An open claim says what would decide it.

Example:
    >>> above(0.0, interval=True).judge(0.4, (0.1, 0.7)).verdict
    <Verdict.HOLDS: 'holds'>
    >>> above(0.0, interval=True).judge(0.4, (-0.1, 0.9)).reason
    'the interval reaches across 0: about twice as many independent repetitions would decide, if the estimate stays'
    >>> print(at_most(1e-6), "|", within(-0.1, 0.1, interval=True), "|", equals(1, 0.02))
    ≤ 1e-06 (point decides) | within [-0.1, 0.1] (interval decides) | 1 ± 0.02 (point decides)
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, final

__all__ = [
    "Agreement",
    "Bound",
    "Condition",
    "Judgement",
    "Recorded",
    "Region",
    "Tally",
    "Verdict",
    "above",
    "agrees",
    "all_of",
    "at_least",
    "at_most",
    "below",
    "equals",
    "restored",
    "within",
]

Ends = tuple[float, float]
UNREPEATED = "the bound is decided by an interval, and there is none: independent repetitions would decide"


class Verdict(StrEnum):
    """What a measurement says of a claim; *open*: too little was measured."""

    HOLDS = "holds"
    FAILS = "fails"
    OPEN = "open"


class Judgement(NamedTuple):
    """A verdict and, where it is open, what would decide it (otherwise empty)."""

    verdict: Verdict
    reason: str = ""


class Bound(abc.ABC):
    """What a claim expects; `str` gives its words. Made by the functions of this module only."""

    @abc.abstractmethod
    def judge(self, measured: float | str, interval: Ends | None) -> Judgement:
        """The verdict on a measured value and its interval; a sentence in place of a value leaves the claim open."""

    @abc.abstractmethod
    def stored(self) -> dict[str, Any]:
        """A JSON-able dictionary from which `restored` makes the bound again."""

    def smallest(self, measured: float | str, interval: Ends | None) -> float:
        """The smallest effect that could have been seen: how far beyond the bound an estimate with this interval must
        lie for the claim to hold. NaN where the point decides or there is no interval."""
        return math.nan


@final
@dataclass(frozen=True)
class Region(Bound):
    """The allowed set: values between two ends.

    Attributes:
        low, high: the ends, infinite where there is none.
        closed: whether the ends are allowed themselves.
        interval: whether the interval decides and not the point.
        slack: where the set is `value ± slack` in words, that slack.
    """

    low: float = -math.inf
    high: float = math.inf
    closed: bool = True
    interval: bool = False
    slack: float | None = None

    def __post_init__(self) -> None:
        if not (self.low <= self.high and (math.isfinite(self.low) or math.isfinite(self.high))):
            raise ValueError(f"a bound from {self.low} to {self.high} allows nothing or everything; give finite ends.")

    def __str__(self) -> str:
        return f"{self._words()} ({'interval' if self.interval else 'point'} decides)"

    def _words(self) -> str:
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"within [{self.low:g}, {self.high:g}]" if self.slack is None else self._equality(self.slack)
        sign = ("≥" if self.closed else ">") if math.isfinite(self.low) else ("≤" if self.closed else "<")
        return f"{sign} {self.low if math.isfinite(self.low) else self.high:g}"

    def _equality(self, slack: float) -> str:
        middle = f"{(self.low + self.high) / 2:g}"
        return f"exactly {middle}" if slack == 0 else f"{middle} ± {slack:g}"

    def _allows(self, value: float) -> bool:
        if self.closed:
            return self.low <= value <= self.high
        # An infinite end of an interval lies in an unbounded set.
        return (self.low < value or self.low == -math.inf) and (value < self.high or self.high == math.inf)

    def judge(self, measured: float | str, interval: Ends | None) -> Judgement:
        if isinstance(measured, str):
            return Judgement(Verdict.OPEN, f"it could not be measured: {measured}")
        if math.isnan(measured):
            return Judgement(Verdict.OPEN, "it could not be measured")
        if self.interval:
            return self._by_interval(measured, interval)
        return Judgement(Verdict.HOLDS if self._allows(measured) else Verdict.FAILS)

    def _by_interval(self, measured: float, interval: Ends | None) -> Judgement:
        if interval is None or math.isnan(interval[0]) or math.isnan(interval[1]):
            return Judgement(Verdict.OPEN, UNREPEATED)
        if self._allows(interval[0]) and self._allows(interval[1]):
            return Judgement(Verdict.HOLDS)
        if self._excludes(interval):
            return Judgement(Verdict.FAILS)
        return Judgement(Verdict.OPEN, self._deciding(measured, interval))

    def _excludes(self, interval: Ends) -> bool:
        low, high = interval
        return low > self.high or high < self.low or (not self.closed and (low >= self.high or high <= self.low))

    def _deciding(self, measured: float, interval: Ends) -> str:
        crossed = [end for end in (self.low, self.high) if math.isfinite(end) and interval[0] <= end <= interval[1]]
        where = " and ".join(f"{end:g}" for end in crossed)
        return f"the interval reaches across {where}: " + _more(
            max(_ratio(_reach(measured, interval, end), abs(measured - end)) for end in crossed)
        )

    def smallest(self, measured: float | str, interval: Ends | None) -> float:
        if not self.interval or isinstance(measured, str) or interval is None:
            return math.nan
        below, above = measured - interval[0], interval[1] - measured
        return max(below if math.isfinite(self.low) else -math.inf, above if math.isfinite(self.high) else -math.inf)

    def stored(self) -> dict[str, Any]:
        ends = {"low": self.low, "high": self.high}
        finite = {name: value if math.isfinite(value) else None for name, value in ends.items()}
        return {"kind": "region", **finite, "slack": self.slack, "closed": self.closed, "interval": self.interval}


@final
@dataclass(frozen=True)
class Agreement(Bound):
    """Two routes to one number: their difference, or the number, has `value` in its interval.

    Attributes:
        value: what is expected.
        resolution: the difference that matters; half the interval must not exceed it.
    """

    value: float
    resolution: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and 0 < self.resolution < math.inf):
            raise ValueError(
                f"value={self.value}, resolution={self.resolution}: give a finite value and a positive difference that "
                "would matter."
            )

    def __str__(self) -> str:
        return f"{self.value:g} in the interval, at most ± {self.resolution:.3g} long (interval decides)"

    def judge(self, measured: float | str, interval: Ends | None) -> Judgement:
        if isinstance(measured, str):
            return Judgement(Verdict.OPEN, f"it could not be measured: {measured}")
        if interval is None or math.isnan(interval[0]) or math.isnan(interval[1]):
            return Judgement(Verdict.OPEN, UNREPEATED)
        if not interval[0] <= self.value <= interval[1]:
            return Judgement(Verdict.FAILS)
        half = (interval[1] - interval[0]) / 2
        if half <= self.resolution:
            return Judgement(Verdict.HOLDS)
        words = f"a difference of {self.resolution:g} could not be seen with ± {half:.2g}: "
        return Judgement(Verdict.OPEN, words + _more(half / self.resolution))

    def smallest(self, measured: float | str, interval: Ends | None) -> float:
        return math.nan if interval is None else (interval[1] - interval[0]) / 2

    def stored(self) -> dict[str, Any]:
        return {"kind": "agreement", "value": self.value, "resolution": self.resolution}


@final
@dataclass(frozen=True)
class Recorded(Bound):
    """Words and verdict of a claim that was stored before bounds were kept with it; only stored files make one."""

    words: str
    verdict: Verdict

    def __str__(self) -> str:
        return self.words

    def judge(self, measured: float | str, interval: Ends | None) -> Judgement:
        return Judgement(self.verdict, "the stored claim does not say" if self.verdict is Verdict.OPEN else "")

    def stored(self) -> dict[str, Any]:
        return {"kind": "recorded", "words": self.words, "verdict": self.verdict.value}


@dataclass(frozen=True)
class Condition:
    """What else a claim needs, such as the accuracy of what is called fast.

    Attributes:
        what: the quantity, a noun.
        measured: its value.
        bound: what is expected of it.
        interval: its uncertainty, if it has one.
    """

    what: str
    measured: float
    bound: Bound
    interval: Ends | None = None

    def judge(self) -> Judgement:
        """The verdict on this condition alone."""
        verdict, reason = self.bound.judge(self.measured, self.interval)
        return Judgement(verdict, f"{self.what}: {reason}" if reason else "")

    def __str__(self) -> str:
        return f"{self.what} {self.bound}, measured {self.measured:.3g}"


def all_of(judgements: Iterable[Judgement]) -> Judgement:
    """Fails if one fails; otherwise open if one is open; otherwise holds."""
    parts = list(judgements)
    if any(verdict is Verdict.FAILS for verdict, _ in parts):
        return Judgement(Verdict.FAILS)
    reasons = [reason for verdict, reason in parts if verdict is Verdict.OPEN]
    return Judgement(Verdict.OPEN, "; ".join(reasons)) if reasons else Judgement(Verdict.HOLDS)


class Tally(NamedTuple):
    """How many claims hold, fail and are open.

    Example:
        >>> print(Tally(3, 1, 2), "|", Tally(1, 0, 0))
        3 of 6 claims hold, 2 are open | 1 of 1 claims hold
    """

    holds: int
    fails: int
    open: int

    @classmethod
    def of(cls, verdicts: Iterable[Verdict]) -> Tally:
        """Count verdicts."""
        counted = list(verdicts)
        return cls(*(counted.count(each) for each in (Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN)))

    def __str__(self) -> str:
        text = f"{self.holds} of {sum(self)} claims hold"
        return text if not self.open else f"{text}, {self.open} {'is' if self.open == 1 else 'are'} open"


def at_most(value: float, *, interval: bool = False) -> Bound:
    """At most `value`."""
    return Region(high=float(value), interval=interval)


def below(value: float, *, interval: bool = False) -> Bound:
    """Less than `value`."""
    return Region(high=float(value), closed=False, interval=interval)


def at_least(value: float, *, interval: bool = False) -> Bound:
    """At least `value`."""
    return Region(low=float(value), interval=interval)


def above(value: float, *, interval: bool = False) -> Bound:
    """More than `value`."""
    return Region(low=float(value), closed=False, interval=interval)


def within(low: float, high: float, *, interval: bool = False) -> Bound:
    """Between two values, ends included."""
    return Region(float(low), float(high), interval=interval)


def equals(value: float, slack: float = 0.0, *, interval: bool = False) -> Bound:
    """Equal to `value` up to `slack`; with `interval` all of the interval must lie there (equivalence).

    Raises:
        ValueError: a negative slack, or an interval that must be a point.
    """
    if not slack >= 0 or (interval and slack == 0):
        raise ValueError(f"slack={slack} is not positive; say by how much the value may differ (0 only for a point).")
    return Region(value - slack, value + slack, interval=interval, slack=float(slack))


def agrees(value: float, resolution: float) -> Bound:
    """`value` lies in the interval, which is short enough to have seen a difference of `resolution`."""
    return Agreement(float(value), float(resolution))


def restored(stored: Mapping[str, Any]) -> Bound:
    """The bound of which `stored` was written.

    Raises:
        ValueError, KeyError, TypeError: not a stored bound.
    """
    fields = dict(stored)
    kind = fields.pop("kind")
    if kind == "region":
        ends = {"low": -math.inf, "high": math.inf, "slack": None}
        whole: dict[str, Any] = {name: ends[name] if value is None else value for name, value in fields.items()}
        return Region(**whole)
    if kind == "agreement":
        return Agreement(**fields)
    if kind == "recorded":
        return Recorded(fields["words"], Verdict(fields["verdict"]))
    raise ValueError(f"there is no bound of kind {kind!r}; the file was written by another version.")


def _reach(measured: float, interval: Ends, end: float) -> float:
    """How far the interval reaches from the estimate to the side where `end` lies, or on the longer side."""
    below, above = measured - interval[0], interval[1] - measured
    return max(below, above) if measured == end else below if end < measured else above


def _ratio(reach: float, distance: float) -> float:
    return reach / distance if distance > 0 else math.inf


def _more(ratio: float) -> str:
    """Intervals shorten as the root of the number of repetitions."""
    times = ratio**2 if math.isfinite(ratio) else math.inf
    if times >= 1000:
        more = "more than a thousand times as many"
    elif times < 1.5:
        more = "somewhat more"
    elif times < 2.5:
        more = "about twice as many"
    else:
        more = f"about {float(f'{round(times):.2g}'):.0f} times as many"  # two digits, written out
    return f"{more} independent repetitions would decide, if the estimate stays"
