"""Published results as a page of the book shows them: claims as a table, figures with their text alternatives.

Objects render themselves in notebooks (`_repr_html_`) and print as text elsewhere.
"""

from __future__ import annotations

import base64
import html
import io
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.claim_bounds import Verdict
from studies.errors import StudyError
from studies.results import FOLDER, load
from studies.study import Claim, suggestion

__all__ = ["claims", "drawn", "image", "picture", "provenance"]


@dataclass(frozen=True)
class Shown:
    """A piece of HTML with its plain text."""

    markup: str
    text: str

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return self.text


def claims(name: str) -> Shown:
    """Every claim of a published study with measured value, interval, bound, the smallest effect that could have been
    seen, source and verdict; an open claim says what would decide it.

    Example:
        >>> from studies.results import names
        >>> all("measured" in repr(claims(name)) for name in names())
        True
    """
    head = ("claim", "verdict", "measured", "interval", "expected", "smallest effect seen", "source")
    rows = [
        (
            claim.statement,
            _verdict(claim),
            _number(claim.measured),
            "" if claim.interval is None else f"[{_number(claim.interval[0])}, {_number(claim.interval[1])}]",
            claim.expected,
            "" if math.isnan(claim.smallest) else f"{claim.smallest:.2g}",
            claim.source,
        )
        for claim in load(name).claims
    ]
    cells = "".join(f"<tr>{_row(row, 'td')}</tr>" for row in rows)
    text = "\n".join(" | ".join(row) for row in (head, *rows))
    return Shown(f'<table class="dataframe claims"><tr>{_row(head, "th")}</tr>{cells}</table>', text)


def _verdict(claim: Claim) -> str:
    if claim.verdict is Verdict.OPEN:
        return f"open: {claim.judgement.reason}"
    return "holds" if claim.holds else "does not hold"


def drawn(figure: Any) -> Shown:
    """A Matplotlib figure finished by `studies.figures.described`, with its text alternative."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return _image(content.getvalue(), figure.alt)


def picture(name: str, figure: str) -> Shown:
    """A published figure of a study.

    Raises:
        StudyError: the study has no published figure of that name.
    """
    known = load(name).manifest.get("figures", {})
    if figure not in known:
        raise StudyError(f"the published study {name!r} has no figure {figure!r}; {suggestion(figure, known)}.")
    return image(FOLDER / name / f"{figure}.png", known[figure])


def provenance(name: str) -> str:
    """One sentence: level, commit, versions and seconds of the published run, and the command that repeats it."""
    manifest = load(name).manifest
    setting, origin = manifest["setting"], manifest["origin"]
    versions = manifest["environment"]["versions"]
    sentence = (
        f"Level {setting['level']}, seed {setting['seed']}, {origin['cells']} cells, {origin['seconds']:.0f} s in all, "
        f"torch {versions['torch']}, NumPy {versions['numpy']}. Repeat it with: "
        f"studies run {name} --{setting['level']}"
    )
    return textwrap.fill(sentence, 72)


def image(path: Path, alt: str) -> Shown:
    """A PNG file with its text alternative, which stands below it."""
    return _image(path.read_bytes(), alt)


def _image(png: bytes, alt: str) -> Shown:
    text = html.escape(alt)
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    markup = f'<img src="{source}" alt="{text}" style="max-width: 100%">'
    return Shown(f"<figure>{markup}<figcaption>{text}</figcaption></figure>", alt)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(values: tuple[str, ...], tag: str) -> str:
    return "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values)
