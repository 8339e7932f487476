"""The directives `{docstrings} module …`, public names of modules with signatures and docstrings, and `{publicnames}`.

Docstrings of this project are plain text with unicode formulas; as Markdown they read well, while reStructuredText
would take `|x|` for a substitution. Sections of the form `Args:` become lists, doctests and what stands below `Example`
code blocks, columns between lines of `=` tables. An enumeration shows its members, a protocol what it asks for; neither
is called, so that neither has a signature of its own.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import itertools
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
RULE = re.compile(r"^=+( +=+)+$")
WIDTH = 88
ITEM = re.compile(r"^((?! )[\w*.,/ ’'()-]{1,120}?):\s+(.*)$")


def markdown(docstring: str) -> list[str]:
    """The lines of a docstring as Markdown."""
    lines, result = _tabulated(inspect.cleandoc(docstring).split("\n")), []
    inside, code = "", False
    for line in lines:
        heading = SECTION.match(line)
        if code and not line.strip():
            result.append("```")
            code = False
        if heading:
            inside = heading[1]
            said = _literal(f"{heading[2]} {heading[3]}")
            result += ["", f"**{inside}**{said}".rstrip(), *([] if heading[3] else [""])]
        elif _begins_code(line, inside) and not code:
            result += ["", "```python", line.strip()]
            code = True
        elif code:
            result.append(line.removeprefix("    "))
        else:
            result += _text(line, inside)
            inside = inside if not line or line.startswith(" ") else ""
    return [*result, "```"] if code else result


def _begins_code(line: str, inside: str) -> bool:
    """Whether a line is a doctest, or one of an example that is not run, which has no prompt."""
    return line.lstrip().startswith(">>>") or (inside.startswith("Example") and line.startswith("    "))


def _tabulated(lines: list[str]) -> list[str]:
    """The lines with columns between lines of `=` as Markdown: a table, or a list where there is no head."""
    result: list[str] = []
    while lines:
        if not RULE.match(lines[0]):
            result.append(lines.pop(0))
            continue
        end = next((k for k, line in enumerate(lines) if not line.strip()), len(lines))
        drawn, lines = lines[:end], lines[end:]
        rows = [_cells(line, drawn[0]) for line in drawn if not RULE.match(line)]
        if sum(bool(RULE.match(line)) for line in drawn) == 2:
            result += [f"- *{first}*: {'; '.join(others)}" for first, *others in rows]
        else:
            result += ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]
    return result


def _cells(line: str, rule: str) -> list[str]:
    """What stands in a line in the columns that a rule draws, the last one open; safe in a table."""
    places = [column.start() for column in re.finditer("=+", rule)]
    return [line[low:high].strip().replace("|", "\\|") for low, high in itertools.zip_longest(places, places[1:])]


def _text(line: str, inside: str) -> list[str]:
    """A line of prose; in a section, items begin a list entry and deeper lines continue it."""
    if not inside or not line.startswith("    "):
        return [line if line.startswith("    ") else _literal(line)]
    body = _literal(line[4:])
    item = ITEM.match(body)
    if item and inside in ITEMIZED:
        names = ", ".join(f"`{name}`" for name in item[1].split(", "))  # one by one, so that a long list wraps
        return [f"- {names}: {item[2]}"]
    return ["  " + body.strip()] if inside in ITEMIZED else [body]


def _literal(line: str) -> str:
    """A line with values in quotation marks, such as "heun", as code, which typography leaves alone."""
    parts = line.split("`")
    if len(parts) % 2:  # else code begins or ends elsewhere
        parts[::2] = [re.sub(r'(\b\w+=)?"[^"\s]+"', lambda found: f"`{found[0]}`", part) for part in parts[::2]]
    return "`".join(parts)


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Names of `__all__`, or the classes and functions defined in the module."""
    values = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__ and n[0] != "_"]
    for name in getattr(module, "__all__", values):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            yield name, value


def members(value: type) -> Iterator[tuple[str, Any]]:
    """Documented public methods and properties written in the class itself; of a protocol, all that it asks for."""
    asked = _is_protocol(value)
    for name, member in vars(value).items():
        target = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        shown = name[0] != "_" or (asked and name == "__call__" and target.__doc__)
        if shown and (inspect.isfunction(target) or isinstance(target, property)) and (target.__doc__ or asked):
            yield name, target


def _is_protocol(value: Any) -> bool:
    return inspect.isclass(value) and bool(vars(value).get("_is_protocol"))


def signature(name: str, value: Any) -> str:
    """Name and parameters without annotations, which the text states in words; broken where it is long."""
    if isinstance(value, property):
        return name
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return name
    plain = [_plain(p, value) for p in parameters if p.name not in ("self", "cls")]
    text = name + str(inspect.Signature(plain))
    return "\n".join(textwrap.wrap(text, WIDTH, subsequent_indent="    ", break_long_words=False))


