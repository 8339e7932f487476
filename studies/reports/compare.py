"""Two results of one study side by side, with their differences tested."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from studies.errors import StudyError
from studies.running.summary import Summary
from studies.running.tables import CELL, frame
from studies.statistics import Paired, holm, paired

if TYPE_CHECKING:
    import pandas as pd

    from studies.study import Claim

__all__ = ["ClaimPair", "ColumnPair", "Comparison", "compare"]

LEVEL = 0.05  # of the family of all columns, after Holm's adjustment
TIMINGS = ("seconds", "bytes")  # columns that end so differ from run to run: shown, but no difference


@dataclass(frozen=True)
class ColumnPair:
    """One numeric column in both results, row by row.

    Attributes:
        name: of the column.
        first, second: medians.
        test: the paired comparison; None when the two are equal bit for bit or have no number in common.
        p_value: adjusted for the number of columns; 0 when they are not numbers in the same rows.
        timing: whether the column is expected to differ.
    """

    name: str
    first: float
    second: float
    test: Paired | None
    p_value: float
    timing: bool

    @property
    def differs(self) -> bool:
        return self.p_value < LEVEL and not self.timing


@dataclass(frozen=True)
class ClaimPair:
    """One claim in both results; None where a result does not make it."""

    statement: str
    first: Claim | None
    second: Claim | None

    @property
    def differs(self) -> bool:
        return self.first is None or self.second is None or self.first.verdict != self.second.verdict


@dataclass(frozen=True)
class Comparison:
    """What two results share and where they differ.

    Attributes:
        claims, columns: side by side.
        unmatched: cells that only one of the two has.
        relabelled: columns of text or lists that are not equal, with the number of rows.
    """

    claims: list[ClaimPair]
    columns: list[ColumnPair]
    unmatched: list[str]
    relabelled: dict[str, int]

    @property
    def differs(self) -> bool:
        """Whether a verdict changed, a cell is missing, a label changed, or a column moved significantly."""
        verdicts = any(pair.differs for pair in self.claims)
        return bool(self.unmatched or self.relabelled) or verdicts or any(pair.differs for pair in self.columns)


def compare(first: Path | str, second: Path | str) -> Comparison:
    """Compare two result folders of one study.

    Rows are matched by cell and by position in the cell. Every numeric column is tested by a paired signed-rank test,
    adjusted over columns (Holm); with fewer than six rows no difference can be significant.

    Raises:
        StudyError: a folder holds no finished summary, or the two belong to different studies.
    """
    a, b = Summary.read(Path(first)), Summary.read(Path(second))
    if a.study != b.study:
        raise StudyError(
            f"{first} is of the study {a.study!r} and {second} of {b.study!r}; compare one study's results."
        )
    left, right = _keyed(frame(a.rows)), _keyed(frame(b.rows))
    unmatched = sorted({name for name, _ in left.index.symmetric_difference(right.index)})
    shared = left.index.intersection(right.index)
    columns, relabelled = _columns(left.loc[shared], right.loc[shared])
    return Comparison(_claims(a.claims, b.claims), columns, unmatched, relabelled)


def _keyed(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.assign(position=rows.groupby(CELL).cumcount())
    return rows.set_index([CELL, "position"])


def _claims(first: list[Claim], second: list[Claim]) -> list[ClaimPair]:
    a, b = ({claim.statement: claim for claim in claims} for claims in (first, second))
    return [ClaimPair(statement, a.get(statement), b.get(statement)) for statement in dict.fromkeys([*a, *b])]


def _columns(left: pd.DataFrame, right: pd.DataFrame) -> tuple[list[ColumnPair], dict[str, int]]:
    raw: list[ColumnPair] = []
    relabelled: dict[str, int] = {}
    for name in dict.fromkeys([*left.columns, *right.columns]):
        if name not in left or name not in right:
            relabelled[str(name)] = len(left)
        elif _numeric(left[name]) and _numeric(right[name]):
            raw.append(_column(str(name), left[name].to_numpy(float), right[name].to_numpy(float)))
        elif unequal := sum(not _same(x, y) for x, y in zip(left[name], right[name], strict=True)):
            relabelled[str(name)] = unequal
    return _adjusted(raw), relabelled


def _numeric(values: pd.Series) -> bool:
    return values.dtype.kind in "biuf"


def _same(first: object, second: object) -> bool:
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return np.array_equal(np.asarray(first), np.asarray(second))
    return bool(first == second)


def _column(name: str, first: np.ndarray, second: np.ndarray) -> ColumnPair:
    timing = name.endswith(TIMINGS)
    finite = np.isfinite(first) & np.isfinite(second)
    a, b = (float(np.median(values[finite])) if finite.any() else float("nan") for values in (first, second))
    if np.array_equal(first, second, equal_nan=True):
        return ColumnPair(name, a, b, None, 1.0, timing)
    test = paired(first[finite], second[finite]) if finite.any() else None
    same_gaps = np.array_equal(first[~finite], second[~finite], equal_nan=True)
    return ColumnPair(name, a, b, test, test.p_value if test and same_gaps else 0.0, timing)


def _adjusted(columns: list[ColumnPair]) -> list[ColumnPair]:
    if not columns:
        return []
    adjusted = holm([column.p_value for column in columns])
    return [
        ColumnPair(c.name, c.first, c.second, c.test, float(p), c.timing)
        for c, p in zip(columns, adjusted, strict=True)
    ]
