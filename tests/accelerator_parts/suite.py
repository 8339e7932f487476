"""The whole suite of tests beside the measurements, on the machine's other cores."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from accelerator_parts.checks import ROOT
from accelerator_parts.plan import Job, Setting
from accelerator_parts.store import Row, row

WORKERS = 12
KEPT = 4 * 2**20  # bytes of its output
_running: dict[str, Any] = {}


def start(setting: Setting) -> Iterator[Row]:
    """Begin; without the GPU, and with the lowest priority, so that replayed graphs do not wait for a core."""
    tests = ["tests/unit/sensitivity/test_noise.py"] if setting.tiny else ["tests"]
    workers = "0" if setting.tiny else str(WORKERS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        workers,
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
        *tests,
    ]
    table = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
    stream = (setting.folder / "suite.txt").open("w")
    _running["process"] = subprocess.Popen(
        ["nice", "-n", "19", *command],
        cwd=ROOT, env=os.environ | table, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    _running["since"] = time.monotonic()
    yield row("suite", "begun", 1)


def end(setting: Setting) -> Iterator[Row]:
    """What came of it; stopped if it is not done."""
    process = _running.pop("process", None)
    if process is None:
        return
    seconds = time.monotonic() - _running.pop("since")
    try:
        process.wait(timeout=60 if setting.tiny else max(setting.left, 1))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=20)
        yield row("suite", "stopped before its end", 1, shown=True)
    text = (setting.folder / "suite.txt").read_text(errors="replace")
    for count, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", text.splitlines()[-1] if text else ""):
        yield row("suite", word, int(count), "tests", shown=True)
    dots = "".join(re.findall(r"^[.sFEx]+(?= +\[)", text, flags=re.MULTILINE))
    yield row("suite", "passed so far", dots.count("."), "tests")
    yield row("suite", "failed so far", dots.count("F") + dots.count("E"), "tests", shown="F" in dots)
    yield row("suite", "ran beside the measurements", seconds, "s")
    _shorten(setting)


def _shorten(setting: Setting) -> None:
    """Keep the end of a long output."""
    path = setting.folder / "suite.txt"
    if path.stat().st_size > KEPT:
        path.write_bytes(path.read_bytes()[-KEPT:])


START = Job("suite", "checks", start, 60, 10)
END = Job("suite's end", "checks", end, -60, 30)  # in any case: it must not go on
