"""What a wheel holds: the packages and their data, and nothing that a used clone has lying about."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("oracles", "sensitivity", "studies")


def test_a_used_clone_builds_a_wheel_of_packages_alone(tmp_path: Path) -> None:
    """Assert that results, tests and caches of a clone stay out, and that every module and table goes in."""
    clone = tmp_path / "clone"
    for room in ROOMS:
        shutil.copytree(ROOT / room, clone / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone / name)
    for litter in ("studies-out/x/manifest.json", "studies-old/y.py", "sensitivity_notes/z.json", "oracles.bak/a.py"):
        (clone / litter).parent.mkdir(parents=True)
        (clone / litter).write_text("{}")
    build = [sys.executable, "-c", "from setuptools import setup; setup()", "-q", "build", "--build-lib", "built"]
    subprocess.run(build, cwd=clone, check=True, capture_output=True)
    built = {path.relative_to(clone / "built") for path in (clone / "built").rglob("*") if path.is_file()}
    assert {path.parts[0] for path in built} == set(ROOMS)
    modules = {path.relative_to(clone) for room in ROOMS for path in (clone / room).rglob("*.py")}
    assert modules <= built
    assert {path.suffix for path in built - modules} <= {".typed", ".json", ".parquet", ".npz", ".png", ".j2"}
