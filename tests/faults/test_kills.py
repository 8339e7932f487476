"""A running study is killed, again and again, and ends with the rows of an undisturbed run."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support import demonstration

from studies.errors import StudyError
from studies.runner import run
from studies.running.progress import Silent
from studies.running.provenance import usable_cores

STUDY = "support.demonstration"
PATIENCE = 60.0  # seconds for anything to happen on a loaded machine
TESTS = Path(__file__).resolve().parents[1]


def demonstrating(out: Path, level: str) -> tuple[str, ...]:
    """The demonstration on a local cluster of two."""
    return ("run", STUDY, f"--{level}", "--workers", "2", "--out", str(out))


class Running:
    """A command of `studies` in a process of its own."""

    def __init__(self, *arguments: str, start_new_session: bool = False) -> None:
        environment = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "studies.cli", *arguments]
        # A job of a shell in the background ignores interrupts and hands that down: the run must begin as a terminal's.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=start_new_session,
        )
        signal.signal(signal.SIGINT, before)
        self.family: set[psutil.Process] = set()

    def look(self) -> list[psutil.Process]:
        """Children now; all that were ever seen are remembered."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        self.family.update(children)
        return children

    def workers(self) -> list[psutil.Process]:
        """The processes that compute: spawned ones, without the resource tracker."""
        values = []
        for child in self.look():
            try:
                if any("spawn_main" in word for word in child.cmdline()):
                    values.append(child)
            except psutil.Error:
                continue
        return values

    def wait(self, condition: Callable[[], bool]) -> bool:
        """Wait until the condition holds; False if the run ended first."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self.look()
            if condition():
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.02)
        raise AssertionError("nothing happened for a minute")

    def finish(self) -> tuple[int, str]:
        end = time.monotonic() + 3 * PATIENCE
        while self.process.poll() is None and time.monotonic() < end:
            self.look()
            time.sleep(0.1)
        output, _ = self.process.communicate(timeout=1)
        return self.process.returncode, output

    def kill(self) -> None:
        self.look()
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def orphans(self) -> list[psutil.Process]:
        """Processes of the run that outlive it by more than some seconds."""
        _, alive = psutil.wait_procs(self.family, timeout=20)
        return alive


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    assert not list(tmp_path.rglob("*.tmp")), "half-written files were left behind"


def undisturbed(level: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Rows of a run in one process that nobody disturbs (without the pauses, which change no row)."""
    config = dataclasses.replace(getattr(demonstration.Config, level)(), pause=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(demonstration.Config, level, lambda: config)
        return (run(STUDY, level, out=out, workers=0).folder / "rows.parquet").read_bytes()


def stored(out: Path) -> int:
    return len(list(out.glob("*/*/cells/*.json")))


def torment(out: Path, level: str, workers: int, rng: random.Random) -> int:
    """Start the study, kill some workers while it runs, then the main process; return the number of kills."""
    before, running = stored(out), Running(*demonstrating(out, level))
    if not workers:  # the main process alone, at any moment from its start
        time.sleep(rng.uniform(0, 4))
    elif not running.wait(lambda: stored(out) > before):
        raise AssertionError("the study ended before all kills: give it more cells")
    kills = 1
    for _ in range(workers):
        time.sleep(rng.uniform(0, 0.4))
        if victims := running.workers():
            rng.choice(victims).kill()
            kills += 1
    time.sleep(rng.uniform(0, 0.3))
    running.kill()
    assert not running.orphans()
    return kills


def complete(out: Path, level: str) -> bytes:
    """Run to the end and return the rows."""
    running = Running(*demonstrating(out, level))
    code, output = running.finish()
    assert code == 0, output
    assert not running.orphans()
    (rows,) = out.glob("*/*/rows.parquet")
    return rows.read_bytes()


def test_a_study_killed_five_times_ends_with_the_rows_of_an_undisturbed_one(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert equal files, bit for bit, no orphan process and no half-written file."""
    rng = random.Random(1)
    kills = sum(torment(out / "killed", "quick", workers, rng) for workers in (2, 1))
    assert kills == 5
    assert complete(out / "killed", "quick") == undisturbed("quick", out / "calm", monkeypatch)


@pytest.mark.slow
def test_a_study_killed_a_hundred_times_ends_with_the_rows_of_an_undisturbed_one(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert the same after a hundred kills of workers and of the main process."""
    rng, kills = random.Random(2), 0
    while kills < 100:
        kills += torment(out / "killed", "full", rng.randrange(4), rng)
    assert complete(out / "killed", "full") == undisturbed("full", out / "calm", monkeypatch)


def test_an_interrupt_from_the_keyboard_ends_everything_with_one_sentence(out: Path) -> None:
    """Assert exit code 2, no traceback of any process, no orphan, and finished cells kept."""
    running = Running(*demonstrating(out, "quick"), start_new_session=True)
    assert running.wait(lambda: stored(out) > 0)
    os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does: the whole group
    code, output = running.finish()
    assert code == 2
    assert "Traceback" not in output
    assert output.rstrip().endswith("interrupted; finished cells are kept, run the same command again to go on.")
    assert not running.orphans()
    assert stored(out) > 0


def test_an_interrupt_ends_the_verification_of_the_engine_and_its_workers() -> None:
    """Assert exit code 2, a sentence at the end, no traceback of any process, and no orphan."""
    running = Running("verify", "--engine", start_new_session=True)
    assert running.wait(lambda: sum(worker.cpu_times().user > 5 for worker in running.workers()) == usable_cores())
    os.killpg(running.process.pid, signal.SIGINT)
    code, output = running.finish()
    assert code == 2
    assert "Traceback" not in output
    assert output.rstrip().splitlines()[-1].startswith("studies: ")
    assert not running.orphans()


def test_a_cell_that_kills_its_workers_is_reported_and_the_others_finish(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert that the guilty cell alone fails, with the cause, although it travelled in a group."""
    monkeypatch.setattr("studies.running.execution.TRIALS", 0)
    config = demonstration.Config(repeats=4, deadly="n=100-2")
    monkeypatch.setattr(demonstration.Config, "smoke", lambda: config)
    result = run(STUDY, "smoke", out=out, workers=2)
    assert list(result.failures) == ["n=100-2"]
    assert "KilledWorker" in result.failures["n=100-2"]
    assert len(result.rows) == 7
    assert result.exit_code == 2


def test_a_lost_scheduler_is_one_sentence_and_costs_nothing_stored(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a run on a cluster whose scheduler dies ends at once and is finished later, anywhere."""
    config = demonstration.Config(sizes=(10,), repeats=60, pause=0.05)
    monkeypatch.setattr(demonstration.Config, "smoke", lambda: config)
    environment = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "OMP_NUM_THREADS": "1"}
    script = (
        "from distributed import LocalCluster; import time; free = '127.0.0.1:0'; "
        "c = LocalCluster(1, threads_per_worker=1, processes=False, protocol='tcp://', dashboard_address=free); "
        "print(c.scheduler_address, flush=True); time.sleep(100)"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as cluster:
        address = cluster.stdout.readline().strip()  # type: ignore[union-attr]

        class Killer(Silent):
            def cell(self, name: str, seconds: float, error: str) -> None:
                if stored(out) >= 5:
                    cluster.kill()

        with pytest.raises(StudyError, match="the scheduler was lost; finished cells are kept"):
            run(STUDY, "smoke", out=out, scheduler=address, progress=Killer())
    assert 5 <= stored(out) < 60
    monkeypatch.setattr(demonstration.Config, "smoke", lambda: config)
    result = run(STUDY, "smoke", out=out, workers=0)
    assert len(result.rows) == 60
    assert result.exit_code == 0
