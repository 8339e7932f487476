"""The house, read from its own code: folders with their purpose and size, and who imports whom.

Nothing here is written down by hand: the purpose of a folder is the first line of its `__init__`, arrows are the
imports that the files make, so that the book's picture of the house cannot rot.

Example:
    >>> folders("sensitivity").purpose["scores"]
    'Scores: a black-box network as s(x, σ) in variance-exploding coordinates.'
    >>> upward("sensitivity")  # no arrow against the data's way
    []
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterable, Mapping
from functools import cache
from math import log
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from studies.running.imports import imports

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["ROOMS", "WAY", "arrows", "depth", "folders", "imported", "loops", "picture", "sources", "upward"]

ROOMS = ("oracles", "sensitivity", "studies")
WAY = (
    *("_checks", "_callables", "grid", "noise", "progress", "scores", "jacobians", "sources", "measures"),
    *("perturbations", "sampler"),
    *("densities", "responses", "readings", "recordings"),
    *("groups", "membership", "functionals", "adapters", "capabilities"),
)
"""The order of the data's way through the engine: a family imports those before it."""


@cache
def sources() -> Mapping[str, str]:
    """Every module of the three rooms with its text, by dotted name."""
    texts = {}
    for room in ROOMS:
        home = Path(next(iter(importlib.import_module(room).__path__)))
        for path in sorted(home.rglob("*.py")):
            texts[_name(path, home.parent)] = path.read_text(encoding="utf-8")
    return MappingProxyType(texts)


def _name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(text: str, known: Iterable[str]) -> set[str]:
    """The modules among `known` that a text imports, anywhere in it.

    Example:
        >>> sorted(imported("from a import b, f", ["a", "a.b", "c"]))
        ['a', 'a.b']
    """
    names, used = set(known), set()
    for module, taken in imports(text):
        inner = {f"{module}.{each}" for each in taken}
        # `from package import module` needs the package's own file only if some name is not a module
        used |= inner if taken and inner <= names else {module, *inner}
    return used & names


def arrows(modules: Mapping[str, str] | None = None) -> dict[str, set[str]]:
    """Who imports whom; that a package's own file runs before its modules is no arrow."""
    return dict(_house()) if modules is None else _arrows(modules)


@cache
def _house() -> Mapping[str, set[str]]:
    return _arrows(sources())


def _arrows(texts: Mapping[str, str]) -> dict[str, set[str]]:
    return {m: {t for t in imported(text, texts) if not m.startswith(f"{t}.")} for m, text in texts.items()}


def loops(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Groups of modules each of which reaches the others.

    Example:
        >>> loops({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [{"a", "b"}]
        True
    """
    reach = {m: _reached(graph, m) for m in graph}
    return [set(g) for g in {frozenset(t for t in reach[m] if m in reach[t]) for m in graph if m in reach[m]}]


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    new = set(graph[start])
    while new:
        reached |= new
        new = {t for m in new for t in graph[m]} - reached
    return reached


def depth(graph: Mapping[str, set[str]], room: str) -> int:
    """Length of the longest chain of imports that begins in a room."""
    known: dict[str, int] = {}

    def of(module: str) -> int:
        if module not in known:
            known[module] = 0  # a loop, if there were one, ends here
            known[module] = 1 + max((of(t) for t in graph[module]), default=0)
        return known[module]

    return max(of(m) for m in graph if m.split(".")[0] == room)


def upward(room: str = "sensitivity", graph: Mapping[str, set[str]] | None = None) -> list[tuple[str, str]]:
    """Imports of the engine that point against the data's way."""
    edges = arrows() if graph is None else graph
    return [(m, t) for m, ts in edges.items() for t in ts if 0 <= _rank(m, room) < _rank(t, room)]


def _rank(module: str, room: str) -> int:
    parts = module.split(".")
    return WAY.index(parts[1]) if parts[0] == room and len(parts) > 1 else -1


def folders(room: str) -> pd.DataFrame:
    """One row per folder of a room, its own files first: purpose, number of modules, lines."""
    import pandas as pd

    groups: dict[str, list[str]] = {}
    for module in sources():
        parts = module.split(".")
        if parts[0] == room:
            groups.setdefault(parts[1] if _in_folder(parts) else room, []).append(module)
    order = [name for name in (room, *WAY) if name in groups]
    rows = [_folder(room, name, groups[name]) for name in [*order, *sorted(set(groups) - set(order))]]
    return pd.DataFrame(rows).set_index("folder")


def _in_folder(parts: list[str]) -> bool:
    head = ".".join(parts[:2])
    return len(parts) > 1 and any(m.startswith(f"{head}.") for m in sources())


def _folder(room: str, name: str, modules: list[str]) -> dict[str, object]:
    text = sources()[room if name == room else f"{room}.{name}"]
    purpose = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
    lines = sum(sources()[m].count("\n") for m in modules)
    return {"folder": name, "purpose": purpose, "modules": len(modules), "lines": lines}


def picture(room: str = "sensitivity") -> Figure:
    """The folders of a room from left to right along the data's way, with an arc for every import between them."""
    from studies.figures import colour, described, figure

    names = [name for name in folders(room).index if name != room]
    counts: dict[tuple[str, str], int] = {}
    for module, targets in arrows().items():
        for target in targets:
            ends = module.split("."), target.split(".")
            if all(e[0] == room and len(e) > 1 for e in ends) and ends[0][1] != ends[1][1]:
                pair = (ends[0][1], ends[1][1])
                counts[pair] = counts.get(pair, 0) + 1
    places = {name: k for k, name in enumerate(names)}
    drawing, (axes,) = figure(panel=(6.6, 3.4))
    for (user, used), count in counts.items():
        if user in places and used in places:
            style = {"arrowstyle": "-|>", "connectionstyle": "arc3,rad=0.45", "alpha": 0.55, "shrinkA": 4, "shrinkB": 4}
            style |= {"linewidth": 0.5 + 0.9 * log(count), "color": colour(0)}
            axes.annotate("", (places[used], 0.0), (places[user], 0.0), arrowprops=style)
    for name, place in places.items():
        axes.plot(place, 0.0, "o", color="0.4", markersize=4)
        axes.text(place + 0.15, -0.08, name, ha="right", va="top", rotation=40, fontsize=9)
    axes.set(xlim=(-1.2, len(names) - 0.4), ylim=(-0.75, 1.2))
    axes.axis("off")
    axes.set_title("Who imports whom: arrows point to what is used; width counts imports", fontsize=9)
    alt = f"Folders of {room} in the order of the data's way; every arrow of use points back to an earlier folder."
    return described(drawing, alt)
