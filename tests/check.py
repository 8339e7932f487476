"""Run every gate of the project in order, stopping at the first that fails: lint, types, tests, doctests, strict book.

What a gate leaves beside the files of the project fails it too: tests write into temporary folders only.

``python tests/check.py`` is what the README and continuous integration call; name gates to run only those:
``python tests/check.py lint tests``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
ROOMS = ["oracles", "sensitivity", "studies"]
GATES: dict[str, list[list[str]]] = {
    "lint": [[PYTHON, "-m", "ruff", "check", "."], [PYTHON, "-m", "ruff", "format", "--check", "."]],
    "types": [[PYTHON, "-m", "mypy"]],
    "tests": [[PYTHON, "-m", "pytest", "-n", "2", "-q", "--dist", "worksteal", "tests"]],
    "doctests": [[PYTHON, "-m", "pytest", "-n", "2", "-q", "--doctest-modules", *ROOMS]],
    "book": [[PYTHON, "book/build.py"]],
    "browser": [[PYTHON, "-m", "pytest", "-q", "-m", "browser", "tests"]],
}


def untracked() -> set[str]:
    """Files that git neither keeps nor ignores; none where this is no clone."""
    run = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {line for line in run.stdout.splitlines() if line.startswith("??")}


def main(names: list[str]) -> int:
    """Run the gates named (all by default); the exit status is that of the first that fails."""
    unknown = [name for name in names if name not in GATES]
    if unknown:
        print(f"unknown gate {unknown[0]!r}: choose from {', '.join(GATES)}")
        return 2
    # One thread a process: with two, torch is several times slower whenever anything else runs.
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}",
    }
    if not names and shutil.which("chromium") is None:
        print("[browser] not run: Chromium is not installed (Debian: apt-get install chromium)", flush=True)
        names = [name for name in GATES if name != "browser"]
    before = untracked()
    for name in names or GATES:
        for command in GATES[name]:
            start = time.perf_counter()
            code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
            print(f"[{name}] exit {code} after {time.perf_counter() - start:.0f} s", flush=True)
            if code:
                return code
        if left := untracked() - before:
            print(f"[{name}] left files behind: {' '.join(sorted(line[3:] for line in left))}", flush=True)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
