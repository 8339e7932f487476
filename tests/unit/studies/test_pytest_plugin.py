"""The pytest plugin and `[tool.score-sensitivity]`, on a small foreign project in a folder of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from studies.errors import StudyError
from studies.verification import verify as judged
from studies.verification.batch import Entry, entries
from studies.verification.command import run_listed
from studies.verification.faults import CORRECT, FAULTS

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "studies/verification/report.schema.json").read_text(encoding="utf-8"))
ESTIMATORS = """
def right(problem):
    law, r = problem.law, problem.noise
    seen, matrix = problem.observations, problem.operator
    import numpy as np
    spread = matrix @ law.covariances @ matrix.T + r * np.eye(len(matrix))
    gap = seen[:, None] - law.means @ matrix.T
    solved = np.linalg.solve(spread, gap[..., None])[..., 0]
    logs = -0.5 * (gap * solved).sum(-1) - 0.5 * np.linalg.slogdet(2 * np.pi * spread)[1] + np.log(law.weights)
    return np.log(np.exp(logs).sum(1))


def wrong(problem):
    return right(problem) + 1.0
"""
TESTS = """
import pytest
from mine import right, wrong


@pytest.mark.verify_seed(3)
@pytest.mark.verify_suite("quick")
def test_right(verify):
    report = verify(right, "evidence", backend="numpy", problems=["plane-s0"])
    assert (report.seed, report.suite) == (3, "quick")
    assert verify(right, "evidence", backend="numpy", problems=["plane-s0"], seed=1).seed == 1


def test_wrong(verify):
    verify(wrong, "evidence", backend="numpy", problems=["plane-s0"])


def test_unknown(verify):
    verify(right, "evidense")


@pytest.mark.verify_seed(1, 2)
def test_marker(verify):
    verify(right, "evidence")
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of somebody else's, with estimators and tests."""
    (tmp_path / "mine.py").write_text(ESTIMATORS)
    (tmp_path / "test_mine.py").write_text(TESTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


def test_the_plugin_is_an_entry_point_that_imports_little() -> None:
    """Assert the entry point, and that importing the plugin loads neither torch nor the judge."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert scripts["pytest11"] == {"score-sensitivity": "studies.pytest_plugin"}
    heavy = ("torch", "scipy", "studies.verification")
    probe = f"import sys, studies.pytest_plugin; print([name for name in {heavy} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout.strip() == "[]"


def test_a_foreign_project_is_told_what_errs(project: Path) -> None:
    """Assert that a right estimator passes, a wrong one fails with the report, and misuse with a sentence."""
    installed = any(each.value == "studies.pytest_plugin" for each in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "studies.pytest_plugin"]  # an older install of this project has no entry point
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", *plugin]
    command += ["-p", "no:cacheprovider", "-o", f"pythonpath={ROOT} ."]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=project)
    assert "2 failed, 1 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "plane-s0, accuracy: errors reach" in done.stdout
    assert "a constant offset of +1" in done.stdout
    assert 'reproduce("evidence", "plane-s0", seed=0, backend="numpy")' in done.stdout
    assert "there is no task 'evidense'; did you mean 'evidence'" in done.stdout
    assert "the marker verify_seed takes one argument" in done.stdout
    assert "Traceback" not in done.stdout


LISTED = """
[[tool.score-sensitivity.verify]]
estimator = "mine:right"
task = "evidence"
backend = "numpy"
problems = ["plane-s0", "gaussian-s0"]

[[tool.score-sensitivity.verify]]
estimator = "mine:{second}"
task = "evidence"
backend = "numpy"
problems = ["plane-s0"]
seed = 2
"""


@pytest.mark.parametrize(("second", "code"), [("right", 0), ("wrong", 1)])
def test_estimators_listed_in_pyproject_are_verified(project: Path, second: str, code: int) -> None:
    """Assert that each is judged with its options, that reports are written, and the worst exit code."""
    (project / "pyproject.toml").write_text(LISTED.format(second=second))
    assert entries()[1] == Entry(
        f"mine:{second}", "evidence", {"backend": "numpy", "seed": 2, "problems": ["plane-s0"]}
    )
    assert run_listed(out=project / "out", console=Console(quiet=True)) == code
    reports = [json.loads(path.read_text()) for path in sorted((project / "out").glob("*/report.json"))]
    assert [report["seed"] for report in reports] == [0, 2]
    assert (reports[1]["status"] == "holds") == (code == 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "name what to verify"),
        ("[tool.other]\n", "has none"),
        ("[tool.score-sensitivity]\nverify = []\n", "has none"),
        ("[tool.score-sensitivity]\nverify = [3]\n", "write a table"),
        ("[[tool.score-sensitivity.verify]]\ntask = 'score'\n", "lacks estimator"),
        ("[[tool.score-sensitivity.verify]]\nestimator = 'a:b'\ntask = 'score'\nsed = 1\n", "did you mean 'seed'"),
        ("[[tool.score-sensitivity.verify]]\nestimator = 'a:b'\ntask = 'score'\nseed = true\n", "wrong kind"),
        ("[[tool.score-sensitivity.verify]]\nestimator = 3\ntask = 'score'\n", "wrong kind"),
        ("[tool", "cannot be read"),
    ],
)
def test_wrong_lists_are_refused_in_a_sentence(tmp_path: Path, content: str, words: str) -> None:
    """Assert the sentences."""
    path = tmp_path / "pyproject.toml"
    path.write_text(content)
    with pytest.raises(StudyError, match=words):
        entries(path)
    with pytest.raises(StudyError, match=r"there is no pyproject\.toml here"):
        entries(tmp_path / "none" / "pyproject.toml")


def failing(problem: Any) -> Any:
    """An estimator that raises."""
    raise RuntimeError("no")


@pytest.mark.parametrize(
    ("estimator", "task", "problem"),
    [
        (CORRECT["score"]["mixture_score"], "score", "plane-s0.1"),
        (CORRECT["divergence"]["hutchinson"], "divergence", "plane-s0.1"),
        (FAULTS["evidence_without_noise"].estimator, "evidence", "plane-s0"),
        (CORRECT["posterior-sample"]["conditioned_draws"], "posterior-sample", "gaussian-s0.1"),
        (lambda problem: NotImplemented, "score", "plane-s0.1"),
        (failing, "score", "plane-s0.1"),
    ],
    ids=["holds", "stochastic", "falls short", "draws", "declines", "raises"],
)
def test_reports_are_as_the_schema_says(estimator: Any, task: str, problem: str) -> None:
    """Assert that a report as JSON validates, whatever the verdict, and that a changed one does not."""
    content = judged(estimator, task, problems=[problem]).to_json()
    jsonschema.validate(content, SCHEMA)
    for change in ({"status": "fine"}, {"schema": 2}, {"problems": None}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content | change, SCHEMA)
