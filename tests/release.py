"""Use the release as a stranger does: wheel and sdist, each in an environment of its own, outside the clone.

    python tests/release.py            the quickstart, `studies list`, `studies verify` on the README's function, which
                                       falls short, is mended as the README says, and holds
    python tests/release.py --lowest   the tests with the lowest version of each direct dependency (not of test tools)

Not a gate: each installs torch and the rest anew, which takes minutes. Versions are those of constraints.txt.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WALKTHROUGH = "<!-- verify-walkthrough -->"
MENDED = ("anchor=anchor", "anchor=problem.anchor")  # what the README says to change
PINNED = ("studies", "images", "adapters")  # extras whose lowest versions are taken beside those of the package itself
# The lowest versions warn of what later ones of their own dependencies deprecate.
LENIENT = ["-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning", "-W", "ignore::PendingDeprecationWarning"]


def run(command: list[str | Path], folder: Path, expected: int = 0) -> None:
    """Run a command in a folder and say what it took; another exit status than the expected one ends the program."""
    start = time.perf_counter()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    code = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
    words = " ".join(Path(str(each)).name for each in command)
    print(f"[{words[:90]}] exit {code} after {time.perf_counter() - start:.0f} s", flush=True)
    if code != expected:
        sys.exit(f"expected exit {expected}")


def environment(folder: Path) -> Path:
    """A new virtual environment; its folder of programs."""
    venv.create(folder, with_pip=True)
    return folder / ("Scripts" if os.name == "nt" else "bin")


def blocks(text: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def strangers_way(folder: Path) -> None:
    """Build both distributions; install and use each."""
    builder = environment(folder / "build-env")
    run([builder / "pip", "install", "-q", "build"], folder)
    run([builder / "python", "-m", "build", "-o", folder / "dist", ROOT], folder)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quickstart, value = blocks(readme)[0], blocks(readme.split(WALKTHROUGH)[1])[0]
    for archive in sorted((folder / "dist").iterdir()):
        room = folder / archive.suffix.strip(".")
        programs = environment(room / "env")
        run([programs / "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{archive}[studies]"], room)
        (room / "quickstart.py").write_text(quickstart, encoding="utf-8")
        run([programs / "python", "quickstart.py"], room)
        run([programs / "studies", "list"], room)
        verify = [programs / "studies", "verify", "mine:estimate", "--task", "log-density"]
        for text, expected in ((value, 1), (value.replace(*MENDED), 0)):
            (room / "mine.py").write_text(text, encoding="utf-8")
            run(verify, room, expected)


def lowest(folder: Path) -> None:
    """Install the lowest versions that pyproject.toml allows and run the tests."""
    programs, pins = environment(folder / "env"), folder / "lowest.txt"
    python, uv = programs / "python", [programs / "uv", "pip"]
    run([programs / "pip", "install", "-q", "uv"], folder)  # pip has no way to prefer the lowest versions
    extras = [part for extra in PINNED for part in ("--extra", extra)]
    run([*uv, "compile", "-q", "--resolution", "lowest-direct", ROOT / "pyproject.toml", *extras, "-o", pins], folder)
    # Not the book: what builds it asks for later versions of what the studies use.
    tools = [each for each in _extra("test") if not each.startswith("score-sensitivity")]
    package = f"{ROOT}[{','.join(PINNED)}]"
    run([*uv, "install", "-q", "--python", python, "-c", pins, "-e", package, *tools], folder)
    # As in the README, without its dependencies.
    run([*uv, "install", "-q", "--python", python, "--no-deps", "-c", ROOT / "constraints.txt", "azula"], folder)
    run([*uv, "freeze", "--python", python], folder)
    book = ["--ignore", "tests/unit/test_book.py"]
    run([python, "-m", "pytest", "-n", "2", "-q", "--dist", "worksteal", *LENIENT, *book, "tests"], ROOT)


def _extra(name: str) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["optional-dependencies"][name])


def main() -> None:
    """One of the two, in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lowest", action="store_true", help="run the tests with the lowest versions")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (lowest if chosen.lowest else strangers_way)(Path(folder))


if __name__ == "__main__":
    main()
