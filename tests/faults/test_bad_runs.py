"""Bad input to the runner and the command line: one sentence, exit code 2, no traceback."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import demonstration

from studies import cache, results
from studies.cli import main
from studies.errors import StudyError
from studies.reports import upkeep
from studies.runner import run
from studies.running.setting import Setting
from studies.study import Cell

STUDY = "support.demonstration"
RUN = ["run", STUDY, "--smoke", "--workers", "0"]

COMMANDS = {
    "an unknown study": (["run", "convergenze"], "did you mean 'convergence'"),
    "an unknown study, nothing near": (["run", "xyz"], "choose one of"),
    "a module that is not there": (["run", "no.such.module"], "could not be imported"),
    "a module that is no study": (["run", "json.decoder"], "is not a study: it lacks NAME"),
    "one good and one bad name": (["run", STUDY, "nothing"], "there is no study 'nothing'"),
    "no name": (["run"], "Missing argument"),
    "two levels": (["run", STUDY, "--quick", "--full"], "exclude each other"),
    "an unknown option": (["run", STUDY, "--fast"], "No such option"),
    "an unknown command": (["rnu", STUDY], "No such command"),
    "workers that are no number": (["run", STUDY, "--workers", "two"], "valid int"),
    "fewer than no workers": (["run", STUDY, "--workers", "-1"], "workers=-1 is negative"),
    "workers and a scheduler": (
        ["run", STUDY, "--workers", "2", "--scheduler", "tcp://127.0.0.1:1"],
        "give one of the two",
    ),
    "a scheduler that is not there": (["run", STUDY, "--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler answers"),
    "a scheduler of another kind": (["run", STUDY, "--scheduler", "ftp://x"], "no Dask scheduler answers"),
    "a negative seed": (["run", STUDY, "--seed", "-1"], "seed=-1 is negative"),
    "an unknown device": (["run", STUDY, "--device", "gpu"], "the device 'gpu' cannot be used"),
    "a report of nothing": (["report", "/nowhere"], "no result folder"),
    "a comparison of nothing": (["compare", "/nowhere", "/nowhere"], "does not exist"),
    "the status of nothing": (["status", "--out", "/nowhere"], "is no folder"),
    "cleaning nothing": (["clean", "--out", "/nowhere"], "is no folder"),
    "publishing nothing": (["publish", "/nowhere"], "no result folder"),
    "a folder name that is too long": (["run", STUDY, "--workers", "0", "--out", "x" * 300], "too long"),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written into the checkout, and no time is spent on drawing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demonstration, "figures", lambda rows, config: {})
    monkeypatch.setattr("studies.running.execution.CONNECT_SECONDS", 1)
    monkeypatch.setattr("studies.study.available", lambda: ["convergence", "cost", "retraining"])


def only_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert error.startswith("studies: ")
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize("case", COMMANDS)
def test_a_bad_command_is_answered_with_one_sentence(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert exit code 2 and the sentence."""
    arguments, sentence = COMMANDS[case]
    assert main(arguments) == 2
    assert sentence in only_sentence(capsys)


def cells_of(*names: str, parameters: object = None) -> Callable[[Any], list[Cell]]:
    return lambda config: [Cell(name, {"p": parameters}) for name in names]


def returns(rows: object) -> Callable[..., object]:
    return lambda *_: rows


def raises(*_: object) -> None:
    raise ZeroDivisionError("one by zero")


STUDIES = {
    "cells of one name": ({"cells": cells_of("a", "a")}, "must be unique"),
    "cells that differ in case alone": ({"cells": cells_of("a", "A")}, "must be unique"),
    "a cell with a slash": ({"cells": cells_of("a/b")}, "no safe file name"),
    "a cell that starts with a dot": ({"cells": cells_of(".a")}, "no safe file name"),
    "a cell without a name": ({"cells": cells_of("")}, "no safe file name"),
    "a cell with a long name": ({"cells": cells_of("a" * 151)}, "no safe file name"),
    "parameters that JSON cannot hold": ({"cells": cells_of("a", parameters={1, 2})}, "not JSON-able"),
    "parameters that are NaN": ({"cells": cells_of("a", parameters=float("nan"))}, "not JSON-able"),
    "claims that raise": ({"claims": raises}, "claims of 'demonstration' could not be computed: ZeroDivisionError"),
    "figures that raise": ({"figures": raises}, "figures of 'demonstration' could not be drawn: ZeroDivisionError"),
    "cells that disagree on a column": (
        {"run_cell": lambda cell, _: [{"mean": "text" if cell.name == "n=10-0" else 1.0}]},
        "cells disagree about a column",
    ),
}


