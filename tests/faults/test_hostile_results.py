"""Results from elsewhere: reading them runs nothing, and their names lead nowhere."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support import demonstration
from support.finished import CELL, RUN, STUDY, commands, sealed

from studies import results, runner
from studies.cli import main
from studies.errors import StudyError
from studies.runner import Result
from studies.running import provenance, records, text
from studies.running.names import fitted, is_safe
from studies.running.summary import Summary

# Reading runs no code


@pytest.mark.parametrize("name", list(commands(Path())))
def test_a_module_that_a_result_names_is_not_imported(name: str, whole: Result, tmp_path: Path) -> None:
    """Assert that a manifest from elsewhere runs nothing, although its module could be imported from here."""
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    sealed(whole.folder / "manifest.json", module="evil")
    main(commands(whole.folder)[name])
    assert not (tmp_path / "ran").exists()


def test_a_module_that_the_user_names_is_used(whole: Result, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that `--study` imports it, and that an unknown result says how to name it."""
    sealed(whole.folder / "manifest.json", module="unheard.of")
    assert main(["status", "--out", "out"]) == 0
    assert "name it with --study" in " ".join(capsys.readouterr().out.split())
    sealed(whole.folder / "manifest.json", module=STUDY)
    assert main(["status", "--study", STUDY, "--out", "out"]) == 0
    assert "4/4 cells" in capsys.readouterr().out


# Names do not become paths


