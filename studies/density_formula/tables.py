"""Tables of the study for the book: which estimator, when; implications; images."""

from __future__ import annotations

from typing import Any

import pandas as pd

EVERY_CASE = ["family", "dimension", "budget"]


def which(rows: pd.DataFrame) -> pd.DataFrame:
    """For each law and budget the estimator of least rms error, the next one, and what the error does to a source.

    An estimator that was not run at a budget stands there with its last result below it. The mixture fitted to draws
    is left out: it knows that the law is a mixture of three components.
    """
    exact: Any = rows[(rows.part == "exact") & (rows.estimator != "mixture")]
    found = []
    for family, dimension, budget in exact.groupby(EVERY_CASE, sort=True).groups:
        own = exact[(exact.family == family) & (exact.dimension == dimension) & (exact.budget <= budget)]
        last = own.sort_values("budget").drop_duplicates("estimator", keep="last")
        order = last.sort_values("rms")
        best, second = order.iloc[0], order.iloc[1]
        found.append(
            {
                "laws": family,
                "d": int(dimension),
                "evaluations": int(budget),
                "least rms error": f"{best.estimator} ({best.rms:.2g})",
                "next": f"{second.estimator} ({second.rms:.2g})",
                "relative error of ṡ": f"{best.source_error:.2g}",
                "published formula": f"{order[order.estimator == 'published'].rms.iloc[0]:.2g}",
            }
        )
    return pd.DataFrame(found)


def estimators(rows: pd.DataFrame, part: str = "exact") -> pd.DataFrame:
    """Every estimator: rms error, mean error, deviation, reported standard error (nats) and cost."""
    own: Any = rows[rows.part == part]
    columns = ["dimension", "budget", "estimator", "evaluations", "rms", "bias", "bias_error", "persistent", "sd"]
    columns = (["family"] if part == "exact" else []) + columns + ["reported", "source_error"]
    columns += ["own_rms"] if part == "network" else []
    return own[columns].reset_index(drop=True).round(5)


def images(rows: pd.DataFrame) -> pd.DataFrame:
    """Estimators on real images; the first row of each set is the reference."""
    own: Any = rows[rows.part == "images"]
    columns = ["images", "estimator", "evaluations", "bits", "reported", "rms", "bias", "rank", "upright"]
    return own[columns].reset_index(drop=True).round(4)
