"""Results from elsewhere: reading them runs nothing, their names lead nowhere, and no damage passes for a result."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support import demonstration

from studies import cache, files, results, runner
from studies.cli import main
from studies.errors import StudyError
from studies.reports import upkeep
from studies.runner import Result, run
from studies.running import code, locks, provenance, records, text
from studies.running.names import fitted, is_safe
from studies.running.setting import Setting
from studies.running.store import Store
from studies.running.summary import Summary
from studies.running.tables import to_bytes

STUDY = "support.demonstration"
RUN = ["run", STUDY, "--smoke", "--workers", "0"]
CELL = "n=10-1"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(STUDY, "smoke", out=tmp_path_factory.mktemp("template") / "out", workers=0)


@pytest.fixture
def whole(template: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """A finished result in `out` of an otherwise empty folder, which is the current one."""
    shutil.copytree(template.folder.parent.parent, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demonstration, "figures", lambda rows, config: {})
    monkeypatch.setattr(results, "FOLDER", tmp_path / "shelf")
    monkeypatch.setattr(results.publish, "__defaults__", (tmp_path / "shelf",))
    folder = tmp_path / "out" / template.folder.relative_to(template.folder.parent.parent)
    return dataclasses.replace(template, folder=folder)


def sealed(path: Path, **fields: Any) -> None:
    """Change fields of a document as one does who knows how it is sealed."""
    content = {**json.loads(path.read_text()), **fields}
    content.pop("sha256", None)
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"))
    path.write_text(json.dumps({**content, "sha256": files.checksum(plain.encode())}))


def commands(folder: Path) -> dict[str, list[str]]:
    return {
        "status": ["status", "--out", "out"],
        "status --check": ["status", "--check", "--out", "out"],
        "report": ["report", str(folder)],
        "compare": ["compare", str(folder), str(folder)],
        "publish": ["publish", str(folder)],
        "clean": ["clean", "--out", "out"],
        "clean --all": ["clean", "--all", "--yes", "--out", "out"],
    }


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


# No damage passes


def test_no_flipped_bit_passes(whole: Result) -> None:
    """Assert for 50 bits each of a record, of rows and of the final files that the damage is seen."""
    rng = random.Random(0)
    cells = Setting.of(demonstration, "smoke").cells(demonstration)
    store = Store(whole.folder, Setting.of(demonstration, "smoke"))
    tried = 0
    for name in ("manifest.json", "summary.json", "claims.json", "rows.parquet", "figures/means.png"):
        path = whole.folder / name
        before = path.read_bytes()
        for content in flipped(path, 12, rng):
            path.write_bytes(content)
            with pytest.raises(StudyError):
                upkeep.read_manifest(whole.folder) if name == "manifest.json" else Summary.read(whole.folder)
            tried += 1
        path.write_bytes(before)
    for name in (f"cells/{CELL}.json", f"cells/{CELL}.parquet"):
        before = (whole.folder / name).read_bytes()
        for content in flipped(whole.folder / name, 50, rng):
            (whole.folder / name).write_bytes(content)
            stored = store.read(cells)
            assert set(stored.tables) == {cell.name for cell in cells} - {CELL}, name
            assert len(stored.problems) == 1
            tried += 1
        (whole.folder / name).write_bytes(before)
    assert tried >= 150
    print(f"flips: {tried} tried, {tried} held")


def flipped(path: Path, count: int, rng: random.Random) -> list[bytes]:
    """Contents with one bit changed, `count` of them."""
    values = []
    for _ in range(count):
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        values.append(bytes(content))
    return values


def rewritten(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rows changed by one who knows how they are checked."""
    path = folder / "cells" / f"{CELL}.parquet"
    import pyarrow.parquet as pq

    content = to_bytes(change(pq.read_table(path)))
    path.write_bytes(content)
    sealed(folder / "cells" / f"{CELL}.json", checksum=files.checksum(content))


