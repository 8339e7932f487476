"""One docstring dialect: single backticks, plain names, `Example:` before doctests, one item a line, fields of records.

Docstrings are Markdown in the book (`book/_ext/docstrings.py`), which knows no roles and gives each item its own line.
"""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import oracles

ROOT = Path(oracles.__file__).resolve().parent.parent
PLACES = ("oracles", "sensitivity", "studies", "tests", "book")
ITEMS = re.compile(r"^ {4}(\w+): .*[.;] (\w+): ", re.MULTILINE)


def documented(text: str) -> Iterator[tuple[ast.AST, str]]:
    """What has a docstring, and the docstring."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (words := ast.get_docstring(node)):
            yield node, words


def names(node: ast.AST) -> set[str]:
    """Parameters of a function, fields of a class."""
    if isinstance(node, ast.FunctionDef):
        return {a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
    if isinstance(node, ast.ClassDef):
        return {field.target.id for field in node.body if is_field(field)}  # type: ignore[attr-defined]
    return set()


def is_field(node: ast.stmt) -> bool:
    """Whether a statement in a class declares a field."""
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)


def is_record(node: ast.AST) -> bool:
    """Whether a class is a dataclass or a named tuple, whose fields are attributes."""
    surroundings = [*node.decorator_list, *node.bases] if isinstance(node, ast.ClassDef) else []
    return any("dataclass" in ast.unparse(each) or "NamedTuple" in ast.unparse(each) for each in surroundings)


def doubled(node: ast.AST, words: str) -> bool:
    """Two backticks, or a role of reStructuredText."""
    return bool(re.search(r"``[^`]|:(mod|class|func|meth|math|attr):`", words))


def bare(node: ast.AST, words: str) -> bool:
    """A doctest that no heading announces."""
    return ">>>" in words and not re.search(r"^Example\b.*:$", words, re.MULTILINE)


def crowded(node: ast.AST, words: str) -> bool:
    """Two arguments or fields in one line."""
    return any({first, second} <= names(node) for first, second in ITEMS.findall(words))


def misnamed(node: ast.AST, words: str) -> bool:
    """A record that calls its fields arguments."""
    return is_record(node) and bool(re.search(r"^Args:$", words, re.MULTILINE))


RULES: list[Callable[[ast.AST, str], bool]] = [doubled, bare, crowded, misnamed]


@cache
def breaches() -> list[tuple[Callable[[ast.AST, str], bool], str]]:
    """Every rule and file of the project that breaks it; no tree is kept, for the garbage collector."""
    files = [p for place in PLACES for p in (ROOT / place).rglob("*.py") if p != Path(__file__)]
    return [
        (rule, str(path.relative_to(ROOT)))
        for path in files
        for each in documented(path.read_text(encoding="utf-8"))
        for rule in RULES
        if rule(*each)
    ]


@pytest.mark.parametrize("rule", RULES)
def test_docstrings_speak_one_dialect(rule):
    """Assert that no docstring of the project breaks the rule."""
    assert [path for broken, path in breaches() if broken is rule] == []


@pytest.mark.parametrize(
    ("rule", "planted"),
    [
        (doubled, 'def f(x):\n    """Twice ``x``."""'),
        (doubled, '"""See :mod:`oracles.flow`."""'),
        (bare, 'def f(x):\n    """One.\n\n    >>> 1\n    1\n    """'),
        (crowded, 'def f(x, y):\n    """Sum.\n\n    Args:\n        x: one. y: two.\n    """'),
        (misnamed, '@dataclass\nclass A:\n    """A.\n\n    Args:\n        x: one.\n    """\n    x: int'),
    ],
    ids=["backticks", "role", "bare", "crowded", "record"],
)
def test_each_rule_sees_a_planted_violation(rule, planted):
    """Assert that what the rules forbid is found where it is."""
    assert any(rule(node, words) for node, words in documented(planted))
