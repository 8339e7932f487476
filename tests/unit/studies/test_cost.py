"""Timing in turns, floors, memory, and the cost study that uses them."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.close import assert_close

from sensitivity import GaussianAnchor, Grid, as_score, log_density
from studies import cost, single_pass
from studies.cost import benchmarks, floors, timing
from studies.cost.benchmarks import Bound, Setup, _public, density
from studies.cost.benchmarks._drawing import ratios
from studies.cost.benchmarks._problem import SIGMA_MAX, SIGMA_MIN, Problem
from studies.runner import run
from studies.sampling import sample
from studies.single_pass import long
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
    ratios = timing.ratio(times["two"], times["one"])
    assert ratios.estimate == pytest.approx(2, rel=0.03)
    assert ratios.low < 2 < ratios.high
    assert ratios.high - ratios.low < 0.2


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
        assert {bound.alternative, *bound.rivals()} <= set(setup.alternatives)
    assert {*setup.references, *setup.errors} <= set(setup.alternatives)


def test_every_benchmark_runs_in_its_study() -> None:
    """Assert that none is left out, and that those against the hand-written pass are in their own studies alone."""
    one, other, longer = (
        {cell.parameters["benchmark"] for cell in study.cells(study.Config.full())}
        for study in (cost, single_pass, long)
    )
    assert one | other | longer == set(benchmarks.names())
    assert not one & set(benchmarks.ELSEWHERE)
    assert set(benchmarks.SINGLE_PASS) <= other
    assert longer == set(benchmarks.LONG)


def test_long_paths_have_twenty_steps_and_the_bounds_of_short_ones() -> None:
    """Assert the steps of every size, that nothing but them and the batch differs, and which bounds are claimed."""
    short, longer = benchmarks.load("fused"), benchmarks.load("fused_long")
    sizes = longer.SIZES["full"]
    assert {size["steps"] for size in sizes} == {20}
    known = [{**size, "steps": 20} for size in short.SIZES["full"]]
    assert all(size in known for size in sizes)
    assert set(short.EXPECTED) - set(longer.EXPECTED) == {b for b in short.EXPECTED if "16" in b.alternative}


def test_the_two_step_solver_is_more_accurate_with_fewer_steps() -> None:
    """Assert the errors of log p that the comparison rests on, at its smallest size."""
    benchmark = benchmarks.load("equal_accuracy")
    setup = benchmark.prepare(benchmark.SIZES["smoke"][0], "cpu", 0)
    theirs, value = (float(error().max()) for error in setup.errors.values())
    assert value < theirs < 0.1


def test_slow_alternatives_take_fewer_rounds_but_enough_for_an_interval() -> None:
    """Assert that the time given bounds the rounds from above, and that seven are the least."""
    machine = Machine(lambda now: 1.0)
    alternatives = {"one": machine.work("one", 1.0), "two": machine.work("two", 2.0)}
    assert len(timing.alternate(alternatives, rounds=40, seconds=30, clock=machine.clock)["one"]) == 10
    assert len(timing.alternate(alternatives, rounds=40, seconds=1, clock=machine.clock)["one"]) == 7
    assert len(timing.alternate(alternatives, rounds=5, seconds=1, clock=machine.clock)["one"]) == 5


TINY = {"kind": "mlp", "width": 16, "depth": 2, "data": "digits", "side": 4, "training": 5, "batch": 3, "steps": 7}


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A small network in float64, for the packages' numbers."""
    values = Problem.of(TINY, "cpu", 0)
    network = copy.deepcopy(values.counter.network).double()
    anchor = GaussianAnchor(values.anchor.mean.double(), 0.5)
    top = torch.tensor(SIGMA_MAX, dtype=torch.float64)
    values.counter, values.score, values.anchor = timing.Counter(network), as_score(network, "denoiser"), anchor
    values.path = _public.Path(network, (1, 4, 4), values.grid, lambda x: anchor.log_density(x, top))
    values.latents = values.latents.double()
    return values


def test_packages_and_engine_take_the_same_path_and_come_to_the_same_number(problem: Problem) -> None:
    """Assert equal samples, and one log density on a fine grid.

    The packages integrate the divergence by Heun's method; the engine sums it from the nodes of the same states by a
    rule of fourth order. On seven intervals it is within three stated errors, the packages some fifteen times as far.
    """
    samples = problem.samples()
    assert_close(_public.torchdiffeq_sample(problem.path, problem.latents), samples, rtol=1e-10)
    assert_close(sample(problem.score, problem.latents, problem.grid), samples, rtol=1e-10)
    options = {"anchor": problem.anchor, "trace": "exact", "solver": "heun"}
    grid = Grid(SIGMA_MAX, SIGMA_MIN, 112)
    estimate = log_density(problem.score, samples, SIGMA_MIN, grid=problem.grid, **options)
    fine = log_density(problem.score, samples, SIGMA_MIN, grid=grid, **options).value
    assert bool(((estimate.value - fine).abs() < 3 * estimate.grid_error).all())
    first = _public.LIKELIHOODS[_public.TORCHDIFFEQ](problem.path, samples, True)
    assert bool(((first - fine).abs() > 5 * (estimate.value - fine).abs()).all())
    for name, likelihood in _public.LIKELIHOODS.items():
        rtol = 3e-2 if name == _public.ZUKO else 1e-9  # its own solver only comes near
        assert_close(likelihood(problem.path, samples, True), first, rtol=rtol)
        assert_close(likelihood(replace(problem.path, grid=grid), samples, True), fine, rtol=1e-4)


