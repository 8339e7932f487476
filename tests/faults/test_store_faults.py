"""Broken stores: every damaged, foreign or outdated file is named and redone, or refused with one sentence."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest
from support import demonstration

from studies import files
from studies.cli import main
from studies.errors import StudyError
from studies.reports import upkeep
from studies.runner import Result, run
from studies.running.store import Store

STUDY = "support.demonstration"
CELL = "n=10-1"


def again(out: Path) -> Result:
    return run(STUDY, "smoke", out=out, workers=0)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return again(tmp_path_factory.mktemp("template"))


@pytest.fixture
def whole(template: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """A finished result of four cells; figures are not drawn again, to save time."""
    out = template.folder.parent.parent
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(demonstration, "figures", lambda rows, config: {})
    return dataclasses.replace(template, folder=tmp_path / template.folder.relative_to(out))


def seal(path: Path, record: dict[str, Any]) -> None:
    """Store a record with a seal that fits, so that what is looked at is its content."""
    record.pop("sha256", None)
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    path.write_text(json.dumps(record | {"sha256": files.checksum(text.encode())}))


def change(path: Path, **fields: Any) -> None:
    seal(path, json.loads(path.read_text()) | fields)


def drop(path: Path, key: str) -> None:
    record = json.loads(path.read_text())
    del record[key]
    seal(path, record)


def swap(cells: Path, other: str, ending: str) -> None:
    (cells / f"{CELL}{ending}").write_bytes((cells / f"{other}{ending}").read_bytes())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def truncate(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def as_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


ROWS, RECORD = f"{CELL}.parquet", f"{CELL}.json"
REDONE: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "rows cut short": (lambda cells: truncate(cells / ROWS, 0.5), "differ from their checksum"),
    "rows with one bit flipped": (lambda cells: flip(cells / ROWS), "differ from their checksum"),
    "empty rows": (lambda cells: truncate(cells / ROWS, 0), "differ from their checksum"),
    "missing rows": (lambda cells: (cells / ROWS).unlink(), "its rows are missing"),
    "rows of another cell": (lambda cells: swap(cells, "n=100-0", ".parquet"), "differ from their checksum"),
    "rows that are text": (lambda cells: (cells / ROWS).write_text("hello"), "differ from their checksum"),
    "rows without a record": (lambda cells: (cells / RECORD).unlink(), None),
    "a record cut short": (lambda cells: truncate(cells / RECORD, 0.7), "its record is damaged"),
    "an empty record": (lambda cells: truncate(cells / RECORD, 0), "its record is damaged"),
    "a record of bytes": (lambda cells: (cells / RECORD).write_bytes(b"\xff\xfe\x00"), "its record is damaged"),
    "a record that is a list": (lambda cells: (cells / RECORD).write_text("[1]"), "its record is damaged"),
    "a record without checksum": (lambda cells: drop(cells / RECORD, "checksum"), "its record is damaged"),
    "a record of an older format": (lambda cells: change(cells / RECORD, format=0), "format 0, this version reads 2"),
    "a record of another setting": (lambda cells: change(cells / RECORD, digest="0" * 16), "another setting"),
    "a record of another cell": (lambda cells: swap(cells, "n=100-0", ".json"), "another setting"),
    "another seed": (lambda cells: change(cells / RECORD, seed=5), "seed or parameters"),
    "other parameters": (lambda cells: change(cells / RECORD, parameters={}), "seed or parameters"),
    "another version": (
        lambda cells: change(cells / RECORD, versions={"score-sensitivity": "0.0.1"}),
        "computed by version 0.0.1",
    ),
    "no version and no commit": (
        lambda cells: change(cells / RECORD, versions={"score-sensitivity": "absent"}, commit=None),
        "computed by version absent",
    ),
    "no versions": (lambda cells: change(cells / RECORD, versions=None), "its record is damaged"),
    "other code": (lambda cells: change(cells / RECORD, code="0" * 16), "by other code of the study"),
    "an unreadable failure": (lambda cells: (cells / f"{CELL}.failed.json").write_text("{"), "failure of cell"),
    "a foreign file": (lambda cells: (cells / "notes.txt").write_text("mine"), "belongs to no cell"),
    "a half-written file": (lambda cells: (cells / ".x.1.0.tmp").write_text("half"), None),
    "no manifest": (lambda cells: (cells.parent / "manifest.json").unlink(), None),
    "a manifest cut short": (lambda cells: truncate(cells.parent / "manifest.json", 0.5), None),
    "a manifest that is a list": (lambda cells: (cells.parent / "manifest.json").write_text("[]"), None),
    "no summary": (lambda cells: (cells.parent / "summary.json").unlink(), None),
    "final rows cut short": (lambda cells: truncate(cells.parent / "rows.parquet", 0.5), None),
}


@pytest.mark.parametrize("case", REDONE)
def test_a_broken_store_is_mended_by_running_again(case: str, whole: Result, tmp_path: Path) -> None:
    """Assert that the damage is named, only what is damaged is computed, and the rows end as they were."""
    damage, sentence = REDONE[case]
    rows = (whole.folder / "rows.parquet").read_bytes()
    damage(whole.folder / "cells")
    mended = again(tmp_path)
    assert mended.exit_code == 0
    assert (mended.folder / "rows.parquet").read_bytes() == rows
    assert any(sentence in note for note in mended.notes) if sentence else not mended.notes
    assert not list(whole.folder.rglob("*.tmp"))


def test_a_cell_of_files_that_were_not_installed_is_known_by_its_commit(whole: Result, tmp_path: Path) -> None:
    """Assert that rows computed where the package was not installed are read; without a commit they are not (above)."""
    change(whole.folder / "cells" / RECORD, versions={"score-sensitivity": "absent"}, commit="0" * 40)
    assert not upkeep.status(whole.folder, check=True).problems


@pytest.mark.parametrize("case", [case for case, (_, said) in REDONE.items() if said and case != "other code"])
def test_status_names_the_damage(case: str, whole: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that `studies status --check` says the same and exits with 1."""
    damage, sentence = REDONE[case]
    damage(whole.folder / "cells")
    assert main(["status", "--check", "--out", str(tmp_path)]) == 1
    assert str(sentence) in " ".join(capsys.readouterr().out.split())


