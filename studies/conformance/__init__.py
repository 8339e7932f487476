"""Study `conformance`: do public packages compute what they say, on their real code?

Thin adapters give each package the exact network of a known law, in its own parametrisation and time, and hold what it
returns against the law: schedules, conversions, densities and divergences (flat and image-shaped states, exact and
Hutchinson's), samplers (error and observed order), laws of stochastic samplers. A row says `agrees`, `differs`, `not
applicable` or `did not install`, with the version; what differs has its cause in `findings`.
"""

from __future__ import annotations

import importlib
import math
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studies.claim_bounds import equals
from studies.study import Cell, Claim, Context

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from studies.conformance.common import Check

NAME = "conformance"
QUESTION = "Do public diffusion packages compute what they say: schedules, conversions, densities, samplers?"

MODULES = {
    "flow_matching": "studies.conformance.flow_matching",
    "torchcfm": "studies.conformance.torchcfm",
    "azula": "studies.conformance.azula",
    "zuko": "studies.conformance.zuko",
    "diffusers": "studies.conformance.diffusers",
    "torchdiffeq": "studies.conformance.torchdiffeq",
    "torchsde": "studies.conformance.torchsde",
}
QUANTITIES = ("schedule", "conversion", "density", "sampler", "solver", "law")


@dataclass(frozen=True)
class Config:
    """What is checked.

    Attributes:
        packages: distribution names.
        quantities: which kinds of checks.
        size: 1, 2 or 4: steps, repeats and draws grow with it.
    """

    packages: tuple[str, ...] = tuple(MODULES)
    quantities: tuple[str, ...] = QUANTITIES
    size: int = 1

    @classmethod
    def smoke(cls) -> Config:
        return cls(packages=("flow_matching", "azula", "torchcfm"), quantities=("schedule", "conversion"))

    @classmethod
    def quick(cls) -> Config:
        return cls()

    @classmethod
    def full(cls) -> Config:
        return cls(size=2)

    @classmethod
    def paper(cls) -> Config:
        return cls(size=4)


def checks(package: str) -> tuple[Check, ...]:
    """The checks of a package."""
    return importlib.import_module(MODULES[package]).CHECKS


def cells(config: Config) -> list[Cell]:
    """One cell per package and quantity that has checks."""
    pairs = [
        (package, quantity)
        for package in config.packages
        for quantity in config.quantities
        if any(check.quantity == quantity for check in checks(package))
    ]
    return [
        Cell(f"{package}-{quantity}", {"package": package, "quantity": quantity, "size": config.size}, seed=index)
        for index, (package, quantity) in enumerate(pairs)
    ]


def run_cell(cell: Cell, context: Context) -> list[dict[str, Any]]:
    """The rows of one package's checks of one quantity."""
    wanted = [check for check in checks(cell.parameters["package"]) if check.quantity == cell.parameters["quantity"]]
    return [row(check, cell.seed, cell.parameters["size"]) for check in wanted]


def row(check: Check, seed: int, size: int) -> dict[str, Any]:
    """One row: what a check measured, or that its package is not here."""
    from studies.conformance.common import installed

    version = installed(check.package)
    answer: dict[str, Any] = {
        "package": check.package,
        "version": version,
        "check": check.name,
        "quantity": check.quantity,
        "shape": check.shape,
        "status": "did not install",
        "error": math.nan,
        "allowed": math.nan,
        "unit": "",
        "order": math.nan,
        "expected_order": math.nan,
        "note": check.note,
        "cause": "",
        "seconds": 0.0,
    }
    if version:
        answer |= _measured(check, seed, size)
    return answer


def _measured(check: Check, seed: int, size: int) -> dict[str, Any]:
    from studies.conformance.findings import cause

    if check.run is None:
        return {"status": "not applicable"}
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the packages' own; a wrong result shows in the error
            measurement = check.run(seed, size)
    except Exception as error:
        sentence = " ".join(f"raises {type(error).__name__}: {error}".split())
        result: dict[str, Any] = {"status": "differs", "note": sentence[:300]}
    else:
        result = {
            "status": "agrees" if measurement.agrees else "differs",
            "error": measurement.error,
            "allowed": measurement.allowed,
            "unit": measurement.unit,
            "order": measurement.order,
            "expected_order": measurement.expected,
            "note": measurement.note or check.note,
        }
    finding = cause(check.package, check.name) if result["status"] == "differs" else None
    explained = "" if finding is None else f"{finding.whose}: {finding.cause}"
    return result | {"cause": explained, "seconds": time.perf_counter() - start}


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """One claim per installed package, and that every difference has a cause."""
    claims = [
        _package_claim(package, rows[rows["package"] == package])
        for package in config.packages
        if (rows["package"] == package).any()
    ]
    unexplained = rows[(rows["status"] == "differs") & (rows["cause"] == "")]
    names = ", ".join(unexplained["package"] + "/" + unexplained["check"])
    explained = Claim(
        "Every difference found is analysed to its cause" + (f"; not yet: {names}." if names else "."),
        float(len(unexplained)),
        None,
        equals(0),
        "studies.conformance.findings",
    )
    return [*[claim for claim in claims if claim is not None], explained]


def _package_claim(package: str, rows: pd.DataFrame) -> Claim | None:
    judged = rows[rows["status"].isin(["agrees", "differs"])]
    if judged.empty:
        return None
    version, differing = judged["version"].iloc[0], judged[judged["status"] == "differs"]
    names = ", ".join(differing["check"])
    return Claim(
        f"{package} {version} agrees with exact laws on all {len(judged)} checks"
        + (f"; it differs on {names}." if names else "."),
        float(len(judged) - len(differing)),
        None,
        equals(len(judged)),
        "exact mixtures (oracles), tolerances stated per row",
    )


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    """Error over tolerance of every check; observed against stated orders."""
    from studies.conformance.drawing import draw

    return draw(rows)
