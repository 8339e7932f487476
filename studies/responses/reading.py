"""Rows of the study as statistics, and the tables of the page."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from studies.retraining.reading import LAWS, of
from studies.statistics import Interval
from studies.statistics.trainings import FEWEST_TRAININGS, Shares, share_of_trainings

Array = np.ndarray
RESPONSES = ("population", "kernel", "local", "parameters", "unrolled")
RETRAINED = "retraining"
PAIRED = ("scratch", "finetune")  # truths that are means over pairs
NOTHING = float("nan")


def table(row: pd.Series, which: str = "products") -> Array:
    """Products (n, 1 + P, 1 + P) of a row."""
    size = 1 + int(row.pairs)
    return np.asarray(row[which], dtype=float).reshape(-1, size, size)


def shares(row: pd.Series, which: str = "products") -> Shares | None:
    """The share of the ceiling with the pair as unit; None where pairs are too few or nothing is predicted."""
    numbers = table(row, which)
    if row.pairs < FEWEST_TRAININGS or not (numbers[:, 0, 0] > 0).all() or len(numbers) < 3:
        return None
    return share_of_trainings(numbers)


def over_units(values: Array) -> Interval:
    """Mean of independent units with Student's interval; without one for a single unit."""
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, NOTHING, NOTHING)
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def slope(row: pd.Series) -> Interval:
    """Of actual on predicted change, over pairs."""
    return over_units(np.asarray(row.slopes, dtype=float))


def advantage(first: pd.Series, second: pd.Series) -> Interval:
    """How much better the first response correlates with the mean change than the second, jackknifed over pairs."""
    tables, pairs = (table(first), table(second)), int(first.pairs)
    estimate = _gap(*tables)
    if pairs < FEWEST_TRAININGS:
        return Interval(estimate, NOTHING, NOTHING)
    left = np.array([_gap(*(np.delete(np.delete(t, k, 1), k, 2) for t in tables)) for k in range(1, pairs + 1)])
    error = float(np.sqrt((pairs - 1) / pairs * ((left - left.mean()) ** 2).sum()))
    half = float(stats.t.ppf(0.975, pairs - 1)) * error
    return Interval(estimate, estimate - half, estimate + half, error)


def _gap(first: Array, second: Array) -> float:
    return float(np.median(_with_mean(first)) - np.median(_with_mean(second)))


def _with_mean(products: Array) -> Array:
    """Correlation of the prediction with the mean change from products, (n,)."""
    size = np.sqrt(products[:, 0, 0] * products[:, 1:, 1:].sum(axis=(1, 2)))
    return np.divide(products[:, 0, 1:].sum(axis=1), size, out=np.zeros(len(products)), where=size > 0)


def agreement_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a regime, change, truth and response."""
    lines = []
    for _, row in of(rows, kind="answer").iterrows():
        part = shares(row) if row.truth in PAIRED else None
        lines.append(
            {
                "regime": row.regime,
                "change": row.change,
                "truth": row.truth,
                "response": row.response,
                "pairs": int(row.pairs),
                "correlation": round(float(np.median(np.asarray(row.correlations, dtype=float))), 3),
                "centred": round(float(np.median(np.asarray(row.centred, dtype=float))), 3),
                "slope": _written(slope(row)),
                "ceiling": "" if part is None else _written(part.ceiling),
                "share": "" if part is None else _written(part.share),
                "evaluations": _rounded(row.evaluations, 0),
                "seconds": _rounded(row.seconds, 2),
                "residual": "" if np.isnan(row.residual) else f"{row.residual:.1e}",
            }
        )
    return pd.DataFrame(lines)


def recommendation_table(rows: pd.DataFrame) -> pd.DataFrame:
    """For each regime, change and truth the response of largest centred correlation, and the nearest to slope one."""
    lines = []
    answers = rows[(rows.kind == "answer") & rows.response.isin(RESPONSES) & (rows.truth != "run")]
    for (regime, change, truth), group in answers.groupby(["regime", "change", "truth"], sort=False):
        centred = {row.response: float(np.median(np.asarray(row.centred, dtype=float))) for _, row in group.iterrows()}
        sizes = {row.response: abs(np.log(max(slope(row).estimate, 1e-3))) for _, row in group.iterrows()}
        best = max(centred, key=lambda name: centred[name])
        lines.append(
            {
                "regime": regime,
                "change": change,
                "truth": truth,
                "best centred correlation": f"{best} {centred[best]:.2f}",
                "slope nearest 1": min(sizes, key=lambda name: sizes[name]),
            }
        )
    return pd.DataFrame(lines)


def model_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The networks and their denoising losses beside a Gaussian's."""
    table = of(rows, kind="model")
    table = table[table.regime != "exact"].drop_duplicates("regime")
    columns = ["regime", "parameters", "count", "steps", "held_out_loss", *(f"{law}_loss" for law in LAWS), "bandwidth"]
    kept = table[[name for name in columns if name in table]]
    return kept.astype({"parameters": int, "count": int, "steps": int}).round(4).reset_index(drop=True)


def exchange_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Exchange of ingredients: centred correlation and slope of each response, a column for each truth.

    Against *run* only the source differs, network, seed and transport being the same; from *run* to *scratch* mass
    becomes finite, from *scratch* to *others* the seed is not known, which `retraining` does not know either.
    """
    lines = []
    answers = rows[(rows.kind == "answer") & rows.response.isin((*RESPONSES, RETRAINED)) & (rows.truth != "exact")]
    for (regime, change, response), group in answers.groupby(["regime", "change", "response"], sort=False):
        line: dict[str, object] = {"regime": regime, "change": change, "response": response}
        for _, row in group.iterrows():
            middle = float(np.median(np.asarray(row.centred, dtype=float)))
            line[row.truth] = f"{middle:.2f} ({slope(row).estimate:.2f})"
        lines.append(line)
    return pd.DataFrame(lines).fillna("")


def removals(rows: pd.DataFrame) -> tuple[Array, Array]:
    """Predicted and actual changes of the outputs, (removals, outputs) each; the first output is the held-out loss."""
    selected = of(rows, kind="removal").sort_values("number")
    predicted, actual = (np.array([np.asarray(v, dtype=float) for v in selected[k]]) for k in ("predicted", "actual"))
    return predicted, actual


def rank_correlations(predicted: Array, actual: Array) -> Array:
    """Spearman's correlation over removals for each output, (outputs,)."""
    return np.array([stats.spearmanr(p, a).statistic for p, a in zip(predicted.T, actual.T, strict=True)])


def leave_out(predicted: Array, actual: Array) -> tuple[Interval, Interval]:
    """Spearman's correlation of the held-out loss, and the mean over samples' ink; bootstrap over removals."""
    rng, count = np.random.default_rng(0), len(predicted)
    correlations = rank_correlations(predicted, actual)
    draws = []
    for _ in range(RESAMPLES):
        rows = rng.integers(count, size=count)
        if len(set(rows.tolist())) > 2:
            draws.append(rank_correlations(predicted[rows], actual[rows]))
    drawn = np.array(draws)
    return (
        _interval(float(correlations[0]), drawn[:, 0]),
        _interval(float(correlations[1:].mean()), drawn[:, 1:].mean(axis=1)),
    )


RESAMPLES = 400


def _interval(estimate: float, draws: Array) -> Interval:
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Interval(estimate, float(low), float(high))


def _rounded(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def _written(value: Interval) -> str:
    if np.isnan(value.low):
        return f"{value.estimate:.2f}"
    return f"{value.estimate:.2f} [{value.low:.2f}, {value.high:.2f}]"
