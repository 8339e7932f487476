"""How rarely a right estimator is rejected: levels of the checks, and counts on fresh seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.close import assert_close

from studies.verification import fresh, metrics, rejections, verify
from studies.verification.bars import honesty
from studies.verification.faults import CORRECT, FAULTS
from studies.verification.tasks.base import rownorm


def test_the_row_threshold_is_bonferronis() -> None:
    """Assert that the largest of 32 rows passes as rarely as one row does."""
    assert_close(2 * 32 * stats.t.sf(metrics.threshold(16, 32), 15), metrics.ONE_IN_A_MILLION, rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 32])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("heavy", [False, True])
def test_honest_bars_are_rejected_no_more_often_than_stated(rows: int, shared: bool, heavy: bool) -> None:
    """Assert that z-scores of normal noise exceed 4 no more often than normal ones, whether or not rows share it.

    One in a million cannot be simulated: four standard deviations can. Skewed noise may exceed them more often; the
    allowance covers it.
    """
    rng, beyond, total = np.random.default_rng(0), 0, 1000
    for _ in range(total):
        noise = rng.standard_normal((16, 1 if shared else rows))
        values = np.broadcast_to(noise * np.exp(0.3 * noise) if heavy else noise, (16, rows))
        spread = float(np.sqrt(np.exp(2 * 0.3**2) * (1 + 4 * 0.3**2) - 0.3**2 * np.exp(0.3**2))) if heavy else 1.0
        honest = honesty(values, np.full((16, rows), spread))
        assert honest is not None
        z = np.log(honest.ratio) * np.sqrt(2 * honest.freedom)
        beyond += abs(z) > 4.0
        assert honest.holds
    assert beyond <= (0.02 if heavy else 0.002) * total


@pytest.mark.parametrize("factor", [0.5, 1 / 1.5, 1.5, 2.0])
def test_bars_wrong_by_half_are_told_within_the_budget(factor: float) -> None:
    """Assert that 1024 repeats of one row, or 64 of 32 independent rows, reject error bars off by 1.5."""
    rng = np.random.default_rng(1)
    for repeats, rows in ((1024, 1), (64, 32)):
        rejected = 0
        for _ in range(100):
            ratio = honesty(rng.standard_normal((repeats, rows)), np.full((repeats, rows), factor))
            assert ratio is not None
            rejected += not ratio.holds
        assert rejected >= 99, (repeats, rows)


def test_noise_is_rejected_at_the_stated_rate() -> None:
    """Assert, at a level that a simulation can see, that the bias check of many rows errs no more often than stated."""
    rng, level = np.random.default_rng(0), 0.05
    values = rng.standard_normal((4000, 16, 8))
    t = np.abs(values.mean(1)) / (values.std(1, ddof=1) / 4)
    rate = float((t.max(axis=1) > stats.t.isf(level / 16, 15)).mean())
    assert 0.03 < rate < 0.06


def test_sizes_near_overflow_are_judged() -> None:
    """Assert that norms, deviations and calibration survive values whose squares overflow (density ratios do)."""
    truth = np.array([[1e200, 1e200], [1.0, 0.0]])
    noise = np.random.default_rng(0).standard_normal((16, 2, 2))
    values = truth * (1 + 0.1 * noise)
    assert_close(rownorm(truth), np.array([2**0.5 * 1e200, 1.0]))
    assert_close(metrics.deviation(values)[0] / 1e200, metrics.deviation(values / truth.max())[0])
    assert abs(honesty(values, 0.1 * np.abs(truth)[None].repeat(16, 0)).ratio - 1) < 0.3
    assert np.isfinite(metrics.scaled_bias(values, truth, 0.01 * rownorm(truth))).all()
    assert abs(metrics.scale(values, truth) - 1) < 0.2


@pytest.mark.parametrize(
    ("task", "name", "problem"),
    [
        ("score", "mixture_score", "plane-s0.1"),
        ("sample", "flow_sample", "line-s0.05"),
        ("divergence", "exact_divergence", "five-s0.3"),
    ],
)
def test_blocks_of_seeds_are_judged_as_verify_judges_each(task: str, name: str, problem: str) -> None:
    """Assert that errors and verdicts seed by seed equal those of separate runs."""
    estimator = CORRECT[task][name]
    for seed, verdict in fresh.verdicts(estimator, task, problem, range(1, 4)):
        (alone,) = verify(estimator, task, seed=seed, problems=[problem], orders=False).verdicts
        assert verdict.holds == alone.holds
        assert_close(verdict.truth, alone.truth, rtol=1e-9, atol=1e-12)
        assert_close(verdict.scaled, alone.scaled, rtol=1e-3, atol=1e-6)


def test_repeats_are_added_for_the_undecided_seeds_of_a_block_alone() -> None:
    """Assert that a seed whose error bars are undecided gets more repeats, on its own rows, and the others none."""
    rows = {seed: fresh.posed("divergence", "five-s0.3", (seed,))[0]["x"] for seed in (1, 2, 3)}
    answered = []

    def unsure(problem: Any) -> tuple[np.ndarray, np.ndarray]:
        x = problem.x
        answered.append(len(x))
        odd = (x[:, None] == rows[2][None]).all(2).any(1)  # bars a third too large: neither honest nor plainly wrong
        noise = np.random.default_rng(problem.seed).standard_normal(len(x))
        return noise, np.where(odd, 1.3, 1.0)

    found = [len(v.replies) for _, v in fresh.verdicts(unsure, "divergence", "five-s0.3", (1, 2, 3), backend="numpy")]
    assert found[0] == found[2] == 64 < found[1]
    assert answered == [96, 4, *[96] * 63, *[32] * (found[1] - 64)]


def test_other_seeds_are_counted_by_themselves(tmp_path: Path) -> None:
    """Assert that an independent count of a problem stands beside the first, and that a count is made once."""
    table, asked = tmp_path / "fresh.json", ["evidence", "--problem", "gaussian-s0"]
    for seeds in ("1-3", "301-302", "1-3"):
        assert fresh.main([*asked, "--seeds", seeds], table) == 0
    found = [(entry["first"], entry["seeds"]) for entry in json.loads(table.read_text())["counts"]]
    assert found == [(1, 3), (301, 2)]
    with pytest.raises(SystemExit):
        fresh.main([*asked, "--seeds", "0-3"], table)


def test_a_wrong_estimator_is_rejected_on_every_fresh_seed() -> None:
    """Assert that blocks do not hide faults: rejections, and the check that fails."""
    fault = FAULTS["doubled_divergence"]
    result = fresh.count_alarms(fault.estimator, fault.task, "plane-s0.1", range(1, 6))
    assert result["rejected"] == [1, 2, 3, 4, 5]
    assert result["checks"] == ["accuracy"]
    coupled = FAULTS["summed_over_batch"]
    assert "rows" in fresh.count_alarms(coupled.estimator, coupled.task, "plane-s0.1", range(1, 3))["checks"]


def test_the_published_counts_reject_nothing() -> None:
    """Assert that the committed counts are of all seeds of right estimators on chosen problems, without a rejection."""
    counts = json.loads(fresh.TABLE.read_text())["counts"]
    assert all(entry["rejected"] == [] for entry in counts)
    values = [(task, e) for task in CORRECT for e in fresh.right(task)]
    expected = {(task, e.__name__, p) for task, e in values for p in fresh.problems(task, e)}
    first, again = ([e for e in counts if (e["first"] == 1) is is_first] for is_first in (True, False))
    assert {(entry["task"], entry["estimator"], entry["problem"]) for entry in first} == expected
    assert all(entry["seeds"] == 300 for entry in first)
    # Problems whose remedies were chosen on seeds 1 to 300, or 1 to 100, are counted on others.
    independent = [(entry["problem"], entry["first"], entry["seeds"]) for entry in again]
    assert independent == [("line-s0.05", 301, 300), ("fifty-s0.3", 101, 100)]


def test_the_published_rejections_are_of_every_fault() -> None:
    """Assert that each fault has an entry with its task, its mistake and no check beside those expected of it."""
    entries: dict[str, Any] = {entry["fault"]: entry for entry in json.loads(rejections.TABLE.read_text("utf-8"))}
    assert set(entries) == set(FAULTS)
    for name, fault in FAULTS.items():
        assert (entries[name]["task"], entries[name]["mistake"]) == (fault.task, fault.reason)
        assert entries[name]["checks"]
        assert set(entries[name]["checks"]) <= set(fault.checks)
