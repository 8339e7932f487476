"""The command line: what it prints, at any width and without colour, and its exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from rich.console import Console
from support import demonstration

from studies.claim_bounds import above, equals
from studies.cli import main
from studies.errors import StudyError
from studies.reports.upkeep import newest
from studies.running.progress import ClaimTable
from studies.study import STUDIES, Claim, load, question

STUDY = "support.demonstration"


@pytest.fixture(autouse=True)
def quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demonstration, "figures", lambda rows, config: {})


def command(*arguments: str) -> int:
    return main([*arguments])


def test_run_prints_the_question_the_claims_and_where_the_report_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Assert exit code 0 and the essentials on standard output, nothing on standard error."""
    assert command("run", STUDY, "--smoke", "--workers", "0") == 0
    captured = capsys.readouterr()
    assert "Does the mean of uniform numbers tend to one half?" in captured.out
    assert "holds" in captured.out
    assert "0.04937 [0, 0.04937]" in captured.out
    assert "4/4 cells" in captured.out
    assert not captured.err
    (page,) = Path("studies-out").rglob("report.html")
    assert str(page) in captured.out


def test_run_says_what_was_stored_already(capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that the second run computes nothing."""
    command("run", STUDY, "--smoke", "--workers", "0")
    capsys.readouterr()
    assert command("run", STUDY, "--smoke", "--workers", "0") == 0
    assert "4 cells, 4 already stored" in capsys.readouterr().out


def test_a_claim_that_does_not_hold_gives_exit_code_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert the verdict in words."""
    claim = Claim("pigs fly", 0.0, None, above(0), "folklore")
    monkeypatch.setattr(demonstration, "claims", lambda rows, config: [claim])
    assert command("run", STUDY, "--smoke", "--workers", "0") == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 100, 140])
def test_claims_are_readable_at_any_width(width: int) -> None:
    """Assert at most four lines a claim, failures first, no colour needed, and one sentence last."""
    words = "the sensitivity predicts what retraining gives better than a ratio of kernels"
    claims = [Claim(f"{words}, case {k}", 0.5, (0.25, 0.75), above(low), "paper") for k, low in enumerate((0, 1, 0))]
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(ClaimTable(claims))
    lines = [line.rstrip() for line in capture.get().rstrip().split("\n")]
    assert len(lines) <= 4 * len(claims)
    assert max(map(len, lines)) <= width
    assert lines[0 if width < 110 else 1].startswith("DOES NOT HOLD")
    assert lines[-1] == "2 of 3 claims hold."


def test_an_open_claim_is_shown_with_what_would_decide_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert exit code 0, the word, the reason, and the count in `status`."""
    claim = Claim("pigs fly", 0.5, (-0.5, 1.5), above(0, interval=True), "folklore")
    monkeypatch.setattr(demonstration, "claims", lambda rows, config: [claim])
    monkeypatch.setenv("COLUMNS", "300")
    assert command("run", STUDY, "--smoke", "--workers", "0") == 0
    out = capsys.readouterr().out
    assert "OPEN" in out
    assert "about 4 times as many independent repetitions" in " ".join(out.split())
    assert command("status") == 0
    assert "0 of 1 claims hold, 1 is open" in capsys.readouterr().out


def test_a_failed_cell_gives_exit_code_two_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert that the others go on and that the cell's error is one line."""
    monkeypatch.setattr(demonstration.Config, "smoke", lambda: demonstration.Config(fail="n=10-1"))
    assert command("run", STUDY, "--smoke", "--workers", "0") == 2
    out = capsys.readouterr().out
    assert "cell n=10-1 failed: RuntimeError: asked to fail in n=10-1" in out
    assert "Traceback" not in out
    assert "1 failed" in out


def test_several_studies_run_in_turn_and_the_worst_exit_code_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert that both are run although the first has a claim that does not hold."""
    other = types.ModuleType("support.again")
    other.__dict__.update({key: value for key, value in vars(demonstration).items() if not key.startswith("__")})
    other.NAME = "again"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "support.again", other)
    claim = Claim("pigs fly", 0.0, None, above(0), "folklore")
    monkeypatch.setattr(demonstration, "claims", lambda rows, config: [claim])
    assert command("run", STUDY, "support.again", "--smoke", "--workers", "0") == 1
    assert {path.name for path in Path("studies-out").iterdir()} == {"demonstration", "again"}


@pytest.mark.parametrize("width", [24, 40, 60, 200])
def test_claims_can_be_read_at_any_width(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert that no line is longer than the terminal, but for paths, and that no word of a claim is lost."""
    monkeypatch.setenv("COLUMNS", str(width))
    command("run", STUDY, "--smoke", "--workers", "0")
    lines = [line for line in capsys.readouterr().out.splitlines() if "studies-out" not in line]
    assert max(map(len, lines)) <= width
    text = "".join("".join(lines).split())
    for piece in ("holds", "0.04937", "≤0.4"):
        assert piece in text


