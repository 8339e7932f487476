"""Reference values: arbitrary precision, committed tables, and what qualifies as a reference.

**What qualifies.**  A number is a reference if

1. its problem is stated exactly: inputs are binary64 numbers (written so that they round-trip) or exact decimals;
2. it was computed by a route that shares no formula, beyond the definition of the laws, with the code that it judges:
   raw derivatives of the density where the code uses centred ones; power-series division where the code uses the gate;
   raw second moments of the posterior; Taylor series of the flow where the code uses Runge–Kutta; differences in η at
   tens of digits where the code uses variational equations or the quantile formula;
3. it was computed at two working precisions (one twice the other, or ten digits more for flows) that agree to all the
   digits printed, or carries the error bar that the two show;
4. its table says how many digits, how long it took, which versions computed it, which regions are doubtful, and the
   command that regenerates it;
5. the table's content hash is that of its content (checked whenever it is read).

`condition` in a table is the relative change of the result per relative change of its inputs (the largest of a few
random ones): float64 cannot promise better than its product with 1.1e-16.

**Tables** (`load(name)`): `local` — densities, scores, Jacobians, third order, posteriors, derivatives in η, for σ from
1e-6 to 1e4 and up to 100 standard deviations out; `line` — samples and derivatives of the 1-d transport, non-Gaussian
laws included; `flow` — the same in two and three dimensions. `python -m oracles.references.regenerate` rewrites them,
`--check` recomputes and compares.

Arithmetic is mpmath's (Johansson et al., mpmath 1.3).

Example:
    >>> table = load("line")
    >>> table.digits
    15
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from oracles.reference._certify import certified, exact
from oracles.reference._flow import flow, flow_sensitivity
from oracles.reference._line import LineFunction, laplace, normals, transport, transport_sensitivity, uniform
from oracles.reference._mixture import ReferenceContamination, ReferenceMixture

__all__ = [
    "LineFunction",
    "ReferenceContamination",
    "ReferenceMixture",
    "Table",
    "certified",
    "content_hash",
    "exact",
    "flow",
    "flow_sensitivity",
    "laplace",
    "load",
    "names",
    "normals",
    "transport",
    "transport_sensitivity",
    "uniform",
]

CONTENT = ("name", "digits", "problems", "rows")


@dataclass(frozen=True)
class Table:
    """A committed table: exact problems by name, rows of results as decimal strings, and where they come from."""

    name: str
    digits: int
    problems: dict[str, Any]
    rows: list[dict[str, Any]]
    provenance: dict[str, Any]


def names() -> list[str]:
    """The committed tables."""
    entries = resources.files("oracles.references").iterdir()
    return sorted(entry.name.removesuffix(".json") for entry in entries if entry.name.endswith(".json"))


def load(name: str) -> Table:
    """The committed table of this name.

    Raises:
        ValueError: for an unknown name, or where the content is not what its hash says.
    """
    if name not in names():
        raise ValueError(f"name = {name!r} is not a reference table; there are {', '.join(names())}")
    return parse(resources.files("oracles.references").joinpath(f"{name}.json").read_text(encoding="utf-8"), name)


def parse(text: str, name: str) -> Table:
    """A table from its JSON text, its hash checked."""
    content = json.loads(text)
    if content_hash(content) != content["sha256"]:
        raise ValueError(
            f"reference table {name!r} is damaged: its content does not have the hash written in it; restore the file "
            "or regenerate it with python -m oracles.references.regenerate"
        )
    return Table(**{key: content[key] for key in (*CONTENT, "provenance")})


def content_hash(content: dict[str, Any]) -> str:
    """SHA-256 of the table's name, digits, problems and rows, in canonical JSON."""
    kept = {key: content[key] for key in CONTENT}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
