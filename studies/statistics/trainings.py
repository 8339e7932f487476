"""Shares of a ceiling when the unit is a training: what P pairs of networks and n latents say together.

A truth is the mean change over P trainings (pairs of networks), seen at n latents that all of them share. Noise common
to the latents of one training does not average out over latents, so neither a ceiling nor a share of it may be
resampled over latents alone. With the products ⟨a, b⟩ over pixels of the prediction and every training's change, latent
by latent, the *share* is the median correlation of the prediction with the mean change over the ceiling √ρ_P, where

    ρ_P = Pr/(1 + (P − 1)r)   (Spearman 1910, Brown 1910),

r the mean correlation of the changes of two disjoint trainings, and ρ_P the median over latents. The share is
jackknifed over trainings, which also removes the bias of order 1/P, and bootstrapped over latents; the two variances
are added, which counts what belongs to single latents of single trainings twice, and the interval is Student's with
P − 1 degrees of freedom.

`perfect_shares` is for tables that keep no products: the shares that a perfect prediction attains under noise that is
wholly common to the latents of a training, by simulation. It states the bias of the plain estimator and how far pure
chance carries it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from studies.statistics._checks import Floats, check_level
from studies.statistics.intervals import Interval
from studies.statistics.reliability import spearman_brown

__all__ = ["FEWEST_TRAININGS", "Shares", "centred", "perfect_shares", "products", "share_of_trainings"]

FEWEST_TRAININGS = 4  # a jackknife leaves one out, and a variance between fewer has too few degrees of freedom
LEAST = 1e-6  # of a reliability, below which there is nothing to divide by


@dataclass(frozen=True)
class Shares:
    """Agreement of a prediction with P trainings.

    Attributes:
        correlation: median over latents of the correlation with the mean change of the P trainings.
        ceiling: what a perfect prediction attains, √ρ_P.
        share: their ratio, jackknifed, with an interval over trainings and latents.
        plain: the ratio as it is, with the bias of few trainings.
    """

    correlation: Interval
    ceiling: Interval
    share: Interval
    plain: float


def products(predicted: ArrayLike, changes: ArrayLike) -> Floats:
    """Products over pixels of a prediction and of P changes, means over pixels subtracted, (n, 1 + P, 1 + P).

    Args:
        predicted: (n, pixels).
        changes: (P, n, pixels).

    Raises:
        ValueError: shapes that do not belong together.
    """
    p, c = np.asarray(predicted, dtype=np.float64), np.asarray(changes, dtype=np.float64)
    if c.ndim != 3 or p.shape != c.shape[1:]:
        raise ValueError(
            f"predicted and changes have shapes {p.shape} and {c.shape}; give (n, pixels), (P, n, pixels)."
        )
    table = np.concatenate([p[None], c])
    table = table - table.mean(axis=-1, keepdims=True)
    return np.asarray(np.einsum("inx,jnx->nij", table, table))


def centred(values: ArrayLike) -> Floats:
    """Changes (…, n, pixels) without their mean over latents: what is common to all latents carries no latent's name.

    Example:
        >>> centred([[1.0, 2.0], [3.0, 6.0]]).tolist()
        [[-1.0, -2.0], [1.0, 2.0]]
    """
    data = np.asarray(values, dtype=np.float64)
    return np.asarray(data - data.mean(axis=-2, keepdims=True))


def share_of_trainings(table: ArrayLike, *, level: float = 0.95, resamples: int = 200, seed: int = 0) -> Shares:
    """The share of its ceiling that a prediction attains, with the training as unit.

    Args:
        table: (n, 1 + P, 1 + P), see `products`.
        level: confidence level.
        resamples: draws of latents.
        seed: of the draws.

    Raises:
        ValueError: fewer than four trainings, fewer than three latents, or another shape.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> signal = rng.normal(size=(50, 64))
        >>> shares = share_of_trainings(products(signal, signal + rng.normal(size=(8, 50, 64))))
        >>> shares.share.low < 1 < shares.share.high, round(shares.ceiling.estimate, 2)
        (True, 0.94)
    """
    data = np.asarray(table, dtype=np.float64)
    if data.ndim != 3 or data.shape[1] != data.shape[2] or len(data) < 3 or not np.isfinite(data).all():
        raise ValueError(
            f"table has shape {data.shape}; give finite products (n, 1 + P, 1 + P) of three latents or more."
        )
    if data.shape[1] - 1 < FEWEST_TRAININGS:
        raise ValueError(
            f"{data.shape[1] - 1} trainings are no basis for an interval with the training as unit; give "
            f"{FEWEST_TRAININGS} or more."
        )
    trainings = data.shape[1] - 1
    whole, left_out = _parts(data), [_parts(np.delete(np.delete(data, k, 1), k, 2)) for k in range(1, trainings + 1)]
    draws = np.random.default_rng(seed).integers(len(data), size=(resamples, len(data)))
    half = float(stats.t.ppf((1 + check_level(level)) / 2, trainings - 1))
    correlation, top = (_jackknifed(each, whole, left_out, draws, half) for each in (_correlation, _ceiling))
    # Correlation and ceiling belong to P trainings, as those of P − 1 do not: only their ratio is free of P.
    share = _jackknifed(_share, whole, left_out, draws, half, corrected=True)
    return Shares(correlation, top, share, plain=_share(*whole))


Parts = tuple[Floats, Floats]  # per latent: correlation with the mean change, and reliability of that mean


def _parts(table: Floats) -> Parts:
    trainings = table.shape[1] - 1
    changes = table[:, 1:, 1:]
    # |p| and |Σ_k c_k|: the correlation with the mean is that with the sum.
    size = np.sqrt(table[:, 0, 0] * changes.sum(axis=(1, 2)))
    correlation = np.divide(table[:, 0, 1:].sum(axis=1), size, out=np.zeros(len(table)), where=size > 0)
    norms = np.sqrt(np.einsum("nii->ni", changes))
    scale = norms[:, :, None] * norms[:, None, :]
    unit = np.divide(changes, scale, out=np.zeros(changes.shape), where=scale > 0)
    between = unit[:, ~np.eye(trainings, dtype=bool)].mean(axis=1)
    return correlation, np.asarray(spearman_brown(np.clip(between, _floor(trainings), 1.0), trainings))


def _floor(trainings: int) -> float:
    """Mean correlations of P changes lie above −1/(P − 1); a little more, so that the mean's is finite."""
    return -0.5 / (trainings - 1)