def test_one_probe_tends_to_the_same_number_where_it_is_the_same_probe() -> None:
    """Assert with flow_matching's signs, in float32, that the two come together at Heun's order in the steps."""
    coarse, fine = (Problem.of({**TINY, "steps": steps}, "cpu", 0) for steps in (7, 112))
    differences = [float(density._same_probe(each, each.samples(), 3).max()) for each in (coarse, fine)]
    assert differences[1] < 1e-4
    assert differences[1] < differences[0] / 100


def test_public_packages_get_the_same_number_of_network_calls() -> None:
    """Assert two evaluations an interval for all, so that nobody is timed at more work."""
    benchmark = benchmarks.load("density")
    setup = benchmark.prepare(benchmark.SIZES["smoke"][0], "cpu", 0)
    assert setup.counter is not None
    for name in setup.references:
        before = setup.counter.calls
        setup.alternatives[name]()
        assert setup.counter.calls - before == 14


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


@pytest.mark.parametrize("only", [("sampling",), pytest.param((), marks=pytest.mark.slow)], ids=["one", "all"])
def test_the_study_reports_times_ratios_work_and_memory(
    only: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert a row for each alternative with everything in it, of one benchmark and among all."""
    config = replace(cost.Config.smoke(), only=only)
    monkeypatch.setattr(cost.Config, "smoke", lambda: config)
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


def test_the_figure_names_what_it_draws_and_nothing_else() -> None:
    """Assert words in place of keys, plain ticks, no legend of marks that are not there, and claims beyond floors."""
    import pandas as pd

    rows = pd.DataFrame(
        {
            "size": "kind=mlp, training=300, heun=460, steps=40",
            "alternative": ["pass", "own"],
            "baseline": "pass",
            "seconds": [1.0, 100.0],
            "ratio": [1.0, 100.0],
            "ratio_low": [1.0, 90.0],
            "ratio_high": [1.0, 120.0],
            "floor_seconds": [0.5, 3.0],
        }
    )
    drawn = ratios(rows, [Bound("own", "pass", 2.0, "planted")])
    assert "own 2 × pass" in drawn.alt  # type: ignore[attr-defined]
    assert "In 1 row the claim lies left of the floor" in drawn.alt  # type: ignore[attr-defined]
    title = " ".join(drawn.axes[0].get_title(loc="left").replace("\u00a0", " ").split())
    assert title == (
        "perceptron, trained for 300 steps, 460 steps of the pass, 40 of the two-step solver; logarithmic axis"
    )
    assert drawn.axes[0].xaxis.get_major_formatter()(1e-4) == "0.0001"
    plain = ratios(rows.assign(floor_seconds=0.0), [])
    assert [text.get_text() for text in plain.legends[0].get_texts()] == ["median ratio, 95 % interval"]
    assert "claim" not in plain.alt  # type: ignore[attr-defined]
    assert "floor" not in plain.alt  # type: ignore[attr-defined]


def test_a_claim_is_against_the_fastest_rival_and_needs_its_accuracy() -> None:
    """Assert that the slower rival does not help, and that an error beyond the bound fails the claim."""
    import pandas as pd

    rows = pd.DataFrame(
        {"alternative": ["own", "fast", "slow"], "round_seconds": [[1.0] * 7, [0.5] * 7, [9.0] * 7], "error": 0.02}
    ).assign(benchmark="planted", size="kind=mlp")
    bounds = [Bound("own", ("slow", "fast"), 1.5, "planted"), Bound("own", "slow", 1.0, "planted", error=1e-2)]
    bounds += [Bound("own", "slow", 1.0, "planted", error=0.1), Bound("own", "slow", 1.0, "planted", kind="unet")]
    planted = types.SimpleNamespace(EXPECTED=tuple(bounds))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmarks, "load", lambda name: planted)
        claims = cost.claims(rows, cost.Config.smoke())
    assert [claim.holds for claim in claims] == [False, False, True]
    assert float(claims[0].measured) == 2.0


def test_bad_timing_input_is_refused() -> None:
    """Assert the sentences."""
    with pytest.raises(ValueError, match="give at least one"):
        timing.alternate({}, rounds=3)
    with pytest.raises(ValueError, match="rounds=0"):
        timing.alternate({"a": lambda: None}, rounds=0)
    with pytest.raises(ValueError, match="there is no benchmark 'none'"):
        benchmarks.load("none")
