"""What is stored as JSON: one checked writer and one checked reader for manifests, records of cells and summaries.

A document is a JSON object of one of the kinds below, sealed: the field `sha256` is the checksum of all others. Reading
checks the seal and every field, so that what comes back can be used without looking again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from studies import files
from studies.errors import StudyError
from studies.running.names import is_safe

__all__ = [
    "CLAIM",
    "FAILURE",
    "FORMAT",
    "MANIFEST",
    "PUBLISHED",
    "RECORD",
    "SUMMARY",
    "FormatError",
    "fault",
    "parse",
    "read",
    "write",
]

FORMAT = 2  # of all stored files; raised when they change. Format 1 had no seals
Check = Callable[[Any], bool]
Kind = Mapping[str, Check]


def fault(content: Any, kind: Kind) -> str:
    """Why `content` is not of the kind; empty if it is.

    Example:
        >>> fault({"seconds": float("nan")}, {"seconds": amount})
        "its field 'seconds' cannot be nan"
    """
    if not isinstance(content, dict):
        return "it is no JSON object"
    for name, check in kind.items():
        if name not in content:
            return f"it lacks the field {name!r}"
        if not check(content[name]):
            return f"its field {name!r} cannot be {repr(content[name])[:60]}"
    return ""


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def count(value: Any) -> bool:
    return whole(value) and value >= 0


def amount(value: Any) -> bool:
    """A finite number that is not negative."""
    return (whole(value) or isinstance(value, float)) and 0 <= value < math.inf


def number(value: Any) -> bool:
    """Any number; NaN and infinities are measured values too."""
    return whole(value) or isinstance(value, float)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def written(value: Any) -> bool:
    return isinstance(value, str)


def folder(value: Any) -> bool:
    return isinstance(value, dict)


def digits(length: int) -> Check:
    """Hexadecimal digits of a checksum."""
    return lambda value: isinstance(value, str) and len(value) == length and not set(value) - set("0123456789abcdef")


def either(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


def absent(value: Any) -> bool:
    return value is None


def several(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def named(check: Check, name: Check = written) -> Check:
    return lambda value: isinstance(value, dict) and all(name(key) and check(item) for key, item in value.items())


def part(kind: Kind) -> Check:
    return lambda value: not fault(value, kind)


def interval(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 2 and all(map(number, value)))


SETTING: Kind = {
    "study": is_safe,
    "level": is_safe,
    "version": whole,
    "seed": count,
    "device": written,
    "config": folder,
}
ENVIRONMENT: Kind = {"versions": named(written), "commit": either(written, absent), "machine": folder}
ORIGIN: Kind = {
    "cells": count,
    "finished": count,
    "seconds": amount,
    "peak_memory_bytes": count,
    "commits": several(written),
    "run_as": written,
}
MANIFEST: Kind = {
    "format": whole,
    "digest": digits(16),
    "module": written,
    "created": amount,
    "setting": part(SETTING),
    "environment": part(ENVIRONMENT),
}
_CELL: Kind = {
    "format": whole,
    "digest": digits(16),
    "cell": is_safe,
    "parameters": folder,
    "seed": whole,
    "device": written,
    "commit": either(written, absent),
    "versions": named(written),
    "code": digits(16),
    "finished": amount,
    "seconds": amount,
    "peak_memory_bytes": count,
}
RECORD: Kind = {**_CELL, "rows": count, "checksum": digits(64)}
FAILURE: Kind = {**_CELL, "error": written, "traceback": written}
CLAIM: Kind = {
    "statement": written,
    "measured": either(number, written),
    "interval": interval,
    "expected": either(number, written),
    "source": written,
}
_STORY: Kind = {
    "study": is_safe,
    "question": written,
    "setting": part(SETTING),
    "digest": digits(16),
    "environment": part(ENVIRONMENT),
    "origin": part(ORIGIN),
    "notes": several(written),
}
SUMMARY: Kind = {
    **_STORY,
    "format": whole,
    "failures": named(part({"error": written, "traceback": written})),
    "alt": named(written, is_safe),
    "files": named(digits(64)),
}
PUBLISHED: Kind = {**_STORY, "rows_checksum": digits(64), "figures": named(written, is_safe)}


class FormatError(StudyError):
    """A file of another format than this version reads; `found` says which."""

    def __init__(self, path: Path, version: Any) -> None:
        self.found = str(version)[:20]
        super().__init__(
            f"{path} is of format {self.found} and this version reads format {FORMAT}; "
            "install the version that wrote it or choose another folder with --out."
        )


def write(path: Path, kind: Kind, content: Mapping[str, Any]) -> None:
    """Seal and store a document atomically; NaN and infinities are written as Python's `NaN`, `Infinity`.

    Raises:
        StudyError: it is not of the kind, or cannot be written.
    """
    plain = json.loads(json.dumps(content))  # tuples become lists, as they will be when they are read
    if reason := fault(plain, kind):
        raise StudyError(f"{path.name} cannot be stored: {reason}.")
    files.write(path, (json.dumps({**plain, "sha256": _seal(plain)}, indent=1) + "\n").encode())


def read(path: Path, kind: Kind) -> dict[str, Any]:
    """A stored document, checked.

    Raises:
        StudyError: absent, unreadable, of another format, or damaged.
    """
    content = parse(path)
    if isinstance(content, dict) and "format" in kind and content.get("format") != FORMAT and "format" in content:
        raise FormatError(path, content["format"])
    if reason := fault(content, {**kind, "sha256": digits(64)}) or _broken(content):
        raise StudyError(f"{path} is damaged ({reason}); run the study again to renew it.")
    return content


def parse(path: Path) -> Any:
    """JSON as it stands: for what is checked otherwise.

    Raises:
        StudyError: absent, unreadable or not JSON.
    """
    try:
        return json.loads(files.read(path))
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{path} is damaged (it is not JSON); run the study again to renew it.") from error


def _broken(content: dict[str, Any]) -> str:
    """Takes the seal off; says whether it was broken."""
    seal = content.pop("sha256")
    return "" if seal == _seal(content) else "it differs from its checksum"


def _seal(content: Mapping[str, Any]) -> str:
    return files.checksum(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
