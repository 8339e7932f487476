"""The claims, with the thresholds of the protocol; every one can fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from studies.density_formula.config import Config
from studies.statistics import bootstrap, fit_slope, paired, share_interval
from studies.study import Claim

PAPER = "arXiv 2408.16765"
KNOWN = {1: 0.0016, 2: 0.009, 10: 0.024, 50: 0.37}  # nats at 32 000 evaluations
LARGEST = 32_000
Z = 1.96


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """What is asserted, with measured values; nothing where the sizes are too small to mean anything."""
    if not config.judged:
        return []
    return [
        *_standard_errors(rows),
        *_biases(rows),
        _coverage(rows),
        *_excess(rows),
        *_evidence(rows),
        *_mixtures(rows),
        _digits(rows),
        *_tokens(rows),
        *_generator(rows),
    ]


def chosen(rows: Any, **values: object) -> Any:
    """The rows with the given values."""
    for name, value in values.items():
        rows = rows[rows[name] == value]
    return rows


def _reported(rows: pd.DataFrame, dimension: int, estimator: str) -> np.ndarray:
    """Reported variances of the states (n,) at the largest budget, far laws."""
    own = chosen(rows, part="exact", family="far", dimension=dimension, estimator=estimator, budget=LARGEST)
    return np.asarray(own.iloc[0].state_variances, dtype=float)


def _standard_errors(rows: pd.DataFrame) -> list[Claim]:
    exact = chosen(rows, part="exact", family="far", budget=LARGEST)
    found = [_one_error(rows, d) for d in sorted(set(exact.dimension) & set(KNOWN))]
    if 50 in set(exact.dimension):
        found.append(_refined(rows))
    return found


def _one_error(rows: pd.DataFrame, dimension: int) -> Claim:
    interval = bootstrap(_reported(rows, dimension, "formula"), _root_mean)
    return Claim(
        f"d = {dimension}: the refined formula's standard error at 32 000 evaluations (rms over states)",
        interval.estimate,
        interval.bounds,
        f"≤ {KNOWN[dimension]}",
        "figures known before the study, other mixtures",
        interval.estimate <= KNOWN[dimension],
    )


def _root_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    return np.sqrt(np.mean(values, axis=axis))


def _refined(rows: pd.DataFrame) -> Claim:
    before, after = (_reported(rows, 50, name) for name in ("control", "formula"))
    ratio = bootstrap(0.5 * np.log(before / after))
    gain, low, high = (float(np.exp(v)) for v in (ratio.estimate, ratio.low, ratio.high))
    return Claim(
        "d = 50: refinements lower the standard error of the Gaussian control variate (ratio over states)",
        gain,
        (low, high),
        "≥ 3",
        "ratio at 32 000 evaluations",
        gain >= 3,
    )


def _biases(rows: pd.DataFrame) -> list[Claim]:
    """Mean error against the standard error of one estimate, all budgets; the worst case of each dimension."""
    found = []
    own = chosen(rows, part="exact", estimator="formula", family="far")
    for dimension, group in own.groupby("dimension"):
        worst = group.loc[(group.bias.abs() / group.reported).idxmax()]
        half = Z * worst.bias_error
        share = float(abs(worst.bias) / worst.reported)
        interval = (float((worst.bias - half) / worst.reported), float((worst.bias + half) / worst.reported))
        found.append(
            Claim(
                f"d = {int(dimension)}: mean error of the formula with the exact score, in standard errors of one "
                f"estimate (largest of all budgets)",
                share,
                interval,
                "< 1",
                f"{PAPER}, theorem 1",
                share < 1,
            )
        )
    return found


def _coverage(rows: pd.DataFrame) -> Claim:
    own = chosen(rows, part="coverage")
    share = share_interval(int(own.hits.sum()), int(own.trials.sum()))
    each = ", ".join(f"{int(d)}: {h / t:.3f}" for d, h, t in zip(own.dimension, own.hits, own.trials, strict=True))
    return Claim(
        f"90 % intervals of the formula hold the truth, all dimensions together ({each})",
        share.estimate,
        share.bounds,
        ".85 to .95",
        "Student intervals from eight replicates",
        0.85 <= share.estimate <= 0.95,
    )


def _excess(rows: pd.DataFrame) -> list[Claim]:
    found = []
    for row in chosen(rows, part="excess").itertuples():
        gap, error = row.excess - row.theory, float(np.hypot(row.excess_error, row.theory_error))
        found.append(
            Claim(
                f"wrong score ({row.score}): mean over-estimate of −log p is ½∫E|s_θ−s|²dv = {row.theory:.4f} "
                f"(measured {row.excess:.4f}; {row.negative:.0%} of states err the other way); difference",
                gap,
                (gap - Z * error, gap + Z * error),
                "0",
                f"{PAPER}, and Kong et al. arXiv 2302.03792",
                bool(abs(gap) <= Z * error or abs(gap) < 1e-4),
            )
        )
    return found


def _evidence(rows: pd.DataFrame) -> list[Claim]:
    own = chosen(rows, part="evidence").sort_values("steps")
    slope = fit_slope(own.steps.astype(float), own.gap)
    half = Z * slope.standard_error
    ratio = float(own.gap.iloc[-1] / own.gap.iloc[0])
    first, last = int(own.steps.iloc[0]), int(own.steps.iloc[-1])
    return [
        Claim(
            "(a) distance of the evidence bound's maximiser from the likelihood's falls with their number (order)",
            slope.slope,
            (slope.slope - half, slope.slope + half),
            "−1 ± .15",
            f"{PAPER}, evidence lower bound",
            abs(slope.slope + 1) <= 0.15,
        ),
        Claim(
            f"(a) distance at {last} steps over that at {first} (it is {own.gap.iloc[-1]:.2g})",
            ratio,
            None,
            "< .01",
            f"{PAPER}, evidence lower bound",
            ratio < 0.01,
        ),
    ]


def _mixtures(rows: pd.DataFrame) -> list[Claim]:
    own = chosen(rows, part="classifier-mixtures")
    last = chosen(own, budget=own.budget.max()).set_index("rule")
    weighted, plain = (np.asarray(last.agrees[rule], dtype=float) for rule in ("weighted", "unweighted"))
    share = share_interval(int(weighted.sum()), len(weighted))
    gap = bootstrap(weighted - plain)
    return [
        Claim(
            "(b) mixtures: the weighted sum chooses as Bayes' rule does",
            share.estimate,
            share.bounds,
            "≥ .95",
            f"{PAPER}, diffusion classifier",
            share.estimate >= 0.95,
        ),
        Claim(
            "(b) mixtures: agreement with Bayes' rule, weighted minus unweighted",
            gap.estimate,
            gap.bounds,
            "> 0",
            f"{PAPER}; heuristic of arXiv 2303.16203",
            gap.low > 0,
        ),
    ]


def _digits(rows: pd.DataFrame) -> Claim:
    own = chosen(rows, part="classifier-digits").set_index("rule")
    gap = bootstrap(np.asarray(own.agrees["weighted"], dtype=float) - np.asarray(own.agrees["unweighted"], dtype=float))
    accuracies = ", ".join(f"{rule} {value:.2f}" for rule, value in own.accuracy.items())
    return Claim(
        f"(b) digits: agreement with the flow's likelihood, weighted minus unweighted (accuracies: {accuracies})",
        gap.estimate,
        gap.bounds,
        "> 0",
        f"{PAPER}, diffusion classifier",
        gap.low > 0,
    )


def _tokens(rows: pd.DataFrame) -> list[Claim]:
    row = chosen(rows, part="tokens", score="network").iloc[0]
    weighted, plain, exact = (np.asarray(row[name], dtype=float) for name in ("weighted", "unweighted", "exact"))
    best, other = (_rank_interval(values, exact) for values in (weighted, plain))
    difference = _rank_difference(weighted, plain, exact)
    gap, error = row.excess - row.theory, float(np.hypot(row.excess_error, row.theory_error))
    return [
        Claim(
            "(c) tokens: a sequence's weighted diffusion loss ranks as its negative log-likelihood (Spearman)",
            *best,
            "≥ .95",
            f"{PAPER}, autoregressive models",
            best[0] >= 0.95,
        ),
        Claim(
            f"(c) tokens: the same minus the unweighted loss's ({other[0]:.3f})",
            *difference,
            "> 0",
            "control",
            difference[1][0] > 0,
        ),
        Claim(
            f"(c) tokens: mean excess of the loss over the negative log-likelihood ({row.excess:.4f} nats a token) "
            f"minus ½∫E|s_θ−s|²dv ({row.theory:.4f})",
            gap,
            (gap - Z * error, gap + Z * error),
            "0",
            f"{PAPER}",
            bool(abs(gap) <= Z * error),
        ),
    ]


def _resampled(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, count, (1000, count))


def _rank(a: np.ndarray, b: np.ndarray) -> float:
    first, second = (np.argsort(np.argsort(v)) for v in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def _rank_interval(a: np.ndarray, b: np.ndarray) -> tuple[float, tuple[float, float]]:
    values = [_rank(a[k], b[k]) for k in _resampled(len(a))]
    return _rank(a, b), (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))


def _rank_difference(a: np.ndarray, other: np.ndarray, b: np.ndarray) -> tuple[float, tuple[float, float]]:
    values = [_rank(a[k], b[k]) - _rank(other[k], b[k]) for k in _resampled(len(a))]
    bounds = (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
    return _rank(a, b) - _rank(other, b), bounds


def _generator(rows: pd.DataFrame) -> list[Claim]:
    own = chosen(rows, part="gradient")
    cosines = {name: group.cosine.to_numpy(dtype=float) for name, group in own.groupby("score")}
    median = float(np.median(cosines["network"]))
    low, high = np.quantile(cosines["network"], [0.1, 0.9])
    gap = paired(cosines["network"], cosines["unweighted"]).difference
    ends = chosen(rows, part="minimiser").set_index("score")
    split = chosen(rows, part="decomposition")
    inside = int((split.gap.abs() <= Z * split.gap_error + 1e-3).sum())
    share = share_interval(inside, len(split))
    return [
        Claim(
            f"(d) generator: with its exact score the weighted term is −log p_G (share of parameters whose 95 % "
            f"interval holds 0; largest difference {split.gap.abs().max():.4f} nats)",
            share.estimate,
            share.bounds,
            "≥ .9",
            f"{PAPER}, generative adversarial networks",
            share.estimate >= 0.9,
        ),
        Claim(
            "(d) generator: cosine of the trained score's regulariser gradient with the likelihood's (median; 10–90 %)",
            median,
            (float(low), float(high)),
            "≥ .95",
            f"{PAPER}, generative adversarial networks",
            median >= 0.95,
        ),
        Claim(
            "(d) generator: the same minus the unweighted term's (paired median difference)",
            gap.estimate,
            gap.bounds,
            "> 0",
            "control",
            gap.low > 0,
        ),
        Claim(
            f"(d) generator: distance of the regulariser's minimiser from the likelihood's "
            f"(unweighted: {ends.distance['unweighted']:.3f})",
            float(ends.distance["network"]),
            None,
            "< .1",
            f"{PAPER}, generative adversarial networks",
            bool(ends.distance["network"] < 0.1),
        ),
    ]
