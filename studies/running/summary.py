"""What a result folder says once its cells are in: rows, claims, figures and where they came from."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from studies.claim_bounds import Condition, Recorded, Verdict, restored
from studies.errors import StudyError
from studies.files import checksum, make_folder, read, write
from studies.running import provenance, records, text
from studies.running.foreign import ForeignError, contained
from studies.running.names import fitted
from studies.running.tables import decode, frame, join, to_bytes
from studies.study import STUDIES, Claim, Study

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from studies.running.setting import Setting
    from studies.running.store import Contents

__all__ = ["Picture", "Summary", "claims_from", "claims_of", "claims_to"]

DOTS_PER_INCH = 150


@dataclass(frozen=True)
class Picture:
    """A figure as PNG with its text alternative."""

    png: bytes
    alt: str


@dataclass(frozen=True)
class Summary:
    """Everything a report shows.

    Attributes:
        study, question: the study's name and question.
        setting: what the rows depend on (`Setting.describe`).
        digest: its digest.
        environment: versions, commit and machine of the run that made the summary.
        origin: over all cells: their number, how many are finished, seconds, peak memory, commits; and the name to
            run the study by.
        rows: all rows.
        claims: the study's claims.
        figures: pictures by name.
        failures: error and traceback of failed cells.
        notes: sentences about the run.
    """

    study: str
    question: str
    setting: dict[str, Any]
    digest: str
    environment: dict[str, Any]
    origin: dict[str, Any]
    rows: pa.Table
    claims: list[Claim]
    figures: dict[str, Picture]
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return bool(self.origin["finished"] == self.origin["cells"])

    def write(self, folder: Path) -> None:
        """Store rows, claims, figures and the rest beside the cells; the rest, written last, has their checksums."""
        parts = {"rows.parquet": to_bytes(self.rows), "claims.json": claims_to(self.claims)}
        parts |= {_place(name): picture.png for name, picture in self.figures.items()}
        make_folder(folder / "figures")
        for name, content in parts.items():
            write(folder / name, content)
        rest = {
            key: getattr(self, key)
            for key in ("study", "question", "setting", "digest", "environment", "origin", "failures", "notes")
        }
        sums = {"files": {name: checksum(content) for name, content in parts.items()}}
        alt = {"alt": {name: each.alt for name, each in self.figures.items()}}
        records.write(folder / "summary.json", records.SUMMARY, rest | sums | alt | {"format": records.FORMAT})

    @classmethod
    def read(cls, folder: Path) -> Summary:
        """Inverse of `write`.

        Raises:
            StudyError: something is missing or damaged.
        """
        rest = records.read(folder / "summary.json", records.SUMMARY)
        alt, sums = rest.pop("alt"), rest.pop("files")
        del rest["format"]

        def whole(name: str) -> bytes:
            content = read(folder / name)
            if checksum(content) != sums.get(name):
                raise StudyError(f"{folder / name} is damaged (it differs from its checksum); run the study again.")
            return content

        figures = {name: Picture(whole(_place(name)), alt[name]) for name in alt}
        claims = claims_from(whole("claims.json"), folder / "claims.json")
        return cls(rows=decode(whole("rows.parquet")), claims=claims, figures=figures, **rest)

    @classmethod
    def of(cls, study: Study, setting: Setting, contents: Contents, order: Sequence[str], folder: Path) -> Summary:
        """Judge and draw what a store holds.

        Args:
            order: names of all cells; rows come in this order, whatever the order of computation.
        """
        rows = join([contents.tables[name] for name in order if name in contents.tables])
        data = with_folder(frame(rows), folder)
        complete = len(contents.tables) == len(order)
        claims, notes = claims_of(study, data, setting.config, complete)
        figures, more = _figures(study, data, setting.config, complete)
        return cls(
            study=study.NAME,
            question=text.line(study.QUESTION),
            setting=setting.describe(),
            digest=setting.digest,
            environment=provenance.environment(),
            origin=_origin(contents, len(order)) | {"run_as": name_of(study)},
            rows=rows,
            claims=claims,
            figures=figures,
            failures=contents.failures,
            notes=[*contents.problems, *_mixed(contents), *notes, *more],
        )


def name_of(study: Study) -> str:
    """What `studies run` knows the study by: its name if it is registered, its module otherwise."""
    return study.NAME if study.NAME in STUDIES else study.__name__


def _place(figure: str) -> str:
    """Where a figure lies in a result folder."""
    return f"figures/{figure}.png"


def _mixed(contents: Contents) -> list[str]:
    """A sentence where rows come from more than one state of the code or of the packages."""
    codes = {record["code"] for record in contents.records.values()}
    if len(codes) < 2:
        return []
    return [f"the rows come from {len(codes)} states of the study's code or packages ({', '.join(sorted(codes))})"]


def with_folder(rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Tell claims and figures where a cell's arrays lie: `rows.attrs["folder"]`."""
    rows.attrs["folder"] = str(folder)
    return rows


