"""The recipes of the book's page "Add a law, an estimator, a study", followed to the letter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from studies.cli import main

RECIPES = Path(__file__).resolve().parents[2] / "book" / "howto" / "recipes"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with the files of the page, as the current one."""
    for file in RECIPES.glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_law_passes_its_tests(folder: Path) -> None:
    """Assert that the tests on the page pass, and that there are some."""
    code = "import test_coin as t; [f() for n, f in vars(t).items() if n.startswith('test_')]; print('passed')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False)
    assert run.stdout.strip() == "passed", run.stderr


def test_the_estimators_are_judged(folder: Path) -> None:
    """Assert that the right one holds, and that the wrong one does exactly where α = 1."""
    assert main(["verify", "estimators:tweedie", "--task", "denoiser"]) == 0
    assert main(["verify", "estimators:wrong", "--task", "denoiser", "--problem", "plane-s0.1"]) == 0
    assert main(["verify", "estimators:wrong", "--task", "denoiser", "--problem", "plane-s0.5-alpha"]) == 1


def test_the_study_runs_from_a_folder_of_its_own(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Assert that its claims hold and that it leaves a report with its figure."""
    assert main(["run", "dice", "--smoke", "--workers", "0"]) == 0
    (report,) = (folder / "studies-out").glob("dice/smoke-*/report.html")
    assert "loaded die" in report.read_text(encoding="utf-8")


def test_the_page_shows_these_files() -> None:
    """Assert that no recipe is untested and none that is tested is missing from the page."""
    page = (RECIPES.parent / "extend.md").read_text(encoding="utf-8")
    for file in RECIPES.glob("*.py"):
        assert f"recipes/{file.name}" in page, file.name
