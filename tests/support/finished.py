"""A finished result of a tiny study, the commands that read it, and what one does to it who knows how it is sealed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studies import files

STUDY = "support.demonstration"
RUN = ["run", STUDY, "--smoke", "--workers", "0"]
CELL = "n=10-1"


def sealed(path: Path, **fields: Any) -> None:
    """Change fields of a document as one does who knows how it is sealed."""
    content = {**json.loads(path.read_text()), **fields}
    content.pop("sha256", None)
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"))
    path.write_text(json.dumps({**content, "sha256": files.checksum(plain.encode())}))


def commands(folder: Path) -> dict[str, list[str]]:
    return {
        "status": ["status", "--out", "out"],
        "status --check": ["status", "--check", "--out", "out"],
        "report": ["report", str(folder)],
        "compare": ["compare", str(folder), str(folder)],
        "publish": ["publish", str(folder)],
        "clean": ["clean", "--out", "out"],
        "clean --all": ["clean", "--all", "--yes", "--out", "out"],
    }