@pytest.mark.parametrize(
    "name", ["../victim", "/tmp/victim-of-a-name", "a/b", "..", ".hidden", "", "x" * 200, "a\\b", "a\nb", 5]
)
def test_a_study_with_an_unsafe_name_writes_nothing(
    name: Any, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert exit code 2 and not one file more, inside or outside of the folder of results."""
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(demonstration, "NAME", name)
    assert main([*RUN, "--out", "out"]) == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/victim-of-a-name").exists()


def victim(tmp_path: Path) -> Callable[[], bool]:
    """Files that nobody may touch; the function says whether they are as they were."""
    home = tmp_path / "victim"
    home.mkdir()
    for name in ("holiday.png", "claims.json", "n=10-1.json", ".x.1.0.tmp"):
        (home / name).write_text("precious")
    return lambda: sorted(path.read_text() for path in home.iterdir()) == ["precious"] * 4


PATHS: dict[str, Callable[[Path, Path], Any]] = {
    "a study in the summary": lambda folder, home: sealed(folder / "summary.json", study="../victim"),
    "an absolute study in the summary": lambda folder, home: sealed(folder / "summary.json", study=str(home)),
    "a study in the manifest": lambda folder, home: sealed(
        folder / "manifest.json", setting=_setting(folder) | {"study": "../victim"}
    ),
    "a figure in the summary": lambda folder, home: sealed(
        folder / "summary.json", alt={"../../../../victim/holiday": "x"}
    ),
    "a level in the manifest": lambda folder, home: sealed(
        folder / "manifest.json", setting=_setting(folder) | {"level": "../victim"}
    ),
    "a cell in a record": lambda folder, home: sealed(folder / "cells" / f"{CELL}.json", cell="../../../../victim/x"),
    "linked cells": lambda folder, home: _link(folder / "cells", home),
    "linked figures": lambda folder, home: _link(folder / "figures", home),
    "linked arrays": lambda folder, home: (folder / "arrays").symlink_to(home),
    "a linked cache": lambda folder, home: (folder.parent / "cache").symlink_to(home),
    "a linked result": lambda folder, home: _moved(folder, home),
    "a stranger's figure": lambda folder, home: (folder / "figures" / "holiday.png").write_text("precious"),
    "a stranger's cell": lambda folder, home: (folder / "cells" / "thesis.json").write_text("precious"),
    "a stranger in the cache": lambda folder, home: _cached(folder.parent / "cache"),
}


def _setting(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text())["setting"])


def _link(place: Path, target: Path) -> None:
    shutil.rmtree(place)
    place.symlink_to(target)


def _moved(folder: Path, home: Path) -> None:
    shutil.copytree(folder, home / "moved")
    shutil.rmtree(folder)
    folder.symlink_to(home / "moved")


def _cached(place: Path) -> None:
    place.mkdir()
    (place / "thesis.tex").write_text("precious")


@pytest.mark.parametrize("case", PATHS)
def test_no_stored_name_leads_outside(case: str, whole: Result, tmp_path: Path) -> None:
    """Assert that no command changes a file that is not a study's, whatever names and links a result holds."""
    if case == "a linked result":
        home = tmp_path / "victim"
        home.mkdir()
        _moved(whole.folder, home)
        before = sorted(home.rglob("*"))
        assert main(commands(whole.folder)["clean --all"]) == 2
        assert sorted(path for path in home.rglob("*") if path.name != "lock") == [
            p for p in before if p.name != "lock"
        ]
        return
    untouched = victim(tmp_path)
    PATHS[case](whole.folder, tmp_path / "victim")
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    strangers = [*tmp_path.rglob("holiday.png"), *tmp_path.rglob("thesis.*")]
    for arguments in commands(whole.folder).values():
        main(arguments)
    assert untouched()
    assert all(path.read_text() == "precious" for path in strangers)
    assert {path.name for path in shelf.iterdir()} <= {"demonstration"}


def test_enough_paths_are_tried() -> None:
    """Assert twelve path attacks at least."""
    assert len(PATHS) >= 12


def test_published_rows_are_those_of_the_cells(whole: Result, tmp_path: Path) -> None:
    """Assert that edited final rows and claims with fresh checksums are not what is published."""
    summary = Summary.read(whole.folder)
    better = summary.rows.set_column(2, "mean", pa.array([0.5] * 4))
    dataclasses.replace(summary, rows=better, claims=[]).write(whole.folder)
    home = results.publish(whole.folder, tmp_path / "shelf")
    published = results.load("demonstration", tmp_path / "shelf")
    assert list(published.rows["mean"]) == list(whole.rows["mean"])
    assert len(published.claims) == 1
    for name in ("rows.parquet", "claims.json", "manifest.json"):
        content = (home / name).read_bytes()
        (home / name).write_bytes(content.replace(b"1", b"2", 1))
        with pytest.raises(StudyError):
            results.load("demonstration", tmp_path / "shelf")
        (home / name).write_bytes(content)


def test_names_of_figures_are_made_safe(whole: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a figure's name is a file in its folder, and that two that become one are refused."""
    from matplotlib.figure import Figure

    names = ["../../x", ".hidden", "y" * 300, "a/b"]
    monkeypatch.setattr(demonstration, "figures", lambda rows, config: {name: Figure() for name in names})
    assert main([*RUN, "--out", "out"]) == 0
    drawn = {path.stem for path in (whole.folder / "figures").iterdir()}
    assert {fitted(name) for name in names} <= drawn
    assert all(map(is_safe, drawn))
    monkeypatch.setattr(demonstration, "figures", lambda rows, config: {"a/b": Figure(), "a-b": Figure()})
    assert main([*RUN, "--out", "out"]) == 2


def test_text_from_outside_is_safe_and_short() -> None:
    """Assert that what reaches terminal and file can be written in any encoding and moves no cursor."""
    for bad in ("\udc80", "\x1b[2J", "\x00", "\u202e", "a\r\nb", "x" * 10**7, "\x9b31m", "\u2028"):
        safe = text.line(bad)
        assert len(safe) < 600
        safe.encode("utf-8")
        assert safe.isprintable()
    assert text.sentence_of(ValueError()) == "ValueError"


@pytest.mark.parametrize("workers", ["99999999999999999999", "100000"])
def test_too_many_workers_are_refused(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert the bound in a sentence."""
    assert main(["run", STUDY, "--smoke", "--workers", workers]) == 2
    assert f"at most {runner.MOST_WORKERS * provenance.usable_cores()}" in capsys.readouterr().err


@pytest.mark.parametrize("name", [".", "..", "a..b", "-x.y", "a b.c", "a/b.c"])
def test_what_is_no_name_of_a_module_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert one sentence."""
    assert main(["run", "--smoke", "--", name]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_documents_are_of_their_kind() -> None:
    """Assert that each field of every kind is missed, and that what is written is read as it was."""
    for kind in (records.MANIFEST, records.RECORD, records.FAILURE, records.SUMMARY, records.PUBLISHED):
        for name in kind:
            assert records.fault({key: None for key in kind if key != name}, {name: kind[name]})


def test_published_tables_load_and_are_refused_once_they_change(tmp_path: Path) -> None:
    """Assert that every committed table loads, and none whose rows have changed or whose manifest has lost its seal."""
    from studies.reports.papers import missing

    home = Path(results.__file__).parent
    for name in results.names(home):
        published = results.load(name, home)
        assert len(published.rows)
        assert published.claims
    assert missing() == []
    shutil.copytree(home / "groups", tmp_path / "groups")
    path = tmp_path / "groups" / "rows.parquet"
    rows = path.read_bytes()
    path.write_bytes(rows[:-1] + b"x")
    with pytest.raises(StudyError, match="differ from their checksum"):
        results.load("groups", tmp_path)
    path.write_bytes(rows)
    manifest = tmp_path / "groups" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["format"]
    manifest.write_text(json.dumps(content))
    with pytest.raises(StudyError, match="damaged"):
        results.load("groups", tmp_path)
