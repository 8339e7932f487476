"""The edges of `verify`: what an estimator leaves behind, what a report overwrites, what a verdict conceals."""

from __future__ import annotations

import gc
import json
import os
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import demonstration, hostile

from oracles import GaussianMixture
from studies import files
from studies.cli import main
from studies.errors import StudyError
from studies.runner import run
from studies.verification import TASKS, reproduce, verify
from studies.verification.laws import Law

TWO = ["line-s0.3", "plane-s0.5-alpha"]
VERIFY = ["verify", "support.hostile:estimate", "--task", "score", "--problem", "line-s0.3"]


def judged(change: Callable[[Any, torch.Tensor], Any]) -> Any:
    """The report on the right score after a change."""
    return verify(lambda problem: change(problem, hostile.right(problem)), "score", problems=TWO, name="changed")


# Values


def test_a_list_of_tensors_that_require_grad_is_a_value() -> None:
    """Assert that the natural mistake costs nothing."""
    assert judged(lambda _, value: [row.requires_grad_() for row in value.clone()]).holds
    assert judged(lambda _, value: [[entry.requires_grad_() for entry in row.clone()] for row in value]).holds


ODD: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "a meta tensor": lambda _, value: value.to("meta"),
    "a sparse tensor": lambda _, value: value.to_sparse(),
    "a complex tensor": lambda _, value: value + 0j,
    "text": lambda *_: "holds",
    "nothing": lambda *_: None,
    "a dictionary": lambda _, value: {"value": value},
    "three of them": lambda _, value: (value, value, value),
    "rows of different lengths": lambda _, value: [value[0], value[1][:0], value[2]],
    "a generator": lambda _, value: (row for row in value),
    "infinities": lambda _, value: value * float("inf"),
    "a negative error": lambda _, value: (value, -abs(value)),
    "a deep list": lambda *_: deep(5000),
}


def deep(levels: int) -> list[Any]:
    values: list[Any] = []
    for _ in range(levels):
        values = [values]
    return values


@pytest.mark.parametrize("case", ODD)
def test_an_odd_value_is_no_success_and_no_traceback(case: str, tmp_path: Path) -> None:
    """Assert a report that does not hold, and that it can be drawn and stored without a warning."""
    report = judged(ODD[case])
    assert report.exit_code in (1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.save(tmp_path / "report")


def test_settings_are_given_back(tmp_path: Path) -> None:
    """Assert that default device, dtype, grad mode, NumPy's errors and folder are as before."""
    seen = []

    def careless(problem: Any, value: torch.Tensor) -> torch.Tensor:
        seen.append((torch.get_default_device(), torch.get_default_dtype(), torch.is_grad_enabled(), os.getcwd()))
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float16)
        torch.set_grad_enabled(False)
        np.seterr(all="raise")
        os.chdir(tmp_path)
        return value

    errors = np.geterr()
    assert judged(careless).holds
    assert len(set(seen)) == 1
    assert np.geterr() == errors
    assert torch.zeros(1).device.type == "cpu"
    assert torch.is_grad_enabled()


# The truth


def reached(start: Any, levels: int = 10) -> list[Any]:
    """Everything that attributes, private ones, closures, defaults and containers lead to, but for modules and their
    globals."""
    value, level = {id(start): start}, [start]
    for _ in range(levels):
        after = []
        for thing in level:
            for other in _neighbours(thing):
                if id(other) not in value and not isinstance(other, types.ModuleType | type):
                    value[id(other)] = other
                    after.append(other)
        level = after
    return list(value.values())


