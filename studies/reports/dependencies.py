"""What this package depends on, for what, and under which licence: `python -m studies.reports.dependencies`.

Everything is read from the metadata of the installed packages. Where their fields contradict each other, all are shown.
"""

from __future__ import annotations

import importlib.metadata as metadata
import re
from dataclasses import dataclass

__all__ = ["Dependency", "dependencies", "table"]

PURPOSES = {
    "": "run time of `oracles` and `sensitivity`",
    "studies": "run time of `studies`",
    "images": "studies of MNIST, faces and photographs",
    "data": "shards, saved recordings and workers of `record`",
    "adapters": "adapters and comparisons with public packages; tests",
    "book": "building the book",
    "test": "tests and checks",
}


@dataclass(frozen=True)
class Dependency:
    """A direct dependency.

    Attributes:
        name: of the distribution.
        lowest: what is asked of its version.
        extra: which extra asks for it; empty for the package itself.
        installed: the version here, empty if it is absent.
        licence: what its metadata say, fields that differ separated by semicolons.
    """

    name: str
    lowest: str
    extra: str
    installed: str
    licence: str


def dependencies() -> list[Dependency]:
    """All direct dependencies, by purpose.

    Example:
        >>> {"numpy", "torch", "distributed"} <= {each.name for each in dependencies()}
        True
    """
    listed = []
    for line in metadata.requires("score-sensitivity") or []:
        requirement, _, marker = line.partition(";")
        parts = re.match(r"([A-Za-z0-9._-]+)(?:\[.*\])?(.*)", requirement.strip())
        extra = re.search(r"extra == ['\"](\w+)['\"]", marker)
        if parts and parts.group(1) != "score-sensitivity":
            name = parts.group(1)
            listed.append(Dependency(name, parts.group(2), extra.group(1) if extra else "", *_installed(name)))
    return sorted(listed, key=lambda each: list(PURPOSES).index(each.extra))


def _installed(name: str) -> tuple[str, str]:
    try:
        known = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "", "not installed here"
    classified = [line.split(" :: ")[-1] for line in known.get_all("Classifier") or [] if line.startswith("License")]
    expression, free = (str(known.json.get(key) or "").strip() for key in ("license_expression", "license"))
    stated = [expression, "" if "\n" in free else free, *classified]  # some put the whole text into the free field
    named = {line.removesuffix(" License"): line for line in reversed(stated) if line}
    words = "; ".join(reversed(named.values()))
    return known["Version"], words or ("its text stands in the metadata" if free else "not stated")


def table() -> str:
    """The same as a Markdown table.

    Example:
        >>> print(table().splitlines()[0])
        | package | asked for | here | licence, as its metadata state it | extra | needed for |
    """
    rows = [
        f"| {each.name} | {each.lowest} | {each.installed or 'absent'} | {each.licence} "
        f"| {each.extra} | {PURPOSES[each.extra]} |"
        for each in dependencies()
    ]
    head = "| package | asked for | here | licence, as its metadata state it | extra | needed for |"
    return "\n".join([head, "|---" * 6 + "|", *rows])


if __name__ == "__main__":
    print(table())
