"""Looking after stored results: renewing a report, status, cleaning."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studies.claim_bounds import Tally
from studies.errors import StudyError
from studies.files import TEMPORARY, explain, leftovers
from studies.reports.report import write_report
from studies.running import records
from studies.running.locks import lock, running
from studies.running.names import is_safe
from studies.running.setting import Setting
from studies.running.store import ENDINGS, FAILED, Contents, Store
from studies.running.summary import Summary
from studies.study import STUDIES, Study, load

__all__ = ["Status", "clean", "clean_cache", "folders", "judged_anew", "read_manifest", "renew", "same_study", "status"]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a result folder.

    Raises:
        StudyError: not a result folder, a damaged manifest, or another format.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise StudyError(f"{folder} is no result folder (it has no manifest.json); give OUT/STUDY/LEVEL-DIGEST.")
    return records.read(path, records.MANIFEST)


def same_study(folder: Path) -> tuple[Study, Setting] | None:
    """The study and setting of a folder; None when the study is not here or has changed since.

    Reading a result imports nothing that the result names: a study is taken if it is registered, or if its module has
    been imported already, because the user named it.

    Raises:
        StudyError: not a readable result folder.
    """
    manifest = read_manifest(folder)
    stored, module = manifest["setting"], manifest["module"]
    if module not in STUDIES.values() and module not in sys.modules:
        return None
    registered = {place: name for name, place in STUDIES.items()}
    try:
        study = load(registered.get(module, module))
        setting = Setting.of(study, stored["level"], seed=stored["seed"], device=stored["device"])
    except StudyError:
        return None
    return (study, setting) if setting.digest == manifest["digest"] else None


def contents_of(folder: Path, study: Study, setting: Setting) -> tuple[list[str], Contents]:
    """Names of all cells and what is stored of them."""
    cells = setting.cells(study)
    return [cell.name for cell in cells], Store(folder, setting).read(cells)


def renew(folder: Path | str) -> Summary:
    """Judge and draw a result folder anew from its cells and write its page.

    When the study has changed since, or is not here, what was stored at the end of the run is shown as it was.

    Raises:
        StudyError: not a result folder, or one of another format.
    """
    folder = Path(folder)
    study = same_study(folder)
    if study is None:
        summary = Summary.read(folder)
    else:
        summary = judged_anew(folder, *study)
        summary.write(folder)
    write_report(summary, folder / "report.html")
    return summary


def judged_anew(folder: Path, study: Study, setting: Setting) -> Summary:
    """What the cells of a folder say, every file checked; the environment is that of the run, not of this process."""
    order, contents = contents_of(folder, study, setting)
    summary = Summary.of(study, setting, contents, order, folder)
    return replace(summary, environment=read_manifest(folder)["environment"])


@dataclass(frozen=True)
class Status:
    """What a result folder holds.

    Attributes:
        folder: where.
        study, level: of what.
        cells: how many there are to be; None when the study has changed or is not here.
        finished, failed: cells by their files.
        claims: how many hold, fail and are open, or None before the end of the run.
        running: whether a run holds the folder now; None where that cannot be told.
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
    running: bool | None
    age: float
    problems: list[str]


def folders(out: Path | str) -> list[Path]:
    """All result folders below `out`.

    Raises:
        StudyError: `out` is not a folder.
    """
    out = Path(out)
    if not out.is_dir():
        raise StudyError(f"{out} is no folder; run a study first or give the folder of results with --out.")
    try:
        return sorted(path.parent for path in out.glob("*/*/manifest.json"))
    except OSError as error:
        raise StudyError(explain(error, out)) from error


def newest(place: Path | str) -> Path:
    """A result folder: `place` itself, or the one below OUT/STUDY or OUT that changed last.

    Raises:
        StudyError: there is no result folder.
    """
    place = Path(place)
    if (place / "manifest.json").exists():
        return place
    try:
        folders = [path.parent for pattern in ("*/manifest.json", "*/*/manifest.json") for path in place.glob(pattern)]
    except OSError as error:
        raise StudyError(explain(error, place)) from error
    if not folders:
        raise StudyError(f"{place} is no result folder and holds none; give OUT, OUT/STUDY or OUT/STUDY/LEVEL-DIGEST.")
    return max(
        folders, key=lambda folder: max(_changed(folder / name) for name in ("manifest.json", "summary.json", "cells"))
    )


