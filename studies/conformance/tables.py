"""Tables of the study `conformance` for its page."""

from __future__ import annotations

import pandas as pd

from studies.conformance.findings import Finding, cause

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


def differences(rows: pd.DataFrame) -> str:
    """What differs, as Markdown, each cause once: whose it is, a way round, a proposed change, what was measured."""
    shown: dict[Finding | str, list[str]] = {}
    for _, row in rows[rows["status"] == "differs"].iterrows():
        name = f"{row['package']} {row['version']}"
        measured = f"`{row['check']}` {_error(row) or row['note'].split(':')[0]}"
        shown.setdefault(cause(row["package"], row["check"]) or f"**{name}**: not yet known", []).append(measured)
    return "\n".join(f"- {_told(finding)} Seen in {', '.join(seen)}." for finding, seen in shown.items())


def _told(finding: Finding | str) -> str:
    if isinstance(finding, str):
        return finding
    # Stars are powers there, and not Markdown's.
    why, way_round, mend = (
        text.replace("*", r"\*").replace("<", "&lt;") for text in (finding.cause, finding.way_round, finding.mend)
    )
    return (
        f"**{finding.package} {finding.version}** ({finding.whose}). {why} *Way round*: {way_round} *Proposed*: {mend}"
    )


def _error(row: pd.Series) -> str:
    if pd.isna(row["error"]):
        return ""
    order = "" if pd.isna(row["expected_order"]) else f", order {row['order']:.2f} for {row['expected_order']:.0f}"
    return f"{row['error']:.2g} {row['unit']}{order}"
