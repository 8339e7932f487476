"""Hostile cells and estimators: whatever foreign code does, 0 and 1 are for proven verdicts alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import demonstration, hostile
from support.hostile import ENDINGS, command

# JAX, where another test of this process has loaded it, warns of every fork; the copies here never run it.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork\\(\\) was called:RuntimeWarning")

STUDY = "support.demonstration"
RUN = ("run", STUDY, "--smoke", "--workers", "0")
VERIFY = ("--task", "score", "--problem", "line-s0.3", "--problem", "plane-s0.5-alpha")
PLACES = ("run_cell", "claims", "figures")
WAYS = [
    each if each in ("sys.exit(0)", "os._exit(0)") else pytest.param(each, marks=pytest.mark.slow) for each in ENDINGS
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demonstration, "figures", lambda rows, config: {})


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Standard error of what ran, checked for what must never be there."""

    def read() -> str:
        out, error = capfd.readouterr()
        for text in (out, error):
            assert "\x1b]0" not in text
            assert "Traceback" not in error
            assert len(text) < 100_000
        return error

    return read


def test_the_family_is_large_enough() -> None:
    """Assert that at least forty ways are tried."""
    assert len(ENDINGS) * (len(PLACES) + 2) >= 40


@pytest.mark.parametrize("ending", WAYS)
@pytest.mark.parametrize("place", PLACES)
def test_a_study_that_does_not_return_gives_no_verdict(
    place: str, ending: str, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    """Assert exit status 2 and a sentence, not the 0 or 1 that the code asked for."""
    monkeypatch.setattr(demonstration, place, lambda *_: ENDINGS[ending]())
    assert command(*RUN) == 2
    if place != "run_cell":
        assert said().startswith("studies: ")


@pytest.mark.parametrize("ending", WAYS)
@pytest.mark.parametrize("name", ["estimate", "read"])
def test_an_estimator_that_does_not_return_gives_no_verdict(
    name: str, ending: str, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    """Assert the same for the call of an estimator and for the reading of its value."""
    monkeypatch.setattr(hostile, "action", ENDINGS[ending])
    assert command("verify", f"support.hostile:{name}", *VERIFY) == 2
    said_so = said() if ending in ("os._exit(0)", "killed") else ""
    assert not said_so or "before it had a verdict" in said_so


@pytest.mark.parametrize("name", ["estimate", "read"])
def test_an_estimator_that_returns_is_judged(name: str) -> None:
    """Assert the control: nothing hostile, and the verdict is that it holds."""
    assert command("verify", f"support.hostile:{name}", *VERIFY) == 0


def test_a_copy_that_comes_back_does_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that what forks is run once for each problem and cell, and judged by the original."""
    log = tmp_path / "log"

    def forking() -> None:
        os.fork()
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")

    monkeypatch.setattr(hostile, "action", forking)
    assert command("verify", "support.hostile:estimate", *VERIFY) == 0
    calls = log.read_text().split()
    assert len(set(calls)) == 1 + len(calls) // 2  # the original each time, and one copy of it that went no further
    real = demonstration.run_cell

    def run_cell(cell: Any, context: Any) -> Any:
        os.fork()
        return real(cell, context)

    monkeypatch.setattr(demonstration, "run_cell", run_cell)
    assert command(*RUN) == 0
    assert len(list(tmp_path.rglob("n=*.json"))) == 4


def test_cells_after_a_hostile_one_still_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that one cell's exit fails that cell alone, in this process too."""
    real = demonstration.run_cell

    def run_cell(cell: Any, context: Any) -> Any:
        return hostile.throw(hostile.Abort("out")) if cell.name == "n=10-0" else real(cell, context)

    monkeypatch.setattr(demonstration, "run_cell", run_cell)
    assert command(*RUN) == 2
    names = {path.name for path in tmp_path.rglob("n=*.json")}
    assert names == {"n=10-0.failed.json", "n=10-1.json", "n=100-0.json", "n=100-1.json"}


@pytest.mark.parametrize("line", ["raise SystemExit(0)", "import os; os._exit(0)", "raise KeyboardInterrupt"])
@pytest.mark.parametrize("kind", ["study", "estimator"])
def test_a_module_that_ends_the_program_when_imported_gives_no_verdict(
    kind: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert the same at import."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "ends.py").write_text(line + "\n")
    assert command("run", "ends") == 2 if kind == "study" else command("verify", "ends:f", *VERIFY) == 2


@pytest.mark.slow
def test_a_thread_that_never_ends_does_not_keep_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that the verdict, once proven, is given although the process cannot end by itself."""
    monkeypatch.setattr(demonstration, "claims", lambda *_: hostile.linger())
    assert command(*RUN) == 2


def test_nobody_reading_and_a_full_device_are_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Assert 2, not 1, when standard output is a closed pipe (as with `| head`) or a full device."""
    for place in ("pipe", "/dev/full"):
        saved = os.dup(1)
        if place == "pipe":
            reader, writer = os.pipe()
            os.close(reader)
        else:
            writer = os.open(place, os.O_WRONLY)
        os.dup2(writer, 1)
        try:
            with capfd.disabled():
                code = _direct(writer)
        finally:
            os.dup2(saved, 1)
            os.close(saved)
            os.close(writer)
        assert code == 2


def _direct(output: int) -> int:
    """The command with its standard output on a file descriptor, past what pytest captures."""
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root / 'tests'}{os.pathsep}{root}"}
    run = [sys.executable, "-m", "studies.cli", "status", "--help"]
    return subprocess.run(run, env=environment, stdout=output, stderr=subprocess.DEVNULL, check=False).returncode


@pytest.mark.parametrize("columns", ["0", "1", "9" * 6])
def test_any_width_of_the_terminal_will_do(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that what a program left in COLUMNS ends nothing."""
    monkeypatch.setenv("COLUMNS", columns)
    assert command(*RUN) == 0


def test_an_encoding_that_lacks_letters_ends_nothing(tmp_path: Path) -> None:
    """Assert a verdict on a terminal that knows ASCII alone."""
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root / 'tests'}{os.pathsep}{root}", "PYTHONIOENCODING": "ascii"}
    run = [sys.executable, "-m", "studies.cli", *RUN]
    done = subprocess.run(run, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\\u2264 0.4" in done.stdout
