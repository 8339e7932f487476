"""What keeps the house readable: folders that say what they hold and hide nothing, calls that name what they pass.

Every guard has a planted violation. How files may import each other is in `test_imports.py`, how docstrings are written
in `test_docstrings.py`.
"""

import ast
import importlib
import json
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

import oracles
import sensitivity
from studies.reports.architecture import ROOMS, sources

ROOT = Path(oracles.__file__).resolve().parent.parent
FEWEST = 6  # lines of a folder's docstring: what lives in it, and what it may touch
MOST = 9  # arguments by position: beyond, nobody can tell which is which


def shadowed(package: ModuleType) -> list[str]:
    """Folders and modules of a package named after a public function or class, which importing them would hide."""
    inner = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return [name for name in package.__all__ if name in inner and callable(getattr(package, name))]


def terse(text: str) -> bool:
    """Whether a folder's own file says too little."""
    return len((ast.get_docstring(ast.parse(text)) or "").splitlines()) < FEWEST


def crowded(text: str) -> list[str]:
    """Calls that pass too many arguments by position; a starred one counts as the three that it usually is."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    sizes = [(c, sum(3 if isinstance(a, ast.Starred) else 1 for a in c.args)) for c in calls]
    return [f"{ast.unparse(c.func)}, line {c.lineno}" for c, size in sizes if size > MOST]


def lost(text: str) -> list[str]:
    """Files and folders that a page names in backticks and that are not there; a bare name may lie anywhere."""
    names = re.findall(r"`(\w[\w./-]*(?:\.py|\.md|/))[\w:]*`", text)
    known = {path.name for folder in (*ROOMS, "tests", "book") for path in (ROOT / folder).rglob("*.*")}
    return [name for name in names if not ((ROOT / name).exists() if "/" in name else name in known)]


def loose(text: str) -> list[str]:
    """What a text has that JSON has not: NaN and infinities, which other readers than Python's refuse."""
    values: list[str] = []
    json.loads(text, parse_constant=values.append)
    return values


@pytest.mark.parametrize("package", [oracles, sensitivity], ids=lambda package: package.__name__)
def test_no_folder_is_named_after_a_public_name(package):
    """Assert that importing a part of the package hides nothing of it."""
    assert shadowed(package) == []


def test_every_folder_says_what_it_holds():
    """Assert that each folder's own file says more than its name."""
    files = [p for room in ROOMS for p in (ROOT / room).rglob("__init__.py")]
    assert [str(p.relative_to(ROOT)) for p in files if terse(p.read_text(encoding="utf-8"))] == []


def test_long_calls_name_their_arguments():
    """Assert that no call passes ten arguments by position."""
    assert {name: calls for name, text in sources().items() if (calls := crowded(text))} == {}


def test_tables_are_json():
    """Assert it of every table that the packages ship; claims, whose intervals may have no end, are read by `load`."""
    files = [p for room in ROOMS for p in (ROOT / room).rglob("*.json") if p.name != "claims.json"]
    assert len(files) > 20
    assert [str(p.relative_to(ROOT)) for p in files if loose(p.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "book/reference/architecture.md", "book/howto/extend.md"])
def test_guides_name_files_that_are_there(page):
    """Assert that whoever follows a guide finds what it names."""
    assert lost((ROOT / page).read_text(encoding="utf-8")) == []


def test_the_first_change_is_a_second_order_method():
    """Assert that the line of CONTRIBUTING's first change runs, and meets the conditions of order two."""
    from sensitivity.sampler.tableau import RungeKutta

    line = re.search(r"`RALSTON = (RungeKutta\(.*?\))`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    method = eval(line.group(1), {"RungeKutta": RungeKutta})
    assert sum(method.final) == pytest.approx(1)
    assert sum(b * c for b, c in zip(method.final, method.nodes, strict=True)) == pytest.approx(1 / 2)


def test_a_folder_that_hides_a_function_is_seen(monkeypatch):
    """Assert that the guard sees a public function with a folder's name."""
    importlib.import_module("sensitivity.sampler")
    monkeypatch.setattr(sensitivity, "sampler", sensitivity.sample)
    monkeypatch.setattr(sensitivity, "__all__", [*sensitivity.__all__, "sampler"])
    assert shadowed(sensitivity) == ["sampler"]


@pytest.mark.parametrize(
    ("guard", "planted"),
    [
        (terse, '"""Sampler."""'),
        (crowded, f"f({', '.join('abcdefghij')})"),
        (crowded, "f(a, b, c, d, *e, g, *h)"),
        (loose, '{"slope": NaN}'),
        (lost, "open `sensitivity/sampler/tableaux.py` or `tableaux.py`"),
    ],
    ids=["docstring", "call", "starred", "NaN", "path"],
)
def test_each_guard_sees_a_planted_violation(guard, planted):
    """Assert that what the guards forbid is found where it is."""
    assert guard(planted)
