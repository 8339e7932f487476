"""Everything that a page needs comes with the book: it reads from a file address, without a network.

MathJax is copied from the Python package `mathjax` (distribution django-static-mathjax; Django is not needed).
Thebe, which Jupyter Book 1 loads whatever the configuration says, is dropped together with its address, and scripts
that are registered twice are kept once.
"""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any


def keep_local_scripts(app: Any, page: str, template: str, context: dict, doctree: Any) -> None:
    """Keep the scripts that are ours, once each."""
    kept, seen = [], set()
    for script in context.get("script_files", []):
        name = str(getattr(script, "filename", script) or "")
        body = (getattr(script, "attributes", None) or {}).get("body", "") or ""
        if "thebe" in (name + body).lower() or (name or body) in seen:
            continue
        seen.add(name or body)
        kept.append(script)
    context["script_files"][:] = kept


def copy_mathjax(app: Any, exception: Exception | None) -> None:
    """Put the single-file build of MathJax beside the pages."""
    if exception is None and app.builder.format == "html":
        target = Path(app.outdir) / "_static" / "mathjax"
        target.mkdir(parents=True, exist_ok=True)
        with as_file(files("mathjax") / "static" / "mathjax" / "es5" / "tex-svg-full.js") as source:
            shutil.copyfile(source, target / "tex-svg-full.js")


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("html-page-context", keep_local_scripts, priority=1000)
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
