"""Judges published rows anew by today's code: `python -m studies.results.rejudge [--check | --draw] [NAME …]`.

Rows stay as they are; `claims.json` is written, and with `--draw` also the figures and, in the manifest, their text
alternatives. With `--check` nothing is written, and the exit code is 1 if a published claim is not what the code makes
of the published rows.

Example:
    >>> changed("conformance")
    []
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from studies.files import checksum, write
from studies.results import FOLDER, SEALED, load, names
from studies.running import records
from studies.running.summary import claims_of, claims_to, picture
from studies.study import Claim, configuration
from studies.study import load as load_study

__all__ = ["changed", "draw", "judged", "main"]


def judged(name: str, folder: Path = FOLDER) -> list[Claim]:
    """The claims of a study on its published rows.

    Raises:
        StudyError: nothing is published under that name, or the claims cannot be computed.
    """
    published, study = load(name, folder), load_study(name)
    config = configuration(study, published.manifest["setting"]["level"])
    return claims_of(study, published.rows, config, complete=True)[0]


def changed(name: str, folder: Path = FOLDER) -> list[str]:
    """Statements whose published claim is not what the code makes of the rows: another verdict, bound, or none.

    Measured values and intervals may differ by rounding between processors.
    """
    before, after = (
        {(claim.statement, claim.expected, claim.verdict) for claim in claims}
        for claims in (load(name, folder).claims, judged(name, folder))
    )
    return sorted({statement for statement, _, _ in before ^ after})


def draw(name: str, folder: Path = FOLDER) -> list[str]:
    """Draw a study's published figures anew from its published rows; names of those that changed."""
    published, study = load(name, folder), load_study(name)
    config = configuration(study, published.manifest["setting"]["level"])
    pictures = {key: picture(key, figure) for key, figure in study.figures(published.rows, config).items()}
    home, differing = folder / name, []
    for key, each in pictures.items():
        path = home / f"{key}.png"
        if not path.is_file() or path.read_bytes() != each.png:
            differing.append(key)
            write(path, each.png)
    alternatives = {key: each.alt for key, each in pictures.items()}
    _renew(home, published.manifest | {"figures": alternatives}, {f"{key}.png": p.png for key, p in pictures.items()})
    return differing


def judge(name: str, folder: Path = FOLDER) -> None:
    """Judge a study's published rows anew and keep the claims."""
    content, manifest = claims_to(judged(name, folder)), load(name, folder).manifest
    write(folder / name / "claims.json", content)
    _renew(folder / name, manifest, {"claims.json": content})


def _renew(home: Path, manifest: dict[str, Any], parts: dict[str, bytes]) -> None:
    """Store a manifest again, with the checksums of what was written; one of an older format keeps it."""
    if "format" not in manifest:
        write(home / "manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())
        return
    sums = manifest["files"] | {name: checksum(content) for name, content in parts.items()}
    records.write(home / "manifest.json", SEALED, manifest | {"files": sums})


def main(arguments: list[str]) -> int:
    """Judge all published studies, or those named."""
    check, differing = "--check" in arguments, 0
    for name in [each for each in arguments if not each.startswith("--")] or names():
        changes = changed(name)
        differing += len(changes)
        print(f"{name}: {len(changes)} claims changed")
        if not check:
            judge(name)
        if "--draw" in arguments and not check:
            print(f"{name}: {', '.join(draw(name)) or 'no figure'} drawn anew")
    return int(check and differing > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
