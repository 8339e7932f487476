"""Claims about the four implications, with the thresholds of the protocol; every one can fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from studies.claim_bounds import above, agrees, at_least, below, equals
from studies.density_formula.asserting import PAPER, Z, chosen
from studies.statistics import Interval, bootstrap, fit_slope, median_interval, paired, share_interval
from studies.study import Claim

LOW = 0.25  # levels below which most of a sequence's excess is expected


def implications(rows: pd.DataFrame) -> list[Claim]:
    """(a) to (d)."""
    return [*_evidence(rows), *_mixtures(rows), *_images(rows), *_tokens(rows), *_generator(rows)]


def _evidence(rows: pd.DataFrame) -> list[Claim]:
    selected = chosen(rows, part="evidence").sort_values("steps")
    slope = fit_slope(selected.steps.astype(float), selected.gap)
    half = Z * slope.standard_error
    ratio = float(selected.gap.iloc[-1] / selected.gap.iloc[0])
    first, last = int(selected.steps.iloc[0]), int(selected.steps.iloc[-1])
    return [
        Claim(
            "(a) distance of the evidence bound's maximiser from the likelihood's falls with their number (order)",
            slope.slope,
            (slope.slope - half, slope.slope + half),
            equals(-1, 0.15, interval=True),
            f"{PAPER}, evidence lower bound",
        ),
        Claim(
            f"(a) distance at {last} steps over that at {first} (it is {selected.gap.iloc[-1]:.2g})",
            ratio,
            None,
            below(0.01),
            f"{PAPER}, evidence lower bound",
        ),
    ]


def _mixtures(rows: pd.DataFrame) -> list[Claim]:
    mixtures = chosen(rows, part="classifier-mixtures")
    last = chosen(mixtures, budget=mixtures.budget.max()).set_index("rule")
    weighted, plain = (np.asarray(last.agrees[rule], dtype=float) for rule in ("weighted", "unweighted"))
    return [
        Claim.of(
            "(b) mixtures: the weighted sum chooses as Bayes' rule does",
            share_interval(int(weighted.sum()), len(weighted)),
            at_least(0.95, interval=True),
            f"{PAPER}, diffusion classifier",
        ),
        Claim.of(
            "(b) mixtures: agreement with Bayes' rule, weighted minus unweighted",
            bootstrap(weighted - plain),
            above(0, interval=True),
            f"{PAPER}; heuristic of arXiv 2303.16203",
        ),
    ]


def _images(rows: pd.DataFrame) -> list[Claim]:
    """One claim for each level of noise, at the largest budget."""
    images = chosen(rows, part="classifier-images")
    claims = []
    for sigma, group in images.groupby("sigma"):
        last = chosen(group[group.rule != "flow"], budget=group[group.rule != "flow"].budget.max()).set_index("rule")
        flow = float(group[group.rule == "flow"].accuracy.iloc[0])
        gap, right = (_between_rules(last, column) for column in ("agrees", "right"))
        claims.append(
            Claim.of(
                f"(b) {group.images.iloc[0]} with noise {sigma:g}, {int(last.budget.iloc[0])} evaluations a class: "
                f"agreement with the flow's likelihood, weighted minus unweighted (agreement "
                f"{last.agreement['weighted']:.2f} and {last.agreement['unweighted']:.2f}; accuracy "
                f"{last.accuracy['weighted']:.2f} and {last.accuracy['unweighted']:.2f}, difference "
                f"[{right.low:.2f}, {right.high:.2f}]; flow {flow:.2f})",
                gap,
                above(0, interval=True),
                f"{PAPER}, diffusion classifier",
            )
        )
    return claims


def _between_rules(table: Any, column: str) -> Interval:
    """Weighted minus unweighted, paired over images."""
    weighted, plain = (np.asarray(table[column][rule], dtype=float) for rule in ("weighted", "unweighted"))
    return bootstrap(weighted - plain)


def _tokens(rows: pd.DataFrame) -> list[Claim]:
    tokens = chosen(rows, part="tokens")
    networks = chosen(tokens, score="network")
    longest = chosen(networks, wide=0.0, steps=networks.steps.max()).iloc[0]
    weighted, _, exact = _losses(longest)
    return [
        Claim.of(
            f"(c) tokens, network of {int(longest.steps)} steps: a sequence's weighted diffusion loss ranks as its "
            "negative log-likelihood (Spearman)",
            _rank_interval(weighted, exact),
            at_least(0.95, interval=True),
            f"{PAPER}, autoregressive models",
        ),
        _above_unweighted(longest),
        *_wide(tokens),
        *(_token_excess(row) for _, row in networks.iterrows()),
        _low_bands(tokens),
    ]


def _losses(row: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weighted, plain, exact = (np.asarray(row[name], dtype=float) for name in ("weighted", "unweighted", "exact"))
    return weighted, plain, exact


def _above_unweighted(row: Any) -> Claim:
    who = "exact score" if row.score == "exact" else f"network of {int(row.steps)} steps"
    return Claim.of(
        f"(c) tokens, range w = {row.wide:g}, {who}: rank correlation of the weighted loss ({row['rank']:.3f}) minus "
        f"the unweighted's ({row.unweighted_rank:.3f})",
        _rank_difference(*_losses(row)),
        above(0, interval=True),
        "control",
    )


def _wide(selected: Any) -> list[Claim]:
    """Exact score and longest-trained network where the scales range most."""
    last = chosen(selected, wide=selected.wide.max())
    if last.wide.max() == 0:
        return []
    networks = chosen(last, score="network").sort_values("steps")
    return [_above_unweighted(chosen(last, score="exact").iloc[0]), _above_unweighted(networks.iloc[-1])]


def _token_excess(row: Any) -> Claim:
    gap, error = row.excess - row.theory, float(np.hypot(row.excess_error, row.theory_error))
    return Claim(
        f"(c) tokens, w = {row.wide:g}, {int(row.steps)} steps: mean excess of the loss over the negative "
        f"log-likelihood ({row.excess:.4f} nats a token) minus ½∫E|s_θ−s|²dv ({row.theory:.4f})",
        gap,
        (gap - Z * error, gap + Z * error),
        agrees(0, row.theory / 2),
        f"{PAPER}",
    )


def band_variances(selected: Any, wide: float, steps: int) -> list[tuple[float, float]]:
    """Lower edge of a band, and the variance over sequences of what the network's score there adds to the loss."""
    return [(low, float(np.var(each))) for low, each in band_excesses(selected, wide, steps)]