def status(folder: Path | str, *, check: bool = False) -> Status:
    """State of one result folder; with `check` every file is read and verified.

    Raises:
        StudyError: not a readable result folder.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    study = same_study(folder)
    names = [path.name for path in (folder / "cells").glob("*.json")]
    failed = sum(name.endswith(FAILED) for name in names)
    judged, problems = _judged(folder)
    if check and study:
        problems += contents_of(folder, *study)[1].problems
    return Status(
        folder=folder,
        study=manifest["setting"]["study"],
        level=manifest["setting"]["level"],
        cells=None if study is None else len(study[1].cells(study[0])),
        finished=len(names) - failed,
        failed=failed,
        claims=judged,
        running=running(folder),
        age=time.time() - max(_changed(path) for path in (folder / "cells", folder / "manifest.json")),
        problems=problems,
    )


def _judged(folder: Path) -> tuple[Tally | None, list[str]]:
    """How many claims hold, fail and are open, if that was judged; and what is wrong with the summary."""
    if not (folder / "summary.json").exists():
        return None, []
    try:
        claims = Summary.read(folder).claims
    except StudyError as error:
        return None, [str(error).rstrip(".")]
    return Tally.of(claim.verdict for claim in claims), []


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


CACHED = re.compile(r"[^/]+-[0-9a-f]{16}\.(safetensors|sha256|lock)")
OWN = ("manifest.json", "summary.json", "claims.json", "rows.parquet", "report.html")


def clean(folder: Path | str, *, everything: bool = False) -> list[Path]:
    """Remove what is of no use from a result folder: files half written and damaged cells; or all of it.

    Returns:
        What was removed.

    Raises:
        StudyError: a run holds the folder, it is not a result folder, it is or holds a link, or it also holds files
            that are not known to be a study's.
    """
    folder = Path(folder)
    read_manifest(folder)
    for place in (folder, *(folder / name for name in ("cells", "figures", "arrays"))):
        if place.is_symlink():
            raise StudyError(f"{place} is a link, which no study made; remove it first.")
    with lock(folder):
        try:
            return _remove_all(folder) if everything else _remove_useless(folder)
        except OSError as error:
            raise StudyError(explain(error, folder)) from error


def _remove_useless(folder: Path) -> list[Path]:
    removed = [path for place in (folder, folder / "cells") for path in leftovers(place)]
    if study := same_study(folder):
        order, contents = contents_of(folder, *study)
        useless = [
            folder / "cells" / f"{name}{end}" for name in order if name not in contents.tables for end in ENDINGS
        ]
        removed += [path for path in useless if path.is_file()]
    for path in removed:
        path.unlink(missing_ok=True)
    return removed


def _remove_all(folder: Path) -> list[Path]:
    """Remove exactly the files that a study wrote, then the empty folders; a stranger's file stops it beforehand."""
    files = set(_own(folder))
    places = (folder, folder / "cells", folder / "figures")
    for path in (path for place in places if place.is_dir() for path in place.iterdir()):
        if path not in files and path not in places and path not in (folder / "arrays", folder / "lock"):
            raise StudyError(
                f"{folder} also holds {str(path.relative_to(folder))!r}, which no study is known to have written; "
                "move it away first."
            )
    if (folder / "arrays").is_dir():
        shutil.rmtree(folder / "arrays")
    for path in files:
        path.unlink(missing_ok=True)
    for place in reversed(places):
        if place != folder and place.is_dir():
            place.rmdir()
    (folder / "lock").unlink(missing_ok=True)
    folder.rmdir()
    return [folder]


def _own(folder: Path) -> Iterator[Path]:
    """Files whose content or name says that a study wrote them."""
    yield from (folder / name for name in OWN if (folder / name).is_file())
    for place in (folder, folder / "cells", folder / "figures"):
        yield from leftovers(place)
    with suppress(StudyError):
        drawn = records.read(folder / "summary.json", records.SUMMARY)["alt"]
        yield from (folder / "figures" / f"{name}.png" for name in drawn)
    for name in _cell_names(folder):
        yield from (folder / "cells" / f"{name}{ending}" for ending in ENDINGS)


def _cell_names(folder: Path) -> set[str]:
    """Cells of the study, if it is here; and those whose record says that they belong to this folder."""
    digest = read_manifest(folder)["digest"]
    study = same_study(folder)
    names = {cell.name for cell in study[1].cells(study[0])} if study else set()
    for path in (folder / "cells").glob("*.json"):
        kind = records.FAILURE if path.name.endswith(FAILED) else records.RECORD
        with suppress(StudyError):
            record = records.read(path, kind)
            if record["digest"] == digest:
                names.add(record["cell"])
    return names


def clean_cache(out: Path, study: str) -> list[Path]:
    """Remove a study's trained networks once none of its results are left; what else lies there stays."""
    home = out / study
    cache = home / "cache"
    if not is_safe(study) or not cache.is_dir() or cache.is_symlink() or list(home.glob("*/manifest.json")):
        return []
    try:
        for path in cache.iterdir():
            if CACHED.fullmatch(path.name) or path.name.endswith(TEMPORARY):
                path.unlink()
        cache.rmdir()
    except OSError as error:
        raise StudyError(explain(error, cache)) from error
    return [cache]
