"""Run every gate of the project in order, stopping at the first that fails: lint, types, tests, doctests, strict book.

What a gate leaves beside the files of the project fails it too: tests write into temporary folders only.

`python tests/check.py` is what the README and continuous integration call; name gates to run only those:
`python tests/check.py lint tests`; `--list` names them. `python tests/check.py near PATH ...` takes seconds:
lint, types and doctests of these files, and the tests that are named after them, or else import them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
ROOMS = ["oracles", "sensitivity", "studies"]
FILES = sorted((ROOT / "tests").rglob("test_*.py"))
SEEN = [str(path) for path in FILES if "mark.browser" in path.read_text(encoding="utf-8")]
GATES: dict[str, list[list[str]]] = {
    "lint": [[PYTHON, "-m", "ruff", "check", "."], [PYTHON, "-m", "ruff", "format", "--check", "."]],
    "types": [[PYTHON, "-m", "mypy", "--num-workers", "auto"]],
    "tests": [[PYTHON, "-m", "pytest", "-n", "2", "-q", "--dist", "worksteal", "--durations", "15", "tests"]],
    "doctests": [[PYTHON, "-m", "pytest", "-n", "2", "-q", "--doctest-modules", *ROOMS]],
    "book": [[PYTHON, "book/build.py"]],
    "browser": [[PYTHON, "-m", "pytest", "-n", "2", "-q", "-m", "browser", *SEEN]],
}


def near(paths: list[str]) -> list[list[str]]:
    """Commands that check a few files: lint, types, doctests and the tests that belong to them."""
    files = [Path(path).resolve().relative_to(ROOT) for path in paths]
    sources = [str(f) for f in files if f.parts[0] in ROOMS]
    names = [str(f) for f in files]
    commands = [[PYTHON, "-m", "ruff", "check", *names], [PYTHON, "-m", "ruff", "format", "--check", *names]]
    if sources:
        commands += [[PYTHON, "-m", "mypy", *sources], [PYTHON, "-m", "pytest", "-q", "--doctest-modules", *sources]]
    tests = sorted({test for f in files for test in tests_of(f)})
    return [*commands, [PYTHON, "-m", "pytest", "-q", *tests]] if tests else commands


def tests_of(file: Path) -> list[str]:
    """Test files named after a module, or else those that import it."""
    if file.parts[0] == "tests":
        return [str(file)]
    everywhere = [path.relative_to(ROOT) for path in FILES]
    parts = file.parts[:-1] if file.stem == "__init__" else (*file.parts[:-1], file.stem)
    named = [str(p) for p in everywhere if p.stem == f"test_{parts[-1].lstrip('_')}"]
    package, name = re.escape(".".join(parts[:-1])), parts[-1]
    uses = re.compile(rf"{package}\.{name}\b|from {package} import [^\n]*\b{name}\b")
    return named or [str(p) for p in everywhere if uses.search((ROOT / p).read_text(encoding="utf-8"))]


def untracked() -> set[str]:
    """Files that git neither keeps nor ignores; none where this is no clone."""
    run = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {line for line in run.stdout.splitlines() if line.startswith("??")}


def main(names: list[str]) -> int:
    """Run the gates named (all by default); the exit status is that of the first that fails."""
    if names == ["--list"]:
        print("\n".join(GATES))
        return 0
    gates = {"near": near(names[1:])} if names[:1] == ["near"] else GATES
    names = names[:1] if names[:1] == ["near"] else names
    unknown = [name for name in names if name not in gates]
    if unknown:
        print(f"unknown gate {unknown[0]!r}: choose from {', '.join(GATES)}")
        return 2
    # One thread a process: with two, torch is several times slower whenever anything else runs.
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}",
    }
    # Hundreds of processes import the same files, which the README installs uncompiled: the first one keeps its work.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if not names and shutil.which("chromium") is None:
        print("[browser] not run: Chromium is not installed (Debian: apt-get install chromium)", flush=True)
        names = [name for name in GATES if name != "browser"]
    before = untracked()
    for name in names or GATES:
        for command in gates[name]:
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
