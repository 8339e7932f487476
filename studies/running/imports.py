"""The import statements of a source text: which modules it needs.

Example:
    >>> list(imports("import a.b\\ndef f():\\n    from .c import d, e"))
    [('a.b', ()), ('.c', ('d', 'e'))]
    >>> sorted(packages("import a.b, c"))
    ['a', 'c']
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

__all__ = ["imports", "packages"]


def imports(source: str | ast.AST) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Modules that a text or its tree imports, anywhere in it, as written, and the names taken from each."""
    for node in _statements(ast.parse(source) if isinstance(source, str) else source):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), tuple(alias.name for alias in node.names)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below a node, in any block of theirs; expressions, which are most of a tree, are not entered."""
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        for inner in getattr(node, block, ()):
            yield inner
            yield from _statements(inner)


def packages(text: str) -> set[str]:
    """Top-level packages that a text imports by their full names."""
    return {module.split(".")[0] for module, _ in imports(text) if not module.startswith(".")}
