"""Clusters: strangers are kept out of the local one, and no wait is without an end or a word."""

from __future__ import annotations

import contextlib
import http.server
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from faults.test_kills import Running, demonstrating
from support import demonstration

from studies.cli import main
from studies.errors import StudyError
from studies.runner import run
from studies.running import execution
from studies.running.dispatch import dispatch
from studies.running.setting import Setting
from studies.running.tls import _by_openssl, temporary
from studies.running.waiting import waiting
from studies.study import Context

STUDY = "support.demonstration"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demonstration, "figures", lambda rows, config: {})


# Nobody else gets in


def test_the_local_cluster_lets_no_stranger_in_and_serves_no_page() -> None:
    """Assert that a client without this run's key is refused, and that no port answers a browser with a page."""
    from distributed import Client, Security

    with execution.local_client(1) as client:
        address = client.scheduler.address
        assert address.startswith("tls://")
        assert client.submit(sum, [1, 2]).result() == 3
        for other, place in ((None, address.replace("tls", "tcp")), (temporary(), address), (Security(), address)):
            with pytest.raises((OSError, TimeoutError, TypeError, RuntimeError)):
                Client(place, security=other, timeout=1)
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        ports = {each.laddr for member in family for each in member.net_connections() if each.status == "LISTEN"}
        assert ports
        assert {port.ip for port in ports} == {"127.0.0.1"}
        for port in ports:
            for page in ("status", "health", "info/main/workers.html", "json/counts.json", "metrics"):
                with pytest.raises((OSError, urllib.error.HTTPError)):
                    urllib.request.urlopen(f"http://127.0.0.1:{port.port}/{page}", timeout=2)


def test_the_dashboard_is_served_when_it_is_asked_for() -> None:
    """Assert a page at the stated address."""
    with execution.local_client(1, dashboard=True) as client:
        assert urllib.request.urlopen(client.dashboard_link, timeout=10).status == 200


def test_keys_are_made_anew_and_without_the_package_too() -> None:
    """Assert that two runs share no key, by whatever makes it."""
    assert temporary().tls_client_key != temporary().tls_client_key
    (first, certificate), (second, _) = _by_openssl(), _by_openssl()
    assert first != second
    assert certificate.startswith("-----BEGIN CERTIFICATE-----")


# Waits have an end and a word


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def browsed() -> Iterator[str]:
    """A port that speaks HTTP, as a dashboard does."""

    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"tcp://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def babbling() -> Iterator[str]:
    """A port that answers with bytes of no meaning."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connection.sendall(b"\xff" * 4096)

        threading.Thread(target=answer, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def plain(address: str) -> Iterator[str]:
    yield address


PORTS: dict[str, Callable[[], Any]] = {
    "a silent port": silent,
    "a port of pages": browsed,
    "a port of noise": babbling,
    "nobody": lambda: plain("tcp://127.0.0.1:1"),
    "tls without configuration": lambda: plain("tls://127.0.0.1:1"),
    "no address": lambda: plain("head-node"),
    "an unknown kind": lambda: plain("ftp://x"),
    "a bad port": lambda: plain("tcp://127.0.0.1:99999999"),
    "an escape sequence": lambda: plain("tcp://\x1b[31m:1"),
}


@pytest.mark.parametrize("case", PORTS)
def test_what_is_no_scheduler_is_told_in_time(
    case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert one sentence soon after the stated seconds."""
    monkeypatch.setattr(execution, "CONNECT_SECONDS", 1)
    start = time.monotonic()
    with PORTS[case]() as address:
        assert main(["run", STUDY, "--smoke", "--scheduler", address]) == 2
    assert time.monotonic() - start < 15
    error = capsys.readouterr().err
    assert "no Dask scheduler answers" in error
    assert error.count("\n") == 1
    assert "\x1b" not in error