DEEP = "[" * 200_000
DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a deep manifest": lambda folder: (folder / "manifest.json").write_text(DEEP),
    "a setting that is a number": lambda folder: sealed(folder / "manifest.json", setting=5),
    "no cells": lambda folder: shutil.rmtree(folder / "cells"),
    "cells that are a file": lambda folder: (shutil.rmtree(folder / "cells"), (folder / "cells").touch()),
    "a deep record": lambda folder: (folder / "cells" / f"{CELL}.json").write_text(DEEP),
    "seconds that are text": lambda folder: sealed(folder / "cells" / f"{CELL}.json", seconds="long"),
    "seconds that are null": lambda folder: sealed(folder / "cells" / f"{CELL}.json", seconds=None),
    "seconds that are NaN": lambda folder: sealed(folder / "cells" / f"{CELL}.json", seconds=float("nan")),
    "seconds without end": lambda folder: sealed(folder / "cells" / f"{CELL}.json", seconds=float("inf")),
    "rows that name another cell": lambda folder: rewritten(
        folder, lambda table: table.set_column(0, "cell", pa.array(["n=10-0"]))
    ),
    "rows that lack the cell": lambda folder: rewritten(folder, lambda table: table.drop_columns(["cell"])),
    "empty rows": lambda folder: rewritten(folder, lambda table: table.slice(0, 0)),
    "a folder in place of a temporary file": lambda folder: (folder / "cells" / ".x.1.0.tmp").mkdir(),
    "a pipe as record": lambda folder: _pipe(folder / "cells" / f"{CELL}.json"),
    "a pipe as rows": lambda folder: _pipe(folder / "cells" / f"{CELL}.parquet"),
    "a pipe as manifest": lambda folder: _pipe(folder / "manifest.json"),
    "a pipe as summary": lambda folder: _pipe(folder / "summary.json"),
    "a folder in place of claims": lambda folder: ((folder / "claims.json").unlink(), (folder / "claims.json").mkdir()),
    "a summary that is a list": lambda folder: (folder / "summary.json").write_text("[]"),
    "names that no encoding has": lambda folder: Path(
        os.fsdecode(os.fsencode(folder / "cells") + b"/\xff\x1b[31m")
    ).touch(),
}


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def test_enough_damages_and_commands_are_tried() -> None:
    """Assert sixty at least."""
    assert len(DAMAGES) * len(commands(Path())) >= 60


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_and_commands_give_sentences(case: str, whole: Result, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that no command ends in a traceback or hangs, that a whole result beside the damaged one is served, and
    that running again ends with the rows of the first time or with one sentence."""
    good = run(STUDY, "smoke", out=Path("out"), workers=0, seed=1)
    rows = (whole.folder / "rows.parquet").read_bytes()
    DAMAGES[case](whole.folder)
    for name, arguments in commands(whole.folder).items():
        if name == "clean --all":
            continue
        assert main(arguments) in (0, 1, 2)
        out, error = capsys.readouterr()
        assert "Traceback" not in error
        assert "\x1b" not in out + error
        if name.startswith("status"):
            assert str(good.folder) in out
    assert main([*RUN, "--out", "out"]) in (0, 2)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error or (whole.folder / "rows.parquet").read_bytes() == rows
    assert main(commands(whole.folder)["clean --all"]) in (0, 2)
    assert not good.folder.exists()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("level", range(9))
def test_a_disk_that_fills_up_anywhere_loses_nothing(
    level: int, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert at nine fill levels one sentence, no half-written file, and the same rows once there is room."""
    assert main([*RUN, "--out", "calm"]) == 0
    size = sum(path.stat().st_size for path in (tmp_path / "calm").rglob("*") if path.is_file())
    left = [size * level // 9]
    real = open

    def tight(path: Any, mode: str = "r", **keywords: Any) -> Any:
        file = real(path, mode, **keywords)
        if "w" in mode:
            write = file.write

            class Tight:
                def __enter__(self) -> Any:
                    return self

                def __exit__(self, *_: object) -> None:
                    file.close()

                def write(self, content: bytes) -> int:
                    left[0] -= len(content)
                    if left[0] < 0:
                        write(content[: len(content) // 2])
                        raise OSError(28, "No space left on device")
                    return int(write(content))

            return Tight()
        return file

    with monkeypatch.context() as patch:
        patch.setattr(files, "open", tight, raising=False)
        assert main([*RUN, "--out", "full"]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert not list((tmp_path / "full").rglob("*.tmp"))
    assert main([*RUN, "--out", "full"]) == 0
    (again,) = (tmp_path / "full").rglob("rows.parquet")
    assert again.read_bytes() == (whole.folder / "rows.parquet").read_bytes()


# Rows of different code


def test_rows_of_other_code_do_not_mix_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert that after a change of `run_cell` a resumed run says so and computes all cells with one code; that
    comments do not count; and that the other two answers refuse, and keep with a note."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    source = Path(str(demonstration.__file__)).read_text()
    (tmp_path / "changing.py").write_text(source)
    command = ["run", "changing", "--smoke", "--workers", "0", "--out", "out"]

    def again(new: str, *options: str) -> int:
        import importlib
        import sys

        (tmp_path / "changing.py").write_text(new)
        code.digest.cache_clear()
        sys.modules.pop("changing", None)
        importlib.invalidate_caches()
        return main([*command, *options])

    assert again(source) == 0
    (folder,) = (tmp_path / "out" / "demonstration").iterdir()
    (folder / "cells" / f"{CELL}.json").unlink()
    capsys.readouterr()
    assert again(source + "\n# a comment\n") == 0
    assert "other code" not in capsys.readouterr().out
    other = source.replace('"mean": values.mean()', '"mean": values.mean() + 0.001')
    assert again(other, "--changed", "refuse") == 2
    assert "4 stored cells were computed by other code" in capsys.readouterr().err
    assert again(other, "--changed", "keep") == 0
    assert "they are kept" in capsys.readouterr().out
    (folder / "cells" / f"{CELL}.json").unlink()
    assert again(other, "--changed", "keep") == 0
    assert "the rows come from 2 states of the study's code" in " ".join(capsys.readouterr().out.split())
    assert again(other) == 0
    assert "they are redone" in capsys.readouterr().out
    changed = json.loads((folder / "cells" / f"{CELL}.json").read_text())["code"]
    assert {json.loads(path.read_text())["code"] for path in (folder / "cells").glob("*.json")} == {changed}
    assert again(other, "--changed", "perhaps") == 2


def test_other_versions_of_packages_are_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that the digest changes with them."""
    before = code.digest(STUDY)
    monkeypatch.setattr(provenance, "versions", lambda: {"numpy": "0"})
    code.digest.cache_clear()
    assert code.digest(STUDY) != before
    code.digest.cache_clear()


# Locks, the cache, text


def test_status_tells_the_truth_of_locks(
    whole: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert "running" for a held lock only: not for a read-only one, and not where nothing can be told."""
    with locks.lock(whole.folder):
        assert upkeep.status(whole.folder).running is True
        assert f"process {os.getpid()}" in locks.holder(whole.folder)
    (whole.folder / "lock").chmod(0o444)
    assert upkeep.status(whole.folder).running is False
    import fcntl

    def missing(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", missing)
    assert upkeep.status(whole.folder).running is None
    assert main(["status", "--out", "out"]) == 0
    assert "cannot be told" in " ".join(capsys.readouterr().out.split())
    assert main([*RUN, "--out", "out"]) == 2
    assert "has no file locks; choose a folder on another disk" in capsys.readouterr().err


def test_a_report_on_storage_that_cannot_be_written_is_one_sentence(
    whole: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert it where neither writing nor removing works, as on a read-only mount."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files, "open", refuse, raising=False)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert main(["report", str(whole.folder)]) == 2
    assert "the file system is read-only" in capsys.readouterr().err


def test_a_copied_or_bad_network_is_built_again(tmp_path: Path) -> None:
    """Assert that a pair of files under another name, and a checked file that is no network, are not believed."""
    import torch

    store, built = cache.Cache(tmp_path), []

    def build(value: float) -> Callable[[], dict[str, torch.Tensor]]:
        return lambda: built.append(value) or {"weight": torch.full((2,), value)}

    store.tensors("mlp", {"seed": 1}, build(1.0))
    for ending in (".safetensors", ".sha256"):
        shutil.copy(
            store.path("mlp", {"seed": 1}).with_suffix(ending), store.path("mlp", {"seed": 2}).with_suffix(ending)
        )
    assert store.tensors("mlp", {"seed": 2}, build(2.0))["weight"].tolist() == [2.0, 2.0]
    for bad in (b"", b"hello", b"\xff" * 100, DEEP.encode()):
        path = store.path("mlp", {"seed": 1})
        path.write_bytes(bad)
        path.with_suffix(".sha256").write_text(files.checksum(bad))
        assert store.tensors("mlp", {"seed": 1}, build(1.0))["weight"].tolist() == [1.0, 1.0]
    assert built == [1.0, 2.0, 1.0, 1.0, 1.0, 1.0]


def test_the_wait_for_a_network_is_told_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert a word while another process builds it, and a sentence in the end."""
    import filelock

    store = cache.Cache(tmp_path)
    monkeypatch.setattr("studies.running.waiting.EVERY", 0.05)
    monkeypatch.setattr(cache, "LONGEST_SECONDS", 0.5)
    with (
        filelock.FileLock(store.path("mlp", {}).with_suffix(".lock")),
        pytest.raises(StudyError, match="has been held"),
    ):
        store.tensors("mlp", {}, dict)
    assert "waiting for another process that builds mlp" in capsys.readouterr().err


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


def test_published_tables_without_a_seal_load_by_the_stated_rule(tmp_path: Path) -> None:
    """Assert that every committed table loads, and that one of the old format is refused once its rows change."""
    from studies.reports.papers import missing

    home = Path(results.__file__).parent
    for name in results.names(home):
        published = results.load(name, home)
        assert len(published.rows)
        assert published.claims
    assert missing() == []
    manifests = {name: json.loads((home / name / "manifest.json").read_text()) for name in results.names(home)}
    old = next(name for name, manifest in manifests.items() if "format" not in manifest)
    shutil.copytree(home / old, tmp_path / old)
    path = tmp_path / old / "rows.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StudyError, match="differ from their checksum"):
        results.load(old, tmp_path)
    assert np.isfinite(len(published.rows))
