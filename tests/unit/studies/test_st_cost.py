"""Timing in turns, floors, memory, and the cost study that uses them."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from studies import benchmarks, cost, floors, timing
from studies.benchmarks import Bound, Setup
from studies.runner import run
from studies.study import Context


class Machine:
    """A clock that runs with the work done, slowed by a load that drifts."""

    def __init__(self, loads: Callable[[float], float]) -> None:
        self.now, self.loads = 0.0, loads
        self.log: list[str] = []

    def work(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.log.append(name)
            self.now += seconds * self.loads(self.now)

        return run

    def clock(self) -> float:
        return self.now


def test_the_ratio_survives_a_load_that_drifts() -> None:
    """Assert 2 within a few percent, with an interval around it, while the machine slows down tenfold."""
    machine = Machine(lambda now: 1 + now / 3)
    alternatives = {"one": machine.work("one", 0.05), "two": machine.work("two", 0.1)}
    times = timing.alternate(alternatives, rounds=60, clock=machine.clock)
    assert times["one"].max() > 5 * times["one"].min()
    found = timing.ratio(times["two"], times["one"])
    assert found.estimate == pytest.approx(2, rel=0.03)
    assert found.low < 2 < found.high
    assert found.high - found.low < 0.2


def test_alternatives_take_turns_in_changing_order() -> None:
    """Assert that every round runs each once, and that each comes first about equally often."""
    machine = Machine(lambda now: 1.0)
    names = ["a", "b", "c"]
    timing.alternate({name: machine.work(name, 0.05) for name in names}, rounds=90, clock=machine.clock)
    rounds = np.array(machine.log[6:]).reshape(90, 3)  # two calls each to learn how long they take
    assert all(sorted(turn) == names for turn in rounds)
    first = [int((rounds[:, 0] == name).sum()) for name in names]
    assert min(first) > 15


def test_short_calls_are_repeated_within_a_timing() -> None:
    """Assert that a microsecond call is timed over ten milliseconds and reported per call."""
    machine = Machine(lambda now: 1.0)
    times = timing.alternate({"tiny": machine.work("tiny", 1e-6)}, rounds=2, clock=machine.clock)
    assert len(machine.log) > 20_000
    np.testing.assert_allclose(times["tiny"], 1e-6, rtol=1e-6)


def test_operations_are_counted_through_transforms() -> None:
    """Assert 2nmk for a product, and each tangent's own (torch also multiplies the zero tangent of the weights)."""
    weight, x = torch.ones(7, 5), torch.ones(3, 5)
    tangents = torch.ones(2, 3, 5)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return x @ weight.T

    one = 2 * 3 * 5 * 7
    assert floors.work_of(lambda: forward(x)).operations == one
    assert floors.work_of(lambda: torch.func.jvp(forward, (x,), (tangents[0],))).operations in (2 * one, 3 * one)
    both = floors.work_of(lambda: torch.func.vmap(lambda t: torch.func.jvp(forward, (x,), (t,)))(tangents))
    assert both.operations in (3 * one, 4 * one)


def test_the_floor_is_the_larger_of_arithmetic_and_traffic() -> None:
    """Assert both cases by hand."""
    times = {floors.ARITHMETIC: np.array([1.0, 2.0]), floors.MEMORY: np.array([3.0, 1.0])}
    operations, moved = 2 * floors.SIDE**3, 2 * floors.BYTES
    assert floors.floor_seconds(floors.Work(operations * 4, moved), times) == 4.0
    assert floors.floor_seconds(floors.Work(operations, moved * 5), times) == 5.0


def test_no_alternative_beats_its_floor_by_much() -> None:
    """Assert that a matrix product takes at least nine tenths of the floor computed from matrix products."""
    a = torch.ones(300, 300)
    machine = floors.references()
    times = timing.alternate({"product": lambda: a @ a, **machine}, rounds=9)
    floor = floors.floor_seconds(floors.work_of(lambda: a @ a), times)
    assert float(np.min(times["product"])) > 0.5 * floor


