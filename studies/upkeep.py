"""Looking after stored results: renewing a report, status, cleaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studies.errors import StudyError
from studies.files import read_json
from studies.report import write_report
from studies.setting import Setting
from studies.store import Contents, Store, check_format
from studies.study import Study, load
from studies.summary import Summary

__all__ = ["read_manifest", "renew", "same_study"]


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
