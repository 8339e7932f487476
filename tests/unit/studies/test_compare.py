"""Comparing two results: what differs is found, what is noise or timing is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studies.claim_bounds import at_most
from studies.reports.compare import Comparison, compare
from studies.running.summary import Summary
from studies.running.tables import decode, encode, join
from studies.study import Claim

BASE = [{"error": float(value), "size": 3, "seconds": 0.1 + index} for index, value in enumerate(range(1, 21))]


def result(folder: Path, rows: list[dict[str, Any]], *, holds: bool = True, study: str = "s") -> Path:
    """A stored summary with one cell for each row."""
    table = join([decode(encode(f"cell-{index}", [row])) for index, row in enumerate(rows)])
    spent = {"seconds": 1.0, "peak_memory_bytes": 1, "commits": [], "run_as": study}
    origin = {"cells": len(rows), "finished": len(rows)} | spent
    setting = {"study": study, "level": "smoke", "version": 1, "seed": 0, "device": "cpu", "config": {}}
    environment: dict[str, Any] = {"versions": {}, "commit": None, "machine": {}}
    claim = Claim("errors are small", 1.0, (0.5, 1.5), at_most(2.0 if holds else 0.1), "test")
    folder.mkdir()
    Summary(study, "?", setting, "d" * 16, environment, origin, table, [claim], {}).write(folder)
    return folder


def changed(tmp_path: Path, rows: list[dict[str, Any]], **keywords: Any) -> Comparison:
    return compare(result(tmp_path / "a", BASE), result(tmp_path / "b", rows, **keywords))


def column(comparison: Comparison, name: str) -> Any:
    return next(each for each in comparison.columns if each.name == name)


def test_equal_results_do_not_differ(tmp_path: Path) -> None:
    """Assert no difference in anything, and no test where columns are equal bit for bit."""
    differences = changed(tmp_path, BASE)
    assert not differences.differs
    assert column(differences, "error").test is None


def test_a_small_common_shift_is_found(tmp_path: Path) -> None:
    """Assert that two percent on every row, far below the spread between rows, is a difference."""
    differences = changed(tmp_path, [row | {"error": row["error"] * 1.02} for row in BASE])
    assert column(differences, "error").differs
    assert differences.differs


def test_noise_without_direction_is_no_difference(tmp_path: Path) -> None:
    """Assert that symmetric noise leaves the two alike, with its p-value shown."""
    rng = np.random.default_rng(0)
    differences = changed(tmp_path, [row | {"error": row["error"] + rng.normal()} for row in BASE])
    assert not differences.differs
    assert 0.05 < column(differences, "error").p_value <= 1


def test_timings_are_shown_and_not_counted(tmp_path: Path) -> None:
    """Assert that twice the seconds is no difference of the results."""
    differences = changed(tmp_path, [row | {"seconds": 2 * row["seconds"]} for row in BASE])
    assert column(differences, "seconds").p_value < 0.05
    assert not differences.differs


def test_new_missing_values_are_a_difference(tmp_path: Path) -> None:
    """Assert that a NaN where there was a number is not overlooked."""
    differences = changed(tmp_path, [*BASE[:-1], BASE[-1] | {"error": float("nan")}])
    assert column(differences, "error").differs


def test_verdicts_cells_and_labels_are_compared(tmp_path: Path) -> None:
    """Assert that a changed verdict, a missing cell, a changed label and a new column each count."""
    (tmp_path / "1").mkdir()
    assert changed(tmp_path / "1", BASE, holds=False).claims[0].differs
    (tmp_path / "2").mkdir()
    missing = changed(tmp_path / "2", BASE[:-1])
    assert missing.unmatched == ["cell-19"]
    assert missing.differs
    (tmp_path / "3").mkdir()
    added = changed(tmp_path / "3", [row | {"label": "x"} for row in BASE])
    assert added.relabelled == {"label": 20}
    first = result(tmp_path / "4", [{"label": "x", "list": [1, 2]}])
    second = result(tmp_path / "5", [{"label": "y", "list": [1, 3]}])
    assert compare(first, second).relabelled == {"label": 1, "list": 1}
    assert not compare(first, first).differs


@pytest.mark.parametrize("seed", range(3))
def test_one_column_in_many_is_not_flagged_by_chance(tmp_path: Path, seed: int) -> None:
    """Assert that twenty columns of noise give no difference after Holm's adjustment."""
    rng = np.random.default_rng(seed)
    names = [f"c{index}" for index in range(20)]
    first, second = ([{name: rng.normal() for name in names} for _ in range(30)] for _ in range(2))
    assert not compare(result(tmp_path / "a", first), result(tmp_path / "b", second)).differs
