"""The gates: what is run near a file, and the list of all."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

CHECK = Path(__file__).resolve().parents[1] / "check.py"


@pytest.fixture(scope="module")
def check():
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("check", CHECK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("path", "test"),
    [
        ("sensitivity/sampler/tableau.py", "tests/unit/sensitivity/test_tableau.py"),
        ("studies/attribution/attributors/__init__.py", "tests/unit/studies/test_attributors.py"),
        ("sensitivity/recordings/asking.py", "tests/unit/sensitivity/test_recording.py"),  # named after no test
    ],
)
def test_near_a_file_are_lint_types_doctests_and_its_tests(check, path, test):
    """Assert that a file's commands are these four kinds, and that its own tests are among them."""
    commands = check.near([str(check.ROOT / path)])
    assert [" ".join(command[2:4]) for command in commands] == [
        "ruff check", "ruff format", f"mypy {path}", "pytest -q", "pytest -q"
    ]  # fmt: skip
    assert path in commands[3]
    assert test in commands[4]


def test_every_gate_is_listed(check, capsys):
    """Assert that `--list` names the gates, and that a gate without a name is refused."""
    assert check.main(["--list"]) == 0
    assert capsys.readouterr().out.split() == list(check.GATES)
    assert check.main(["everything"]) == 2
