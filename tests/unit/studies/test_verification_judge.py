"""Verdicts: what is told apart, what exit codes follow, what a report holds."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from support.close import assert_close

from studies.cli import main
from studies.errors import StudyError
from studies.verification import metrics, reproduce, verify
from studies.verification.bars import honesty
from studies.verification.draws import directions, projected_cdf, smallest_p
from studies.verification.laws import law, oracle
from studies.verification.loading import load_estimator
from studies.verification.orders import slope

LINE = ["line-s0.3"]


def truth_of(problem: Any) -> np.ndarray:
    """The answer, for estimators that are wrong on purpose."""
    return reproduce(problem.task, problem.name, backend="numpy")[1][: len(problem.x)]


def noisy(spread: float, shift: float = 0.0, bars: float | None = None) -> Any:
    """Truth plus Gaussian noise of standard deviation `spread`, plus a shift; optionally with standard errors."""

    def estimator(problem: Any) -> Any:
        exact = truth_of(problem)
        value = exact + shift + spread * np.random.default_rng(problem.seed).standard_normal(exact.shape)
        return value if bars is None else (value, np.full(exact.shape, bars))

    return estimator


def check(estimator: Any, task: str = "divergence", problems: list[str] = LINE, **options: Any) -> Any:
    """Verify in NumPy on the line, without orders."""
    return verify(estimator, task, backend="numpy", problems=problems, orders=False, **options)


def test_the_truth_itself_holds() -> None:
    """Assert that the exact answer holds with no error, and that one call without score calls is counted as such."""
    report = check(truth_of)
    assert report.holds
    assert report.exit_code == 0
    assert report.problems().loc[0, "absolute_largest"] == 0.0
    assert report.problems().loc[0, "calls"] == 0


def test_unbiased_noise_with_honest_bars_holds() -> None:
    """Assert that bias, noise and standard errors are judged apart, and that coverage is near nominal."""
    report = check(noisy(0.5, bars=0.5))
    assert report.holds
    row = report.problems().iloc[0]
    assert row["repeats"] == 64
    assert 0.9 < row["coverage"] < 1.0
    assert 0.8 < row["calibration"] < 1.25
    assert row["calibration_low"] < row["calibration"] < row["calibration_high"]


@pytest.mark.parametrize(
    ("estimator", "checks"),
    [
        (noisy(0.5, shift=1.0), ("bias",)),
        (noisy(0.5, bars=0.05), ("error bars",)),
        (noisy(0.5, bars=0.5 / 1.5), ("error bars",)),
        (noisy(0.5, bars=0.5 * 1.5), ("error bars",)),
        (noisy(0.5, bars=5.0), ("error bars",)),
        (noisy(300.0), ("noise",)),
        (lambda p: truth_of(p) + 1.0, ("accuracy",)),
        (lambda p: truth_of(p) * np.nan, ("finite",)),
        (lambda p: truth_of(p)[:, None], ("shape",)),
        (lambda p: "text", ("shape",)),
        (lambda p: (truth_of(p), np.ones(3)), ("shape",)),
        (lambda p: (truth_of(p), 1, 2), ("shape",)),
        (lambda p: truth_of(p) + 0j, ("shape",)),
        (lambda p: [[1.0], [1.0, 2.0]], ("shape",)),
        (lambda p: (truth_of(p), -np.ones(len(p.x))), ("error bars",)),
        (lambda p: np.full(len(p.x), truth_of(p).mean()), ("bias", "rows")),
    ],
    ids=[
        "bias",
        "overconfident",
        "two thirds of honest bars",
        "half too wide bars",
        "timid",
        "noise",
        "offset",
        "nan",
        "shape",
        "text",
        "bars",
        "triple",
        "complex",
        "ragged",
        "negative",
        "coupled",
    ],
)
def test_each_mistake_fails_its_own_check(estimator: Any, checks: tuple[str, ...]) -> None:
    """Assert that exactly the check that belongs to the mistake fails."""
    report = check(estimator)
    assert report.status == "falls short"
    assert report.failed_checks == checks


def test_an_exception_everywhere_could_not_run() -> None:
    """Assert that an estimator that always raises gets exit code 2 and its own words."""

    def broken(problem: Any) -> Any:
        raise RuntimeError("out of luck")

    report = check(broken)
    assert report.exit_code == 2
    assert "out of luck" in report.summary
    assert any("Traceback" in trace for trace in report.to_json()["traces"].values())


def test_an_estimator_that_exits_could_not_run() -> None:
    """Assert that sys.exit in an estimator ends nothing but its own run."""

    def leaving(problem: Any) -> Any:
        raise SystemExit(3)

    report = check(leaving)
    assert report.exit_code == 2
    assert "SystemExit: 3" in report.summary


def test_the_worst_problem_can_be_judged_again_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert that the command and the line of Python that a report gives pose the failing problem again."""
    (tmp_path / "again_v.py").write_text("def twice(problem):\n    return -2 * problem.x\n")
    monkeypatch.chdir(tmp_path)
    ask = ["verify", "again_v.py:twice", "--task", "score", "--backend", "numpy", "--seed", "3"]
    assert main([*ask, "--problem", "line-s0.3", "--problem", "plane-s0.1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (command,) = (line.split(": studies ")[1] for line in lines if line.startswith("The worst problem alone"))
    (python,) = (line.split(": ", 1)[1] for line in lines if line.startswith("In Python"))
    (worst,) = (line for line in lines if line.startswith("Worst row"))
    assert main(command.split()) == 1
    assert worst in capsys.readouterr().out.splitlines()
    space: dict[str, Any] = {}
    exec(python, space)
    row = int(python.split("# row ")[1])
    error = np.linalg.norm(-2 * space["problem"].x[row] - space["truth"][row])
    assert f"error {error:.3g}," in worst


def test_a_declined_problem_is_not_judged() -> None:
    """Assert that NotImplemented is no failure where another problem holds, and could not run where all decline."""
    some = lambda p: truth_of(p) if p.name == "line-s0.3" else NotImplemented  # noqa: E731  # the test is about it
    report = check(some, problems=["line-s0.3", "plane-s0.1"])
    assert report.holds
    assert list(report.problems()["verdict"]) == ["holds", "declined"]
    assert check(lambda p: NotImplemented).exit_code == 2


def test_tags_that_tell_failures_apart_are_named() -> None:
    """Assert that a fault of alpha alone is reported as such."""
    from studies.verification.faults import FAULTS

    fault = FAULTS["alpha_ignored"]
    report = verify(fault.estimator, "score", problems=["line-s0.3", "plane-s0.1", "plane-s0.5-alpha"], orders=False)
    assert report.where == ["alpha"]
    assert "exactly where the tag is 'alpha'" in report.summary


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"repeats": 3}, "at least 4"),
        ({"slack": 0.0}, "must be positive"),
        ({"suite": "all"}, "choose one of"),
        ({"seed": -1}, "must not be negative"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], words: str) -> None:
    """Assert that options out of range raise one sentence."""
    with pytest.raises(StudyError, match=words):
        check(truth_of, **options)
    with pytest.raises(StudyError, match="cannot be called"):
        check(3)


