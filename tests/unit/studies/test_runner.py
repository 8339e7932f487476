"""Running studies: rows do not depend on where cells run, and finished cells are never lost or doubled."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from support import demonstration, tiny_study

from studies.errors import StudyError
from studies.runner import check_workers, run
from studies.running import dispatch, execution, tables
from studies.running.progress import Silent
from studies.running.setting import Setting
from studies.running.summary import Summary
from studies.study import Cell, Claim, Context, load

STUDY = "support.demonstration"


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstration, "figures", lambda rows, config: {})


def rows_file(folder: Path) -> bytes:
    return (folder / "rows.parquet").read_bytes()


def test_rows_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    """Assert equal files, bit for bit, in this process and on one and two workers."""
    alone = run("support.tiny_study", "smoke", out=tmp_path / "0", workers=0)
    for workers in (1, 2):
        spread = run("support.tiny_study", "smoke", out=tmp_path / str(workers), workers=workers)
        assert rows_file(spread.folder) == rows_file(alone.folder)
    assert list(alone.rows["index"]) == list(range(20))


def test_an_existing_cluster_gives_the_same_rows(tmp_path: Path) -> None:
    """Assert the same through a scheduler's address, and that the cluster is left running."""
    alone = run(STUDY, "smoke", out=tmp_path / "0", workers=0)
    from distributed import Client, LocalCluster

    kind: dict[str, Any] = {"protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(1, threads_per_worker=1, processes=True, **kind) as cluster, Client(cluster) as client:
        remote = run(STUDY, "smoke", out=tmp_path / "r", scheduler=cluster.scheduler_address)
        assert client.submit(sum, [1, 2]).result() == 3
    assert rows_file(remote.folder) == rows_file(alone.folder)


def test_the_seed_shifts_all_cells_and_zero_none(tmp_path: Path) -> None:
    """Assert other rows in another folder for another seed, and the study's own seeds for zero."""
    zero = run(STUDY, "smoke", out=tmp_path, workers=0)
    one = run(STUDY, "smoke", out=tmp_path, workers=0, seed=1)
    assert zero.folder != one.folder
    assert not (zero.rows["mean"] == one.rows["mean"]).any()
    assert zero.rows["mean"][0] == np.random.default_rng(10_000).random(10).mean()
    setting = Setting.of(demonstration, "smoke", seed=1)
    assert len({cell.seed for cell in setting.cells(demonstration)}) == 4


def test_global_randomness_is_fixed_by_the_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that even a study that forgets its generator repeats its rows."""
    import random

    import torch

    def run_cell(cell: Cell, context: Context) -> list[dict[str, Any]]:
        row = {"mean": 0.5, "a": random.random(), "b": np.random.random(), "c": torch.rand(1).item()}  # noqa: NPY002
        return [row]

    monkeypatch.setattr(demonstration, "run_cell", run_cell)
    first, second = (run(STUDY, "smoke", out=tmp_path / name, workers=0).rows for name in "ab")
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert first["c"].nunique() == 4


def test_the_digest_changes_with_everything_rows_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert distinct folders for study, level, configuration, version, seed and device."""
    base = Setting.of(demonstration, "smoke")
    others = [
        dataclasses.replace(base, study="other"),
        dataclasses.replace(base, level="full"),
        dataclasses.replace(base, config=demonstration.Config(repeats=3)),
        dataclasses.replace(base, version=2),
        dataclasses.replace(base, seed=1),
        dataclasses.replace(base, device="cuda"),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 7
    assert Setting.of(demonstration, "smoke").digest == base.digest


def test_records_say_where_rows_come_from(tmp_path: Path) -> None:
    """Assert checksum, seed, parameters, seconds, memory, versions and commit in every record."""
    result = run(STUDY, "smoke", out=tmp_path, workers=0)
    record = json.loads((result.folder / "cells" / "n=10-1.json").read_text())
    assert record["seed"] == 10_001
    assert record["parameters"] == {"size": 10, "repeat": 1}
    assert record["seconds"] > 0
    assert record["peak_memory_bytes"] > 10_000_000
    assert {"python", "numpy", "torch", "score-sensitivity"} <= set(record["versions"])
    assert len(record["checksum"]) == 64
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["setting"]["config"] == {"sizes": [10, 100], "repeats": 2, "pause": 0.0, "fail": "", "deadly": ""}
    assert manifest["environment"]["machine"]["cores"] >= 1


def test_a_summary_survives_being_stored(tmp_path: Path) -> None:
    """Assert that reading gives what was written."""
    result = run(STUDY, "smoke", out=tmp_path, workers=0)
    summary = Summary.read(result.folder)
    assert summary.claims == result.claims
    assert summary.complete
    assert summary.rows.num_rows == 4


BAD_KINDS = {
    "name": [demonstration, Path("dice.py"), None, 3, ["dice"]],
    "level": [None, 3, ["smoke"]],
    "out": [None, 3],
    "device": [None, 3],
    "workers": ["two", 1.5, True],
    "scheduler": [3],
    "seed": ["a", 1.5, None, True],
    "changed": [None, 3],
    "dashboard": ["yes", 1, None],
    "progress": [3, True, "bar"],
}


@pytest.mark.parametrize("argument", BAD_KINDS)
def test_arguments_of_other_kinds_are_one_sentence(argument: str, tmp_path: Path) -> None:
    """Assert that the sentence names the argument and what to give; tracebacks of other packages before."""
    for value in BAD_KINDS[argument]:
        given = {"name": STUDY, "level": "smoke", "out": tmp_path, "workers": 0} | {argument: value}
        with pytest.raises(StudyError, match=rf"^{argument}.* give "):
            run(**given)
    assert not list(tmp_path.iterdir())


def test_a_serial_study_gets_one_worker() -> None:
    """Assert that timings are never taken beside one another, on any machine."""
    assert check_workers(8, None, serial=True) == 1
    assert check_workers(None, None, serial=True) == 1
    assert check_workers(0, None, serial=True) == 0
    assert check_workers(8, None, serial=False) == 8


def test_a_module_in_the_current_folder_is_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a user's own study runs by its module's name."""
    package = tmp_path / "mystudies"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "own.py").write_text(Path(str(tiny_study.__file__)).read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    result = run("mystudies.own", "smoke", out=tmp_path / "out", workers=0)
    assert len(result.rows) == 20
    with pytest.raises(StudyError, match="could not be imported"):
        load("mystudies.none")


ODD = [
    {"a": 1, "b": [1.0, 2.0], "c": "x", "d": None, "e": np.float32(0.1), "f": np.arange(2), "g": True},
    {"a": 2.5, "b": [], "c": None, "d": 5, "e": float("nan"), "f": None, "h": -0.0},
]


def test_rows_keep_every_bit_and_kind() -> None:
    """Assert exact floats, NaN, negative zero, lists, nulls and missing columns through Parquet."""
    table = tables.decode(tables.encode("cell", ODD))
    back = table.to_pylist()
    assert back[0]["a"] == 1.0
    assert back[0]["e"] == float(np.float32(0.1))
    assert np.isnan(back[1]["e"])
    assert np.signbit(back[1]["h"])
    assert back[0]["b"] == [1.0, 2.0]
    assert back[0]["f"] == [0, 1]
    assert back[1]["c"] is None
    assert back[0]["d"] is None
    assert back[0]["h"] is None
    assert table["cell"].to_pylist() == ["cell", "cell"]


def test_cells_with_different_columns_and_kinds_are_joined() -> None:
    """Assert that integers meet floats as floats, that missing columns are null, and that empty cells add nothing."""
    first = tables.decode(tables.encode("one", [{"a": 1, "b": "x"}]))
    second = tables.decode(tables.encode("two", [{"a": 0.5, "c": [1]}]))
    empty = tables.decode(tables.encode("three", []))
    joined = tables.join([first, empty, second])
    assert joined["a"].type == pa.float64()
    assert joined.to_pylist()[1] == {"cell": "two", "a": 0.5, "b": None, "c": [1]}
    assert tables.join([empty]).num_rows == 0


def test_groups_are_small_for_long_cells_and_large_for_tiny_ones() -> None:
    """Assert a quarter of a second a group, at most a hundred cells, and a fair share at the end."""
    pace = dispatch.Pace()
    assert pace.size(1000, 2) == 1
    pace.saw(1e-5)
    assert pace.size(10_000, 2) == 100
    assert pace.size(40, 2) == 10
    assert pace.size(1, 2) == 1
    pace.saw(0.05)
    assert pace.size(10_000, 2) == 5
    pace.saw(3.0)
    assert pace.size(10_000, 2) == 1


@pytest.mark.slow
def test_ten_thousand_tiny_cells_take_a_minute_and_resume_in_a_quarter(tmp_path: Path) -> None:
    """Assert at most 60 s for the run (5 ms a cell and the cluster's start) and 15 s for doing nothing again."""
    start = time.perf_counter()
    assert run("support.tiny_study", "full", out=tmp_path, workers=2).exit_code == 0
    middle = time.perf_counter()
    assert run("support.tiny_study", "full", out=tmp_path, workers=2).exit_code == 0
    end = time.perf_counter()
    print(f"10 000 cells: {middle - start:.1f} s, again: {end - middle:.1f} s")
    assert middle - start <= 60
    assert end - middle <= 15


@pytest.mark.slow
def test_two_workers_are_nearly_twice_as_fast_as_one(tmp_path: Path) -> None:
    """Assert 1.7 times the speed on independent cells of a twentieth of a second, once the cluster is up."""
    config = demonstration.Config(sizes=(10,), repeats=120, pause=0.05)
    setting = Setting("demonstration", "full", config)
    cells, context, seconds = setting.cells(demonstration), Context(config, folder=tmp_path), {}
    for workers in (1, 2):
        with execution.local_client(workers) as client:
            list(dispatch.dispatch(client, STUDY, cells[:16], context))  # every worker has loaded the study
            start = time.perf_counter()
            assert len(list(dispatch.dispatch(client, STUDY, cells, context))) == 120
            seconds[workers] = time.perf_counter() - start
    print(f"one worker {seconds[1]:.2f} s, two workers {seconds[2]:.2f} s, ratio {seconds[1] / seconds[2]:.2f}")
    assert seconds[1] / seconds[2] >= 1.7


def test_claims_are_shown_while_cells_come_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a display hears of claims on the cells so far, and that claims which need all cells do no harm."""
    monkeypatch.setattr("studies.runner.LIVE_SECONDS", 0.0)
    monkeypatch.setattr("studies.runner.LIVE_SHARE", 1e9)

    class Listener(Silent):
        shows_claims = True

        def __init__(self) -> None:
            self.heard: list[int] = []

        def claims(self, claims: Sequence[Claim]) -> None:
            self.heard.append(len(claims))

    listener = Listener()
    run(STUDY, "smoke", out=tmp_path / "a", workers=0, progress=listener)
    assert listener.heard == [1, 1, 1, 1]

    def needy(rows: pd.DataFrame, config: Any) -> list[Claim]:
        if len(rows) < 4:
            raise KeyError("n=100-1")
        return []

    monkeypatch.setattr(demonstration, "claims", needy)
    patient = Listener()
    assert run(STUDY, "smoke", out=tmp_path / "b", workers=0, progress=patient).exit_code == 0
    assert patient.heard == [0, 0, 0, 0]


def test_folders_may_be_strings(tmp_path: Path) -> None:
    """Assert that every call that takes a folder takes its name."""
    from studies.reports.compare import compare
    from studies.reports.upkeep import clean, folders, renew, status

    result = run(STUDY, "smoke", out=str(tmp_path), workers=0)
    assert folders(str(tmp_path)) == [result.folder]
    name = str(result.folder)
    assert status(name).problems == []
    assert renew(name).complete
    assert not compare(name, name).differs
    assert clean(name) == []
