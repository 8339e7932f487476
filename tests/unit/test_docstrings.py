"""One docstring dialect: single backticks, plain names, `Example:` before doctests, one item a line, fields of records.

Docstrings are Markdown in the book (`book/_ext/docstrings.py`), which knows no roles and gives each item its own line.
"""

import ast
import enum
import importlib.util
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

import pytest

import oracles

ROOT = Path(oracles.__file__).resolve().parent.parent
PLACES = ("oracles", "sensitivity", "studies", "tests", "book")
ITEMS = re.compile(r"^ {4}(\w+): .*[.;] (\w+): ", re.MULTILINE)
ERRORS = re.compile(r"^ {4}[\w, ]*(?:Error|Failure): .*[.;] [\w, ]*(?:Error|Failure): ", re.MULTILINE)


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
    """Two arguments, fields or kinds of errors in one line."""
    several = any({first, second} <= names(node) for first, second in ITEMS.findall(words))
    return several or bool(ERRORS.search(words))


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
        (crowded, 'def f(x):\n    """X.\n\n    Raises:\n        TypeError: one. ValueError: two.\n    """'),
        (misnamed, '@dataclass\nclass A:\n    """A.\n\n    Args:\n        x: one.\n    """\n    x: int'),
    ],
    ids=["backticks", "role", "bare", "crowded", "errors", "record"],
)
def test_each_rule_sees_a_planted_violation(rule, planted):
    """Assert that what the rules forbid is found where it is."""
    assert any(rule(node, words) for node, words in documented(planted))


@pytest.fixture(scope="module")
def book():
    """The book's reader of docstrings."""
    pytest.importorskip("docutils")
    spec = importlib.util.spec_from_file_location("book_docstrings", ROOT / "book" / "_ext" / "docstrings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Colour(enum.Enum):
    """A colour."""

    RED = 1

    @property
    def sentence(self) -> str:
        """In words."""
        return "take paint='red', or mix(2)"


class Painter(Protocol):
    """Who paints."""

    brush: str

    def paint(self, wall: int) -> None: ...


@dataclass
class Wall:
    """A wall."""

    bricks: dict = field(default_factory=dict)
    finish: Callable = max


def test_the_book_shows_columns_as_a_table_or_a_list(book):
    """Assert that no line of `=` is left, with and without a head, and that a bar in a cell divides nothing."""
    rows = "==  ====\na   b\n==  ====\n`x` y|z\n==  ====\n\nAfter."
    assert book.markdown(rows) == ["| a | b |", "| --- | --- |", "| `x` | y\\|z |", "", "After."]
    assert book.markdown("=== ====\none first\n=== ====") == ["- *one*: first"]


def test_the_book_shows_an_example_without_prompt_as_code(book):
    """Assert a block of code, and that values in quotation marks are code in prose and stay in code."""
    lines = book.markdown('Does "heun", `a="b"`.\n\nExample (not run)::\n\n    f("x")\n    g()')
    assert [line for line in lines if line] == [
        'Does `"heun"`, `a="b"`.',
        "**Example** (not run)",
        *("```python", 'f("x")', "g()", "```"),
    ]


def test_the_book_shows_what_cannot_be_called_without_a_signature(book):
    """Assert members with their sentences, what a protocol asks for, and defaults that can be read."""
    listed, asked, made = ("\n".join(book.entry(each.__name__, each)) for each in (Colour, Painter, Wall))
    assert "- `RED`: take `paint='red'`, or `mix(2)`" in listed
    assert "value, names" not in listed
    assert "**Attributes** `brush`" in asked
    assert "`.paint(wall)`" in asked
    assert "args" not in asked
    assert "Wall(bricks={}, finish=max)" in made


def test_a_long_name_breaks_after_dots_and_underscores(book):
    """Assert that the pieces are the name, whatever it is."""
    for name in ("a.b_c.d", "_x", "a/b.py", "plain"):
        assert "".join(piece.astext() for piece in book.breakable(name)) == name
    assert [piece.astext() for piece in book.breakable("a.b_c")] == ["a.", "", "b_", "", "c"]
