"""Headless Chromium without network: what a page shows and what its console says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--virtual-time-budget=10000",
)
MEASURE = """<script>addEventListener("load", () => {
  const box = e => { const r = e.getBoundingClientRect(); return [r.width, r.height]; };
  const images = [...document.images].map(i => ({alt: i.alt, natural: [i.naturalWidth, i.naturalHeight], box: box(i)}));
  const seen = {images, width: document.documentElement.scrollWidth, view: innerWidth, text: document.body.innerText};
  const holder = document.createElement("pre"); holder.id = "measured"; holder.textContent = JSON.stringify(seen);
  document.body.append(holder); });</script>"""


@dataclass(frozen=True)
class Visit:
    """What a browser saw: images with alt text, natural and shown size; page and window width; text; console lines."""

    images: list[dict[str, Any]]
    width: float
    view: float
    text: str
    console: list[str]


def browser() -> str:
    """Path of Chromium; the test is skipped, with the reason, where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine: install the Debian package chromium")
    return found


def visit(page: Path, folder: Path, *, width: int = 1000) -> Visit:
    """Open a copy of the page that measures itself, in a window of the given width."""
    copy = folder / "measured.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    done = _run(folder, f"--window-size={width},900", "--dump-dom", copy.as_uri())
    found = re.search(r'<pre id="measured"[^>]*>(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    unescaped = found.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Visit(**json.loads(unescaped), console=console)


def screenshot(page: Path, picture: Path, *, width: int = 1000, height: int = 2400) -> None:
    """Save what a page looks like."""
    _run(picture.parent, f"--window-size={width},{height}", f"--screenshot={picture}", page.as_uri())


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [browser(), *FLAGS, profile, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
