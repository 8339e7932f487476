"""Agreement of predicted and actual changes, latent by latent, and what the noise of retraining allows."""

from __future__ import annotations

import functools
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from studies.statistics import Interval, centred, perfect_shares, products, spearman_brown

Array = np.ndarray
RESAMPLES = 1000
DECIMALS = 4  # of stored lists: far below every interval, and a quarter of the size


def pearson(a: Array, b: Array) -> Array:
    """Correlation over pixels of each row of (n, pixels), (n,); 0 where either row is constant (nothing is
    predicted)."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return cosines(a, b)


def cosines(a: Array, b: Array) -> Array:
    """Cosine of the angle between rows, (n,); 0 where either row vanishes."""
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), size, out=np.zeros(len(a)), where=size > 0)


def short(values: Array, decimals: int = DECIMALS) -> list[float]:
    """A list of rounded numbers, as rows keep it."""
    rounded: list[float] = np.round(np.asarray(values, dtype=float), decimals).tolist()
    return rounded


def significant(values: Array, digits: int) -> list[float]:
    """All numbers in so many significant digits, one list.

    Example:
        >>> significant(np.array([[123.4, 0.01234]]), 3)
        [123.0, 0.0123]
    """
    return [float(f"{value:.{digits}g}") for value in np.asarray(values).ravel()]


def agreement(predicted: Array, actual: Array) -> dict[str, Any]:
    """Per-latent correlation and cosine; rank correlation of norms and the slope of actual on predicted change, with
    bootstrap intervals over latents."""
    lengths = np.linalg.norm(predicted, axis=1), np.linalg.norm(actual, axis=1)
    products, squares = (predicted * actual).sum(axis=1), (predicted**2).sum(axis=1)
    values: dict[str, Any] = {
        "correlation": short(pearson(predicted, actual)),
        "cosine": short(cosines(predicted, actual)),
        "predicted_norm": short(lengths[0]),
        "actual_norm": short(lengths[1]),
        "unpredicted": int((lengths[0] == 0).sum()),
    }
    for name, value in (("norm_rank", norm_rank(*lengths)), ("calibration", slope(products, squares))):
        values |= {name: value.estimate, f"{name}_low": value.low, f"{name}_high": value.high}
    return values


def norm_rank(predicted: Array, actual: Array) -> Interval:
    """Spearman's correlation of predicted and actual norms, bootstrap over latents; 0 where no norm differs."""
    if np.ptp(predicted) == 0 or np.ptp(actual) == 0:
        return Interval(0.0, 0.0, 0.0)
    ranks = stats.rankdata(predicted), stats.rankdata(actual)
    draws = _draws(len(predicted))
    correlation = pearson(ranks[0][None], ranks[1][None])
    return _interval(float(correlation[0]), pearson(ranks[0][draws], ranks[1][draws]))


def slope(products: Array, squares: Array) -> Interval:
    """The calibration slope `Σ p·a / Σ |p|²`, bootstrap over latents; 0 where nothing is predicted."""
    if not squares.sum() > 0:
        return Interval(0.0, 0.0, 0.0)
    draws = _draws(len(squares))
    slopes = products[draws].sum(axis=1) / np.maximum(squares[draws].sum(axis=1), 1e-300)
    return _interval(float(products.sum() / squares.sum()), slopes)


def between_pairs(changes: Array) -> Array:
    """Mean correlation over pixels of the changes of two of P pairs (P, n, pixels), per latent, (n,)."""
    return np.mean([pearson(changes[i], changes[j]) for i, j in combinations(range(len(changes)), 2)], axis=0)


def trained_products(predicted: Array, changes: Array) -> dict[str, list[float]]:
    """Products over pixels of the prediction and every pair's change, latent by latent, the upper triangle end to end;
    and the same after the mean change over latents is taken from both sides."""
    upper = np.triu_indices(len(changes) + 1)
    tables = {"products": products(predicted, changes), "centred": products(centred(predicted), centred(changes))}
    return {name: short(table[:, *upper].ravel()) for name, table in tables.items()}


def from_products(stored: Array, pairs: int) -> Array:
    """The table (n, 1 + P, 1 + P) of which `trained_products` keeps the upper triangle."""
    upper = np.triu_indices(pairs + 1)
    rows = np.asarray(stored, dtype=float).reshape(-1, len(upper[0]))
    table = np.zeros((len(rows), pairs + 1, pairs + 1))
    table[:, upper[0], upper[1]] = table[:, upper[1], upper[0]] = rows
    return table


def noise_floor(changes: Array) -> dict[str, Any]:
    """From the changes of P pairs (P, n, pixels): correlation of two pairs per latent, and the ceilings it implies."""
    between = between_pairs(changes)
    value = ceiling(between, len(changes))
    return {
        "reliabilities": short(between),
        "reliability": float(np.median(between)),
        "ceiling_one": ceiling(between, 1).estimate,
        "ceiling": value.estimate,
        "ceiling_low": value.low,
        "ceiling_high": value.high,
    }


def ceiling(between: Array, pairs: int) -> Interval:
    """What a perfect predictor of the mean change of P pairs attains: `√(Pρ/(1+(P−1)ρ))`, ρ the median of `between`
    (n,), with a bootstrap interval over latents; 0 where ρ is not positive."""
    draws = between[_draws(len(between))]
    return _interval(float(_ceilings(between[None], pairs)[0]), _ceilings(draws, pairs))


