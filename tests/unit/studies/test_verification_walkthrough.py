"""The README's walkthrough of `studies verify` is true: what it calls wrong falls short, and mended it holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from studies.cli import main
from studies.verification.faults import FAULTS

README = Path(__file__).resolve().parents[3] / "README.md"


def section() -> str:
    """The section of the walkthrough."""
    return README.read_text(encoding="utf-8").split("## Verify an estimator of your own")[1].split("\n## ")[0]


def test_the_walkthrough_fails_and_holds_as_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert both exit codes and the quoted sentence, by the README's own code and command."""
    code = re.search(r"<!-- verify-walkthrough -->\n```python\n(.*?)```", section(), re.DOTALL)
    command = re.search(r"```bash\nstudies (.*?)\n```", section())
    assert code is not None
    assert command is not None
    wrong, ask = code.group(1), command.group(1).replace("mine:", "{}.py:").split()
    (tmp_path / "wrong.py").write_text(wrong)
    (tmp_path / "mended.py").write_text(wrong.replace("anchor=anchor", "anchor=problem.anchor"))
    monkeypatch.chdir(tmp_path)
    short = [*ask, "--problem", "plane-s0.1"]
    assert main([word.format("wrong") for word in short]) == 1
    quoted = re.findall(r"`(Observed order.*?)`", section())
    assert len(quoted) == 2
    assert quoted[0] in capsys.readouterr().out
    assert main([word.format("mended") for word in short]) == 0
    assert quoted[1] in capsys.readouterr().out
    # The command of the README asks every problem, of which the largest is the hardest.
    assert main([*(word.format("mended") for word in ask), "--problem", "photo-784-s0.14"]) == 0
    assert "drew from torch's global random numbers" not in capsys.readouterr().out
    assert abs(float(quoted[1].split()[-1].rstrip(".")) - 4) < 0.2  # the order of log densities, whatever the solver


def test_the_readme_counts_the_planted_faults() -> None:
    """Assert that the number of wrong estimators is that of the package."""
    assert f"{len(FAULTS)} wrong estimators" in section()
