"""The directive `{docstrings} module …`: public names of modules with signatures and docstrings, read as Markdown.

Docstrings of this project are plain text with unicode formulas; as Markdown they read well, while reStructuredText
would take `|x|` for a substitution. Sections of the form `Args:` become lists, doctests become code blocks.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|Example|Examples|Source|Note):\s*(.*)$")
ITEM = re.compile(r"^([\w*.,/ ’'()-]{1,60}?):\s+(.*)$")


def markdown(docstring: str) -> list[str]:
    """The lines of a docstring as Markdown."""
    lines, found = inspect.cleandoc(docstring).split("\n"), []
    inside, code = "", False
    for line in lines:
        heading = SECTION.match(line)
        if code and not line.strip():
            found.append("```")
            code = False
        if heading:
            inside = heading[1]
            found += ["", f"**{inside}** {heading[2]}".rstrip(), ""]
        elif line.lstrip().startswith(">>>") and not code:
            found += ["", "```python", line.strip()]
            code = True
        elif code:
            found.append(line.strip())
        else:
            found += _text(line, inside)
            inside = inside if not line or line.startswith(" ") else ""
    return [*found, "```"] if code else found


def _text(line: str, inside: str) -> list[str]:
    """A line of prose; in a section, items begin a list entry and deeper lines continue it."""
    if not inside or not line.startswith("    "):
        return [line]
    body = line[4:]
    item = ITEM.match(body)
    if item and inside in ("Args", "Attributes", "Raises"):
        return [f"- `{item[1]}`: {item[2]}"]
    return ["  " + body.strip()] if inside in ("Args", "Attributes", "Raises") else [body]


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Names of `__all__`, or the classes and functions defined in the module."""
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__ and n[0] != "_"]
    for name in getattr(module, "__all__", own):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            yield name, value


def members(value: type) -> Iterator[tuple[str, Any]]:
    """Documented public methods and properties written in the class itself."""
    for name, member in vars(value).items():
        target = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if name[0] != "_" and (inspect.isfunction(target) or isinstance(target, property)) and target.__doc__:
            yield name, target


def signature(name: str, value: Any) -> str:
    """Name and parameters without annotations, which the text states in words."""
    if isinstance(value, property):
        return name
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return name
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters if p.name not in ("self", "cls")]
    return name + str(inspect.Signature(plain))


def entry(name: str, value: Any, depth: int) -> list[str]:
    """One name: its signature and text, methods indented below."""
    quote = "> " * depth
    lines = ["", "```python", signature(name, value), "```", *markdown(value.__doc__ or "")]
    if inspect.isclass(value):
        for method, target in members(value):
            lines += entry(method, target, 1)
    return [quote + line for line in lines] if depth else lines


class Docstrings(Directive):
    """`{docstrings} module …`."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """A section for each module."""
        found: list[nodes.Node] = []
        for name in self.arguments[0].split():
            module = importlib.import_module(name)
            section = nodes.section(ids=[nodes.make_id(name)], names=[name])
            section += nodes.title(text=name)
            lines = markdown(module.__doc__ or "")
            for title, value in public(module):
                lines += entry(title, value, 0)
            self.state.nested_parse(StringList(lines, source=name), 0, section)
            found.append(section)
        return found


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("docstrings", Docstrings)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
