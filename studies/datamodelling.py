"""The linear datamodelling score of an attribution, with its uncertainty and its ceiling.

For random subsets S of the training data, networks are trained on each and an output f_q(S) is measured for every query
q. An attribution gives numbers τ_q(i) to training points i and predicts the output by their sum over the subset,
`g_q(S) = Σ_{i ∈ S} τ_q(i)`. The score is the mean over queries of Spearman's correlation over subsets of g_q with f_q
(Park et al. 2023, arXiv 2303.14186).

The interval is a jackknife over subsets, the independent repetitions: queries are those that were asked, and are not
resampled. Where outputs have several seeds, the part of the variance that seeds have in common over all subsets is
added. The ceiling is what a perfect prediction of the mean output attains, `√(Kr/(1 + (K − 1)r))`, r the mean rank
correlation of two seeds (Spearman 1910, Brown 1910).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from studies.statistics import Interval
from studies.statistics.reliability import correlations, spearman_brown

__all__ = ["Lds", "lds"]

Floats = NDArray[np.float64]
FEWEST = 4  # subsets: fewer have no ranks to speak of
SPLITS = 20
LEVEL = 0.95


class Lds(NamedTuple):
    """A linear datamodelling score.

    Attributes:
        value: mean over queries of the rank correlation over subsets.
        interval: (low, high) at 95 %, over subsets and, where there are several, seeds.
        ceiling: what a perfect prediction attains against these outputs; NaN with one seed.
    """

    value: float
    interval: tuple[float, float]
    ceiling: float


def lds(masks: ArrayLike, outputs: ArrayLike, scores: ArrayLike) -> Lds:
    """Score an attribution against networks trained on random subsets.

    Args:
        masks: (subsets, N), which of N training points each subset holds: booleans, or numbers 0 and 1.
        outputs: (subsets, queries), or (seeds, subsets, queries) for several trainings of each subset.
        scores: (queries, N), the attribution; larger where a point raises the output.

    Returns:
        The score, its interval and its ceiling. A query whose outputs or predictions are all equal has no ranks and
        counts as 0.

    Raises:
        ValueError: shapes that do not belong together, masks that are not 0 or 1, values that are not finite, or fewer
            than four subsets.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> masks, scores = rng.random((64, 100)) < 0.5, rng.normal(size=(8, 100))
        >>> outputs = masks @ scores.T + 2 * rng.normal(size=(2, 64, 8))
        >>> value, (low, high), ceiling = lds(masks, outputs, scores)
        >>> low < value < high, bool(abs(value - ceiling) < 0.05)
        (True, True)
    """
    subsets, f, tau = _checked(masks, outputs, scores)
    predicted = subsets @ tau.T
    value = _score(predicted, f)
    variance, freedom = _variance(predicted, f)
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * variance**0.5
    estimate = Interval(value, max(-1.0, value - half), min(1.0, value + half))
    return Lds(value, estimate.bounds, _ceiling(f))


def _checked(masks: ArrayLike, outputs: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats, Floats]:
    m, f, tau = (np.asarray(each, dtype=np.float64) for each in (masks, outputs, scores))
    f = f[None] if f.ndim == 2 else f
    if m.ndim != 2 or f.ndim != 3 or tau.ndim != 2 or f.shape[1:] != (len(m), len(tau)) or tau.shape[1] != m.shape[1]:
        raise ValueError(
            f"masks, outputs and scores have shapes {m.shape}, {np.shape(outputs)} and {tau.shape}; give (subsets, N), "
            "(subsets, queries) or (seeds, subsets, queries), and (queries, N)."
        )
    for name, values in (("masks", m), ("outputs", f), ("scores", tau)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds NaN or infinite values; leave out what could not be trained or scored.")
    if not np.isin(m, (0.0, 1.0)).all():
        raise ValueError("masks holds values other than 0 and 1; say for each point whether the subset holds it.")
    if len(m) < FEWEST or not f.size or not m.shape[1]:
        raise ValueError(f"outputs has shape {f.shape}: {FEWEST} subsets, one query and one point are the least.")
    return m, f, tau


def _score(predicted: Floats, outputs: Floats) -> float:
    return _mean_rank_correlation(predicted, outputs.mean(axis=0))


def _mean_rank_correlation(first: Floats, second: Floats) -> float:
    """Mean over columns of Spearman's correlation; 0 for a constant column."""
    ranks = (stats.rankdata(each, axis=0).T for each in (first, second))
    return float(np.nan_to_num(correlations(*ranks)).mean())


def _variance(predicted: Floats, outputs: Floats) -> tuple[float, float]:
    """Of the score, and degrees of freedom: over subsets, and what seeds have in common over all of them."""
    seeds, subsets = outputs.shape[:2]
    without = [_score(np.delete(predicted, s, 0), np.delete(outputs, s, 1)) for s in range(subsets)]
    over_subsets = _jackknife(np.array(without))
    if seeds < 2:
        return over_subsets, subsets - 1
    shared = max(0.0, _shared_by_seeds(predicted, outputs))
    total = over_subsets + shared
    freedom = total**2 / (over_subsets**2 / (subsets - 1) + shared**2 / (seeds - 1)) if total > 0 else subsets - 1
    return total, freedom


def _shared_by_seeds(predicted: Floats, outputs: Floats) -> float:
    """The variance of the score that seeds have in common over subsets.

    A seed is left out on two disjoint halves of the subsets at a time: what networks err by on their own is independent
    on the two, what a seed does to all subsets is not, and remains in the product of the two deviations.
    """
    seeds, subsets = outputs.shape[:2]
    rng, draws = np.random.default_rng(0), []
    for _ in range(SPLITS):
        order = rng.permutation(subsets)
        halves = (order[: subsets // 2], order[subsets // 2 :])
        first, second = (_seed_deviations(predicted[half], outputs[:, half]) for half in halves)
        draws.append((seeds - 1) / seeds * float(first @ second))
    return float(np.mean(draws))


def _seed_deviations(predicted: Floats, outputs: Floats) -> Floats:
    values = np.array([_score(predicted, np.delete(outputs, k, 0)) for k in range(len(outputs))])
    return np.asarray(values - values.mean())


def _jackknife(values: Floats) -> float:
    return float((len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum())


def _ceiling(outputs: Floats) -> float:
    seeds = len(outputs)
    if seeds < 2:
        return float("nan")
    pairs = itertools.combinations(outputs, 2)
    reliability = float(np.mean([_mean_rank_correlation(a, b) for a, b in pairs]))
    return float(np.sqrt(spearman_brown(min(reliability, 1.0), seeds))) if reliability > 0 else 0.0