def band_excesses(selected: Any, wide: float, steps: int) -> list[tuple[float, np.ndarray]]:
    """Lower edge of a band, and what the network's score there adds to the loss of each sequence."""
    exact = np.asarray(chosen(selected, wide=wide, score="exact").iloc[0].weighted, dtype=float)
    bands = chosen(selected, wide=wide, steps=steps, score="network in a band").sort_values("low")
    added = [np.asarray(values, dtype=float) - exact for values in bands.weighted]
    return [(float(low), each) for low, each in zip(bands.low, added, strict=True)]


def _low_share(lows: np.ndarray, added: np.ndarray) -> float:
    variances = added.var(axis=1)
    return float(variances[lows < LOW].sum() / variances.sum())


def _low_bands(selected: Any) -> Claim:
    bands = chosen(selected, wide=0.0, score="network in a band")
    added = band_excesses(selected, 0.0, int(bands.steps.min()))
    variances = band_variances(selected, 0.0, int(bands.steps.min()))
    total = sum(value for _, value in variances)
    lows, table = np.array([low for low, _ in added]), np.stack([values for _, values in added])
    draws = [_low_share(lows, table[:, k]) for k in _resampled(table.shape[1])]
    each = ", ".join(f"from σ = {low:g}: {value / total:.2f}" for low, value in variances)
    return Claim.of(
        f"(c) tokens: share of the variance of a sequence's excess that comes from levels below {LOW} ({each})",
        _percentiles(_low_share(lows, table), draws),
        above(0.5, interval=True),
        "analysis of the unweighted loss's rank",
    )


def _resampled(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, count, (1000, count))


def _rank(a: np.ndarray, b: np.ndarray) -> float:
    first, second = (np.argsort(np.argsort(v)) for v in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def _rank_interval(a: np.ndarray, b: np.ndarray) -> Interval:
    return _percentiles(_rank(a, b), [_rank(a[k], b[k]) for k in _resampled(len(a))])


def _rank_difference(a: np.ndarray, other: np.ndarray, b: np.ndarray) -> Interval:
    values = [_rank(a[k], b[k]) - _rank(other[k], b[k]) for k in _resampled(len(a))]
    return _percentiles(_rank(a, b) - _rank(other, b), values)


def _percentiles(estimate: float, values: list[float]) -> Interval:
    return Interval(estimate, float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))


def _generator(rows: pd.DataFrame) -> list[Claim]:
    gradients = chosen(rows, part="gradient")
    cosines = {name: group.cosine.to_numpy(dtype=float) for name, group in gradients.groupby("score")}
    low, high = np.quantile(cosines["network"], [0.1, 0.9])
    ends = chosen(rows, part="minimiser").set_index("score")
    split = chosen(rows, part="decomposition")
    inside = int((split.gap.abs() <= Z * split.gap_error + 1e-3).sum())
    return [
        Claim.of(
            f"(d) generator: with its exact score the weighted term is −log p_G (share of parameters whose 95 % "
            f"interval holds 0; largest difference {split.gap.abs().max():.4f} nats)",
            share_interval(inside, len(split)),
            at_least(0.9, interval=True),
            f"{PAPER}, generative adversarial networks",
        ),
        Claim.of(
            f"(d) generator: cosine of the trained score's regulariser gradient with the likelihood's (median; 10 and "
            f"90 % of parameters: {low:.3f}, {high:.3f})",
            median_interval(cosines["network"]),
            at_least(0.95, interval=True),
            f"{PAPER}, generative adversarial networks",
        ),
        Claim.of(
            "(d) generator: the same minus the unweighted term's (paired median difference)",
            paired(cosines["network"], cosines["unweighted"]).difference,
            above(0, interval=True),
            "control",
        ),
        Claim(
            f"(d) generator: distance of the regulariser's minimiser from the likelihood's "
            f"({ends.distance['network']:.3f}) over that of the unweighted term's ({ends.distance['unweighted']:.3f})",
            float(ends.distance["network"] / ends.distance["unweighted"]),
            None,
            below(0.5),
            f"{PAPER}, generative adversarial networks",
        ),
    ]
