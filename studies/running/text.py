"""Text from outside (messages of exceptions, names, file names), made safe once: before a terminal or a file sees it.

Control characters, such as the escape sequences that move a terminal's cursor, halves of surrogate pairs, which no
encoding can write, and marks that turn the direction of writing become visible escapes; what is too long is cut.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["block", "line", "sentence_of"]

LONGEST_LINE, LONGEST_BLOCK = 500, 20_000  # characters
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def block(value: Any, longest: int = LONGEST_BLOCK) -> str:
    r"""Text of several lines, safe to print and to store.

    Example:
        >>> block("red: \x1b[31m\n\udc80")
        'red: \\x1b[31m\n\\udc80'
        >>> block("x" * 9, longest=4)
        'xxxx… (9 characters in all)'
    """
    text = _string(value)
    cut = text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters in all)"
    return UNSAFE.sub(lambda match: match.group().encode("unicode_escape").decode(), cut)


def line(value: Any, longest: int = LONGEST_LINE) -> str:
    r"""The same in one line.

    Example:
        >>> line("two\n  lines\x07")
        'two lines\\x07'
    """
    return " ".join(block(value, longest).split())


def sentence_of(error: BaseException, longest: int = LONGEST_LINE) -> str:
    """The kind of an exception and the first line of its message.

    Example:
        >>> sentence_of(ValueError("too small\\nby far")), sentence_of(KeyError())
        ('ValueError: too small', 'KeyError')
    """
    kind, message = type(error).__name__, _string(error).strip()
    return line(f"{kind}: {message[: 10 * longest].splitlines()[0]}" if message else kind, longest)


def _string(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # an exception whose text raises is an exception still
        return f"an object of type {type(value).__name__} whose text cannot be made"
