"""Which code rows come from: a digest of a study's source, of what it imports, and of the packages it runs on.

The source is read, not run. Comments and layout do not count; what is imported from this house or from the study's own
top-level package counts, found by its import statements.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from studies.running import provenance
from studies.running.imports import imports

__all__ = ["digest", "sources"]

HOUSE = ("oracles", "sensitivity", "studies")


@functools.cache
def digest(module: str) -> str:
    """Sixteen hexadecimal digits that change with the code of the study in `module` or with what it runs on."""
    parts = [provenance.versions(), {name: _read(path)[0] for name, path in sorted(sources(module).items())}]
    _read.cache_clear()
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def sources(module: str) -> dict[str, Path]:
    """The files that the module is made of, by module name.

    Example:
        >>> {"studies.cost", "studies.cost.timing"} <= set(sources("studies.cost"))
        True
    """
    roots = {name: place for name in {*HOUSE, module.split(".")[0]} if (place := _place(name)) is not None}
    files: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name, roots)
        if path is None or name in files:
            continue
        files[name] = path
        waiting += [name.rpartition(".")[0], *_imported(name, path)]
    return files


def _place(top: str) -> Path | None:
    """Where a top-level package or module lies, without importing it."""
    loaded = getattr(sys.modules.get(top), "__file__", None)
    if loaded is not None:
        return Path(loaded)
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.has_location and spec.origin:
        return Path(spec.origin)
    folders = list(spec.submodule_search_locations or [])
    return Path(folders[0]) / "__init__.py" if folders else None


def _file(name: str, roots: dict[str, Path]) -> Path | None:
    top, _, rest = name.partition(".")
    if top not in roots:
        return None
    if not rest:
        return roots[top] if roots[top].is_file() else None
    inner = roots[top].parent.joinpath(*rest.split("."))
    return next((path for path in (inner.with_suffix(".py"), inner / "__init__.py") if path.is_file()), None)


@functools.cache
def _read(path: Path) -> tuple[str, list[tuple[str, tuple[str, ...]]]]:
    """Digest and imports of a file; its tree goes at once, for hundreds of them slow the garbage collector."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        tree = ast.Module([], [])
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), list(imports(tree))


def _imported(name: str, path: Path) -> Iterator[str]:
    """Names that may be modules: what is imported, and what is imported from it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for written, taken in _read(path)[1]:
        base = _full(written, package)
        yield base
        yield from (f"{base}.{each}" for each in taken)


def _full(written: str, package: str) -> str:
    """The full name of what a file of a package imports, leading dots read as folders above."""
    rest = written.lstrip(".")
    level = len(written) - len(rest)
    above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
    return ".".join([*above, *([rest] if rest else [])])