def _correlation(correlation: Floats, _: Floats) -> float:
    return float(np.median(correlation))


def _ceiling(_: Floats, reliability: Floats) -> float:
    return float(np.sqrt(max(float(np.median(reliability)), LEAST)))


def _share(correlation: Floats, reliability: Floats) -> float:
    return _correlation(correlation, reliability) / _ceiling(correlation, reliability)


def _jackknifed(
    statistic: Callable[[Floats, Floats], float],
    whole: Parts,
    left_out: list[Parts],
    draws: np.ndarray,
    half: float,
    *,
    corrected: bool = False,
) -> Interval:
    trainings, estimate = len(left_out), statistic(*whole)
    values = np.array([statistic(*parts) for parts in left_out])
    # The variance of a mean of P from P statistics of P − 1 each, which differ (P − 1) times less than single trainings
    # do.
    between = (trainings - 1) / trainings * float(((values - values.mean()) ** 2).sum())
    over = np.array([statistic(whole[0][draw], whole[1][draw]) for draw in draws]).var(ddof=1)
    error = float(np.sqrt(between + over))
    # P θ − (P − 1) mean θ_(k): a bias c/P is c/(P − 1) in every θ_(k), and falls out (Quenouille 1956).
    estimate -= (trainings - 1) * (float(values.mean()) - estimate) if corrected else 0.0
    return Interval(estimate, estimate - half * error, estimate + half * error, error)


def perfect_shares(
    trainings: int, latents: int, reliability: float, *, dimension: int = 8, draws: int = 400, seed: int = 0
) -> Floats:
    """Plain shares of its ceiling that a perfect prediction attains, noise common to a training's latents, (draws,).

    Args:
        trainings: P ≥ 2.
        latents: n.
        reliability: correlation of two trainings' changes, in (0, 1).
        dimension: effective number of pixels; fewer make chance larger.
        draws: simulated studies.
        seed: of the simulation.

    Raises:
        ValueError: fewer than two trainings, or a reliability outside (0, 1).

    Example:
        >>> few, many = perfect_shares(2, 64, 0.2), perfect_shares(16, 64, 0.2)
        >>> bool(few.std() > 2 * many.std())
        True
    """
    if trainings < 2 or not 0 < reliability < 1:
        raise ValueError(f"trainings={trainings}, reliability={reliability}: give two or more, and a number in (0, 1).")
    rng = np.random.default_rng(seed)
    noise = np.sqrt((1 - reliability) / reliability)
    return np.array([_perfect_share(rng, trainings, latents, noise, dimension) for _ in range(draws)])


def _perfect_share(rng: np.random.Generator, trainings: int, latents: int, noise: float, dimension: int) -> float:
    signal = rng.normal(size=(latents, dimension))
    changes = signal + noise * rng.normal(size=(trainings, 1, dimension))
    unit = changes / np.linalg.norm(changes, axis=-1, keepdims=True)
    total = unit.sum(axis=0)  # Σ_{i≠j} u_i·u_j = |Σ u|² − P
    between = ((total**2).sum(-1) - trainings) / (trainings * (trainings - 1))
    mean = changes.mean(axis=0)
    cosine = (signal * mean).sum(-1) / (np.linalg.norm(signal, axis=-1) * np.linalg.norm(mean, axis=-1))
    top = spearman_brown(np.clip(np.median(between), LEAST, 1.0), trainings)
    return float(np.median(cosine) / np.sqrt(top))
