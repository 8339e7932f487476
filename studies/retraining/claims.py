"""The claims. What each expects was fixed in the protocol; every regime is held against its own ceiling."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from studies.claim_bounds import above, at_least, below, equals
from studies.retraining.causes import CAUSES
from studies.retraining.config import MAIN, Config, Regime
from studies.retraining.measures import (
    chance,
    explained,
    plain_share,
    quartile_gap,
    share_of_ceiling,
    unexplained_by_noise,
)
from studies.retraining.reading import LAWS, changes_of, correlations, floor, joint, judged, of, share, untrained
from studies.statistics import Interval, median_interval, paired
from studies.study import Claim

PAPER = "arXiv 2509.23092, images (CelebA .46 retrained, .66 fine-tuned: other data, context only)"
CEILING = "noise floor, Spearman–Brown"
SCRATCH, FINETUNE = 0.75, 0.85
NEAR_CEILING = at_least(0.95, interval=True)
TRUTHS = ("scratch", "finetune")
WORDS = {"scratch": "retraining from scratch", "finetune": "fine-tuning"}
BASELINES = ("zero", "shuffled", "mean", "nearest", "empirical", "transport")
SWAPS = (
    ("flow", "probes", "eight random probes for the exact trace"),
    ("flow", "kernel", "the log-ratio of kernel densities for the network's"),
    ("flow", "classifier", "the log-ratio of a classifier for the network's"),
    ("one network", "formula", "the density formula for the flow's density"),
    ("kernel", "empirical", "the score of a kernel density for the network's"),
    ("flow", "finite", "the finite path for the first order"),
)


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """Whether each regime is trained, and every claim about those that are; regimes that were skipped have none."""
    made, worse = [], untrained(rows)
    for regime, selected in _measured(rows, config):
        made += _controls(selected, regime.name)
        made += _asked(selected, regime) if regime.name not in worse else []
    return made


def unclaimed(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """What would be claimed of untrained regimes: for tables that show every setting, never for a verdict."""
    worse = untrained(rows)
    kept = [each for each in _measured(rows, config) if each[0].name in worse]
    return [claim for regime, selected in kept for claim in _asked(selected, regime)]


def _measured(rows: pd.DataFrame, config: Config) -> Iterator[tuple[Regime, pd.DataFrame]]:
    """Regimes that something is asked of, with their rows; members of the one-factor design are asked nothing."""
    for regime in config.regimes:
        selected = rows[rows.regime == regime.name]
        if len(selected) and "skipped" not in set(selected.kind) and not regime.varied:
            yield regime, selected


def _asked(rows: pd.DataFrame, regime: Regime) -> list[Claim]:
    """What the protocol asks of a regime."""
    asked = _main(rows, regime) if MAIN in regime.compared else []
    asked += _classes(rows, regime.name) + _edits(rows, regime.name) + _single(rows, regime.name)
    if regime.causes:
        asked += _causes(rows, regime.name)
    return asked + (_influence(rows, regime.name) if regime.halves else [])


def _controls(rows: pd.DataFrame, name: str) -> list[Claim]:
    """Whether the base networks denoise held-out images better than each law that costs no training."""
    model, made = of(rows, kind="model", regime=name).iloc[0], []
    for law in LAWS:
        value = float(model.held_out_loss / model[f"{law}_loss"])
        words = (
            f"{name}: the base networks are trained, their mean held-out loss {model.held_out_loss:.3f} over that of "
            f"the {law} {model[f'{law}_loss']:.3f}"
        )
        made.append(Claim(words, value, None, below(1), "control: untrained regimes carry no claim"))
    return made


def _main(rows: pd.DataFrame, regime: Regime) -> list[Claim]:
    name, claims = regime.name, []
    claims += [_aim(rows, name, "scratch", SCRATCH), _aim(rows, name, "finetune", FINETUNE)]
    claims += [_share(rows, name, truth, MAIN) for truth in TRUTHS if judged(rows, truth)]
    claims += [claim for truth in TRUTHS for claim in _centred(rows, name, truth)]
    known = set(rows.predictor.dropna())  # tables before version 4 lack the mean over latents
    claims += [_beats(rows, name, truth, other) for truth in TRUTHS for other in BASELINES if other in known]
    return claims + [_norms(rows, name, truth) for truth in TRUTHS]


def _aim(rows: pd.DataFrame, name: str, truth: str, threshold: float, change: str = MAIN) -> Claim:
    """The thresholds of the protocol, for every regime and class as they were first applied (amendment 6)."""
    value = median_interval(correlations(rows, "flow", truth, change))
    where = name if change == MAIN else f"{name}, {change}"
    pairs = int(floor(rows, truth, change).pairs)
    words = (
        f"{where}: the sensitivity predicts the change of samples under {WORDS[truth]} (median correlation with the "
        f"mean of {pairs} pairs)"
    )
    return Claim.of(words, value, at_least(threshold, interval=True), PAPER)


def _share(rows: pd.DataFrame, name: str, truth: str, change: str) -> Claim:
    value, noise = share(rows, truth, change), floor(rows, truth, change)
    words = (
        f"{name}, {change}, {truth}: the median correlation as a share of its ceiling ({noise.ceiling:.2f} "
        f"[{noise.ceiling_low:.2f}, {noise.ceiling_high:.2f}], {int(noise.pairs)} pairs)"
    )
    return Claim.of(words, value, NEAR_CEILING, CEILING)


def _centred(rows: pd.DataFrame, name: str, truth: str) -> list[Claim]:
    """The other reading: what is left when the change that all latents share is taken from both sides."""
    estimate = joint(floor(rows, truth), "centred")
    if estimate is None:
        return []
    words = (
        f"{name}, {truth}: the same share after the mean change over latents is taken from both sides (median "
        f"correlation {estimate.correlation.estimate:.2f}, ceiling {estimate.ceiling.estimate:.2f})"
    )
    return [Claim.of(words, estimate.share, NEAR_CEILING, CEILING)]


def _beats(rows: pd.DataFrame, name: str, truth: str, other: str) -> Claim:
    value = paired(correlations(rows, "flow", truth), correlations(rows, other, truth)).difference
    words = f"{name}, {truth}: the sensitivity correlates better than the baseline '{other}' (paired median difference)"
    return Claim.of(words, value, above(0, interval=True), "baseline")


def _norms(rows: pd.DataFrame, name: str, truth: str) -> Claim:
    row = of(rows, kind="agreement", predictor="flow", truth=truth, change=MAIN).iloc[-1]
    value = Interval(row.norm_rank, row.norm_rank_low, row.norm_rank_high)
    words = (
        f"{name}, {truth}: latents predicted to move more do move more (rank correlation of norms; slope of actual "
        f"on predicted change {row.calibration:.2f} [{row.calibration_low:.2f}, {row.calibration_high:.2f}])"
    )
    return Claim.of(words, value, above(0, interval=True), "norm agreement")


def _classes(rows: pd.DataFrame, name: str) -> list[Claim]:
    names = [change for change in changes_of(rows) if change.startswith("class") and change.endswith("@0.1")]
    aims = [_aim(rows, name, "scratch", SCRATCH, change) for change in names if len(names) > 1]
    names = [change for change in names if judged(rows, "scratch", change)]
    if len(names) < 2:
        return aims
    parts = {change: share(rows, "scratch", change) for change in names}
    low = min(parts, key=lambda change: parts[change].estimate)
    words = f"{name}: median share of their ceilings over {len(names)} classes that gain mass"
    return [
        *aims,
        Claim.of(words, _pooled(rows, names), NEAR_CEILING, CEILING),
        Claim.of(f"{name}: the lowest of these shares ({low})", parts[low], NEAR_CEILING, CEILING),
    ]


def _pooled(rows: pd.DataFrame, names: list[str]) -> Interval:
    """Median over changes of the share of the ceiling; latents are common to all changes and drawn together."""
    values = np.stack([correlations(rows, "flow", "scratch", change) for change in names])
    noises = [floor(rows, "scratch", change) for change in names]
    between = np.stack([np.asarray(noise.reliabilities, dtype=float) for noise in noises])
    draws = [
        np.arange(values.shape[1]),
        *np.random.default_rng(0).integers(values.shape[1], size=(200, values.shape[1])),
    ]
    pairs = [int(noise.pairs) for noise in noises]
    estimates = [_median_share(values[:, d], between[:, d], pairs) for d in draws]
    # Classes share their base networks, so that chance is common to them: it is not averaged over classes.
    luck = np.median([chance(b, p)[: len(draws) - 1] for b, p in zip(between, pairs, strict=True)], axis=0)
    estimates[1:] = list(np.asarray(estimates[1:]) / luck)
    low, high = np.quantile(estimates[1:], 0.025, method="lower"), np.quantile(estimates[1:], 0.975, method="higher")
    return Interval(estimates[0], float(low), float(high))


def _median_share(values: np.ndarray, between: np.ndarray, pairs: list[int]) -> float:
    shares = [plain_share(v, b, p) for v, b, p in zip(values, between, pairs, strict=True)]
    return float(np.median(shares))


def _edits(rows: pd.DataFrame, name: str) -> list[Claim]:
    names = [c for c in changes_of(rows) if c.startswith(("drop-class", "contrast-class", "blur-class"))]
    return [_share(rows, name, "scratch", change) for change in names if judged(rows, "scratch", change)]


def _single(rows: pd.DataFrame, name: str) -> list[Claim]:
    """Single images, pooled: latents of all images of one kind, against the prediction for another latent."""
    claims = []
    for kind, words in (("add-image", "gains mass"), ("drop-image", "is removed")):
        names = [change for change in changes_of(rows) if change.startswith(kind)]
        if not names:
            continue
        # The same latents and base networks serve every image: a latent's mean over images is one value.
        ours, others = (
            np.mean([correlations(rows, which, "scratch", change) for change in names], axis=0)
            for which in ("flow", "shuffled")
        )
        value, ceilings = paired(ours, others).difference, [floor(rows, "scratch", c).ceiling for c in names]
        statement = (
            f"{name}: where one image {words} ({len(names)} tried), the prediction correlates better than that for "
            f"another latent (paired median difference; median correlation {np.median(ours):.2f}, ceilings "
            f"{min(ceilings):.2f} to {max(ceilings):.2f})"
        )
        claims.append(Claim.of(statement, value, above(0, interval=True), "leave-one-out and add-one-in"))
    return claims


def _causes(rows: pd.DataFrame, name: str) -> list[Claim]:
    claims = [_noise_share(rows, name, truth) for truth in TRUTHS] + [_repeated(rows, name)]
    claims += [_matched(rows, name, truth) for truth in TRUTHS]
    for truth in TRUTHS:
        row = of(rows, kind="causes", truth=truth).iloc[0]
        response = np.asarray(row.response, dtype=float)
        causes = {cause: np.asarray(row[cause], dtype=float) for cause in CAUSES}
        shares = explained(response, causes)
        claims += [_cause(name, truth, cause, shares[cause]) for cause in (*CAUSES, "all")]
        gap = quartile_gap(response, causes["boundary"])
        words = (
            f"{name}, {truth}: samples whose paths pass between classes are predicted worse (median correlation in the "
            "quarter of largest class entropy minus that in the quarter of smallest)"
        )
        claims.append(Claim.of(words, gap, below(0, interval=True), "samples near class boundaries"))
    return claims + [claim for truth in TRUTHS for claim in _swaps(rows, name, truth)]


def _noise_share(rows: pd.DataFrame, name: str, truth: str) -> Claim:
    noise = floor(rows, truth)
    between = np.asarray(noise.reliabilities, dtype=float)
    value = unexplained_by_noise(correlations(rows, "flow", truth), between, int(noise.pairs))
    words = (
        f"{name}, {truth}: share of the unexplained variance that the seed noise of {int(noise.pairs)} pairs explains, "
        "(1 − ceiling²)/(1 − median²)"
    )
    return Claim.of(words, value, above(0.5, interval=True), f"{CEILING}; seed noise is the first cause")


def _repeated(rows: pd.DataFrame, name: str) -> Claim:
    row = of(rows, kind="repeated").iloc[0]
    means, predicted = (np.asarray(row[key], dtype=float) for key in ("means", "predicted"))
    # Two means of P pairs correlate by their reliability; the prediction is held against the mean of both.
    value = share_of_ceiling(predicted, means, 2)
    words = (
        f"{name}, finetune: share of the ceiling for who knows the base networks, from fine-tuning the same networks "
        f"twice (median correlation of the two means {np.median(means):.3f}, of the prediction with both "
        f"{np.median(predicted):.3f})"
    )
    return Claim.of(words, value, NEAR_CEILING, "repeated fine-tuning")


def _matched(rows: pd.DataFrame, name: str, truth: str) -> Claim:
    row = of(rows, kind="matched", truth=truth).iloc[0]
    value = paired(np.asarray(row.own, dtype=float), np.asarray(row.other, dtype=float)).difference
    words = (
        f"{name}, {truth}: a network's prediction fits its own change better than another network's (paired median "
        f"difference; medians {np.median(row.own):.2f}, {np.median(row.other):.2f})"
    )
    source = "matched pairs: the part of the change that is a network's own is predicted"
    return Claim.of(words, value, above(0, interval=True), source)


def _cause(name: str, truth: str, cause: str, shares: tuple[Interval, Interval]) -> Claim:
    alone, added = shares
    if cause == "all":
        words = f"{name}, {truth}: share of the variance over latents of the correlation that all causes explain"
        return Claim.of(words, alone, above(0.5, interval=True), "regression on ranks")
    words = (
        f"{name}, {truth}: share of the variance over latents of the correlation that '{cause}' explains alone "
        f"(beside all others it adds {added.estimate:.2f} [{added.low:.2f}, {added.high:.2f}])"
    )
    return Claim.of(words, alone, above(0.05, interval=True), "regression on ranks")


def _swaps(rows: pd.DataFrame, name: str, truth: str) -> list[Claim]:
    known = set(of(rows, kind="agreement", truth=truth, change=MAIN).predictor)
    claims = []
    for before, after, words in SWAPS:
        if not {before, after} <= known:
            continue
        value = paired(correlations(rows, after, truth), correlations(rows, before, truth)).difference
        statement = f"{name}, {truth}: what changes if one takes {words} (paired median difference of correlations)"
        bound = below(0, interval=True) if after == "empirical" else equals(0, 0.05, interval=True)
        claims.append(Claim.of(statement, value, bound, "one ingredient exchanged"))
    return claims


def _influence(rows: pd.DataFrame, name: str) -> list[Claim]:
    scores = rows[rows.kind == "lds"].set_index("predictor").lds
    ours = np.asarray(scores["influence"], dtype=float)
    claims = []
    for other in [each for each in scores.index if each not in ("influence", "second seed")]:
        theirs = np.asarray(scores[other], dtype=float)
        value = paired(ours, theirs).difference
        words = (
            f"{name}: influences rank random halves better than '{other}' (paired median difference of the LDS; "
            f"medians {np.median(ours):.2f}, {np.median(theirs):.2f})"
        )
        claims.append(Claim.of(words, value, above(0, interval=True), "LDS, arXiv 2303.14186; no tuning"))
    second = np.asarray(scores["second seed"], dtype=float)
    value = share_of_ceiling(ours, second, int(rows[rows.kind == "lds"].seeds.max()))
    words = f"{name}: the LDS {np.median(ours):.2f} as a share of what two seeds of the halves allow"
    return [*claims, Claim.of(words, value, NEAR_CEILING, CEILING)]
