"""Rows of the study as arrays, and the tables of the page."""

from __future__ import annotations

import numpy as np
import pandas as pd

from studies.retraining.config import MAIN
from studies.retraining.measures import from_products, share_of_ceiling
from studies.statistics import Interval, Shares, median_interval, share_of_trainings
from studies.statistics.trainings import FEWEST_TRAININGS

Array = np.ndarray
LAWS = ("gaussian", "kernel")  # what a trained network must denoise better than


def of(rows: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """The rows whose columns have the given values."""
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows


def correlations(rows: pd.DataFrame, predictor: str, truth: str, change: str = MAIN) -> Array:
    """Per-latent correlations of a predictor with the mean change of all pairs, (n,)."""
    chosen = of(rows, kind="agreement", predictor=predictor, truth=truth, change=change).sort_values("pairs")
    return np.asarray(chosen.iloc[-1].correlation, dtype=float)


def floor(rows: pd.DataFrame, truth: str, change: str = MAIN) -> pd.Series:
    """The noise floor of one truth."""
    noise: pd.Series = of(rows, kind="floor", truth=truth, change=change).iloc[0]
    return noise


def share(rows: pd.DataFrame, truth: str, change: str = MAIN, predictor: str = "flow") -> Interval:
    """Median correlation over the ceiling, with its interval.

    Where a row keeps the products of all pairs, pairs and latents are resampled jointly; otherwise the pairs' part of
    the interval is simulated, with noise wholly common to a pair's latents.
    """
    noise = floor(rows, truth, change)
    if predictor == "flow" and (estimate := joint(noise)) is not None:
        return estimate.share
    return share_of_ceiling(
        correlations(rows, predictor, truth, change), np.asarray(noise.reliabilities, dtype=float), int(noise.pairs)
    )


def joint(noise: pd.Series, kind: str = "products") -> Shares | None:
    """Agreement with the pair as unit; None where the row keeps no products, or has too few pairs."""
    stored, pairs = noise.get(kind), int(noise.pairs)
    if stored is None or np.ndim(stored) == 0 or pairs < FEWEST_TRAININGS:
        return None
    return share_of_trainings(from_products(np.asarray(stored), pairs))


def judged(rows: pd.DataFrame, truth: str, change: str = MAIN) -> bool:
    """Whether retraining moves samples reproducibly enough to judge a prediction: the ceiling's interval is above 0."""
    return bool(floor(rows, truth, change).ceiling_low > 0)


def untrained(rows: pd.DataFrame) -> set[str]:
    """Regimes whose networks denoise held-out images no better than a Gaussian or a kernel density of the data."""
    models = of(rows, kind="model")
    if "held_out_loss" not in models:
        return set()
    least = models[[f"{law}_loss" for law in LAWS if f"{law}_loss" in models]].min(axis=1)
    return set(models[models.held_out_loss >= least].regime)


def changes_of(rows: pd.DataFrame) -> list[str]:
    """The changes that were measured, in order."""
    return list(dict.fromkeys(rows[rows.kind == "floor"].change))


def agreement_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a regime, change and truth: the predictions of `flow` beside their ceilings, all that was measured."""
    lines = []
    for _, noise in rows[rows.kind == "floor"].iterrows():
        selected = rows[rows.regime == noise.regime]
        values = correlations(selected, "flow", noise.truth, noise.change)
        chosen = of(selected, kind="agreement", predictor="flow", truth=noise.truth, change=noise.change).iloc[-1]
        middle, part = median_interval(values), share(selected, noise.truth, noise.change)
        lines.append(
            {
                "regime": noise.regime,
                "change": noise.change,
                "truth": noise.truth,
                "pairs": int(noise.pairs),
                "median": _written(middle),
                "quartiles": f"{np.quantile(values, 0.25):.2f} … {np.quantile(values, 0.75):.2f}",
                "ceiling": _written(Interval(noise.ceiling, noise.ceiling_low, noise.ceiling_high)),
                "share": _written(part),
                "cosine": f"{np.median(np.asarray(chosen.cosine, dtype=float)):.2f}",
                "norms, rank": _written(Interval(chosen.norm_rank, chosen.norm_rank_low, chosen.norm_rank_high)),
                "slope": _written(Interval(chosen.calibration, chosen.calibration_low, chosen.calibration_high)),
            }
        )
    return pd.DataFrame(lines)


def predictor_table(rows: pd.DataFrame, truth: str) -> pd.DataFrame:
    """Median correlations of every predictor and baseline, one column a regime."""
    wide = of(rows, kind="agreement", truth=truth, change=MAIN)
    wide = wide[wide.pairs == wide.groupby("regime").pairs.transform("max")]
    wide = wide.assign(median=[float(np.median(np.asarray(c, dtype=float))) for c in wide.correlation])
    full = wide[wide.regime.isin(wide.regime[wide.predictor == "transport"])]
    return full.pivot(index="predictor", columns="regime", values="median")[list(dict.fromkeys(full.regime))].round(3)


def model_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Denoising losses of the base networks and of two laws on held-out images."""
    columns = ["regime", "count", "bandwidth", "train_loss", "held_out_loss", "kernel_loss", "gaussian_loss"]
    return rows[rows.kind == "model"][columns].astype({"count": int}).round(4).reset_index(drop=True)


def _written(value: Interval) -> str:
    return f"{value.estimate:.2f} [{value.low:.2f}, {value.high:.2f}]"