def claims_of(study: Study, rows: pd.DataFrame, config: Any, complete: bool) -> tuple[list[Claim], list[str]]:
    """The study's claims; on incomplete rows an exception is a note.

    Raises:
        StudyError: the claims raise on complete rows.
    """
    if not len(rows):
        return [], []
    try:
        with contained():
            return [_plain(claim) for claim in study.claims(rows, config)], []
    except ForeignError as error:
        if complete:
            sentence = f"the claims of {study.NAME!r} could not be computed: {error.line.rstrip('.')}."
            raise StudyError(sentence) from error
        return [], [f"claims need the missing cells ({error.line})"]


def _figures(study: Study, rows: pd.DataFrame, config: Any, complete: bool) -> tuple[dict[str, Picture], list[str]]:
    if not len(rows):
        return {}, []
    try:
        with contained():
            return _drawn(study.figures(rows, config)), []
    except ForeignError as error:
        if complete:
            raise StudyError(f"the figures of {study.NAME!r} could not be drawn: {error.line.rstrip('.')}.") from error
        return {}, [f"figures need the missing cells ({error.line})"]


def _drawn(figures: Mapping[str, Figure]) -> dict[str, Picture]:
    """Pictures by safe names.

    Raises:
        ValueError: two figures have one name, once it is made safe.
    """
    drawn: dict[str, Picture] = {}
    for name, figure in figures.items():
        key = fitted(name)
        if key in drawn:
            raise ValueError(f"two figures are named {key!r}; give each a name of letters and digits of its own")
        drawn[key] = picture(name, figure)
    return drawn


def picture(name: str, figure: Figure) -> Picture:
    """A Matplotlib figure as PNG, with the attribute `alt` (or its name) as text alternative."""
    buffer = io.BytesIO()
    # Software and date are left out so that equal rows give equal files.
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight", metadata={"Software": None})
    return Picture(buffer.getvalue(), text.line(getattr(figure, "alt", "") or name.replace("_", " "), 5000))


def _plain(claim: Claim) -> Claim:
    """A claim with Python's own numbers and safe text."""
    low_high = None if claim.interval is None else (float(claim.interval[0]), float(claim.interval[1]))
    return dataclasses.replace(
        claim,
        statement=text.line(claim.statement, 5000),
        source=text.line(claim.source, 5000),
        measured=_number(claim.measured),
        interval=low_high,
        conditions=tuple(dataclasses.replace(each, measured=float(each.measured)) for each in claim.conditions),
    )


def _number(value: Any) -> float | str:
    return text.line(value) if isinstance(value, str) else float(value)


def _origin(contents: Contents, cells: int) -> dict[str, Any]:
    records = list(contents.records.values())
    return {
        "cells": cells,
        "finished": len(contents.tables),
        "seconds": sum(record["seconds"] for record in records),
        "peak_memory_bytes": max((record["peak_memory_bytes"] for record in records), default=0),
        "commits": sorted({str(record["commit"]) for record in records}),
    }


def claims_to(claims: Sequence[Claim]) -> bytes:
    """Claims as JSON."""
    return (json.dumps([_stored(claim) for claim in claims], indent=1) + "\n").encode()


def _stored(claim: Claim) -> dict[str, Any]:
    """What a file keeps: the bound, and for whoever reads the file its words and the verdict."""
    return {
        "statement": claim.statement,
        "measured": claim.measured,
        "interval": claim.interval,
        "expected": claim.expected,
        "source": claim.source,
        "verdict": claim.verdict.value,
        "bound": claim.bound.stored(),
        "conditions": [
            {"what": each.what, "measured": each.measured, "bound": each.bound.stored(), "interval": each.interval}
            for each in claim.conditions
        ],
    }


def claims_from(content: bytes, path: Path) -> list[Claim]:
    """Inverse of `claims_to`.

    Raises:
        StudyError: damaged.
    """
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError):
        entries = None
    reasons = (
        [records.fault(item, records.CLAIM) for item in entries] if isinstance(entries, list) else ["it is no list"]
    )
    if reason := next(filter(None, reasons), ""):
        raise StudyError(f"{path} is damaged ({reason}); run the study again to renew it.")
    try:
        return [_claim(item) for item in entries or []]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise StudyError(f"{path} is damaged ({text.sentence_of(error)}); run the study again to renew it.") from error


def _claim(item: Mapping[str, Any]) -> Claim:
    """A stored claim, judged anew; one stored before bounds existed keeps the verdict it was stored with."""
    head = item["statement"], item["measured"], _ends(item["interval"])
    if "bound" not in item:
        words = item["expected"] if isinstance(item["expected"], str) else f"{item['expected']:g}"
        return Claim(*head, Recorded(words, Verdict.HOLDS if item["holds"] else Verdict.FAILS), item["source"])
    conditions = tuple(
        Condition(each["what"], each["measured"], restored(each["bound"]), _ends(each["interval"]))
        for each in item["conditions"]
    )
    claim = Claim(*head, restored(item["bound"]), item["source"], conditions=conditions)
    if claim.verdict != item["verdict"]:
        raise ValueError(f"the verdict {item['verdict']!r} of {claim.statement!r} does not follow from its bound")
    return claim


def _ends(interval: Sequence[float] | None) -> tuple[float, float] | None:
    return None if interval is None else (interval[0], interval[1])
