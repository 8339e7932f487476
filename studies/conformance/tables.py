"""Tables of the study `conformance` for its page."""

from __future__ import annotations

from typing import Any

import pandas as pd

from studies.conformance.findings import cause

__all__ = ["densities", "differences", "overview"]

STATUSES = ("agrees", "differs", "not applicable", "did not install")


def overview(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a package: version, and how many checks have which status."""
    counts = rows.groupby(["package", "version"], sort=False)["status"].value_counts().unstack(fill_value=0)
    return counts.reindex(columns=list(STATUSES), fill_value=0).reset_index()


def densities(rows: pd.DataFrame) -> pd.DataFrame:
    """Likelihoods by package and shape: exact and Hutchinson's, flat and image-shaped."""
    part = rows[rows["check"].str.contains("likelihood")]
    return pd.DataFrame(
        {
            "package": part["package"],
            "check": part["check"],
            "states": part["shape"].replace("none", ""),
            "verdict": part["status"],
            "error": [_error(row) for _, row in part.iterrows()],
            "note": part["note"],
        }
    )


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """What differs: the measurement, whose it is, the cause, what a user can do, and what its authors could."""
    records: list[dict[str, Any]] = []
    for _, row in rows[rows["status"] == "differs"].iterrows():
        finding = cause(row["package"], row["check"])
        records.append(
            {
                "package": f"{row['package']} {row['version']}",
                "check": row["check"],
                "measured": _error(row) or row["note"].split(":")[0],
                "whose": "" if finding is None else finding.whose,
                "cause": "not yet known" if finding is None else finding.cause,
                "way round": "" if finding is None else finding.way_round,
                "proposed change": "" if finding is None else finding.mend,
            }
        )
    return pd.DataFrame(records)


def _error(row: pd.Series) -> str:
    if pd.isna(row["error"]):
        return ""
    order = "" if pd.isna(row["expected_order"]) else f", order {row['order']:.2f} for {row['expected_order']:.0f}"
    return f"{row['error']:.2g} {row['unit']}{order}"
