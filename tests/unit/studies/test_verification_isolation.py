"""`--isolated` and `--timeout`: a process of its own, ended in time, with the exit code of the judgement."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from studies.cli import main

ESTIMATORS = """
import os, time

def right(problem):
    os.chdir("/")
    os.environ["CHANGED"] = "1"
    law, x = problem.law, problem.x
    gap = x[:, None] - law.means
    variances = law.covariances[:, 0, 0] + problem.sigma**2
    import numpy as np
    logs = -0.5 * gap[..., 0] ** 2 / variances - 0.5 * np.log(variances) + np.log(law.weights)
    shares = np.exp(logs - logs.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return -(shares * gap[..., 0] / variances).sum(1)[:, None]

def wrong(problem):
    return 2 * right(problem)

def sleeper(problem):
    time.sleep(600)

def crash(problem):
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimators that change their process, sleep or crash."""
    (tmp_path / "isolated.py").write_text(ESTIMATORS)
    monkeypatch.chdir(tmp_path)


def judged(name: str, *options: str) -> int:
    """The exit code for one small problem."""
    given = ["--task", "score", "--backend", "numpy", "--problem", "line-s0.3"]
    return main(["verify", f"isolated.py:{name}", *given, *options])


def test_the_exit_code_comes_back_and_the_process_is_left_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    """Assert 0 and 1, the report on standard output, and that neither folder nor environment changed here."""
    before = Path.cwd()
    assert judged("right", "--isolated", "--out", "report") == 0
    assert judged("wrong", "--timeout", "100") == 1
    printed = capfd.readouterr().out
    assert "holds on all 1 problems" in printed
    assert "about 2 × the truth" in printed
    assert Path.cwd() == before
    assert "CHANGED" not in os.environ


def test_time_that_is_up_and_crashes_are_said_in_a_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    """Assert exit code 2 and the sentence, for a sleeper, a process that is killed, and a timeout of none."""
    start = time.monotonic()
    assert judged("sleeper", "--timeout", "8") == 2
    assert time.monotonic() - start < 60
    assert "took longer than --timeout 8 s" in capfd.readouterr().err
    assert judged("crash", "--isolated") == 2
    assert "the process ended with signal 9" in capfd.readouterr().err
    assert judged("right", "--timeout", "0") == 2
    assert "give a positive number of seconds" in capfd.readouterr().err