def _plain(parameter: inspect.Parameter, value: Any) -> inspect.Parameter:
    """A parameter without its annotation, and with a default that can be read: `{}`, `mean`, and not where they lie."""
    default = parameter.default
    fields = {f.name: f for f in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else {}
    made = getattr(fields.get(parameter.name), "default_factory", dataclasses.MISSING)
    if made is not dataclasses.MISSING:
        default = made() if made in (dict, list, tuple, set) else _Written(f"{getattr(made, '__name__', '…')}()")
    elif default is not inspect.Parameter.empty and callable(default) and hasattr(default, "__name__"):
        default = _Written(default.__name__)
    return parameter.replace(annotation=inspect.Parameter.empty, default=default)


class _Written:
    """A default that is shown as these words."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __repr__(self) -> str:
        return self.words


def entry(name: str, value: Any) -> list[str]:
    """The signature and text of one name; its members, methods and properties follow, each under its signature."""
    listed, asked = inspect.isclass(value) and issubclass(value, enum.Enum), _is_protocol(value)
    lines = [] if listed or asked else ["", "```python", signature(name, value), "```"]
    lines += ["", *markdown(value.__doc__ or "")]
    if listed:
        lines += ["", "**Members**", "", *(f"- `{each.name}`: {_said(each)}" for each in value)]
    if asked and (fields := [each for each in vars(value).get("__annotations__", {}) if each[0] != "_"]):
        lines += ["", "**Attributes** " + ", ".join(f"`{each}`" for each in fields)]
    for method, target in members(value) if inspect.isclass(value) else ():
        head = " ".join(signature(method, target).split())
        lines += ["", f"`.{head}`", "", *("> " + line for line in markdown(target.__doc__ or "") if target.__doc__)]
    return lines


def _said(member: enum.Enum) -> str:
    """What a member of an enumeration says: its sentence, with code in it marked as such, or its value."""
    words = str(getattr(member, "sentence", f"`{member.value!r}`"))
    return re.sub(r"\b\w+='[^']*'|\b\w+(\.\w+)?\([^)]*\)|\b\w+=(?=,)", lambda found: f"`{found[0]}`", words)


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
        self.known = set(homes(_folder(self)))
        return [self.chapter(importlib.import_module(name)) for name in self.arguments[0].split()]

    def chapter(self, module: ModuleType) -> nodes.section:
        """What a module says of itself and of its names."""
        name = module.__name__
        chapter = self.section(nodes.make_id(name), name, markdown(module.__doc__ or ""))
        seen = self.state.document.settings.env.temp_data.setdefault("docstrings", set())
        for title, value in public(module):
            anchor = address(value.__module__, title)
            # A name that several modules offer has one entry: with its own module where a page of the folder has that.
            if anchor not in seen and not self.elsewhere(module, title, value):
                chapter += self.section(anchor, title, entry(title, value))
                seen.add(anchor)
        return chapter

    def elsewhere(self, module: ModuleType, title: str, value: Any) -> bool:
        """Whether a name has its entry with another module, the one that defines it."""
        home = value.__module__
        return home != module.__name__ and home in self.known and title in dict(public(importlib.import_module(home)))

    def section(self, anchor: str, title: str, lines: list[str]) -> nodes.section:
        """A titled section of Markdown."""
        section = nodes.section(ids=[anchor], names=[anchor])
        section += nodes.title("", "", *breakable(title))
        self.state.nested_parse(StringList(lines, source=anchor), 0, section)
        return section


class Break(nodes.Inline, nodes.Element):
    """A place where a long name may break; it has no text, so that searches and menus see the name alone."""


def breakable(name: str) -> list[nodes.Node]:
    """A name or path that breaks after dots, underscores and strokes only."""
    pieces = re.findall(r"[^._/]*[._/]|[^._/]+", name)
    return [each for piece in pieces for each in (nodes.Text(piece), Break())][:-1]


def loosen(app: Any, doctree: nodes.document, page: str) -> None:
    """Let code break within tables of paths and long names, which are put into `{container} loose`."""
    for holder in doctree.findall(lambda node: isinstance(node, nodes.container) and "loose" in node["classes"]):
        for literal in holder.findall(nodes.literal):
            literal[:] = breakable(literal.astext())


def _folder(directive: Directive) -> Path:
    """The folder of the page that a directive stands on."""
    environment = directive.state.document.settings.env
    return Path(environment.doc2path(environment.docname)).parent


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
        pages = homes(_folder(self))
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
    app.add_node(Break, html=(lambda writer, node: writer.body.append("<wbr>"), lambda writer, node: None))
    app.connect("doctree-resolved", loosen)
    app.add_directive("docstrings", Docstrings)
    app.add_directive("publicnames", PublicNames)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