def test_output_without_colour_holds_no_control_codes(tmp_path: Path) -> None:
    """Assert plain text in a pipe and with NO_COLOR in a terminal that claims colours."""
    root = Path(__file__).resolve().parents[3]
    environment = os.environ | {"PYTHONPATH": f"{root / 'tests'}{os.pathsep}{root}", "NO_COLOR": "1", "TERM": "xterm"}
    done = subprocess.run(
        [sys.executable, "-m", "studies.cli", "run", STUDY, "--smoke", "--workers", "0"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout


def test_the_live_display_shows_claims_as_they_stand() -> None:
    """Assert bar, rate and current claims in a terminal, and a line for a failed cell."""
    import io

    from rich.console import Console

    from studies.running.progress import Lines, LiveDisplay, for_console

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60, color_system=None)
    display = for_console(console)
    assert isinstance(display, LiveDisplay)
    display.start("demonstration", "why?", 10, 4)
    display.cell("a", 0.1, "")
    display.cell("b", 0.1, "ValueError: no")
    display.claims([Claim("means agree", 0.25, (0.2, 0.3), equals(0.25), "test")])
    console.print(display.render())
    display.stop()
    text = screen.getvalue()
    for piece in ("6/10 cells", "cells/", "left", "1 failed", "cell b failed: ValueError: no", "0.25 [0.2, 0.3]"):
        assert piece in text
    assert isinstance(for_console(Console(file=io.StringIO())), Lines)


def test_list_names_the_studies_that_are_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert name and question, and that absent studies are not listed."""
    registry = {"demonstration": STUDY, "retraining": "studies.no_such_module"}
    monkeypatch.setattr("studies.study.STUDIES", registry)
    assert command("list") == 0
    out = capsys.readouterr().out
    assert "demonstration" in out
    assert "one half?" in out
    assert "retraining" not in out


def test_list_imports_no_study() -> None:
    """Assert that the questions are read from the sources: no study, no array library is loaded."""
    code = (
        "import sys; from studies.cli import main; main(['list']); from studies.study import STUDIES; "
        "heavy = {*STUDIES.values(), 'numpy', 'torch', 'pandas'}; sys.exit(len(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert "density_formula" in done.stdout


@pytest.mark.parametrize("name", STUDIES)
def test_the_question_in_the_source_is_that_of_the_study(name: str) -> None:
    """Assert that what `studies list` reads without an import is what the imported study says."""
    assert question(name) == load(name).QUESTION


def test_a_study_without_a_question_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert one sentence where the source has no plain string."""
    monkeypatch.setattr("studies.study.STUDIES", {"none": "studies.errors"})
    with pytest.raises(StudyError, match="'none' has no plain string QUESTION"):
        question("none")


def test_status_report_compare_and_clean_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    """Assert the life of a result: run twice, look, renew, compare, remove."""
    command("run", STUDY, "--smoke", "--workers", "0")
    command("run", STUDY, "--smoke", "--workers", "0", "--seed", "1")
    first, second = sorted(str(path) for path in Path("studies-out/demonstration").iterdir())
    capsys.readouterr()
    assert command("status") == 0
    assert capsys.readouterr().out.count("4/4 cells, 1 of 1 claims hold") == 2
    assert command("report", first) == 0
    os.utime(Path(first) / "summary.json", (2e9, 2e9))
    for place in (first, "studies-out/demonstration", "studies-out"):  # the result that changed last
        capsys.readouterr()
        assert command("report", place) == 0
        assert str(Path(first) / "report.html") in capsys.readouterr().out
    with pytest.raises(StudyError, match="no result folder and holds none; give OUT"):
        newest("studies-out/demonstration/nothing")
    assert command("compare", first, first) == 0
    assert "no difference found" in capsys.readouterr().out
    assert command("compare", first, second) == 1
    assert "the results differ" in capsys.readouterr().out
    assert command("clean", "--all", "--yes") == 0
    assert "2 removed" in capsys.readouterr().out
    assert command("status") == 0
    assert "nothing is stored" in capsys.readouterr().out


def test_report_of_an_unfinished_result_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert exit code 2 and the number of finished cells on the page."""
    command("run", STUDY, "--smoke", "--workers", "0")
    (folder,) = Path("studies-out/demonstration").iterdir()
    (folder / "cells" / "n=10-0.json").unlink()
    assert command("report", str(folder)) == 2
    assert "3 of 4 cells are finished" in (folder / "report.html").read_text()


def test_help_states_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that plain `studies` and `--help` say what 0, 1 and 2 mean."""
    assert command() == 0
    assert command("--help") == 0
    assert capsys.readouterr().out.count("Exit codes: 0 no claim fails, 1 some do, 2 no verdict.") == 2


def test_verify_needs_a_name_and_a_task_or_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    """Assert the sentences."""
    assert command("verify") == 2
    assert "name what to verify" in capsys.readouterr().err
    assert command("verify", "mine:f", "--task", "score", "--engine") == 2
    assert "leave out the name" in capsys.readouterr().err


def test_an_interrupt_is_answered_with_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert exit code 2, one sentence, and finished cells kept."""
    real = demonstration.run_cell

    def run_cell(cell: object, context: object) -> object:
        if cell.name == "n=100-0":  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return real(cell, context)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(demonstration, "run_cell", run_cell)
        assert command("run", STUDY, "--smoke", "--workers", "0") == 2
    assert "finished cells are kept" in capsys.readouterr().err
    assert command("run", STUDY, "--smoke", "--workers", "0") == 0
    assert "4 cells, 2 already stored" in capsys.readouterr().out


def _outside(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, in a folder."""
    root = Path(__file__).resolve().parents[3]
    values = os.environ | {"PYTHONPATH": f"{root / 'tests'}{os.pathsep}{root}"} | environment
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=values,
        capture_output=True,
        text=True,
        check=False,
        errors="replace",
    )


