"""Claims of the study `attribution`."""

from __future__ import annotations

import pandas as pd

from studies.attribution import EMPIRICAL, EXACT, OURS
from studies.claim_bounds import above
from studies.statistics import Interval, mean_of_units
from studies.study import Claim

__all__ = ["verdicts"]

GRADIENT = (
    "TracIn",
    "gradient product",
    "gradient cosine",
    "TRAK",
    "D-TRAK features",
    "influence function",
)  # or "…, damping …"
SOURCES = {
    "truth": "analytic influence (Scarvelis & Solomon, arXiv 2509.23092)",
    "lds": "retrained halves (Park et al., arXiv 2303.14186)",
}
WORDS = {"truth": "the true influence", "lds": "what retraining on halves does (LDS)"}


def verdicts(rows: pd.DataFrame) -> list[Claim]:
    """One control and, per law, ours against the best gradient method and the empirical score by both judges."""
    claims = [_control(rows)]
    for law in dict.fromkeys(rows["law"]):
        part = rows[rows["law"] == law]
        for judge in ("truth", "lds"):
            best = _best(part, judge)
            if best:
                claims.append(_comparison(part, law, judge, best))
        claims.append(_comparison(part, law, "truth", EMPIRICAL))
    return claims


def _control(rows: pd.DataFrame) -> Claim:
    values = rows[rows["method"] == EXACT].groupby(["law", "draw"])["truth"].median()
    return Claim.of(
        "With the exact score, the engine's influences rank training points as the analytic influence does.",
        mean_of_units(values.to_numpy(dtype=float)),
        above(0.999, interval=True),
        SOURCES["truth"],
    )


def _best(part: pd.DataFrame, judge: str) -> str:
    """The gradient method of largest median; empty if none was run."""
    medians = part[part["method"].map(_by_gradients)].groupby("method")[judge].median()
    return "" if medians.empty else str(medians.idxmax())


def _by_gradients(method: str) -> bool:
    return method.split(", damping")[0] in GRADIENT


def _comparison(part: pd.DataFrame, law: str, judge: str, other: str) -> Claim:
    kind = "the best gradient method here, " if _by_gradients(other) else ""
    return Claim.of(
        f"{law}: influence through the network's score agrees better with {WORDS[judge]} than {kind}{other} "
        f"(paired difference of rank correlations, median of a draw's queries, mean over {part['draw'].nunique()} "
        "draws).",
        _paired(part, judge, other),
        above(0, interval=True),
        SOURCES[judge],
    )


def _paired(part: pd.DataFrame, judge: str, other: str) -> Interval:
    """Ours minus the other. The unit is a draw of the data: all its queries are asked of the same networks."""
    table = part.pivot_table(index=["draw", "query"], columns="method", values=judge)
    each = (table[OURS] - table[other]).groupby(level="draw").median()
    return mean_of_units(each.to_numpy(dtype=float))
