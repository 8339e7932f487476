"""How files import each other: no loops, no arrow against the data's way, one style, no dependency without a use.

The rule of the rooms (who may import whom at all) is in `test_rooms.py`; every guard here has a planted violation.
"""

import ast
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

import oracles
from studies.reports.architecture import ROOMS, WAY, arrows, loops, sources, upward
from studies.running.imports import imports, packages

ROOT = Path(oracles.__file__).resolve().parent.parent
# Distributions that are imported under another name, or used without an import (None).
IMPORTED_AS: dict[str, str | None] = {
    "POT": "ot",
    "array-api-strict": "array_api_strict",
    "curvlinops-for-pytorch": "curvlinops",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    # run as programs, plugins or extensions; einops is azula's own need; the project asks for its own extras
    **dict.fromkeys(("jupyter-book", "mypy", "pandas-stubs", "pre-commit", "pytest-cov", "pytest-xdist", "ruff")),
    **dict.fromkeys(("einops", "score-sensitivity", "sphinx-exercise", "sphinx-proof")),
    "cryptography": None,  # distributed makes a local cluster's keys with it
    "django-static-mathjax": None,  # a file is copied out of it when the book is built
}


def relative(text: str) -> bool:
    """Whether a text imports relatively; the house imports absolutely."""
    return any(module.startswith(".") for module, _ in imports(text))


def declared() -> list[str]:
    """Names of all distributions that the project asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [entry for entries in project["optional-dependencies"].values() for entry in entries]
    return sorted({re.split(r"[\[<>=~! ]", entry)[0] for entry in [*project["dependencies"], *extras]})


def used(text: str) -> set[str]:
    """Top-level names that a text imports, by a statement or by `importorskip` and the like."""
    return packages(text) | set(re.findall(r"(?:importorskip|import_module|require|imported)\(\s*[f]?\"(\w+)", text))


def unused(distributions: Iterable[str], names: set[str]) -> list[str]:
    """Distributions whose import name nothing uses."""
    given = {d: IMPORTED_AS.get(d, d.replace("-", "_")) for d in distributions}
    return [d for d, name in given.items() if name is not None and name not in names]


def test_no_two_files_import_each_other():
    """Assert that the files of the three rooms form no loop."""
    assert loops(arrows()) == []


def test_the_engine_imports_along_the_way_of_the_data():
    """Assert that no family of the engine imports a later one, and that every family has its place on the way."""
    families = {m.split(".")[1] for m in arrows() if m.startswith("sensitivity.")}
    assert families <= set(WAY)
    assert upward() == []


def test_imports_are_absolute():
    """Assert that there is one style of import."""
    assert [m for m, text in sources().items() if relative(text)] == []


def test_every_folder_says_what_lives_in_it():
    """Assert that each folder's own file begins with a docstring."""
    folders = [p for room in ROOMS for p in (ROOT / room).rglob("__init__.py")]
    assert [str(p) for p in folders if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))] == []


def test_every_dependency_is_imported_somewhere():
    """Assert that the project asks for nothing that it does not use."""
    paths = [p for folder in (*ROOMS, "tests", "book") for p in (ROOT / folder).rglob("*.py")]
    assert unused(declared(), set().union(*(used(p.read_text(encoding="utf-8")) for p in paths))) == []


@pytest.mark.parametrize(
    ("guard", "planted"),
    [
        (lambda m: loops(arrows(m)), {"a": "import b", "b": "def f():\n    from c import g", "c": "import a"}),
        (
            lambda m: upward("sensitivity", arrows(m)),
            {"sensitivity.grid": "from sensitivity.sampler import path", "sensitivity.sampler.path": ""},
        ),
        (lambda m: [text for text in m.values() if relative(text)], {"a": "from . import b"}),
        (lambda m: unused(m, {"numpy"}), {"numpy": "", "jaxtyping": ""}),
    ],
    ids=["loop", "upward", "relative", "unused"],
)
def test_each_guard_sees_a_planted_violation(guard, planted):
    """Assert that what the guards forbid is found where it is."""
    assert guard(planted)
