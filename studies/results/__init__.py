"""Published tables: the final rows, claims and manifest of studies, shipped with the package.

`studies/results/NAME/` holds `rows.parquet`, `claims.json`, `manifest.json` and the figures as PNG. They are written by
`studies run NAME --full --publish` (or `studies publish DIR`) and read by the book.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from studies.errors import StudyError
from studies.files import checksum, make_folder, read_json, write, write_json
from studies.running.summary import Summary, read_claims, write_claims
from studies.running.tables import decode, frame, to_bytes
from studies.study import Claim, suggestion

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FOLDER", "LARGEST", "Published", "load", "names", "publish"]

FOLDER = Path(__file__).resolve().parent
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
    manifest = read_json(home / "manifest.json")
    content = (home / "rows.parquet").read_bytes() if (home / "rows.parquet").is_file() else b""
    if checksum(content) != manifest.get("rows_checksum"):
        raise StudyError(f"the published rows of {name!r} differ from their checksum; restore or publish them again.")
    return Published(frame(decode(content)), read_claims(home / "claims.json"), manifest)


def publish(result: Path | str, folder: Path = FOLDER) -> Path:
    """Copy the final tables of a complete result folder here.

    Raises:
        StudyError: cells are missing or failed, or a table or figure is too large to be kept in git.
    """
    summary = Summary.read(Path(result))
    if not summary.complete or summary.failures:
        raise StudyError(f"{result} is not complete; only results with every cell finished are published.")
    content = to_bytes(summary.rows)
    home = folder / summary.study
    parts = {"rows.parquet": content} | {f"{name}.png": each.png for name, each in summary.figures.items()}
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
    write_claims(home / "claims.json", summary.claims)
    write_json(home / "manifest.json", _manifest(summary) | {"rows_checksum": checksum(content)})
    return home


def _manifest(summary: Summary) -> dict[str, Any]:
    return {
        "study": summary.study,
        "question": summary.question,
        "setting": summary.setting,
        "digest": summary.digest,
        "environment": summary.environment,
        "origin": summary.origin,
        "notes": summary.notes,
        "figures": {name: each.alt for name, each in summary.figures.items()},
    }
