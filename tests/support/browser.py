"""Headless Chromium without network, driven over its debugging pipe: what a page shows, and what keys do to it.

One browser opens page after page; a page waits until its formulas are typeset. Messages are JSON texts that end in a
zero byte, written to the file descriptor 3 of the browser and read from its descriptor 4.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)
PATIENCE = 60.0
READY = "new Promise(r => document.readyState === 'complete' ? r() : addEventListener('load', r)).then(" + (
    "() => window.MathJax?.startup?.promise).then(() => true)"
)
MEASURE = """(() => { const count = s => document.querySelectorAll(s).length;
  const box = e => { const r = e.getBoundingClientRect(); return [r.width, r.height]; };
  const images = [...document.images].map(i => ({alt: i.alt, natural: [i.naturalWidth, i.naturalHeight], box: box(i)}));
  return {images, width: document.documentElement.scrollWidth, view: innerWidth, text: document.body.innerText,
          formulas: count('.math'), typeset: count('mjx-container'), broken: count('[data-mjx-error]')}; })()"""
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27}
LEFT = (
    "Inspected target navigated or closed",
    "Execution context was destroyed.",
    "Cannot find context with specified id",
    "Cannot find default execution context",
)


class PageLeft(AssertionError):
    """The page went while it was asked: a link was followed, a form sent. What comes after it can be asked again."""


@dataclass(frozen=True)
class Visit:
    """What a browser saw: images (alt text, natural and shown size), page and window width, text, console, formulas."""

    images: list[dict[str, Any]]
    width: float
    view: float
    text: str
    formulas: int
    typeset: int
    broken: int
    console: list[str]


class Page:
    """One tab; use `browsing` to get it."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._buffer, self._count, self._session = b"", 0, ""
        self.console: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; errors that the page reports meanwhile go to `console`."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self._count:
            self.console += complaints(answer)
        if error := answer.get("error"):
            raise (PageLeft if error["message"] in LEFT else AssertionError)(method, error)
        return answer["result"]

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._reading], [], [], PATIENCE)[0], "the browser does not answer"
            piece = os.read(self._reading, 1 << 20)
            assert piece, "the browser has ended"
            self._buffer += piece
        text, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(text)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, (expression, answer)
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until a JavaScript expression is true, also across pages; give its value."""
        end = time.monotonic() + PATIENCE
        while True:
            with suppress(PageLeft):
                if value := self.evaluate(expression):
                    return value
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)

    def open(self, page: Path, *, width: int = 1000, height: int = 900, query: str = "") -> None:
        """Load a page from its file, in a window of the given size, and wait until it is typeset."""
        self.resize(width, height)
        self.console.clear()
        self.call("Page.navigate", url=page.resolve().as_uri() + query)
        self.until(READY)

    def resize(self, width: int, height: int = 900) -> None:
        """Give the window another size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def look(self) -> Visit:
        """Measure the page that is open."""
        return Visit(**self.evaluate(MEASURE), console=list(self.console))

    def press(self, key: str, *, control: bool = False) -> None:
        """Press and release a key: Tab, Enter, Escape or a character, with Control held or not."""
        code = {"key": key, "windowsVirtualKeyCode": KEYS.get(key, ord(key[0].upper())), "modifiers": 2 * control}
        text = {"text": "\r"} if key == "Enter" else {} if key in KEYS or control else {"text": key}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def write(self, text: str) -> None:
        """Type a text into what has the focus."""
        for character in text:
            self.press(character)


def complaints(event: dict[str, Any]) -> list[str]:
    """What an event of the browser says of errors: exceptions, `console.error`, and files that could not be loaded."""
    method, content = event.get("method"), event.get("params", {})
    if method == "Runtime.exceptionThrown":
        return [json.dumps(content["exceptionDetails"])]
    if method == "Runtime.consoleAPICalled" and content["type"] in ("error", "assert"):
        return [json.dumps(content["args"])]
    if method == "Log.entryAdded" and content["entry"]["level"] == "error":
        return [content["entry"]["text"] + " " + content["entry"].get("url", "")]
    return []


def browser() -> str:
    """Path of Chromium; the test is skipped, with the reason, where there is none."""
    value = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if value is None:
        pytest.skip("no Chromium on this machine: install the Debian package chromium")
    return value


@contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """A page of a browser that keeps its own files in the folder `profile` and is ended at the end."""
    pipes = [away(end) for end in (*os.pipe(), *os.pipe())]
    theirs, ours = (pipes[0], pipes[3]), (pipes[2], pipes[1])
    shell = ["bash", "-c", f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}', "bash"]
    command = [*shell, browser(), *FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(command, pass_fds=theirs, stderr=subprocess.DEVNULL)
    for end in theirs:
        os.close(end)
    try:
        yield Page(*ours)
    finally:
        process.terminate()
        process.wait(30)
        for end in ours:
            os.close(end)


def away(end: int) -> int:
    """A file descriptor moved out of the way of 3 and 4, which the browser uses."""
    moved = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(end)
    return moved


def visit(page: Path, folder: Path, *, width: int = 1000) -> Visit:
    """Open one page in a window of the given width and say what is seen; the browser keeps its files in `folder`."""
    with browsing(folder / "profile") as tab:
        tab.open(page, width=width)
        return tab.look()
