"""Runs a study: finds what is stored, computes the rest, stores it, and draws claims, figures and report from it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from studies.claim_bounds import Verdict
from studies.errors import StudyError
from studies.running import code, execution, provenance, text
from studies.running.dispatch import dispatch
from studies.running.progress import Progress, Silent
from studies.running.setting import Setting
from studies.running.store import Contents, Store
from studies.running.summary import Summary, claims_of, with_folder
from studies.running.tables import decode, frame, join
from studies.study import Cell, Claim, Context, Study, load, suggestion

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OUT", "Result", "run"]

OUT = Path("studies-out")  # where results are kept unless said otherwise
CHANGED = ("redo", "refuse", "keep")  # what becomes of cells that other code computed
MOST_WORKERS = 16  # a core; each is a process of some hundred megabytes
LIVE_SECONDS = 3.0  # claims are renewed this often while cells come in
LIVE_SHARE = 0.05  # and for no more than this share of the time
# What kinds `run` takes, and what to give.
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "name": ((str,), "a registered name, a module's (module.__name__) or a file's, such as 'dice.py'"),
    "level": ((str,), "smoke, quick, full or paper as a string"),
    "out": ((str, Path), "a folder"),
    "device": ((str,), "'cpu', or 'cuda' with a GPU"),
    "workers": ((int, type(None)), "the number of processes, or None for one a core"),
    "scheduler": ((str, type(None)), "the address of a Dask scheduler, or None"),
    "seed": ((int,), "an integer of at least 0"),
    "changed": ((str,), "redo, refuse or keep as a string"),
    "dashboard": ((bool,), "True or False"),
}


@dataclass(frozen=True)
class Result:
    """What a run left behind.

    Attributes:
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
    out: Path | str = OUT,
    device: str = "cpu",
    workers: int | None = None,
    scheduler: str | None = None,
    seed: int = 0,
    changed: str = "redo",
    dashboard: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Run a study, or finish one that was interrupted.

    Args:
        name: a registered study, or a module.
        level: `smoke`, `quick`, `full` or `paper`.
        out: folder of all results.
        device: torch device of the cells.
        workers: processes on this machine (default: one per core); 0 runs in this process. They do not import the
            script that calls this, which needs no main guard.
        scheduler: address of an existing Dask scheduler instead.

    Other args:
        seed: shifts the seeds of all cells.
        changed: what becomes of stored cells that other code, or other versions of packages, computed: `redo`,
            `refuse` to run, or `keep` them, which a note tells.
        dashboard: serve Dask's dashboard of a local run, to every user of this machine.
        progress: listener.

    Raises:
        StudyError: the study, level, device, scheduler or folder cannot be used, or its claims raise.
    """
    check_kinds(
        name=name,
        level=level,
        out=out,
        device=device,
        workers=workers,
        scheduler=scheduler,
        seed=seed,
        changed=changed,
        dashboard=dashboard,
    )
    if isinstance(progress, int | str):
        raise StudyError(f"progress={progress!r} is no listener; give a studies.running.progress.Progress, or None.")
    study = load(name)
    setting = Setting.of(study, level, seed=check_seed(seed), device=check_device(device))
    count = check_workers(workers, scheduler, getattr(study, "SERIAL", False))
    store = Store.below(Path(out), setting, code.digest(study.__name__))
    session = Session(study, setting, setting.cells(study), store, progress or Silent(), check_changed(changed))
    with session.store.locked():
        return session.complete(Place(count, scheduler, dashboard))


@dataclass(frozen=True)
class Place:
    """Where cells run: `workers` processes here (0: this one), or an existing cluster.

    Attributes:
        workers: how many.
        scheduler: address of an existing cluster instead.
        dashboard: whether a local cluster serves its dashboard.
    """

    workers: int
    scheduler: str | None = None
    dashboard: bool = False


@dataclass(frozen=True)
class Session:
    """One run of one study, with its store locked."""

    study: Study
    setting: Setting
    cells: list[Cell]
    store: Store
    progress: Progress
    changed: str = "redo"

    def complete(self, place: Place) -> Result:
        """Compute what is missing, then summarise."""
        self.store.open(self.study.__name__)
        self.store.sweep()
        contents = self.store.read(self.cells)
        contents.failures.clear()  # failed cells are tried again
        self._set_aside(contents)
        self.progress.start(self.study.NAME, text.line(self.study.QUESTION), len(self.cells), len(contents.tables))
        try:
            for problem in contents.problems:
                self.progress.note(problem)
            self._compute(contents, place)
        finally:
            self.progress.stop()
        return self._conclude(contents)

    def _set_aside(self, contents: Contents) -> None:
        """Decide about cells of other code, so that rows never mix without a word.

        Raises:
            StudyError: there are some, and they are to be refused.
        """
        others = [name for name, record in contents.records.items() if record["code"] != self.store.code]
        if not others:
            return
        sentence = f"{len(others)} stored cells were computed by other code of the study or other versions of packages"
        if self.changed == "refuse":
            raise StudyError(f"{sentence}; redo them with --changed redo, or choose another folder with --out.")
        contents.problems.append(f"{sentence}; {'they are kept' if self.changed == 'keep' else 'they are redone'}")
        for name in others if self.changed == "redo" else []:
            del contents.tables[name], contents.records[name]

    def _compute(self, contents: Contents, place: Place) -> None:
        pending = [cell for cell in self.cells if cell.name not in contents.tables]
        known = {cell.name: cell for cell in pending}
        live = LiveClaims(self, contents)
        for outcome in self._outcomes(pending, place):
            record = self.store.put(known[outcome.cell], outcome)
            if outcome.content is None:
                contents.failures[outcome.cell] = record
            else:
                contents.tables[outcome.cell] = decode(outcome.content)
                contents.records[outcome.cell] = record
            self.progress.cell(outcome.cell, outcome.seconds, outcome.error)
            live.renew()

    def _outcomes(self, pending: Sequence[Cell], place: Place) -> Iterator[execution.Outcome]:
        context = Context(self.setting.config, self.setting.device, self.store.folder.absolute(), self.setting.level)
        module = self.study.__name__
        if not pending:
            return
        if place.scheduler is not None:
            with execution.remote_client(place.scheduler) as client:
                yield from dispatch(client, module, pending, context, self.progress.note, self.store.code)
        elif place.workers == 0:
            yield from execution.in_process(module, pending, context, self.progress.note)
        else:
            with execution.local_client(min(place.workers, len(pending)), dashboard=place.dashboard) as client:
                if place.dashboard:
                    self.progress.note(f"dashboard: {client.dashboard_link}")
                yield from dispatch(client, module, pending, context, self.progress.note)

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


def check_kinds(**given: object) -> None:
    """Arguments of other kinds end here, and not where something is compared with them or looked up in them."""
    for argument, value in given.items():
        kinds, remedy = KINDS[argument]
        # True is an integer to Python, and no number of processes.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise StudyError(f"{argument} is a {type(value).__name__}; give {remedy}.")


def check_seed(seed: int) -> int:
    """Refuse negative seeds."""
    if seed < 0:
        raise StudyError(f"seed={seed} is negative; give 0 or a positive whole number.")
    return seed


def check_workers(workers: int | None, scheduler: str | None, serial: bool) -> int:
    """Number of worker processes; timings get one.

    Raises:
        StudyError: negative, far too many, or given together with a scheduler.
    """
    if workers is not None and scheduler is not None:
        raise StudyError("workers belong to a local run and a scheduler brings its own; give one of the two.")
    if workers is not None and workers < 0:
        raise StudyError(f"workers={workers} is negative; give 0 for this process alone, or the number of processes.")
    if workers is None:
        workers = provenance.usable_cores()
    if workers > (most := MOST_WORKERS * provenance.usable_cores()):
        raise StudyError(
            f"workers={text.line(workers, 20)} is more than this machine bears: at most {most}, {MOST_WORKERS} a core."
        )
    return min(workers, 1) if serial else workers


def check_changed(changed: str) -> str:
    """Refuse an unknown answer to changed code."""
    if changed not in CHANGED:
        raise StudyError(f"changed={changed!r} is not known; {suggestion(changed, CHANGED)}.")
    return changed


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
