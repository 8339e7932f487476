"""Regenerate the committed reference tables: `python -m oracles.references.regenerate [--check] [NAME ...]`.

With `--check` the tables are recomputed and compared with the committed ones, and nothing is written.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mpmath
import numpy as np

from oracles import reference
from oracles.references import problems

DIGITS = {"local": 20, "line": 15, "flow": 14}
DOUBTFUL = {
    "local": [
        "States far from every component at σ <= 1e-3: values hang on differences of huge exponents and have "
        "conditions up to 1e12; they are right for the inputs as written, which float64 cannot follow to many digits.",
        "0 stands for a value below 1e-60 of its natural size, that of a power of the noised covariances.",
        "Third order is contracted with two fixed directions, oracles.references.regenerate.directions(d).",
    ],
    "line": ["Derivatives are differences at η = ±h, ±2h; each row carries their error bars."],
    "flow": ["Derivatives are differences at η = ±h, ±2h; each row carries their error bars."],
}
PERTURBATION_DIGITS = 25


def local_rows(digits: int) -> Iterator[dict[str, Any]]:
    """Every quantity at every state, with its condition number."""
    for name, problem in problems.LOCAL.items():
        for sigma in problems.LEVELS:
            for x in problems.local_states(problem, sigma):
                values = _local(problem, x, sigma, digits)
                conditions = _conditions(problem, x, sigma, values)
                row = {"problem": name, "sigma": sigma, "x": x}
                for key, value in values.items():
                    row[key] = [_text(v, digits) for v in np.ravel(value)]
                    row[f"{key}_condition"] = float(f"{conditions[key]:.1e}")  # 0 where the value is 0
                yield row


def directions(d: int) -> tuple[list[float], list[float]]:
    """The fixed u and v with which D²s[u, v] is tabulated."""
    return [1.0 - 0.25 * i for i in range(d)], [0.5 + 0.75 * i for i in range(d)]


def _local(problem: dict[str, Any], x: Any, sigma: Any, digits: int) -> dict[str, Any]:
    base, toward = (reference.ReferenceMixture(**problem[key], digits=digits + 5) for key in ("base", "toward"))
    u, v = (reference.exact(a) for a in directions(base.dimension))
    moved = reference.ReferenceContamination(base, toward)
    mean, covariance = base.posterior(x, sigma)
    with mpmath.workdps(digits + 40):
        third = (base.third_order(x, sigma) @ v) @ u
    return {
        "log_density": base.log_density(x, sigma),
        "score": base.score(x, sigma),
        "score_jacobian": base.score_jacobian(x, sigma),
        "score_divergence": base.score_divergence(x, sigma),
        "third_order": third,
        "posterior_mean": mean,
        "posterior_covariance": covariance,
        "score_derivative_1": moved.score_derivative(x, sigma, 1),
        "score_derivative_2": moved.score_derivative(x, sigma, 2),
        "score_derivative_3_at_0.25": moved.score_derivative(x, sigma, 3, 0.25),
    }


def _conditions(problem: dict[str, Any], x: Any, sigma: float, values: dict[str, Any]) -> dict[str, Any]:
    """Relative change of each quantity per relative change of every input, the largest of three random ones."""
    conditions = dict.fromkeys(values, mpmath.mpf(0))
    start = _local(problem, x, sigma, digits=PERTURBATION_DIGITS + 25)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        with mpmath.workdps(120):
            moved = {key: {name: _nudged(rng, a) for name, a in problem[key].items()} for key in ("base", "toward")}
            inputs = moved, _nudged(rng, x), _nudged(rng, sigma)
        changed = _local(*inputs, digits=PERTURBATION_DIGITS + 25)
        with mpmath.workdps(120):
            for key in values:
                size = _largest(start[key])
                change = _largest(np.ravel(changed[key]) - np.ravel(start[key])) * mpmath.mpf(10) ** PERTURBATION_DIGITS
                conditions[key] = max(conditions[key], change / size if size else 0)
    return {key: float(value) for key, value in conditions.items()}


def _nudged(rng: np.random.Generator, value: Any) -> Any:
    """Every number times 1 ± 10^−25, symmetric matrices kept symmetric."""
    numbers = reference.exact(value)
    signs = rng.choice([-1, 1], numbers.shape)
    if numbers.ndim == 3:
        signs = np.triu(signs) + np.swapaxes(np.triu(signs, 1), 1, 2)
    step = mpmath.mpf(10) ** -PERTURBATION_DIGITS
    return numbers * (1 + step * np.array(signs, dtype=object))


def line_law(stated: dict[str, Any]) -> reference.LineFunction:
    """The law that a problem of the line states."""
    makers: dict[str, Callable[..., Any]] = {"normals": reference.normals, "uniform": reference.uniform}
    makers["laplace"] = reference.laplace
    return makers[stated["law"]](**{key: value for key, value in stated.items() if key != "law"})


def line_rows(digits: int) -> Iterator[dict[str, Any]]:
    """Samples and derivatives of the 1-d transport, and the samples at η = 1/4."""
    for name, problem in problems.LINE.items():
        base, toward = (line_law(problem[key]) for key in ("base", "toward"))
        for high, low in problems.LINE_LEVELS:
            for z in (share * high for share in problems.LINE_LATENTS):
                arguments = base, toward, z, high, low
                row = {"problem": name, "latent": z, "sigma_max": high, "sigma_min": low}
                quarter = reference.transport(*arguments, eta=0.25, digits=digits + 5)
                row["samples_at_0.25"] = [_text(quarter, digits)]
                yield {**row, **_derivatives(reference.transport_sensitivity(*arguments, digits=digits + 3), digits)}


def flow_rows(digits: int) -> Iterator[dict[str, Any]]:
    """Samples and derivatives of the flow in two and three dimensions, by Taylor series."""
    high, low = problems.FLOW_LEVELS
    for name in problems.FLOW:
        problem = problems.LOCAL[name]
        base, toward = (reference.ReferenceMixture(**problem[key]) for key in ("base", "toward"))
        for z in problems.FLOW_LATENTS[name]:
            values = reference.flow_sensitivity(base, toward, z, high, low, digits=digits + 5)
            row = {"problem": name, "latent": z, "sigma_max": high, "sigma_min": low}
            yield {**row, **_derivatives(values, digits)}


def _derivatives(values: dict[str, Any], digits: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key in ("samples", "first", "second"):
        row[key] = [_text(v, digits) for v in values[key]]
        row[f"{key}_error"] = float(f"{float(values[f'{key}_error']):.1e}")
    return row


TABLES: dict[str, tuple[Callable[[int], Iterator[dict[str, Any]]], dict[str, Any]]] = {
    "local": (local_rows, problems.LOCAL),
    "line": (line_rows, problems.LINE),
    "flow": (flow_rows, {name: problems.LOCAL[name] for name in problems.FLOW}),
}


def table(name: str) -> dict[str, Any]:
    """The table computed anew, with its provenance and hash."""
    rows, stated = TABLES[name]
    start = time.perf_counter()
    content = {"name": name, "digits": DIGITS[name], "problems": stated, "rows": list(rows(DIGITS[name]))}
    provenance = {
        "command": f"python -m oracles.references.regenerate {name}",
        "definition": "see the docstring of oracles.reference",
        "digits": DIGITS[name],
        "doubtful": DOUBTFUL[name],
        "seconds": round(time.perf_counter() - start, 1),
        "versions": {"python": platform.python_version(), "mpmath": mpmath.__version__, "numpy": np.__version__},
    }
    return {**content, "sha256": reference.content_hash(json.loads(json.dumps(content))), "provenance": provenance}


def main(arguments: list[str]) -> int:
    """Write, or with `--check` compare, the tables named (all by default)."""
    parser = argparse.ArgumentParser(prog="python -m oracles.references.regenerate", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"tables: {', '.join(TABLES)} (all by default)")
    parser.add_argument("--check", action="store_true", help="compare with the committed tables, write nothing")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in TABLES]
    if unknown:
        parser.error(f"unknown table {unknown[0]!r}: choose from {', '.join(TABLES)}")
    return max(_one(name, options.check) for name in options.names or TABLES)


def _one(name: str, check: bool) -> int:
    fresh = table(name)
    if check:
        same = reference.load(name).rows == json.loads(json.dumps(fresh["rows"]))
        print(f"{name}: {'same' if same else 'DIFFERENT'} ({fresh['provenance']['seconds']} s)")
        return 0 if same else 1
    path = Path(__file__).with_name(f"{name}.json")
    path.write_text(written(fresh), encoding="utf-8")
    print(f"{name}: {len(fresh['rows'])} rows, {path.stat().st_size} bytes, {fresh['provenance']['seconds']} s")
    return 0


def written(content: dict[str, Any]) -> str:
    """The table as JSON, one row a line, so that a difference shows which row moved."""
    rows = ",\n  ".join(json.dumps(row, sort_keys=True) for row in content["rows"])
    rest = json.dumps({key: value for key, value in content.items() if key != "rows"}, indent=1, sort_keys=True)
    return f'{rest[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n'


def _text(value: Any, digits: int) -> str:
    return mpmath.nstr(value, digits, min_fixed=0, max_fixed=0) if value else "0"


def _largest(value: Any) -> Any:
    return max(abs(v) for v in np.ravel(np.array(value, dtype=object)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