@pytest.mark.parametrize("case", STUDIES)
def test_a_study_that_breaks_the_protocol_is_refused(
    case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert exit code 2 and the sentence."""
    changes, sentence = STUDIES[case]
    for name, value in changes.items():
        monkeypatch.setattr(demonstration, name, value)
    assert main(RUN) == 2
    assert sentence in only_sentence(capsys)


ROWS = {
    "no list": ({"a": 1}, "must return a list of dictionaries, not an object of type dict"),
    "a list of numbers": ([1, 2], "must return a list of dictionaries"),
    "nothing": (None, "not an object of type NoneType"),
    "an object": ([{"a": object()}], "column 'a' of cell 'n=10-0' holds an object of type object"),
    "a dictionary in a column": ([{"a": {"b": 1}}], "an object of type dict"),
    "a key that is no text": ([{1: 2}], "text keys"),
    "the runner's own column": ([{"cell": "mine"}], "is kept for the cell's name"),
    "text and numbers in one column": ([{"a": 1}, {"a": "x"}], "column 'a' mixes kinds"),
    "an exception": (ZeroDivisionError, "ZeroDivisionError: one by zero"),
}


@pytest.mark.parametrize("case", ROWS)
def test_bad_rows_fail_their_cell_and_no_other(case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Assert that the failure is recorded with its sentence and that the other cells finish."""
    rows, sentence = ROWS[case]
    real = demonstration.run_cell

    def run_cell(cell: Cell, context: Any) -> Any:
        if cell.name != "n=10-0":
            return real(cell, context)
        return raises() if rows is ZeroDivisionError else rows

    monkeypatch.setattr(demonstration, "run_cell", run_cell)
    result = run(STUDY, "smoke", out=tmp_path, workers=0)
    assert result.exit_code == 2
    assert list(result.failures) == ["n=10-0"]
    assert sentence in result.failures["n=10-0"]
    assert len(result.rows) == 3
    record = (result.folder / "cells" / "n=10-0.failed.json").read_text()
    assert "Traceback" in record
    monkeypatch.undo()
    assert run(STUDY, "smoke", out=tmp_path, workers=0).exit_code == 0
    assert not (result.folder / "cells" / "n=10-0.failed.json").exists()


def test_configurations_must_be_dataclasses_of_plain_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert the sentence for a dictionary, for an array inside, and for a level that is missing."""
    monkeypatch.setattr(demonstration.Config, "smoke", dict)
    with pytest.raises(StudyError, match="is not a dataclass instance"):
        _ = Setting.of(demonstration, "smoke").digest
    broken = dataclasses.replace(demonstration.Config(), pause=np.ones(2))  # type: ignore[arg-type]
    monkeypatch.setattr(demonstration.Config, "smoke", lambda: broken)
    with pytest.raises(StudyError, match="not JSON-able"):
        _ = Setting.of(demonstration, "smoke").digest
    with pytest.raises(StudyError, match="has no paper configuration"):
        Setting.of(demonstration, "paper")
    with pytest.raises(StudyError, match="did you mean 'quick'"):
        Setting.of(demonstration, "quik")


def test_results_of_different_studies_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert the sentence."""
    first = run(STUDY, "smoke", out=tmp_path, workers=0)
    other = types.ModuleType("support.other")
    other.__dict__.update({key: value for key, value in vars(demonstration).items() if not key.startswith("__")})
    other.NAME = "other"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "support.other", other)
    second = run("support.other", "smoke", out=tmp_path, workers=0)
    assert main(["compare", str(first.folder), str(second.folder)]) == 2
    assert "compare one study's results" in only_sentence(capsys)


