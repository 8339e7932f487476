"""The directives `{docstrings} module …`, public names of modules with signatures and docstrings, and `{publicnames}`.

Docstrings of this project are plain text with unicode formulas; as Markdown they read well, while reStructuredText
would take `|x|` for a substitution. Sections of the form `Args:` become lists, doctests become code blocks.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

SECTION = re.compile(
    r"^(Args|Other args|Attributes|Returns|Raises|Yields|Example|Examples|Source|Note)\b([^:]*):+\s*(.*)$"
)
ITEMIZED = ("Args", "Other args", "Attributes", "Raises")
RULE = re.compile(r"^\s*=+( +=+)+\s*$")
WIDTH = 88
ITEM = re.compile(r"^((?! )[\w*.,/ ’'()-]{1,120}?):\s+(.*)$")


def markdown(docstring: str) -> list[str]:
    """The lines of a docstring as Markdown."""
    lines, result = inspect.cleandoc(docstring).split("\n"), []
    inside, code = "", False
    for line in lines:
        heading = SECTION.match(line)
        if code and not line.strip():
            result.append("```")
            code = False
        if RULE.match(line) and not code:  # a table drawn in characters stays as it is
            result += ["", "```text"]
            code = True
        if heading:
            inside = heading[1]
            result += ["", f"**{inside}**{heading[2]} {heading[3]}".rstrip(), *([] if heading[3] else [""])]
        elif line.lstrip().startswith(">>>") and not code:
            result += ["", "```python", line.strip()]
            code = True
        elif code:
            result.append(line.removeprefix("    "))
        else:
            result += _text(line, inside)
            inside = inside if not line or line.startswith(" ") else ""
    return [*result, "```"] if code else result


def _text(line: str, inside: str) -> list[str]:
    """A line of prose; in a section, items begin a list entry and deeper lines continue it."""
    if not inside or not line.startswith("    "):
        return [line]
    body = line[4:]
    item = ITEM.match(body)
    if item and inside in ITEMIZED:
        names = ", ".join(f"`{name}`" for name in item[1].split(", "))  # one by one, so that a long list wraps
        return [f"- {names}: {item[2]}"]
    return ["  " + body.strip()] if inside in ITEMIZED else [body]


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Names of `__all__`, or the classes and functions defined in the module."""
    values = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__ and n[0] != "_"]
    for name in getattr(module, "__all__", values):
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
    """Name and parameters without annotations, which the text states in words; broken where it is long."""
    if isinstance(value, property):
        return name
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return name
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters if p.name not in ("self", "cls")]
    text = name + str(inspect.Signature(plain))
    return "\n".join(textwrap.wrap(text, WIDTH, subsequent_indent="    ", break_long_words=False))


def entry(name: str, value: Any) -> list[str]:
    """The signature and text of one name; its methods and properties follow, each under its signature."""
    lines = ["", "```python", signature(name, value), "```", *markdown(value.__doc__ or "")]
    if inspect.isclass(value) and not issubclass(value, enum.Enum):
        for method, target in members(value):
            head = " ".join(signature(method, target).split())
            lines += ["", f"`.{head}`", "", *("> " + line for line in markdown(target.__doc__ or ""))]
    return lines


def address(module: str, name: str) -> str:
    """The anchor of a name."""
    return nodes.make_id(f"{module}.{name}")


def summary(value: Any) -> str:
    """The first sentence of a docstring, safe in a table."""
    return " ".join(inspect.cleandoc(value.__doc__ or "").split("\n\n")[0].split()).replace("|", "\\|")


class Docstrings(Directive):
    """`{docstrings} module …`: a section for each module, and in it one for each of its public names."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        return [self.chapter(importlib.import_module(name)) for name in self.arguments[0].split()]

    def chapter(self, module: ModuleType) -> nodes.section:
        """What a module says of itself and of its names."""
        name = module.__name__
        chapter = self.section(nodes.make_id(name), name, markdown(module.__doc__ or ""))
        seen = self.state.document.settings.env.temp_data.setdefault("docstrings", set())
        for title, value in public(module):
            anchor = address(value.__module__, title)
            if anchor not in seen:  # a name that several modules offer has one entry
                chapter += self.section(anchor, title, entry(title, value))
            seen.add(anchor)
        return chapter

    def section(self, anchor: str, title: str, lines: list[str]) -> nodes.section:
        """A titled section of Markdown."""
        section = nodes.section(ids=[anchor], names=[anchor])
        section += nodes.title(text=title)
        self.state.nested_parse(StringList(lines, source=anchor), 0, section)
        return section


def homes(folder: Path) -> dict[str, str]:
    """The page of each module: the one whose `{docstrings}` names it."""
    named = re.compile(r"^```\{docstrings\} (.+)$", re.MULTILINE)
    return {
        module: page.stem
        for page in sorted(folder.glob("*.md"))
        for modules in named.findall(page.read_text(encoding="utf-8"))
        for module in modules.split()
    }


class PublicNames(Directive):
    """`{publicnames} PACKAGE`: the package's `__all__`, a line for each name, linked to its entry in this folder."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        package = importlib.import_module(self.arguments[0])
        pages = homes(Path(self.state.document.settings.env.doc2path(self.state.document.settings.env.docname)).parent)
        lines = ["| name | what it is |", "|---|---|"]
        for name in sorted(package.__all__, key=str.lower):
            value = getattr(package, name)
            if not (inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value)):
                continue
            home = value.__name__ if inspect.ismodule(value) else value.__module__
            anchor = nodes.make_id(home) if inspect.ismodule(value) else address(home, name)
            page = pages.get(home) or pages[package.__name__]  # what a package offers from elsewhere stands on its page
            lines.append(f'| <a href="{page}.html#{anchor}"><code>{name}</code></a> | {summary(value)} |')
        holder = nodes.container()
        self.state.nested_parse(StringList(lines, source=package.__name__), 0, holder)
        return holder.children


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("docstrings", Docstrings)
    app.add_directive("publicnames", PublicNames)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
