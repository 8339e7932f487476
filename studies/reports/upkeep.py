"""Looking after stored results: renewing a report, status, cleaning."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.bounds import Tally
from studies.errors import StudyError
from studies.files import TEMPORARY, read_json
from studies.reports.report import write_report
from studies.running.setting import Setting
from studies.running.store import ENDINGS, FAILED, Contents, Store, check_format, held, lock
from studies.running.summary import Summary, read_claims
from studies.study import Study, load

__all__ = ["Status", "clean", "clean_cache", "folders", "read_manifest", "renew", "same_study", "status"]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a result folder.

    Raises:
        StudyError: not a result folder, a damaged manifest, or another format.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise StudyError(f"{folder} is no result folder (it has no manifest.json); give OUT/STUDY/LEVEL-DIGEST.")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or "setting" not in manifest or "digest" not in manifest:
        raise StudyError(f"{path} is damaged; run the study again to renew it.")
    check_format(manifest, path)
    return manifest


def same_study(folder: Path) -> tuple[Study, Setting] | None:
    """The study and setting of a folder; None when the study is not here or has changed since.

    Raises:
        StudyError: not a readable result folder.
    """
    manifest = read_manifest(folder)
    stored = manifest["setting"]
    try:
        study = load(manifest.get("module") or stored["study"])
        setting = Setting.of(study, stored["level"], seed=stored["seed"], device=stored["device"])
    except (StudyError, KeyError):
        return None
    return (study, setting) if setting.digest == manifest["digest"] else None


def contents_of(folder: Path, study: Study, setting: Setting) -> tuple[list[str], Contents]:
    """Names of all cells and what is stored of them."""
    cells = setting.cells(study)
    return [cell.name for cell in cells], Store(folder, setting).read(cells)


def renew(folder: Path) -> Summary:
    """Judge and draw a result folder anew from its cells and write its page.

    When the study has changed since, or is not here, what was stored at the end of the run is shown as it was.

    Raises:
        StudyError: not a result folder, or one of another format.
    """
    found = same_study(folder)
    if found is None:
        summary = Summary.read(folder)
    else:
        order, contents = contents_of(folder, *found)
        summary = Summary.of(*found, contents, order, folder)
        summary.write(folder)
    write_report(summary, folder / "report.html")
    return summary


@dataclass(frozen=True)
class Status:
    """What a result folder holds.

    Args:
        folder: where.
        study, level: of what.
        cells: how many there are to be; None when the study has changed or is not here.
        finished, failed: cells by their files.
        claims: how many hold, fail and are open, or None before the end of the run.
        running: whether a run holds the folder now.
        age: seconds since the last change.
        problems: damaged or foreign files, when they were looked for.
    """

    folder: Path
    study: str
    level: str
    cells: int | None
    finished: int
    failed: int
    claims: Tally | None
    running: bool
    age: float
    problems: list[str]


def folders(out: Path) -> list[Path]:
    """All result folders below `out`.

    Raises:
        StudyError: `out` is not a folder.
    """
    if not out.is_dir():
        raise StudyError(f"{out} is no folder; run a study first or give the folder of results with --out.")
    return sorted(path.parent for path in out.glob("*/*/manifest.json"))


def status(folder: Path, *, check: bool = False) -> Status:
    """State of one result folder; with `check` every file is read and verified.

    Raises:
        StudyError: not a readable result folder.
    """
    manifest = read_manifest(folder)
    found = same_study(folder)
    names = {path.name for path in (folder / "cells").glob("*.json")}
    failed = sum(name.endswith(FAILED) for name in names)
    problems = contents_of(folder, *found)[1].problems if check and found else []
    return Status(
        folder=folder,
        study=manifest["setting"]["study"],
        level=manifest["setting"]["level"],
        cells=None if found is None else len(found[1].cells(found[0])),
        finished=len(names) - failed,
        failed=failed,
        claims=_held(folder),
        running=held(folder),
        age=time.time() - max(path.stat().st_mtime for path in (folder / "cells", folder / "manifest.json")),
        problems=problems,
    )


def _held(folder: Path) -> Tally | None:
    if not (folder / "claims.json").is_file():
        return None
    return Tally.of(claim.verdict for claim in read_claims(folder / "claims.json"))


OWN = {
    "cells",
    "figures",
    "arrays",
    "lock",
    "manifest.json",
    "summary.json",
    "claims.json",
    "rows.parquet",
    "report.html",
}


def clean(folder: Path, *, everything: bool = False) -> list[Path]:
    """Remove what is of no use from a result folder: files half written and damaged cells; or all of it.

    Returns:
        What was removed.

    Raises:
        StudyError: a run holds the folder, it is not a result folder, or it also holds files that are not a study's.
    """
    read_manifest(folder)
    with lock(folder):
        if everything:
            _refuse_strangers(folder)
            shutil.rmtree(folder)
            return [folder]
        removed = [path for place in (folder, folder / "cells") for path in place.glob(f".*{TEMPORARY}")]
        if found := same_study(folder):
            order, contents = contents_of(folder, *found)
            whole = set(contents.tables)
            useless = [folder / "cells" / f"{name}{end}" for name in order if name not in whole for end in ENDINGS]
            removed += [path for path in useless if path.exists()]
        for path in removed:
            path.unlink(missing_ok=True)
        return removed


def _refuse_strangers(folder: Path) -> None:
    strangers = sorted(
        path.name for path in folder.iterdir() if path.name not in OWN and not path.name.endswith(TEMPORARY)
    )
    if strangers:
        raise StudyError(f"{folder} also holds {strangers[0]!r}, which no study wrote; move it away first.")


def clean_cache(out: Path, study: str) -> list[Path]:
    """Remove a study's trained networks once none of its results are left."""
    home = out / study
    if (home / "cache").is_dir() and not list(home.glob("*/manifest.json")):
        shutil.rmtree(home / "cache")
        return [home / "cache"]
    return []
