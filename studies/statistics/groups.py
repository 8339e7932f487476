"""Correlation within groups, the group as unit: what holds in each group, and not what distinguishes groups.

Two quantities can agree within every group and disagree over all of them together, or the reverse (Simpson 1951).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from studies.statistics._checks import check_level, finite, same_length
from studies.statistics.intervals import Interval, share_interval

__all__ = ["Within", "mean_of_units", "share_of_units", "shares_apart", "within_groups"]


@dataclass(frozen=True)
class Within:
    """Rank correlations within groups.

    Attributes:
        mean: over groups, with Student's interval over groups.
        each: of every group, by its name.
        pooled: over all values at once, groups disregarded; for comparison.
    """

    mean: Interval
    each: dict[Hashable, float]
    pooled: float


def mean_of_units(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Mean over independent units with Student's interval; infinite ends for a single unit.

    Example:
        >>> print(mean_of_units([1.0, 2.0, 3.0]))
        2 [-0.4841, 4.484]
    """
    data = finite("values", values)
    mean = float(data.mean())
    if len(data) < 2:
        return Interval(mean, -np.inf, np.inf)
    error = float(data.std(ddof=1) / np.sqrt(len(data)))
    half = float(stats.t.ppf((1 + check_level(level)) / 2, len(data) - 1)) * error
    return Interval(mean, mean - half, mean + half, error)


def share_of_units(successes: ArrayLike, trials: ArrayLike, *, level: float = 0.95) -> Interval:
    """Mean share over independent units that each had many trials, with the longer of two intervals on each side.

    Student's interval over units knows that units differ; of few units with equal shares it has no length. Wilson's of
    all trials, as if units did not differ, is what the trials alone allow.

    Args:
        successes, trials: (n,) counts of every unit.
        level: confidence level.

    Example:
        >>> share = share_of_units([0, 0], [64, 64])
        >>> share.estimate, round(share.high, 3)
        (0.0, 0.029)
    """
    counts, tries = finite("successes", successes), finite("trials", trials)
    same_length(counts, tries, "successes and trials")
    over = mean_of_units(counts / tries, level=level)
    alone = share_interval(round(float((counts / tries).mean() * tries.sum())), round(float(tries.sum())), level=level)
    return Interval(over.estimate, max(min(over.low, alone.low), 0.0), min(max(over.high, alone.high), 1.0))


def shares_apart(first: ArrayLike, second: ArrayLike, trials: ArrayLike, *, level: float = 0.95) -> Interval:
    """Mean difference of two shares of the same units, with the longer of two intervals on each side.

    Student's interval of the units' differences, and Newcombe's (1998, method 10) of all trials as if units did not
    differ; see `share_of_units`.

    Args:
        first, second: (n,) successes of every unit.
        trials: of each of both.
        level: confidence level.

    Example:
        >>> print(shares_apart([8], [2], [10]))
        0.6 [-1, 1]
        >>> difference = shares_apart([5, 5], [5, 5], [10, 10])
        >>> difference.low < 0 < difference.high
        True
    """
    one, other, tries = finite("first", first), finite("second", second), finite("trials", trials)
    same_length(one, other, "first and second")
    same_length(one, tries, "first and trials")
    over, total = mean_of_units((one - other) / tries, level=level), round(float(tries.sum()))
    a, b = (share_interval(round(float((each / tries).mean() * total)), total, level=level) for each in (one, other))
    low = over.estimate - math.hypot(a.estimate - a.low, b.high - b.estimate)
    high = over.estimate + math.hypot(a.high - a.estimate, b.estimate - b.low)
    return Interval(over.estimate, max(min(over.low, low), -1.0), min(max(over.high, high), 1.0))


def within_groups(x: ArrayLike, y: ArrayLike, groups: Iterable[Hashable], *, level: float = 0.95) -> Within:
    """Spearman's correlation of x and y in every group, and its mean over groups.

    Args:
        x, y: (n,).
        groups: n names; groups of fewer than three values, or in which one side is constant, are left out.
        level: confidence level.

    Raises:
        ValueError: different lengths, values that are not finite, or fewer than two groups with ranks.

    Example:
        >>> x, y = [1, 2, 3, 4, 11, 12, 13, 14], [14, 15, 16, 17, 1, 2, 3, 4]
        >>> slopes = within_groups(x, y, "aaaabbbb")
        >>> slopes.mean.estimate, round(slopes.pooled, 2)
        (1.0, -0.52)
    """
    a, b, names = finite("x", x), finite("y", y), list(groups)
    same_length(a, b, "x and y")
    if len(names) != len(a):
        raise ValueError(f"groups has {len(names)} names for {len(a)} values; give one for each.")
    each: dict[Hashable, float] = {}
    for name in dict.fromkeys(names):
        members = np.array([other == name for other in names])
        if members.sum() >= 3 and np.ptp(a[members]) > 0 and np.ptp(b[members]) > 0:
            each[name] = float(stats.spearmanr(a[members], b[members]).statistic)
    if len(each) < 2:
        raise ValueError(f"{len(each)} group(s) have three values that differ; two groups are the least.")
    return Within(mean_of_units(list(each.values()), level=level), each, float(stats.spearmanr(a, b).statistic))
