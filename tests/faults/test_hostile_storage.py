"""Storage that lies or fails: no damage passes for a result, a full disk loses nothing, locks tell the truth."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support import demonstration
from support.finished import CELL, RUN, STUDY, commands, sealed

from studies import cache, files
from studies.cli import main
from studies.errors import StudyError
from studies.reports import upkeep
from studies.runner import Result, run
from studies.running import code, locks, provenance
from studies.running.setting import Setting
from studies.running.store import Store
from studies.running.summary import Summary
from studies.running.tables import to_bytes

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


# Locks and the cache


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
