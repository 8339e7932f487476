"""The public surface as text: every public name with its parameters and defaults, methods included.

`python tests/support/public_api.py` writes it to `tests/support/public_api.txt`, after a change that was meant.
"""

from __future__ import annotations

import enum
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

STORED = Path(__file__).with_name("public_api.txt")
PACKAGES = ("oracles", "sensitivity", "studies.verification")
MODULES = ("oracles.edits", "oracles.empirical", "oracles.features", "oracles.flow", "oracles.geometries",
           "oracles.information", "oracles.lines", "oracles.parameters", "oracles.reference", "oracles.symbolic",
           "oracles.transport", "sensitivity.functionals", "sensitivity.membership")  # fmt: skip


def signature(value: Any) -> str:
    """Parameters with defaults, without annotations; none for a protocol or the name of a type: neither is called."""
    if get_origin(value) or (inspect.isclass(value) and vars(value).get("_is_protocol")):
        return ""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return ""
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters if p.name not in ("self", "cls")]
    return str(inspect.Signature(plain))


def members(name: str, value: type) -> Iterator[str]:
    """Public methods and properties written in a class itself; the names of an enumeration."""
    if issubclass(value, enum.Enum):
        yield from (f"{name}.{member.name}" for member in value)
        return
    for key, member in vars(value).items():
        target = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if key[0] != "_" and (inspect.isfunction(target) or isinstance(target, property)):
            yield f"{name}.{key}" + ("" if isinstance(target, property) else signature(target))


def names_of(module: Any) -> list[str]:
    """`__all__`, or what the module itself defines without an underscore."""
    values = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__ and n[0] != "_"]
    return list(getattr(module, "__all__", values))


def lines() -> list[str]:
    """The surface, a line for each name."""
    values = []
    for path in (*PACKAGES, *MODULES):
        module = importlib.import_module(path)
        for name in sorted(names_of(module)):
            value, full = getattr(module, name), f"{path}.{name}"
            if inspect.isclass(value):
                values += [full + ("" if issubclass(value, enum.Enum) else signature(value)), *members(full, value)]
            else:
                values.append(full + signature(value))
    return values


if __name__ == "__main__":
    STORED.write_text("\n".join(lines()) + "\n", encoding="utf-8")
