"""Runs a study: finds what is stored, computes the rest, stores it, and draws claims, figures and report from it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from studies.bounds import Verdict
from studies.errors import StudyError
from studies.running import execution, provenance
from studies.running.dispatch import dispatch
from studies.running.progress import Progress, Silent
from studies.running.setting import Setting
from studies.running.store import Contents, Store
from studies.running.summary import Summary, claims_of, with_folder
from studies.running.tables import decode, frame, join
from studies.study import Cell, Claim, Context, Study, load

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OUT", "Result", "run"]

OUT = Path("studies-out")  # where results are kept unless said otherwise
LIVE_SECONDS = 3.0  # claims are renewed this often while cells come in
LIVE_SHARE = 0.05  # and for no more than this share of the time


@dataclass(frozen=True)
class Result:
    """What a run left behind.

    Args:
        study: the study's name.
        folder: where everything is stored.
        rows: all rows, in the order of the cells.
        claims: the study's claims on them.
        failures: the error of each failed cell.
        notes: sentences about the run, such as cells that were redone.
    """

    study: str
    folder: Path
    rows: pd.DataFrame
    claims: list[Claim]
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0: no claim fails (open ones are counted and shown, and do not fail); 1: some fail; 2: some cells failed."""
        if self.failures:
            return 2
        return 1 if any(claim.verdict is Verdict.FAILS for claim in self.claims) else 0


def run(
    name: str,
    level: str = "quick",
    *,
    out: Path = OUT,
    device: str = "cpu",
    workers: int | None = None,
    scheduler: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Run a study, or finish one that was interrupted.

    Args:
        name: a registered study, or a module.
        level: `smoke`, `quick`, `full` or `paper`.
        out: folder of all results.
        device: torch device of the cells.
        workers: processes on this machine (default: one per core); 0 runs in this process.
        scheduler: address of an existing Dask scheduler instead.
        seed: shifts the seeds of all cells.
        progress: listener.

    Raises:
        StudyError: the study, level, device, scheduler or folder cannot be used, or its claims raise.
    """
    study = load(name)
    setting = Setting.of(study, level, seed=check_seed(seed), device=check_device(device))
    count = check_workers(workers, scheduler, getattr(study, "SERIAL", False))
    session = Session(study, setting, setting.cells(study), Store.below(out, setting), progress or Silent())
    with session.store.locked():
        return session.complete(count, scheduler)


@dataclass(frozen=True)
class Session:
    """One run of one study, with its store locked."""

    study: Study
    setting: Setting
    cells: list[Cell]
    store: Store
    progress: Progress

    def complete(self, workers: int, scheduler: str | None) -> Result:
        """Compute what is missing, then summarise."""
        self.store.open(self.study.__name__)
        self.store.sweep()
        contents = self.store.read(self.cells)
        contents.failures.clear()  # failed cells are tried again
        self.progress.start(self.study.NAME, self.study.QUESTION, len(self.cells), len(contents.tables))
        try:
            for problem in contents.problems:
                self.progress.note(problem)
            self._compute(contents, workers, scheduler)
        finally:
            self.progress.stop()
        return self._conclude(contents)

    def _compute(self, contents: Contents, workers: int, scheduler: str | None) -> None:
        pending = [cell for cell in self.cells if cell.name not in contents.tables]
        known = {cell.name: cell for cell in pending}
        live = LiveClaims(self, contents)
        for outcome in self._outcomes(pending, workers, scheduler):
            record = self.store.put(known[outcome.cell], outcome)
            if outcome.content is None:
                contents.failures[outcome.cell] = record
            else:
                contents.tables[outcome.cell] = decode(outcome.content)
                contents.records[outcome.cell] = record
            self.progress.cell(outcome.cell, outcome.seconds, outcome.error)
            live.renew()

    def _outcomes(self, pending: Sequence[Cell], workers: int, scheduler: str | None) -> Iterator[execution.Outcome]:
        context = Context(self.setting.config, self.setting.device, self.store.folder.absolute(), self.setting.level)
        module = self.study.__name__
        if not pending:
            return
        if scheduler is not None:
            with execution.remote_client(scheduler) as client:
                yield from dispatch(client, module, pending, context)
        elif workers == 0:
            yield from execution.in_process(module, pending, context)
        else:
            with execution.local_client(min(workers, len(pending))) as client:
                yield from dispatch(client, module, pending, context)

    def _conclude(self, contents: Contents) -> Result:
        from studies.reports.report import write_report

        order = [cell.name for cell in self.cells]
        summary = Summary.of(self.study, self.setting, contents, order, self.store.folder)
        summary.write(self.store.folder)
        write_report(summary, self.store.folder / "report.html")
        return Result(
            study=self.study.NAME,
            folder=self.store.folder,
            rows=with_folder(frame(summary.rows), self.store.folder),
            claims=summary.claims,
            failures={name: record["error"] for name, record in contents.failures.items()},
            notes=summary.notes,
        )


class LiveClaims:
    """Renews the claims shown while cells come in, seldom enough not to cost time."""

    def __init__(self, session: Session, contents: Contents) -> None:
        self.session, self.contents = session, contents
        self.next = time.monotonic() + LIVE_SECONDS

    def renew(self) -> None:
        start = time.monotonic()
        if start < self.next or not self.session.progress.shows_claims:
            return
        rows = with_folder(frame(join(list(self.contents.tables.values()))), self.session.store.folder)
        claims, _ = claims_of(self.session.study, rows, self.session.setting.config, complete=False)
        self.session.progress.claims(claims)
        end = time.monotonic()
        self.next = end + max(LIVE_SECONDS, (end - start) / LIVE_SHARE)


def check_seed(seed: int) -> int:
    """Refuse negative seeds."""
    if seed < 0:
        raise StudyError(f"seed={seed} is negative; give 0 or a positive whole number.")
    return seed


def check_workers(workers: int | None, scheduler: str | None, serial: bool) -> int:
    """Number of worker processes; timings get one.

    Raises:
        StudyError: negative, or given together with a scheduler.
    """
    if workers is not None and scheduler is not None:
        raise StudyError("workers belong to a local run and a scheduler brings its own; give one of the two.")
    if workers is not None and workers < 0:
        raise StudyError(f"workers={workers} is negative; give 0 for this process alone, or the number of processes.")
    if workers is None:
        workers = provenance.usable_cores()
    return min(workers, 1) if serial else workers


def check_device(device: str) -> str:
    """Refuse a device that torch does not have here.

    Raises:
        StudyError: unknown or absent.
    """
    if device == "cpu":
        return device
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise StudyError(f"the device {device!r} cannot be used ({reason}); choose cpu, or cuda with a GPU.") from error
    return device
