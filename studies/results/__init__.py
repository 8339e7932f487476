"""Published tables: the final rows, claims and manifest of studies, shipped with the package.

`studies/results/NAME/` holds `rows.parquet`, `claims.json`, `manifest.json` and the figures as PNG. They are written by
`studies run NAME --full --publish` (or `studies publish DIR`) and read by the book.

A manifest is sealed and has the checksum of every file beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from studies.errors import StudyError
from studies.files import checksum, make_folder, read, write
from studies.running import records
from studies.running.names import safe
from studies.running.summary import Summary, claims_from, claims_to
from studies.running.tables import decode, frame, to_bytes
from studies.study import Claim, suggestion

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FOLDER", "LARGEST", "Published", "load", "names", "publish"]

FOLDER = Path(__file__).resolve().parent
SEALED = {**records.PUBLISHED, "format": records.whole, "files": records.named(records.digits(64))}
LARGEST = 1_000_000  # bytes: these tables are kept in git


class Published(NamedTuple):
    """A published result: `rows, claims, manifest = load(name)`."""

    rows: pd.DataFrame
    claims: list[Claim]
    manifest: dict[str, Any]


def names(folder: Path = FOLDER) -> list[str]:
    """Studies with published tables."""
    return sorted(path.parent.name for path in folder.glob("*/manifest.json"))


def load(name: str, folder: Path = FOLDER) -> Published:
    """Rows, claims and manifest of a published study.

    Raises:
        StudyError: nothing is published under that name, or its files are damaged.
    """
    if name not in names(folder):
        known = names(folder)
        raise StudyError(
            f"nothing is published for the study {name!r}; {suggestion(name, known)}."
            if known
            else f"nothing is published for the study {name!r}; run 'studies run {name} --full --publish'."
        )
    home = folder / name
    manifest = records.read(home / "manifest.json", SEALED)
    sums = manifest["files"]

    def whole(part: str, known: str) -> bytes:
        content = read(home / part)
        if part in sums and checksum(content) != sums[part]:
            raise StudyError(f"the published {known} of {name!r} differ from their checksum; publish them again.")
        return content

    claims = claims_from(whole("claims.json", "claims"), home / "claims.json")
    return Published(frame(decode(whole("rows.parquet", "rows"))), claims, manifest)


def publish(result: Path | str, folder: Path = FOLDER) -> Path:
    """Judge the cells of a complete result folder and keep the tables here; its own summary is not asked.

    Raises:
        StudyError: its study is not here, cells are missing, damaged or failed, or a table or figure is too large to
            be kept in git.
    """
    from studies.reports.upkeep import judged_anew, same_study

    result = Path(result)
    study = same_study(result)
    if study is None:
        raise StudyError(
            f"the study of {result} is not here or has changed since, so that its cells cannot be judged; "
            "name its module with --study, or run it again."
        )
    summary = judged_anew(result, *study)
    if not summary.complete or summary.failures:
        raise StudyError(f"{result} is not complete; only results with every cell finished are published.")
    content = to_bytes(summary.rows, level=19)
    home = folder / safe(summary.study, "study")
    parts = {"rows.parquet": content, "claims.json": claims_to(summary.claims)}
    parts |= {f"{name}.png": each.png for name, each in summary.figures.items()}
    for name, part in parts.items():
        if len(part) > LARGEST:
            raise StudyError(
                f"{name} of {summary.study!r} takes {len(part)} bytes and at most {LARGEST} are published; "
                "keep long arrays out of the rows and figures small."
            )
    make_folder(home)
    for old in home.glob("*.png"):
        old.unlink()
    for name, part in parts.items():
        write(home / name, part)
    sums = {name: checksum(part) for name, part in parts.items()}
    records.write(home / "manifest.json", SEALED, _manifest(summary, sums))
    return home


def _manifest(summary: Summary, sums: dict[str, str]) -> dict[str, Any]:
    return {
        "format": records.FORMAT,
        "study": summary.study,
        "question": summary.question,
        "setting": summary.setting,
        "digest": summary.digest,
        "environment": summary.environment,
        "origin": summary.origin,
        "notes": summary.notes,
        "figures": {name: each.alt for name, each in summary.figures.items()},
        "rows_checksum": sums["rows.parquet"],
        "files": sums,
    }