@pytest.fixture
def dice(tmp_path: Path) -> Path:
    """A study in a file of its own, beside a helper that it imports, in a folder that is not the current one."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    source = Path(demonstration.__file__).read_text()
    first = "from __future__ import annotations\n"
    (folder / "own_dice.py").write_text(source.replace(first, f"{first}\nimport own_helper\n"))
    (folder / "own_helper.py").write_text("VALUE = 1\n")
    return folder / "own_dice.py"


@pytest.mark.parametrize(
    "spelling",
    [
        "./elsewhere/own_dice",
        *(pytest.param(f"elsewhere/own_dice{end}", marks=pytest.mark.slow) for end in (".py", "")),
    ],
)
def test_a_study_may_be_a_file_anywhere(dice: Path, spelling: str) -> None:
    """Assert that a path with or without its ending runs, on workers too, with the file's own neighbours."""
    folder = dice.parent.parent
    done = _outside(folder, "-m", "studies.cli", "run", spelling, "--smoke", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "4/4 cells" in done.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nowhere", "there is no file 'nowhere.py'"),
        ("nowhere.py", "there is no file 'nowhere.py'"),
        (".hidden", "there is no study '.hidden'"),
        ("a..b", "there is no study 'a..b'"),
        ("not-a-name.py", "cannot be imported by its name"),
        ("broken.py", "importing the study module 'broken.py' failed with ZeroDivisionError"),
        ("leaves.py", "importing the study module 'leaves.py' failed with SystemExit"),
        ("json.py", "another module is already called 'json'"),
    ],
)
def test_names_of_no_study_are_answered_in_a_sentence(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert exit code 2 and one sentence, no traceback."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for file, text in {"not-a-name": "", "broken": "1 / 0", "leaves": "raise SystemExit(3)", "json": ""}.items():
        (tmp_path / f"{file}.py").write_text(text)
    assert command("run", name, "--smoke") == 2
    assert words in capsys.readouterr().err


def test_any_folder_name_can_be_printed_in_any_locale(dice: Path) -> None:
    """Assert exit code 0 where neither the folder's letters nor our own signs are in the terminal's encoding."""
    folder = dice.parent
    for utf8 in ("0", "1"):
        arguments = ("-m", "studies.cli", "run", "own_dice", "--smoke", "--workers", "0", "--out", f"é→{utf8}")
        done = _outside(folder, *arguments, LC_ALL="C", PYTHONUTF8=utf8)
        assert done.returncode == 0, done.stderr
        assert "holds" in done.stdout
        done = _outside(folder, "-m", "studies.cli", "status", "--out", f"é→{utf8}", LC_ALL="C", PYTHONUTF8=utf8)
        assert done.returncode == 0, done.stderr


def test_a_script_without_a_main_guard_can_run_a_study(dice: Path) -> None:
    """Assert that workers do not run the script again, and that `out` may be a string."""
    script = "from studies.runner import run\nprint('code', run('own_dice', 'smoke', out='x', workers=1).exit_code)\n"
    (dice.parent / "script.py").write_text(script)
    done = _outside(dice.parent, "script.py")
    assert done.stdout.split() == ["code", "0"], done.stderr
    assert "Traceback" not in done.stderr
