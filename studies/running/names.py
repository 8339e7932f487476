"""Names that become file names: one rule for studies, cells, figures and published tables, written or read."""

from __future__ import annotations

import re
from typing import Any

from studies.errors import StudyError
from studies.running import text

__all__ = ["LONGEST", "fitted", "is_safe", "safe"]

LONGEST = 150  # file systems allow 255 bytes; room is left for suffixes and temporary names
SAFE = re.compile(r"[A-Za-z0-9_=+,][A-Za-z0-9._=+,-]*")


def is_safe(name: Any) -> bool:
    """Whether a name is one file in one folder on any system: no path, not hidden, no option.

    Example:
        >>> is_safe("n=10-1"), is_safe("../victim"), is_safe(".hidden"), is_safe("a/b")
        (True, False, False, False)
    """
    return isinstance(name, str) and len(name) <= LONGEST and SAFE.fullmatch(name) is not None


def safe(name: Any, what: str) -> str:
    """The name, if it is safe.

    Args:
        what: what it names, for the sentence.

    Raises:
        StudyError: it is not.
    """
    if not is_safe(name):
        raise StudyError(
            f"the {what} {text.line(repr(name), 80)} is no safe file name; use up to {LONGEST} letters, digits and "
            "'._=+,-', starting with a letter or digit."
        )
    return str(name)


def fitted(name: Any) -> str:
    """A safe name like the given one: anything else becomes a dash.

    Example:
        >>> fitted("error against η"), fitted("../../x")
        ('error-against-', 'x')
    """
    return re.sub(r"[^A-Za-z0-9._=+,-]+", "-", str(name)).lstrip(".-")[:LONGEST] or "unnamed"
