"""The linear datamodelling score of an attribution, with its uncertainty and its ceiling.

For random subsets S of the training data, networks are trained on each and an output f_q(S) is measured for every query
q. An attribution gives numbers τ_q(i) to training points i and predicts the output by their sum over the subset,
`g_q(S) = Σ_{i ∈ S} τ_q(i)`. The score is the mean over queries of Spearman's correlation over subsets of g_q with f_q
(Park et al. 2023, arXiv 2303.14186).

The interval is a jackknife over subsets (over 128 groups of them where there are more), the independent repetitions:
queries are those that were asked, and are not resampled. Where outputs have several seeds, the part of the variance
that seeds have in common over all subsets is added. The ceiling is what a perfect prediction of the mean output
attains, `√(Kr/(1 + (K − 1)r))`, r the mean rank correlation of two seeds (Spearman 1910, Brown 1910).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from studies.statistics import Interval
from studies.statistics.reliability import correlations, spearman_brown

__all__ = ["Lds", "by_query", "lds", "paired", "ranked", "ranked_apart"]

Floats = NDArray[np.float64]
Score = Callable[[Floats, Floats], float]
GROUPS = 128  # of the jackknife
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
    estimate = _interval(_score, predicted, f, 1.0)
    return Lds(estimate.estimate, estimate.bounds, _ceiling(f))


def by_query(masks: ArrayLike, outputs: ArrayLike, scores: ArrayLike) -> Floats:
    """The rank correlation of every query, (queries,), whose mean is the score; arguments as of `lds`."""
    subsets, f, tau = _checked(masks, outputs, scores)
    return _rank_correlations(subsets @ tau.T, f.mean(axis=0))


def paired(masks: ArrayLike, outputs: ArrayLike, first: ArrayLike, second: ArrayLike) -> Interval:
    """The score of one attribution less that of another on the same subsets, with its 95 % interval.

    Args:
        masks, outputs: as of `lds`.
        first, second: the attributions, (queries, N).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> masks, scores = rng.random((64, 100)) < 0.5, rng.normal(size=(8, 100))
        >>> outputs = masks @ scores.T + rng.normal(size=(64, 8))
        >>> paired(masks, outputs, scores, rng.normal(size=(8, 100))).bounds[0] > 0.5
        True
    """
    subsets, f, one = _checked(masks, outputs, first)
    other = _checked(masks, outputs, second)[2]
    predicted = np.stack([subsets @ one.T, subsets @ other.T], axis=-1)
    return _interval(_difference, predicted, f, 2.0)


def _difference(predicted: Floats, outputs: Floats) -> float:
    actual = _ranks(outputs.mean(axis=0).T)
    first, second = (correlations(_ranks(predicted[..., k].T), actual) for k in (0, 1))
    return float((np.nan_to_num(first) - np.nan_to_num(second)).mean())


def ranked(predicted: ArrayLike, outputs: ArrayLike) -> Lds:
    """The score of predictions that need not be sums over points.

    Args:
        predicted: (subsets, queries), what is said of each subset's output.
        outputs: as of `lds`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> outputs = rng.normal(size=(20, 3))
        >>> ranked(outputs**3, outputs).value
        1.0
    """
    g, f = _aligned(predicted, outputs)
    estimate = _interval(_score, g, f, 1.0)
    return Lds(estimate.estimate, estimate.bounds, _ceiling(f))


def ranked_apart(first: ArrayLike, second: ArrayLike, outputs: ArrayLike) -> Interval:
    """The score of one prediction less that of another, both (subsets, queries), with its 95 % interval.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> outputs = rng.normal(size=(40, 4))
        >>> ranked_apart(outputs, rng.normal(size=(40, 4)), outputs).low > 0.5
        True
    """
    (one, f), (other, _) = _aligned(first, outputs), _aligned(second, outputs)
    both = np.stack([one, other], axis=-1)
    return _interval(lambda p, o: _score(p[..., 0], o) - _score(p[..., 1], o), both, f, 2.0)


def _aligned(predicted: ArrayLike, outputs: ArrayLike) -> tuple[Floats, Floats]:
    g, f = (np.asarray(each, dtype=np.float64) for each in (predicted, outputs))
    f = f[None] if f.ndim == 2 else f
    if g.ndim != 2 or f.ndim != 3 or f.shape[1:] != g.shape or len(g) < FEWEST:
        raise ValueError(
            f"predicted and outputs have shapes {g.shape} and {np.shape(outputs)}; give (subsets, queries), at least "
            f"{FEWEST} subsets, and (subsets, queries) or (seeds, subsets, queries)."
        )
    if not (np.isfinite(g).all() and np.isfinite(f).all()):
        raise ValueError("predicted or outputs hold NaN or infinite values; leave out what could not be trained.")
    return g, f


def _interval(score: Score, predicted: Floats, outputs: Floats, most: float) -> Interval:
    """A score with its interval, within ± `most`."""
    value = score(predicted, outputs)
    variance, freedom = _variance(score, predicted, outputs)
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * variance**0.5
    return Interval(value, max(-most, value - half), min(most, value + half))


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
    return float(_rank_correlations(first, second).mean())


def _rank_correlations(first: Floats, second: Floats) -> Floats:
    return np.asarray(np.nan_to_num(correlations(_ranks(first.T), _ranks(second.T))))


def _ranks(values: Floats) -> Floats:
    """Ranks 1 … n along each row, ties at their mean: `scipy.stats.rankdata`, quicker where there are none."""
    values = np.ascontiguousarray(values)
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        return np.asarray(stats.rankdata(values, axis=1))
    ranks = np.empty_like(values)
    np.put_along_axis(ranks, order, np.arange(1.0, values.shape[1] + 1)[None], axis=1)
    return ranks


def _variance(score: Score, predicted: Floats, outputs: Floats) -> tuple[float, float]:
    """Of the score, and degrees of freedom: over subsets, and what seeds have in common over all of them."""
    seeds, subsets = outputs.shape[:2]
    parts = np.array_split(np.arange(subsets), min(subsets, GROUPS))
    without = [score(np.delete(predicted, part, 0), np.delete(outputs, part, 1)) for part in parts]
    over_subsets = _jackknife(np.array(without))
    if seeds < 2:
        return over_subsets, len(parts) - 1
    shared = max(0.0, _shared_by_seeds(score, predicted, outputs))
    total = over_subsets + shared
    # Of a sum of two variances (Welch 1947, Satterthwaite 1946).
    freedom = total**2 / (over_subsets**2 / (len(parts) - 1) + shared**2 / (seeds - 1)) if total > 0 else subsets - 1
    return total, freedom


def _shared_by_seeds(score: Score, predicted: Floats, outputs: Floats) -> float:
    """The variance of the score that seeds have in common over subsets.

    A seed is left out on two disjoint halves of the subsets at a time: what networks err by on their own is independent
    on the two, what a seed does to all subsets is not, and remains in the product of the two deviations.
    """
    seeds, subsets = outputs.shape[:2]
    rng, draws = np.random.default_rng(0), []
    for _ in range(SPLITS):
        order = rng.permutation(subsets)
        halves = (order[: subsets // 2], order[subsets // 2 :])
        first, second = (_seed_deviations(score, predicted[half], outputs[:, half]) for half in halves)
        # The jackknife's square of deviations, with one factor from each half.
        draws.append((seeds - 1) / seeds * float(first @ second))
    return float(np.mean(draws))


def _seed_deviations(score: Score, predicted: Floats, outputs: Floats) -> Floats:
    values = np.array([score(predicted, np.delete(outputs, k, 0)) for k in range(len(outputs))])
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
