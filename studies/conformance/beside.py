"""Packages that are not installed beside this one: `python -m studies.conformance.beside [FOLDER [PACKAGE ...]]`.

Their released files are unpacked into a folder of their own, without what they depend on where that is here already,
and checked in another process that looks there first: nothing of this environment is changed. The rows, as those of
the study, are kept in `beside.json` beside this module with the versions; where packages are named, the others' rows
stay as they are. `ABSENT` names what was looked at and has nothing to check, or does not install, and why.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from studies.conformance.findings import BESIDE
from studies.files import as_json, write

__all__ = ["ABSENT", "MODULES", "REQUIREMENTS", "TABLE", "rows"]

MODULE = "studies.conformance.beside"
TABLE = Path(__file__).with_name("beside.json")
MODULES = {
    "k-diffusion": "studies.conformance.k_diffusion",
    "torchebm": "studies.conformance.torchebm",
    "torchdyn": "studies.conformance.torchdyn",
    "lampe": "studies.conformance.lampe",
    "bayesflow": "studies.conformance.bayesflow",
    "sbi": "studies.conformance.sbi",
    "nvidia-physicsnemo": "studies.conformance.physicsnemo",
    "diffusers": "studies.conformance.schedulers",  # installed, and here for its length: every scheduler by name
}
REQUIREMENTS = (
    *(
        "k-diffusion==0.1.1.post1",
        "torchebm==0.8.9",
        "lampe==0.9.0",
        "torchdyn==1.0.6",
        "bayesflow==2.0.12",
        "sbi==0.27.0",
        "nvidia-physicsnemo==2.2.2",
    ),
    *("h5py", "keras==3.12.0", "optree", "absl-py", "namex", "ml-dtypes", "seaborn", "torchcde"),  # what those import
    *("nflows", "skorch", "tensorboard", "protobuf", "nvtx", "jaxtyping", "wadler-lindig"),
)
ABSENT = {
    "normflows 1.7.3": "not applicable: discrete flows only, no continuous one, no score",
    "FrEIA 0.2": "not applicable: discrete invertible networks only",
    "POT 0.9.7": "not applicable: transport plans and costs between samples; no flow or density of a law along one",
    "EDM": "the repository of the paper is not on the package index; its sampler code is released in "
    "nvidia-physicsnemo (deterministic_sampler, stochastic_sampler), and is judged there",
}
# What an example needs before it, where the package's own import asks for more than the folder holds.
BEFORE = {"nvidia-physicsnemo": "from studies.conformance.physicsnemo import samplers\nsamplers()\n"}


def rows() -> pd.DataFrame:
    """The kept rows, one a check, with the columns of the study's."""
    return pd.DataFrame(json.loads(TABLE.read_text("utf-8"))["rows"])


def checked(package: str, size: int = 1) -> list[dict[str, Any]]:
    """The rows of one package as it is importable here."""
    from studies.conformance import row

    return [row(check, seed=0, size=size) for check in importlib.import_module(MODULES[package]).CHECKS]


def install(folder: Path) -> None:
    """Unpack the released files into a folder.

    Raises:
        subprocess.CalledProcessError: one is not to be had.
    """
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *REQUIREMENTS]
    subprocess.run(command, check=True)


def main(folder: Path, packages: list[str], table: Path = TABLE) -> None:
    """Install what is missing, check the named packages (all by default), each by itself, and keep the rows."""
    if not folder.exists():
        install(folder)
    known = json.loads(table.read_text("utf-8")) if packages and table.exists() else {"rows": [], "examples": {}}
    answers, examples = [], dict(known["examples"])
    for package in MODULES:
        if package in (packages or MODULES):
            answers += json.loads(_there(folder, MODULE, "--package", package)[-1])
            before = BEFORE.get(package, "")
            examples |= {f.name: _there(folder, "-c", before + f.example) for f in BESIDE if f.package == package}
        else:
            answers += [row for row in known["rows"] if row["package"] == package]
    written = {"date": datetime.now(UTC).date().isoformat(), "rows": answers, "examples": examples}
    write(table, as_json(written))


def _there(folder: Path, *command: str) -> list[str]:
    """The lines that a process prints that looks for packages in the folder first."""
    paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    python = [sys.executable, *(("-m",) if command[0] == MODULE else ()), *command]
    answer = subprocess.run(
        python, check=True, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": paths}, text=True
    )
    return answer.stdout.splitlines()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--package"]:
        print(json.dumps(checked(sys.argv[2])))
    elif sys.argv[1:]:
        main(Path(sys.argv[1]), sys.argv[2:])
    else:
        with TemporaryDirectory() as new:
            main(Path(new) / "packages", [])
