"""The onset: below which noise level networks on other data differ by more than networks of another seed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from studies.statistics import CensoredSlope, Interval, censored_slope

DELTA = 0.1
FEWEST = 3  # N of a scaling law
Floats = NDArray[np.float64]


def mean_interval(values: Floats, *, tail: float = 0.025) -> Interval:
    """Student's interval of a mean, `tail` on each side: the lower end alone is a one-sided bound at 1 − tail.

    Example:
        >>> print(mean_interval(np.array([1.0, 2.0, 3.0]), tail=0.05))
        2 [0.3141, 3.686]
    """
    data = np.asarray(values, dtype=float)
    mean = float(data.mean())
    if len(data) < 2:
        return Interval(mean, float("-inf"), float("inf"))
    error = float(data.std(ddof=1)) / len(data) ** 0.5
    half = float(stats.t.ppf(1 - tail, len(data) - 1)) * error
    return Interval(mean, mean - half, mean + half, error)


def crossing(levels: Floats, values: Floats, delta: float = DELTA) -> float:
    """Where values cross δ on the way down for good (at two neighbouring levels), log-linear between levels.

    Args:
        levels: σ, descending (n,).
        values: not negative (n,).

    Returns:
        The level; inf where values exceed δ from the first level on; NaN where they never do.

    Example:
        >>> round(crossing(np.array([1.0, 0.1, 0.01]), np.array([0.01, 1.0, 1.0])), 6)
        0.316228
    """
    above = values >= delta
    lasting = above & np.append(above[1:], True)
    if not lasting.any():
        return float("nan")
    first = int(lasting.argmax())
    if first == 0:
        return float("inf")
    # A value of zero lies far below δ, and has no logarithm.
    high, low = np.log(np.maximum(values[first - 1 : first + 1], 1e-3 * delta))
    share = 0.0 if high >= np.log(delta) else (np.log(delta) - high) / (low - high)
    return float(np.exp(np.log(levels[first - 1]) + share * np.log(levels[first] / levels[first - 1])))


@dataclass(frozen=True)
class Onset:
    """One geometry, objective and N.

    Attributes:
        level: the highest level that passes the test, in τ; NaN if none does. inf: the first level passes.
        crossings: of δ for each replicate (R,).
        interval: of their geometric mean (NaN unless all are finite).
        empirical: crossings of the exact empirical denoisers (R,).
        levels: σ/τ.
        bounds: lower t bounds of the log
        ratio (levels,).
        parts: data part from the mean over replicates of its square (levels,).
    """

    level: float
    crossings: Floats
    interval: tuple[float, float]
    empirical: Floats
    levels: Floats
    bounds: Floats
    parts: Floats


def onset(rows: pd.DataFrame) -> Onset:
    """The onset from the rows of one geometry, objective and N on the states `on`."""
    wide = {
        name: rows.pivot_table(index="level", columns="replicate", values=name).sort_index(ascending=False)
        for name in ("cross", "within", "data_square", "data_part", "empirical")
    }
    levels = wide["cross"].index.to_numpy(dtype=float)
    ratios = np.log(wide["cross"].to_numpy() / wide["within"].to_numpy())
    bounds = np.array([mean_interval(each, tail=0.05).low for each in ratios])
    parts = np.sqrt(np.maximum(0.0, wide["data_square"].to_numpy().mean(1)))
    passed = (bounds > 0) & (parts >= DELTA)
    lasting = passed & np.append(passed[1:], True)
    level = float("nan") if not lasting.any() else float("inf") if lasting[0] else float(levels[lasting.argmax()])
    crossings = np.array([crossing(levels, column) for column in wide["data_part"].to_numpy().T])
    exact = np.array([crossing(levels, column) for column in wide["empirical"].to_numpy().T])
    return Onset(level, crossings, _interval(crossings), exact, levels, bounds, parts)


def _interval(crossings: Floats) -> tuple[float, float]:
    if not np.isfinite(crossings).all():
        return float("nan"), float("nan")
    estimate = mean_interval(np.log(crossings))
    return float(np.exp(estimate.low)), float(np.exp(estimate.high))


@dataclass(frozen=True)
class Law:
    """`log σ_onset = a + b log N` over the N that all replicates cross.

    Attributes:
        slope: b, the mean of the replicates' own slopes with its t interval.
        used: those N.
        slopes: of the replicates (R,).
    """

    slope: Interval
    used: tuple[int, ...]
    slopes: Floats


def scaling(crossings: dict[int, Floats], among: Iterable[int] | None = None) -> Law | None:
    """The scaling law, each replicate fitted by itself; None below three N that all replicates cross.

    Args:
        crossings: N → (R,).
        among: N to which the fit is confined.

    Example:
        >>> law = scaling({n: np.array([1.0, 2.0]) * n**-0.5 for n in (1, 10, 100)})
        >>> round(law.slope.estimate, 9), law.used
        (-0.5, (1, 10, 100))
    """
    allowed = set(crossings if among is None else among)
    used = sorted(n for n, values in crossings.items() if n in allowed and np.isfinite(values).all())
    if len(used) < FEWEST:
        return None
    u = np.log(np.array(used, dtype=float))
    centred = u - u.mean()
    slopes = centred @ np.log(np.stack([crossings[n] for n in used])) / (centred @ centred)
    return Law(mean_interval(slopes), tuple(used), slopes)


def table(rows: pd.DataFrame) -> dict[tuple[str, str, int], Onset]:
    """The onset of every geometry, objective and N."""
    chosen = usual(rows)
    chosen = chosen[(chosen["kind"] == "level") & (chosen["states"] == "on")]
    keys = chosen[["geometry", "objective", "N"]].drop_duplicates()
    onsets = {}
    for g, o, n in zip(*(keys[name].tolist() for name in keys), strict=True):
        part = chosen[(chosen["geometry"] == g) & (chosen["objective"] == o) & (chosen["N"] == n)]
        onsets[str(g), str(o), int(n)] = onset(part)
    return onsets


def laws(onsets: dict[tuple[str, str, int], Onset], geometry: str, objective: str) -> tuple[Law | None, Law | None]:
    """The scaling laws of the networks and, over the same N, of the exact empirical denoisers."""
    by_count = {n: each for (g, o, n), each in onsets.items() if (g, o) == (geometry, objective)}
    networks = scaling({n: each.crossings for n, each in by_count.items()})
    exact = {n: each.empirical for n, each in by_count.items()}
    return networks, scaling(exact, None if networks is None else networks.used)


def censored(onsets: dict[tuple[str, str, int], Onset], geometry: str, objective: str) -> CensoredSlope | str:
    """The networks' scaling law over all N and replicates, onsets beyond the levels censored; or why there is none.

    The nested data of a replicate make its onsets dependent; the scatter about the line is taken as independent.
    """
    points = [
        (n, value) for (g, o, n), each in onsets.items() if (g, o) == (geometry, objective) for value in each.crossings
    ]
    levels = next(each.levels for (g, o, _), each in onsets.items() if (g, o) == (geometry, objective))
    counts, values = zip(*points, strict=True)
    try:
        return censored_slope(counts, values, lowest=float(levels.min()), highest=float(levels.max()))
    except ValueError as error:
        return f"too few onsets in range: {error}"


def usual(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the usual training length, without notes on what was skipped."""
    return rows[(rows["length"] == 1) & (rows["kind"] != "skipped")]
