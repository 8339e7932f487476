"""How well a number tells two kinds apart: the receiver operating characteristic and its area.

The area is the probability that a positive has a smaller value than a negative, ties counted as halves (Mann & Whitney
1947); its variance is that of DeLong, DeLong & Clarke-Pearson (Biometrics 44, 1988), from the placements of each value
among those of the other kind, and the interval is on the logit scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from studies.statistics._checks import check_level, finite
from studies.statistics.intervals import Interval

__all__ = ["Roc", "roc"]


@dataclass(frozen=True)
class Roc:
    """A curve and its area.

    Attributes:
        false, true: shares of negatives and of positives below each threshold, from (0, 0) to (1, 1).
        area: under the curve, with its interval.
    """

    false: NDArray[np.float64]
    true: NDArray[np.float64]
    area: Interval

    def true_at(self, false: float) -> float:
        """The largest share of positives at a share of false alarms of at most `false`."""
        return float(self.true[self.false <= false].max())


def roc(positives: ArrayLike, negatives: ArrayLike, *, level: float = 0.95) -> Roc:
    """Of a statistic that is smaller for positives.

    Args:
        positives, negatives: its values, (n,) and (m,), independent.
        level: confidence level of the area's interval.

    Raises:
        ValueError: values that are not finite, fewer than two of a kind, or a level that is not between 0 and 1.

    Example:
        >>> curve = roc([1.0, 2.0, 3.0], [2.5, 4.0, 5.0])
        >>> round(curve.area.estimate, 3), curve.true_at(0.0)
        (0.889, 0.6666666666666666)
    """
    one, other = finite("positives", positives), finite("negatives", negatives)
    if min(len(one), len(other)) < 2:
        raise ValueError(f"{len(one)} positives and {len(other)} negatives: two of each are the least.")
    cuts = np.unique(np.concatenate([one, other]))
    true, false = (np.concatenate([[0.0], np.searchsorted(np.sort(v), cuts, "right") / len(v)]) for v in (one, other))
    before = (one[:, None] < other) + 0.5 * (one[:, None] == other)
    area = float(before.mean())
    variance = before.mean(1).var(ddof=1) / len(one) + before.mean(0).var(ddof=1) / len(other)
    return Roc(false, true, _interval(area, float(np.sqrt(variance)), check_level(level)))


def _interval(area: float, error: float, level: float) -> Interval:
    if not 0 < area < 1 or error == 0:
        return Interval(area, float("nan"), float("nan"))  # told apart wholly, or not at all: no spread to go by
    logit, half = np.log(area / (1 - area)), stats.norm.ppf((1 + level) / 2) * error / (area * (1 - area))
    low, high = (float(1 / (1 + np.exp(-end))) for end in (logit - half, logit + half))
    return Interval(area, low, high, error)