def test_a_report_is_saved_whole(tmp_path: Path) -> None:
    """Assert that JSON, Parquet, PNG and HTML are written, agree, and refer to nothing outside."""
    report = verify(noisy(0.5, shift=1.0, bars=0.5), "divergence", backend="numpy", problems=LINE, name="shifted")
    folder = report.save(tmp_path / "out")
    stored = json.loads((folder / "report.json").read_text())
    assert stored["status"] == "falls short"
    assert "reproduce(" in stored["worst"]
    rows = pd.read_parquet(folder / "rows.parquet")
    assert len(rows) == 64 * 32
    assert len(pd.read_parquet(folder / "problems.parquet")) == 1
    page = (folder / "report.html").read_text()
    assert "http" not in page
    assert "alt='" in page
    assert (folder / "errors.png").stat().st_size > 1000
    assert (folder / "calibration.png").exists()


def test_the_table_fits_eighty_columns() -> None:
    """Assert that the table of a stochastic estimator prints within 80 columns without cutting a cell."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(check(noisy(0.5, bars=0.5)).table())
    text = console.export_text()
    assert "…" not in text
    assert "cover" in text


def test_the_command_line_exits_by_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert exit codes 0, 1 and 2 for an estimator of the current folder."""
    (tmp_path / "own_v.py").write_text(
        "def zero(problem):\n    return 0 * problem.x\n"
        "def right(problem):\n    law, v = problem.law, problem.law.covariances[:, 0, 0] + problem.sigma**2\n"
        "    logs = (law.weights / v**0.5).log() - (problem.x - law.means[:, 0]) ** 2 / (2 * v)\n"
        "    return (logs.softmax(1) * (law.means[:, 0] - problem.x) / v).sum(1, keepdim=True)\n"
        "def broken(problem):\n    return problem.latents\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    ask = ["--task", "score", "--problem", "line-s0.3"]
    assert main(["verify", "own_v:right", *ask, "--out", "out"]) == 0
    assert (tmp_path / "out" / "report.html").exists()
    assert main(["verify", "own_v:zero", *ask]) == 1
    assert main(["verify", "own_v.py:zero", *ask]) == 1
    assert main(["verify", "own_v:broken", *ask]) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "write MODULE:CALLABLE"),
        ("absent_module:f", "there is no module"),
        ("math:sqr", "did you mean 'sqrt'"),
        ("math:pi", "is not callable"),
        ("absent.py:f", "there is no file"),
        ("C:\\me\\mine.py:f", "there is no file 'C:\\\\me\\\\mine.py'"),
        ("C:\\me\\mine.py", "write MODULE:CALLABLE"),
        ("fractions:Fraction", "is a class"),
    ],
)
def test_names_that_are_no_estimator_are_refused(name: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that the command line says in one sentence what is wrong with the name, exit code 2."""
    assert main(["verify", name, "--task", "score"]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_an_estimator_may_be_a_file_with_neighbours_and_dataclasses(tmp_path: Path) -> None:
    """Assert that a file elsewhere imports its sibling, makes dataclasses with postponed annotations, and may be named
    like a module of Python's own without taking its place."""
    import colorsys

    (tmp_path / "own_sibling.py").write_text("FACTOR = 0.0\n")
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass, field\nfrom typing import ClassVar\n"
        "import own_sibling\n\n@dataclass\nclass Zero:\n    factor: float = own_sibling.FACTOR\n"
        "    kind: ClassVar[str] = 'zero'\n    def __call__(self, problem):\n        return self.factor * problem.x\n\n"
        "zero = Zero()\n"
    )
    for name in ("own_file", "colorsys"):
        (tmp_path / f"{name}.py").write_text(source)
        result = load_estimator(f"{tmp_path / name}.py:zero")
        assert result.factor == 0.0
        assert sys.modules[type(result).__module__].zero is result
    assert sys.modules["colorsys"] is colorsys
    (tmp_path / "own_broken.py").write_text("import own_absent_package\n")
    with pytest.raises(StudyError, match="needs 'own_absent_package', which is not installed"):
        load_estimator(f"{tmp_path / 'own_broken.py'}:f")
    assert "own_broken" not in sys.modules