class Cluster:
    """A scheduler and workers in processes of their own, without encryption."""

    def __init__(self, workers: int) -> None:
        script = (
            "import asyncio\n"
            "from distributed import Scheduler, Worker\n"
            "async def main():\n"
            "    async with Scheduler(host='127.0.0.1', port=0, dashboard_address='127.0.0.1:0') as scheduler:\n"
            "        print(scheduler.address, flush=True)\n"
            f"        ready = [await Worker(scheduler.address, nthreads=1) for _ in range({workers})]\n"
            "        await asyncio.sleep(200)\n"
            "asyncio.run(main())\n"
        )
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("case", ["no worker", "a frozen cluster"])
def test_a_cluster_that_does_nothing_is_told(case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Assert a word that says why, again and again, while a run waits; and that the run can be left."""
    monkeypatch.setattr("studies.running.dispatch.EVERY", 0.3)
    monkeypatch.setattr("studies.running.dispatch.ANSWER_SECONDS", 2.0)
    heard: list[str] = []

    class Enough(Exception):
        pass

    def say(sentence: str) -> None:
        heard.append(sentence)
        if len(heard) == 2:
            raise Enough

    setting = Setting.of(demonstration, "smoke")
    cells, context = setting.cells(demonstration), Context(setting.config, folder=tmp_path)
    with Cluster(0 if case == "no worker" else 1) as cluster, execution.remote_client(cluster.address) as client:
        if case == "a frozen cluster":
            cluster.process.send_signal(signal.SIGSTOP)
        with pytest.raises(StudyError, match="Enough"):
            list(dispatch(client, STUDY, cells, context, say))
        cluster.process.send_signal(signal.SIGCONT)
    assert ("no worker has joined" if case == "no worker" else "does not answer") in heard[0], heard


def test_workers_with_other_code_compute_nothing(tmp_path: Path) -> None:
    """Assert that a cell on a worker whose code is not the run's fails with both digests."""
    from distributed import Client, LocalCluster

    setting = Setting.of(demonstration, "smoke")
    context = Context(setting.config, folder=tmp_path)
    with (
        LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        outcomes = list(dispatch(client, STUDY, setting.cells(demonstration), context, print, "0" * 16))
    assert len(outcomes) == 4
    assert all("the worker has other code" in outcome.error for outcome in outcomes)


def test_a_wait_is_told() -> None:
    """Assert words with the time, and none after the end."""
    heard: list[str] = []
    with waiting(lambda: "paint to dry", heard.append, every=0.02):
        time.sleep(0.3)
    told = len(heard)
    assert told >= 2
    assert heard[0] == "waiting for paint to dry, 0 s so far"
    time.sleep(0.1)
    assert len(heard) == told


# Start-up is part of the run


def test_a_cluster_that_cannot_start_is_tried_twice_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert two attempts and one sentence; and a run where the second attempt succeeds."""
    trials: list[int] = []
    real = execution._start

    def start(stack: Any, workers: int, dashboard: bool, loop: Any) -> Any:
        trials.append(workers)
        if len(trials) < 3:
            raise RuntimeError("Nanny failed to start.")
        return real(stack, workers, dashboard, loop)

    monkeypatch.setattr(execution, "_start", start)
    assert main(["run", STUDY, "--smoke", "--workers", "1", "--out", "a"]) == 2
    assert "could not be started (RuntimeError: Nanny failed to start.)" in capsys.readouterr().err
    assert len(trials) == 2
    del trials[:1]
    assert main(["run", STUDY, "--smoke", "--workers", "1", "--out", "b"]) == 0


def limited(tmp_path: Path, kind: int, value: int) -> tuple[int, str]:
    """The program under a limit; exit code and everything it said."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "studies.cli", "run", STUDY, "--smoke", "--workers", "2", "--out", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        preexec_fn=lambda: resource.setrlimit(kind, (value, value)),
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((resource.RLIMIT_NOFILE, value) for value in (24, 40)),
        *((resource.RLIMIT_AS, value << 20) for value in (300, 900)),
    ],
)
def test_limits_of_the_system_are_one_sentence(kind: int, value: int, tmp_path: Path) -> None:
    """Assert a result or a sentence, and not a page of tracebacks, where files or memory do not suffice."""
    code, printed = limited(tmp_path, kind, value)
    assert code in (0, 2)
    assert printed.count("Traceback") == 0, printed
    assert code == 0 or "studies: " in printed.splitlines()[-1]


@pytest.mark.slow
def test_kills_and_interrupts_while_the_cluster_starts(tmp_path: Path) -> None:
    """Assert for kills of first workers, of the main process, and interrupts, at moments of the start, that a run ends
    with its result or with one sentence, leaves no process behind, and can be finished."""
    held = 0
    for trial in range(12):
        out = tmp_path / str(trial)
        running = Running(*demonstrating(out, "smoke"), start_new_session=True)
        if trial % 3 == 0 and running.wait(lambda run=running: bool(run.workers())):  # type: ignore[misc]
            for worker in running.workers():
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
        else:
            time.sleep(0.3 + 0.25 * trial)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGINT) if trial % 3 == 1 else running.process.kill()
        code, output = running.finish()
        assert code in (0, 2, -signal.SIGKILL, -signal.SIGINT), output
        assert code < 0 or "Traceback" not in output, output  # nobody is left to speak for a process that was killed
        assert not running.orphans()
        assert run(STUDY, "smoke", out=out, workers=0).exit_code == 0
        held += 1
    print(f"start-up: {held} tried, {held} held")