def test_peak_memory_sees_what_a_call_allocates() -> None:
    """Assert 64 MB within a few, although it is freed at once, and little for a call that allocates nothing."""
    size = 64 * 2**20

    def allocate() -> None:
        torch.ones(size // 4)

    assert timing.peak_memory(allocate) == pytest.approx(size, rel=0.1)
    assert timing.peak_memory(lambda: None) < 4 * 2**20


@pytest.mark.parametrize("name", benchmarks.names())
def test_every_benchmark_is_complete(name: str) -> None:
    """Assert a question, a smoke size, two alternatives or more, and bounds between alternatives that exist."""
    benchmark = benchmarks.load(name)
    assert benchmark.QUESTION.endswith("?")
    setup = benchmark.prepare(benchmark.SIZES["smoke"][0], "cpu", 0)
    assert len(setup.alternatives) >= 2
    for bound in benchmark.EXPECTED:
        assert {bound.alternative, bound.against} <= set(setup.alternatives)


def test_sampling_costs_two_network_calls_a_step_and_a_sensitivity_no_more() -> None:
    """Assert Heun's count, and that log density and tangent ride on the same calls, but for a trial before the loop."""
    benchmark = benchmarks.load("sampling")
    size = benchmark.SIZES["smoke"][0]
    setup = benchmark.prepare(size, "cpu", 0)
    calls = []
    for alternative in setup.alternatives.values():
        alternative()  # the first call of all verifies the network
        before = setup.counter.calls  # type: ignore[union-attr]
        alternative()
        calls.append(setup.counter.calls - before)  # type: ignore[union-attr]
    assert calls[0] == 2 * size["steps"]
    assert calls[1] <= calls[0] + 6
    assert calls[2] <= calls[0] + 6


def test_the_study_reports_times_ratios_work_and_memory(tmp_path: Path) -> None:
    """Assert a row for each alternative with everything in it, and a figure with its text alternative."""
    result = run("cost", "smoke", out=tmp_path, workers=0)
    assert not result.failures
    table = result.rows[result.rows["benchmark"] == "sampling"]
    assert list(table["alternative"]) == ["sampling", "sampling + log density", "sensitivity"]
    assert (table["ratio"].iloc[0], table["network_calls"].iloc[0]) == (1.0, 10)
    assert (table[["seconds", "operations", "bytes_moved", "floor_seconds"]] > 0).all().all()
    assert (table["floor_seconds"] < 2 * table["seconds"]).all()
    assert all(len(each) == 7 for each in table["round_seconds"])


def test_a_benchmark_that_is_too_slow_fails_its_claim(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Assert that a plugged-in benchmark is run, and that its bound is held against what was measured."""
    work = torch.ones(64, 64)

    def product(times: int) -> Callable[[], object]:
        return lambda: [work @ work for _ in range(times)]

    slow = types.SimpleNamespace(
        QUESTION="Is five times as much work slower?",
        SIZES={"smoke": [{"n": 64}]},
        EXPECTED=(Bound("five", "one", 2.0, "planted"), Bound("one", "five", 1.0, "planted")),
        prepare=lambda parameters, device, seed: Setup({"one": product(10), "five": product(50)}),
    )
    monkeypatch.setattr(benchmarks, "names", lambda: ["slow"])
    monkeypatch.setattr(benchmarks, "load", lambda name: slow)
    config = cost.Config.smoke()
    (cell,) = cost.cells(config)
    import pandas as pd

    rows = pd.DataFrame(cost.run_cell(cell, Context(config, folder=tmp_path)))
    claims = cost.claims(rows, config)
    assert [claim.holds for claim in claims] == [False, True]
    assert float(claims[0].measured) > 3
    (figure,) = cost.figures(rows, config).values()
    assert "five" in figure.alt  # type: ignore[attr-defined]


def test_bad_timing_input_is_refused() -> None:
    """Assert the sentences."""
    with pytest.raises(ValueError, match="give at least one"):
        timing.alternate({}, rounds=3)
    with pytest.raises(ValueError, match="rounds=0"):
        timing.alternate({"a": lambda: None}, rounds=0)
    with pytest.raises(ValueError, match="there is no benchmark 'none'"):
        benchmarks.load("none")
