"""Build the book strictly, then check that no page needs anything from outside: `python book/build.py [--open]`.

Pages are run first, one process a core, into the cache where the build looks for their outputs; what fails or is
missing there, the build runs again and reports.
"""

from __future__ import annotations

import re
import subprocess
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.base import ProjectNb
from jupyter_cache.executors.basic import ExecutionWorkerLocalMProc, JupyterExecutorLocalMproc, ProcessData
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution

BOOK = Path(__file__).resolve().parent
PAGES = BOOK / "_build" / "html"
TIMEOUT = 600  # seconds a cell may take, as in _config.yml
LOADED = re.compile(r"<(script|link|img|iframe|source|object)\b[^>]*?\b(?:src|href|data)=\"([^\"]+)\"")
HOSTS = re.compile(r"https?://(?:cdn|unpkg|fonts|cdnjs)[^\"' )]+")


class Worker(ExecutionWorkerLocalMProc):
    """Runs one page; its kernel is ended at once, for one that is asked to end takes three seconds, page after page."""

    @staticmethod
    def execute(project_nb: ProjectNb, data: ProcessData) -> ExecutionResult:
        """Run all cells in the page's folder."""
        folder = str(Path(project_nb.uri).parent)
        return single_nb_execution(project_nb.nb, folder, data.timeout, data.allow_errors, shutdown_kernel="immediate")


class Executor(JupyterExecutorLocalMproc):
    """Runs pages side by side, one process a core."""

    _EXECUTION_WORKER = Worker


def execute() -> None:
    """Run the pages that have changed since they were last run."""
    found = (page for page in BOOK.rglob("*.md") if PAGES.parent not in page.parents)
    pages = [str(page) for page in found if "\nkernelspec:" in page.read_text(encoding="utf-8")[:1000]]
    cache = get_cache(PAGES.parent / ".jupyter_cache")
    for page in pages:
        cache.add_nb_to_project(page, read_data={"name": "myst_nb_md", "type": "plugin"})
    Executor(cache).run_and_cache(filter_uris=pages, timeout=TIMEOUT)


def outside(page: Path) -> Iterator[str]:
    """What `page` would load from another host, or from a file that is not there."""
    text = page.read_text(encoding="utf-8")
    for tag, address in LOADED.findall(text):
        if re.match(r"(https?:)?//", address):
            yield f"{page.name}: <{tag}> loads {address}"
        elif not address.startswith(("data:", "#")) and not (page.parent / re.split("[?#]", address)[0]).exists():
            yield f"{page.name}: <{tag}> points at {address}, which is missing"
    yield from (f"{page.name}: {address}" for address in HOSTS.findall(text))


def main(arguments: list[str]) -> int:
    """Build with warnings as errors; the exit status is 0 when the pages stand alone."""
    execute()
    command = [str(Path(sys.executable).parent / "jupyter-book"), "build", "-q", "-W", "-n", "--keep-going", str(BOOK)]
    if code := subprocess.run(command, check=False).returncode:
        return code
    pages = sorted(page for page in PAGES.rglob("*.html") if "_static" not in page.parts)
    found = [line for page in pages for line in outside(page)]
    print("\n".join(found) or f"{len(pages)} pages stand alone: {PAGES / 'index.html'}")
    if "--open" in arguments and not found:
        webbrowser.open((PAGES / "index.html").as_uri())
    return 1 if found or not pages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
