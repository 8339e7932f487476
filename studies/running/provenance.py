"""Where results come from: versions, git commit and machine."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["commit", "environment", "machine", "usable_cores"]

PACKAGES = ("score-sensitivity", "numpy", "scipy", "torch", "pandas", "pyarrow", "distributed", "scikit-learn")
ABSENT = "absent"  # in place of the version of a package that is not installed


@functools.cache
def versions() -> dict[str, str]:
    """Installed versions of the packages that rows depend on, and of Python."""
    known = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            known[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            known[name] = ABSENT
    return known


@functools.cache
def commit() -> str | None:
    """Git commit of this package's checkout, with `-dirty` when files differ from it.

    Outside a checkout, what the environment variable STUDIES_COMMIT says of the files that were taken along, or None.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return os.environ.get("STUDIES_COMMIT") or None
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return None
    return head + ("-dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def usable_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux; containers and schedulers allow fewer cores than there are
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def machine() -> dict[str, Any]:
    """Processor, cores, memory and system; no host name, so that tables can be published."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_bytes": _memory(),
        "system": f"{platform.system()} {platform.release()}",
    }


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def environment() -> dict[str, Any]:
    """Everything about the place where results are made."""
    return {"versions": versions(), "commit": commit(), "machine": machine()}
