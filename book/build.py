"""Build the book strictly, then check that no page needs anything from outside: `python book/build.py [--open]`.

Pages are run first, one process a core, into the cache where the build looks for their outputs; what fails or is
missing there, the build runs again and reports.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import subprocess
import sys
import webbrowser
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ipykernel.kernelapp import IPKernelApp
from jupyter_cache import get_cache
from jupyter_cache.base import ProjectNb
from jupyter_cache.executors.basic import ExecutionWorkerLocalSerial, JupyterExecutorLocalSerial, ProcessData
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from jupyter_client.manager import AsyncKernelManager

BOOK = Path(__file__).resolve().parent
PAGES = BOOK / "_build" / "html"
TIMEOUT = 600  # seconds a cell may take, as in _config.yml
LONGEST = ("howto/examples.md", "theory/network_answers.md", "howto/verify.md")  # each near a minute
FORKS = multiprocessing.get_context("forkserver")
IMPORTED = ["__main__", "ipykernel.kernelapp", "scipy.stats", "torch", "sensitivity", "oracles", "studies.results"]
LOADED = re.compile(r"<(script|link|img|iframe|source|object)\b[^>]*?\b(?:src|href|data)=\"([^\"]+)\"")
NAMED = re.compile(r"&lt;[\w.]+ (?:size \d+x\d+ with \d+ Axes|object at 0x[0-9a-f]+)&gt;")
HOSTS = re.compile(r"https?://(?:cdn|unpkg|fonts|cdnjs)[^\"' )]+")


class Forked:
    """A kernel as the child of a process that has imported what pages import, with what a provisioner asks of a Popen.

    A kernel of its own would import it anew: four to seven seconds of a core, for each of some forty pages.
    """

    stdin = stdout = stderr = None

    def __init__(self, command: list[str], folder: str) -> None:
        """Start `ipykernel` in `folder`, with the arguments of the kernel's command line behind its module's name."""
        self._process = FORKS.Process(target=serve, args=(command[command.index("-f") :], folder))
        self._process.start()
        self.pid = self._process.pid
        self.kill, self.terminate = self._process.kill, self._process.terminate

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.exitcode

    def wait(self) -> int | None:
        """The exit status at the end."""
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)


def serve(arguments: list[str], folder: str) -> None:
    """The life of a kernel."""
    os.setsid()
    os.chdir(folder)
    sys.path[0] = ""
    # A kernel that knows its parent greets nobody.
    IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


class Manager(AsyncKernelManager):
    """Starts kernels as forks."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
        process = self.provisioner.process = Forked(kernel_cmd, options["cwd"])
        self.provisioner.pid = self.provisioner.pgid = process.pid  # what a page starts ends with its kernel


class Worker(ExecutionWorkerLocalSerial):
    """Runs one page; its kernel is ended at once, for one that is asked to end takes three seconds, page after page."""

    @staticmethod
    def execute(project_nb: ProjectNb, data: ProcessData) -> ExecutionResult:
        """Run all cells in the page's folder."""
        folder = str(Path(project_nb.uri).parent)
        how = {"kernel_manager_class": Manager, "shutdown_kernel": "immediate"}
        return single_nb_execution(project_nb.nb, folder, data.timeout, data.allow_errors, **how)


def execute() -> None:
    """Run the pages that have changed since they were last run."""
    sources = (page for page in BOOK.rglob("*.md") if PAGES.parent not in page.parents)
    pages = [str(page) for page in sources if "\nkernelspec:" in page.read_text(encoding="utf-8")[:1000]]
    cache = get_cache(PAGES.parent / ".jupyter_cache")
    for page in pages:
        cache.add_nb_to_project(page, read_data={"name": "myst_nb_md", "type": "plugin"})
    records = JupyterExecutorLocalSerial(cache).get_records(pages, clear_tracebacks=True)
    FORKS.set_forkserver_preload(IMPORTED)
    records.sort(key=lambda record: not record.uri.endswith(LONGEST))  # none of them runs last and alone
    work = [ProcessData(record.pk, record.uri, cache, TIMEOUT, False) for record in records]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(Worker(logging.getLogger(__name__)), work))


def outside(page: Path) -> Iterator[str]:
    """What `page` would load from another host, or from a file that is not there."""
    text = page.read_text(encoding="utf-8")
    for tag, address in LOADED.findall(text):
        if re.match(r"(https?:)?//", address):
            yield f"{page.name}: <{tag}> loads {address}"
        elif not address.startswith(("data:", "#")) and not (page.parent / re.split("[?#]", address)[0]).exists():
            yield f"{page.name}: <{tag}> points at {address}, which is missing"
    yield from (f"{page.name}: {address}" for address in HOSTS.findall(text))


def unseen(page: Path) -> Iterator[str]:
    """Objects that `page` names where a reader should see them, as a drawing that is only a line of text."""
    yield from (f"{page.name}: the output {name} shows nothing" for name in NAMED.findall(page.read_text("utf-8")))


def main(arguments: list[str]) -> int:
    """Build with warnings as errors; the exit status is 0 when the pages stand alone and show what they draw."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a page a core: with more threads each waits for the others
    execute()
    command = [str(Path(sys.executable).parent / "jupyter-book"), "build", "-q", "-W", "-n", "--keep-going", str(BOOK)]
    if code := subprocess.run(command, check=False).returncode:
        return code
    pages = sorted(page for page in PAGES.rglob("*.html") if "_static" not in page.parts)
    faults = [line for page in pages for line in (*outside(page), *unseen(page))]
    print("\n".join(faults) or f"{len(pages)} pages stand alone: {PAGES / 'index.html'}")
    if "--open" in arguments and not faults:
        webbrowser.open((PAGES / "index.html").as_uri())
    return 1 if faults or not pages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