def test_only_the_damaged_cell_is_computed_again(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert that whole cells are kept."""
    calls: list[str] = []
    real = demonstration.run_cell
    monkeypatch.setattr(demonstration, "run_cell", lambda cell, context: calls.append(cell.name) or real(cell, context))
    flip(whole.folder / "cells" / ROWS)
    again(tmp_path)
    assert calls == [CELL]


def test_a_foreign_file_is_left_where_it_is(whole: Result, tmp_path: Path) -> None:
    """Assert that what no study wrote is not removed, not even by clean."""
    foreign = whole.folder / "cells" / "notes.txt"
    foreign.write_text("mine")
    again(tmp_path)
    upkeep.clean(whole.folder)
    assert foreign.read_text() == "mine"


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a record that is a folder": (lambda folder: as_folder(folder / "cells" / RECORD), "move it away"),
    "rows that are a folder": (lambda folder: as_folder(folder / "cells" / ROWS), "move it away"),
    "a newer format": (lambda folder: change(folder / "manifest.json", format=99), "is of format 99"),
    "another setting's manifest": (lambda folder: change(folder / "manifest.json", digest="0" * 16), "another setting"),
    "cells that are a file": (
        lambda folder: (folder / "cells").rename(folder / "c") and (folder / "cells").touch(),
        "",
    ),
    "a lock that is a folder": (lambda folder: as_folder(folder / "lock"), "it is a folder"),
    "figures that are a file": (
        lambda folder: as_file(folder / "figures"),
        "it is a file",
    ),
    "final rows that are a folder": (lambda folder: as_folder(folder / "rows.parquet"), "it is a folder"),
}


def sentence_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence that an error consists of."""
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("studies: ")
    assert error.rstrip().endswith(".")
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize("case", REFUSED)
def test_an_unusable_store_is_refused_with_one_sentence(
    case: str, whole: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert exit code 2, one sentence and no traceback."""
    damage, sentence = REFUSED[case]
    damage(whole.folder)
    assert main(["run", STUDY, "--smoke", "--workers", "0", "--out", str(tmp_path)]) == 2
    assert sentence in sentence_of(capsys)


def test_a_second_run_of_the_same_setting_is_refused(
    whole: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert that a held lock stops run and clean, shows in status, and hurts nothing."""
    held = filelock.FileLock(whole.folder / "lock")
    with held:
        assert main(["run", STUDY, "--smoke", "--workers", "0", "--out", str(tmp_path)]) == 2
        assert "another run is writing" in sentence_of(capsys)
        with pytest.raises(StudyError, match="another run is writing"):
            upkeep.clean(whole.folder)
        assert upkeep.status(whole.folder).running
    assert not upkeep.status(whole.folder).running
    assert again(tmp_path).exit_code == 0


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EFBIG, "size limit"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission is denied"),
    ],
)
def test_a_disk_that_refuses_costs_nothing_that_was_stored(
    code: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert one sentence when writing fails midway, finished cells kept, and the same rows after running again."""
    real, left = os.replace, [5]  # the manifest and two cells

    def replace(source: object, target: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(code, os.strerror(code))
        real(source, target)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", replace)
        assert main(["run", STUDY, "--smoke", "--workers", "0", "--out", str(tmp_path)]) == 2
    assert advice in sentence_of(capsys)
    assert not list(tmp_path.rglob("*.tmp"))
    kept = {path.name for path in tmp_path.rglob("cells/*.json")}
    assert kept == {"n=10-0.json", "n=10-1.json"}
    calls: list[str] = []
    compute = demonstration.run_cell
    monkeypatch.setattr(
        demonstration, "run_cell", lambda cell, context: calls.append(cell.name) or compute(cell, context)
    )
    assert again(tmp_path).exit_code == 0
    assert calls == ["n=100-0", "n=100-1"]


def test_a_folder_without_write_permission_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert the sentence for a real folder that cannot be written (root may write anywhere but below a file)."""
    (tmp_path / "file").touch()
    assert main(["run", STUDY, "--smoke", "--workers", "0", "--out", str(tmp_path / "file")]) == 2
    assert "is a file" in sentence_of(capsys)
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        assert main(["run", STUDY, "--smoke", "--workers", "0", "--out", str(tmp_path / "closed")]) == 2
        assert "permission is denied" in sentence_of(capsys)


def test_a_result_whose_study_has_changed_is_reported_as_it_was(whole: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that an old result keeps its report, and that nothing is judged by a changed study."""
    monkeypatch.setattr(demonstration, "VERSION", 2, raising=False)
    summary = upkeep.renew(whole.folder)
    assert [claim.measured for claim in summary.claims] == [claim.measured for claim in whole.claims]
    assert upkeep.status(whole.folder).cells is None


def test_clean_removes_damaged_cells_and_leaves_whole_ones(whole: Result) -> None:
    """Assert that exactly the files of the damaged cell go."""
    flip(whole.folder / "cells" / ROWS)
    removed = upkeep.clean(whole.folder)
    assert {path.name for path in removed} == {ROWS, RECORD}
    assert len(list((whole.folder / "cells").iterdir())) == 6


def test_store_read_of_nothing_is_empty(tmp_path: Path) -> None:
    """Assert that a folder that does not exist yet holds nothing."""
    from studies.running.setting import Setting

    setting = Setting.of(demonstration, "smoke")
    contents = Store.below(tmp_path, setting).read(setting.cells(demonstration))
    assert not contents.tables
    assert not contents.problems