def test_the_engines_own_estimates_are_values_with_standard_errors() -> None:
    """Assert that an `Estimate`, and any object with both, is read as the pair."""
    from sensitivity import Estimate

    def pair(problem: Any) -> Any:
        value = torch.as_tensor(truth_of(problem))
        return value, torch.zeros_like(value)

    def estimate(problem: Any) -> Any:
        return Estimate(*pair(problem))

    one, other = (verify(f, "log-density", problems=["line-s0.05"], orders=False) for f in (pair, estimate))
    assert one.holds
    assert other.holds
    values = other.judged[0].replies[0]
    assert values.standard_error is not None
    assert_close(values.value, one.judged[0].replies[0].value, rtol=0)


def test_a_folder_that_cannot_be_written_is_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert one sentence and exit code 2, before anything is computed."""
    (tmp_path / "file").write_text("")
    assert main(["verify", "math:sqrt", "--task", "score", "--out", str(tmp_path / "file")]) == 2
    captured = capsys.readouterr()
    assert "is no folder to write to" in " ".join(captured.err.split())
    assert "verdict" not in captured.out


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_backends_pose_the_same_problem(library: str) -> None:
    """Assert that one estimator in plain array operations holds in every array library."""
    if library == "jax":
        pytest.importorskip("jax")

    def gaussian(problem: Any) -> Any:
        law = problem.law
        gap = problem.x - problem.alpha * law.means[0]
        covariance = problem.alpha**2 * law.covariances[0]
        eye = covariance * 0 + np.eye(gap.shape[1]) if library != "torch" else covariance.new_ones(len(gap[0])).diag()
        solve = {"numpy": np.linalg.solve}.get(library)
        if library == "torch":
            from torch.linalg import solve
        if library == "jax":
            from jax.numpy.linalg import solve
        return -solve(covariance + problem.sigma**2 * eye, gap.T).T

    from studies.verification import tasks
    from studies.verification.tasks import base

    single = base.Case("gaussian", 0.3, label="test")
    monkey = dict(vars(tasks.TASKS["score"])) | {"cases": (single,)}
    tasks.TASKS["one-gaussian"] = base.Task(**(monkey | {"name": "one-gaussian"}))
    try:
        assert verify(gaussian, "one-gaussian", backend=library, orders=False).holds
    finally:
        del tasks.TASKS["one-gaussian"]


def test_paths_run_in_numpy_and_jax_too() -> None:
    """Assert that black boxes, anchors and perturbations work in every library (finite differences in NumPy)."""
    values = {}
    for library in ("numpy", "torch", "jax"):
        problem, _ = reproduce("sample-sensitivity", "plane-s0.1", backend=library)
        level = problem.grid.levels[3]
        values[library] = [
            np.asarray(problem.score(problem.latents[:2], level)),
            np.asarray(problem.anchor.log_density(problem.latents[:2], problem.grid.sigma_max)),
            np.asarray(problem.perturbation.measure.log_density(problem.latents[:2], level)),
            np.asarray(problem.perturbation.measure.score(problem.latents[:2], level)),
        ]
    for other in ("torch", "jax"):
        for left, right in zip(values["numpy"], values[other], strict=True):
            assert_close(left, right, rtol=1e-12)


def test_draws_from_the_law_pass_and_others_do_not() -> None:
    """Assert that exact draws have moderate p-values and that a missing component, width or copies do not."""
    given = oracle(law("plane"))
    noised = given.noised(0.3)
    good = np.asarray(noised.sample(2000, 3))
    assert smallest_p(given, good, 0.3)[0] > 1e-3
    for bad in (good * 1.1, good + 0.15, np.repeat(good[:100], 20, axis=0)):
        assert smallest_p(given, bad, 0.3)[0] < 1e-4
    line = oracle(law("line"))
    points = np.linspace(-2.0, 2.0, 5)
    assert_close(projected_cdf(line, directions(1)[0], 0.3, points), line.noised(0.3).cdf(points[:, None]), rtol=1e-10)


def test_metrics_tell_factor_bias_and_noise_apart() -> None:
    """Assert the metric functions on values whose answers are known by hand."""
    truth = np.array([1.0, 2.0, 4.0])
    values = np.stack([2 * truth, 2 * truth])
    assert metrics.scale(values, truth) == 2.0
    assert_close(metrics.bias(values, truth), truth)
    assert_close(metrics.deviation(values), np.zeros(3))
    assert honesty(values, np.ones((2, 3))) is None
    spread = np.random.default_rng(0).standard_normal((4000, 3))
    honest = honesty(spread, np.full((4000, 3), 0.5))
    assert honest is not None
    assert abs(honest.ratio - 0.5) < 0.02
    assert abs(metrics.coverage(spread, np.ones_like(spread), np.zeros(3), np.zeros(3)) - 0.95) < 0.01
    assert metrics.mean_shift(spread, np.zeros(3), np.ones(3)) == 0.0
    assert abs(metrics.mean_shift(spread + 5.0, np.zeros(3), np.ones(3)) - 5.0) < 0.2
    assert np.isnan(slope((1.0, 2.0), [1e-12, 1e-14]))


def test_one_in_a_million_is_what_the_threshold_gives() -> None:
    """Assert that the mean of shared noise passes the bias threshold as rarely as stated (Student's t)."""
    from scipy import stats

    assert_close(2 * stats.t.sf(metrics.threshold(16), 15), metrics.ONE_IN_A_MILLION, rtol=1e-6)


def test_orders_are_observed_on_the_engine() -> None:
    """Assert that Heun's method shows order two in steps and the sensitivity order one in η."""
    from studies.verification.engine import ENGINE

    orders = {}
    for task, problem in (("sample", "plane-s0.1"), ("score-derivative", "plane-s2")):
        report = verify(ENGINE[task][0], task, problems=[problem])
        orders |= {entry["in"]: entry["order"] for entry in report.orders}
    assert abs(orders["steps"] - 2.0) < 0.3
    assert abs(orders["eta"] - 1.0) < 0.1


def test_the_walkthrough_fails_and_is_mended() -> None:
    """Assert that the wrong anchor's error does not fall with the steps, and that the mended estimator holds."""
    from studies.verification.walkthrough import right, wrong

    report = verify(wrong, "log-density", problems=["plane-s0.5-tail"])
    assert report.failed_checks == ("accuracy",)
    assert abs(report.orders[0]["order"]) < 0.2
    assert verify(right, "log-density", problems=["plane-s0.5-tail"], orders=False).holds


def test_noise_falls_with_the_square_root_of_the_probes() -> None:
    """Assert that the observed order in probes is one half for averaged probes, and that a fixed number shows none."""
    from studies.verification.faults.products import hutchinson

    report = verify(hutchinson, "divergence", problems=["plane-s0.1"])
    (entry,) = report.orders
    assert entry["in"] == "probes"
    assert abs(entry["order"] - 0.5) < 0.15
    assert verify(noisy(0.5), "divergence", backend="numpy", problems=["plane-s0.1"]).orders == ()
