"""Tables of the study for the book: estimators, mean errors, paths, images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

WHOLE = ("dimension", "budget", "evaluations", "estimates")  # columns that count something


def _counted(shown: pd.DataFrame) -> pd.DataFrame:
    """With counts as integers where all of them are: rows of several kinds are stored together, counts as floats."""
    columns = [name for name in WHOLE if name in shown and (shown[name] % 1 == 0).all()]
    return shown.astype(dict.fromkeys(columns, int))


def estimators(rows: pd.DataFrame, part: str = "exact") -> pd.DataFrame:
    """Every estimator: rms error, mean error, deviation, reported standard error (nats) and cost.

    For networks `own` is against the density of the network's flow and `limit` against what the estimator converges to.
    """
    selected: Any = rows[rows.part == part]
    columns = ["dimension", "budget", "estimator", "evaluations", "milliseconds", "rms", "bias", "bias_error", "sd"]
    columns = (["family"] if part == "exact" else []) + columns + ["reported", "source_error"]
    columns += ["own_rms", "own_bias", "limit_rms"] if part == "network" else []
    selected = selected.assign(milliseconds=1e3 * selected.seconds)
    return _counted(selected[columns].reset_index(drop=True).round(5))


def mean_errors(rows: pd.DataFrame) -> pd.DataFrame:
    """The formula's mean error over many estimates, with the exact law and with the matched Gaussian at σ_max."""
    selected: Any = rows[rows.part == "bias"].sort_values(["dimension", "budget", "end"])
    shown = selected[["dimension", "budget", "end", "estimates", "bias", "bias_error", "sd", "mean_p", "state_p"]]
    return _counted(shown.rename(columns={"end": "at σ_max"}).reset_index(drop=True))


def paths(rows: pd.DataFrame) -> pd.DataFrame:
    """Errors of log p along a path and of the sensitivity at its end, at each budget."""
    selected: Any = rows[rows.part == "path"]
    shown = selected.assign(evaluations=selected.budget * selected.nodes)
    names = {"log_rms": "rms error of log p", "relative": "relative error of δ", "relative_high": "its 90 %"}
    columns = ["dimension", "estimator", "evaluations", *names, "share"]
    shown = shown[columns].rename(columns=names)
    return _counted(shown.sort_values(["dimension", "evaluations"]).reset_index(drop=True))


def images(rows: pd.DataFrame) -> pd.DataFrame:
    """Estimators on real images; the reference of each set has budget 0, and `coarse` is its own error of step."""
    selected: Any = rows[rows.part == "images"]
    columns = ["images", "budget", "estimator", "evaluations", "milliseconds", "bits", "reported", "rms", "bias", "sd"]
    selected = selected.assign(milliseconds=1e3 * selected.get("seconds", pd.Series(np.nan, selected.index)))
    return _counted(selected[[*columns, "rank", "upright", "coarse"]].reset_index(drop=True).round(4))