def _neighbours(thing: Any) -> list[Any]:
    if isinstance(thing, dict):
        return [*thing.keys(), *thing.values()]
    if isinstance(thing, list | tuple | set | frozenset):
        return list(thing)
    if isinstance(thing, str | bytes | int | float | torch.Tensor | np.ndarray | types.BuiltinFunctionType):
        return []
    if isinstance(thing, types.CellType):
        return [thing.cell_contents]
    special = {"__closure__", "__self__", "__func__", "__wrapped__", "__dict__", "__defaults__", "__kwdefaults__"}
    items = []
    for name in {name for name in dir(thing) if not name.startswith("__")} | special | {"_fields"}:
        try:
            items.append(getattr(thing, name))
        except Exception:
            continue
    return items


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if "law" not in task.inputs])
def test_no_attribute_leads_to_the_law(name: str) -> None:
    """Assert that walking from a problem finds neither an oracle nor the law's parameters."""
    problem, _ = reproduce(name, TASKS[name].cases[0].name)
    things = reached(problem)
    assert len(things) > 10
    assert not [thing for thing in things if isinstance(thing, GaussianMixture | Law)]


def test_the_walk_would_find_a_closure() -> None:
    """Assert the control: a law in a closure, as it was, is found."""
    law = GaussianMixture.isotropic(np.ones(1), np.zeros((1, 2)), np.ones(1))
    problem, _ = reproduce("log-density", "plane-s0.1")

    def function(x: Any) -> Any:
        return law.log_density(x)

    def log_density(x: Any) -> Any:
        return function(x)

    problem.anchor.log_density = log_density
    assert any(thing is law for thing in reached(problem))


def test_black_boxes_end_with_their_problem() -> None:
    """Assert that what they compute with is kept no longer than they are, and that copies work and pickles do not."""
    import copy
    import pickle
    import weakref

    problem, _ = reproduce("log-density", "plane-s0.1")
    box = copy.deepcopy(problem.score)
    assert box(problem.x, 0.5).shape == problem.x.shape
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(box)
    gone = weakref.ref(box)
    del box, problem
    gc.collect()
    assert gone() is None


# Options and files


def test_what_weakens_a_verdict_is_part_of_it(tmp_path: Path) -> None:
    """Assert that slack and chosen problems stand in summary, JSON, page and command."""
    report = verify(lambda problem: 0 * problem.x, "score", problems=TWO, slack=1e9, name="mine:zero")
    assert report.holds
    assert "every limit widened 1e+09 times; only line-s0.3, plane-s0.5-alpha" in report.summary
    assert report.command().endswith("--slack 1e+09")
    folder = report.save(tmp_path / "report")
    stored = json.loads((folder / "report.json").read_text())
    assert (stored["slack"], stored["chosen"]) == (1e9, TWO)
    assert "slack 1e+09" in (folder / "report.html").read_text()
    for slack in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(StudyError, match="slack"):
            verify(lambda problem: problem.x, "score", problems=TWO, slack=slack)


def test_a_report_never_overwrites_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert that a study's folder is refused before anything runs, and a folder with a report of old is not."""
    monkeypatch.setattr(demonstration, "figures", lambda rows, config: {})
    result = run("support.demonstration", "smoke", out=tmp_path, workers=0)
    rows = (result.folder / "rows.parquet").read_bytes()
    assert main([*VERIFY, "--out", str(result.folder)]) == 2
    assert "of something else, such as a study's result" in capsys.readouterr().err
    assert (result.folder / "rows.parquet").read_bytes() == rows
    for _ in range(2):
        assert main([*VERIFY, "--out", str(tmp_path / "report")]) == 0


def test_a_full_disk_is_one_sentence_for_reports_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert exit code 2, and no half-written file."""

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", refuse)
    assert main([*VERIFY, "--out", str(tmp_path / "report")]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert not list((tmp_path / "report").iterdir())


def test_a_slow_estimator_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert a word with the problem's name on standard error while it runs."""
    import time

    monkeypatch.setattr("studies.running.waiting.EVERY", 0.1)
    monkeypatch.setattr(hostile, "action", lambda: time.sleep(0.5))
    assert main(VERIFY) == 0
    assert "waiting for score: line-s0.3" in capsys.readouterr().err
