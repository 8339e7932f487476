"""What `studies verify` does: load, verify, show, save; the exit code is the report's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from rich.console import Console

from studies.errors import StudyError
from studies.reports.display import screen as usual_screen
from studies.running import text
from studies.running.provenance import usable_cores
from studies.running.waiting import waiting
from studies.verification.loading import load_estimator
from studies.verification.report import Report, check_folder
from studies.verification.session import REPEATS, verify

__all__ = ["run", "run_engine", "run_listed"]


def run(
    estimator: str,
    task: str,
    *,
    suite: str = "quick",
    backend: str = "torch",
    seed: int = 0,
    repeats: int = REPEATS,
    problems: Sequence[str] | None = None,
    slack: float = 1.0,
    out: Path | None = None,
    console: Console | None = None,
) -> int:
    """Verify `MODULE:CALLABLE` on a task and show the report.

    Returns:
        0 if the estimator holds, 1 if it falls short, 2 if it could not run.

    Raises:
        StudyError: what the command line shows as one sentence (exit code 2).
    """
    screen = console or usual_screen()
    _writable(out)
    estimator_function = load_estimator(estimator)
    at = Place(task)
    with screen.status(f"{task}: posing problems") as status, waiting(at.words):
        report = verify(
            estimator_function,
            task,
            suite=suite,
            backend=backend,
            seed=seed,
            repeats=repeats,
            problems=problems,
            slack=slack,
            name=estimator,
            progress=lambda name: status.update(at.move(name)),
        )
    show(report, screen, out)
    return report.exit_code


def run_engine(*, suite: str = "quick", seed: int = 0, out: Path | None = None, console: Console | None = None) -> int:
    """Verify the engine's own estimators on every task, in a process for each core, and show one line each.

    Returns:
        0 if all hold, else the worst exit code.

    Raises:
        StudyError: unknown suite.
    """
    from studies.verification.engine import verify_engine
    from studies.verification.tables import overview

    screen = console or usual_screen()
    _writable(out)
    at = Place("engine")
    with screen.status("posing problems") as status, waiting(at.words):
        reports = verify_engine(
            suite, seed=seed, workers=usable_cores(), progress=lambda name: status.update(at.move(name))
        )
    screen.print(overview(reports))
    for report in reports:
        if not report.holds:
            show(report, screen)
        if out is not None:
            report.save(Path(out) / _folder(report))
    if out is not None:
        screen.print(f"reports: {out}", markup=False, highlight=False, soft_wrap=True)
    return max(report.exit_code for report in reports)


class Place:
    """Where a verification is, for whoever asks why it takes long."""

    def __init__(self, task: str) -> None:
        self.task, self.name = task, "the problems"

    def move(self, name: str) -> str:
        self.name = name
        return self.words()

    def words(self) -> str:
        return f"{self.task}: {self.name}"


def run_listed(*, path: Path = Path("pyproject.toml"), out: Path | None = None, console: Console | None = None) -> int:
    """Verify every estimator that `[tool.score-sensitivity]` of a pyproject.toml lists, one report after the other.

    Returns:
        The worst exit code.

    Raises:
        StudyError: the file lists none, or an entry is wrong.
    """
    from studies.verification.batch import entries

    listed = entries(path)
    folders = [
        None if out is None else out / f"{number}-{_plain(entry.task)}" for number, entry in enumerate(listed, 1)
    ]
    codes = [
        run(entry.estimator, entry.task, **entry.options, out=folder, console=console)
        for entry, folder in zip(listed, folders, strict=True)
    ]
    return max(codes)


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name).strip("-")


def _writable(out: Path | None) -> None:
    """Make the folder before anything is computed.

    Raises:
        StudyError: it cannot be made or written to.
    """
    if out is None:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
        check_folder(out)
    except OSError as error:
        raise StudyError(f"--out {str(out)!r} is no folder to write to ({error.strerror}); name another.") from error


def _folder(report: Report) -> str:
    return f"{report.task.name}-{_plain(report.estimator.split(': ')[-1])}"


def show(report: Report, screen: Console, out: Path | None = None) -> None:
    """Print the table and what fails; write the files where a folder is given."""
    screen.print(report.table())
    for line in report.findings():
        screen.print(text.line(line, 5000), markup=False, highlight=False, soft_wrap=True)
    if report.status == "could not run":
        trace = next((reply.trace for v in report.judged for reply in v.replies if reply.trace), "")
        screen.print(text.block(trace).rstrip(), markup=False, highlight=False, soft_wrap=True)
    if out is not None:
        folder = report.save(out)
        screen.print(f"report: {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