def share_of_ceiling(correlation: Array, between: Array, pairs: int) -> Interval:
    """Median correlation over the ceiling; an end is infinite where the ceiling may be 0.

    Latents are drawn jointly, and each draw is divided by the share that chance gives a perfect prediction with so few
    pairs (`studies.statistics.perfect_shares`): the pairs are the unit, and their common noise does not average out
    over latents.
    """
    draws = _draws(len(between))
    tops = np.median(correlation[draws], axis=1)
    limits = _ceilings(between[draws], pairs) * chance(between, pairs)
    resampled = np.divide(tops, limits, out=np.full(len(draws), np.inf), where=limits > 0)
    return _interval(plain_share(correlation, between, pairs), resampled)


def plain_share(correlation: Array, between: Array, pairs: int) -> float:
    """Median correlation over the ceiling; infinite where the ceiling is 0."""
    limit = float(_ceilings(between[None], pairs)[0])
    return float(np.median(correlation)) / limit if limit > 0 else float("inf")


def chance(between: Array, pairs: int) -> Array:
    """Shares of a perfect prediction by simulation, (RESAMPLES,): how far the noise of so few pairs carries it."""
    # At 0 a perfect prediction has no share and at 1 no noise. Rounded, so that resamples and repeated calls share one
    # simulation.
    reliability = float(np.clip(np.median(between), 0.01, 0.99))
    return _chance(pairs, len(between), round(reliability, 3))


@functools.cache
def _chance(pairs: int, latents: int, reliability: float) -> Array:
    return perfect_shares(max(pairs, 2), latents, reliability, draws=RESAMPLES)


def unexplained_by_noise(correlation: Array, between: Array, pairs: int) -> Interval:
    """The share `(1 − c²_max)/(1 − c²)` of the unexplained variance that seed noise explains: c the median
    correlation, c_max the ceiling; above 1 where the prediction passes the ceiling."""
    draws = _draws(len(between))
    tops = np.median(correlation[draws], axis=1) / chance(between, pairs)
    rest = 1 - np.minimum(tops, 1.0) ** 2
    resampled = np.divide(
        1 - _ceilings(between[draws], pairs) ** 2, rest, out=np.full(len(rest), np.inf), where=rest > 0
    )
    # A perfect correlation leaves nothing to explain; the floor keeps the estimate finite, its interval may not be.
    value = (1 - float(_ceilings(between[None], pairs)[0]) ** 2) / max(1 - float(np.median(correlation)) ** 2, 1e-12)
    return _interval(value, resampled)


def explained(response: Array, causes: dict[str, Array]) -> dict[str, tuple[Interval, Interval]]:
    """By cause, the share of the response's variance, in ranks, that it explains alone and that it adds to all others;
    and under "all" the share of all together (twice). Least squares; bootstrap intervals over latents."""
    table = np.stack([stats.rankdata(values) for values in (response, *causes.values())], axis=1)
    draws = np.concatenate([np.arange(len(table))[None], _draws(len(table))])
    centred = table[draws] - table[draws].mean(axis=1, keepdims=True)
    products = centred.transpose(0, 2, 1) @ centred
    everything = list(range(1, 1 + len(causes)))
    whole = _r2(products, everything)
    estimates: dict[str, tuple[Interval, Interval]] = {}
    for k, name in enumerate(causes, start=1):
        alone, rest = _r2(products, [k]), _r2(products, [other for other in everything if other != k])
        added = whole - rest
        estimates[name] = _interval(float(alone[0]), alone[1:]), _interval(float(added[0]), added[1:])
    together = _interval(float(whole[0]), whole[1:])
    return estimates | {"all": (together, together)}


def _r2(products: Array, chosen: list[int]) -> Array:
    """R² of the first column on the chosen ones, from centred products (draws, columns, columns), (draws,)."""
    moments = products[:, chosen, 0]
    # A cause may be constant in a draw, or two may be equal there: the products are then singular.
    inverse = np.linalg.pinv(products[np.ix_(range(len(products)), chosen, chosen)], hermitian=True)
    fitted = np.einsum("di,dij,dj->d", moments, inverse, moments)
    return np.asarray(fitted / np.maximum(products[:, 0, 0], 1e-300))


def quartile_gap(values: Array, by: Array) -> Interval:
    """Median of `values` in the quarter of largest `by` minus that in the quarter of smallest, bootstrap in each."""
    order, quarter = np.argsort(by), max(1, len(by) // 4)
    low, high = values[order[:quarter]], values[order[-quarter:]]
    draws = _draws(quarter)
    gaps = np.median(high[draws], axis=1) - np.median(low[draws], axis=1)
    return _interval(float(np.median(high) - np.median(low)), gaps)


def _ceilings(between: Array, pairs: int) -> Array:
    """Ceilings of rows of per-latent reliabilities (draws, n), (draws,)."""
    return np.asarray(np.sqrt(spearman_brown(np.clip(np.median(between, axis=1), 0.0, 1.0), pairs)))


def _draws(count: int) -> Array:
    """Indices of latents drawn with replacement, (RESAMPLES, count); the same for every statistic."""
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))


def _interval(estimate: float, draws: Array, level: float = 0.95) -> Interval:
    # "lower"/"higher" keep infinite ends infinite; interpolation would make NaN of them.
    low = np.quantile(draws, (1 - level) / 2, method="lower")
    high = np.quantile(draws, (1 + level) / 2, method="higher")
    return Interval(estimate, float(low), float(high))