def test_removing_results_needs_a_yes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that nothing goes without confirmation, nor together with a stranger's file, and that all goes with it."""
    result = run(STUDY, "smoke", out=tmp_path, workers=0)
    command = ["clean", "--all", "--out", str(tmp_path)]
    assert main(command) == 2
    assert "add --yes" in capsys.readouterr().err
    (result.folder / "thesis.tex").touch()
    assert main([*command, "--yes"]) == 2
    assert "also holds 'thesis.tex'" in capsys.readouterr().err
    (result.folder / "thesis.tex").unlink()
    assert main([*command, "--yes"]) == 0
    assert not result.folder.exists()


def test_only_complete_small_and_whole_tables_are_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert the sentences for failed cells, for large tables, for unknown names and for damaged tables."""
    shelf = tmp_path / "shelf"
    with pytest.raises(StudyError, match="nothing is published for the study 'cost'"):
        results.load("cost", shelf)
    with monkeypatch.context() as patch:
        patch.setattr(demonstration.Config, "smoke", lambda: demonstration.Config(fail="n=10-0"))
        failed = run(STUDY, "smoke", out=tmp_path, workers=0)
        with pytest.raises(StudyError, match="only results with every cell finished"):
            results.publish(failed.folder, shelf)
    with pytest.raises(StudyError, match="its cells cannot be judged"):
        results.publish(failed.folder, shelf)
    whole = run(STUDY, "smoke", out=tmp_path, workers=0)
    with monkeypatch.context() as patch:
        patch.setattr(results, "LARGEST", 10)
        with pytest.raises(StudyError, match="at most 10 are published"):
            results.publish(whole.folder, shelf)
    home = results.publish(whole.folder, shelf)
    rows, claims, manifest = results.load("demonstration", shelf)
    assert rows.equals(whole.rows)
    assert claims == whole.claims
    assert manifest["setting"]["level"] == "smoke"
    with pytest.raises(StudyError, match="did you mean 'demonstration'"):
        results.load("demonstrations", shelf)
    (home / "rows.parquet").write_bytes(b"")
    with pytest.raises(StudyError, match="differ from their checksum"):
        results.load("demonstration", shelf)


def test_a_damaged_summary_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that compare and an outdated report say which file to renew."""
    result = run(STUDY, "smoke", out=tmp_path, workers=0)
    (result.folder / "summary.json").write_text("{}")
    monkeypatch.setattr(demonstration, "VERSION", 2, raising=False)
    with pytest.raises(StudyError, match=r"summary\.json is damaged"):
        upkeep.renew(result.folder)
    (problem,) = upkeep.status(result.folder).problems
    assert "summary.json is damaged" in problem
    monkeypatch.undo()
    run(STUDY, "smoke", out=tmp_path, workers=0)
    (result.folder / "claims.json").write_text('[{"statement": 1}]')
    (problem,) = upkeep.status(result.folder).problems
    assert "claims.json is damaged" in problem


def test_a_cached_network_that_is_damaged_is_built_again(tmp_path: Path) -> None:
    """Assert that the cache trusts whole files only, and that two keys never share one."""
    import torch

    store, calls = cache.Cache(tmp_path), []

    def build() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"weight": torch.arange(6.0).reshape(2, 3).T}

    key = {"seed": 1, "width": 32}
    first = store.tensors("mlp", key, build)
    assert torch.equal(store.tensors("mlp", key, build)["weight"], first["weight"])
    assert len(calls) == 1
    store.tensors("mlp", key | {"seed": 2}, build)
    assert len(calls) == 2
    path = store.path("mlp", key)
    for damage in (path.read_bytes()[:-4], b"", path.read_bytes()[:-1] + b"x"):
        path.write_bytes(damage)
        assert torch.equal(store.tensors("mlp", key, build)["weight"], first["weight"])
    assert len(calls) == 5
