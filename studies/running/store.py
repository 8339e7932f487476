"""Stored results of one setting: one folder, one file pair per finished cell, a manifest.

    OUT/STUDY/LEVEL-DIGEST/
        manifest.json           setting, environment, time
        cells/NAME.parquet      rows of a finished cell
        cells/NAME.json         its record: checksum of the rows, setting, seed, seconds, memory, versions, commit
        cells/NAME.failed.json  what a failed cell raised, with traceback
        rows.parquet, claims.json, figures/, report.html    made from the cells when a run ends
        lock                    held while a run writes
    OUT/STUDY/cache/            trained networks

The record is written after the rows and carries their checksum, so that a cell counts as finished only when both are
whole and belong together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from studies.errors import StudyError
from studies.files import TEMPORARY, checksum, explain, make_folder, read_json, write, write_json
from studies.running import provenance
from studies.running.setting import Setting
from studies.running.tables import decode
from studies.study import Cell

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from studies.running.execution import Outcome

__all__ = ["ENDINGS", "FAILED", "FORMAT", "Contents", "Store", "check_format", "held", "lock"]

FORMAT = 1  # of the files above; raised when they change
FAILED = ".failed.json"
ENDINGS = (".parquet", ".json", FAILED)  # of a cell's files
WAIT_SECONDS = 0.5  # for a lock: long enough for another command that only looked


@dataclass(frozen=True)
class Contents:
    """What a store holds of a list of cells.

    Args:
        tables: rows of the finished cells, by cell name.
        records: their records.
        failures: records of failed cells.
        problems: one sentence per file that is damaged, foreign or of another version.
    """

    tables: dict[str, pa.Table]
    records: dict[str, dict[str, Any]]
    failures: dict[str, dict[str, Any]]
    problems: list[str]


class Store:
    """One setting's results.

    Args:
        folder: where they lie.
        setting: what they depend on.
    """

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.setting = setting
        self.folder = folder
        self.cells_folder = folder / "cells"

    @classmethod
    def below(cls, out: Path, setting: Setting) -> Store:
        """The store of a setting in the folder of all results."""
        return cls(out / setting.study / setting.folder_name, setting)

    def open(self, module: str) -> None:
        """Check that the folder is this setting's and write the manifest. Call with the lock held.

        Args:
            module: the study's module, so that the report can be made again.

        Raises:
            StudyError: another setting's or a newer version's folder, or one that cannot be written.
        """
        manifest = self.folder / "manifest.json"
        known = self._manifest(manifest)
        created = known.get("created", time.time())
        header = {"format": FORMAT, "digest": self.setting.digest, "module": module, "created": created}
        write_json(manifest, header | {"setting": self.setting.describe(), "environment": provenance.environment()})

    def _manifest(self, path: Path) -> dict[str, Any]:
        # A missing or damaged manifest is written anew: every cell's record says by itself where it belongs.
        try:
            known = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return {}
        if not isinstance(known, dict):
            return {}
        check_format(known, path)
        if known.get("digest") != self.setting.digest:
            raise StudyError(f"{self.folder} holds results of another setting; choose another folder with --out.")
        return known

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for writing.

        Raises:
            StudyError: another run holds it.
        """
        make_folder(self.cells_folder)
        with lock(self.folder):
            yield

    def sweep(self) -> None:
        """Remove what a killed run was writing. Call with the lock held."""
        for folder in (self.folder, self.cells_folder):
            for path in folder.glob(f".*{TEMPORARY}"):
                path.unlink(missing_ok=True)

    def put(self, cell: Cell, outcome: Outcome) -> dict[str, Any]:
        """Store a finished or failed cell and return its record.

        Raises:
            StudyError: it cannot be written; cells stored before stay whole.
        """
        record = self._record(cell) | outcome.measurements()
        failed = self.cells_folder / (cell.name + FAILED)
        if outcome.content is None:
            record |= {"error": outcome.error, "traceback": outcome.traceback}
            write_json(failed, record)
            return record
        record |= {"checksum": checksum(outcome.content)}
        write(self._rows_path(cell.name), outcome.content)
        write_json(self._record_path(cell.name), record)
        failed.unlink(missing_ok=True)
        return record

    def _record(self, cell: Cell) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "digest": self.setting.digest,
            "cell": cell.name,
            "parameters": dict(cell.parameters),
            "seed": cell.seed,
            "device": self.setting.device,
            "commit": provenance.commit(),
            "versions": provenance.versions(),
            "finished": time.time(),
        }

    def _rows_path(self, name: str) -> Path:
        return self.cells_folder / f"{name}.parquet"

    def _record_path(self, name: str) -> Path:
        return self.cells_folder / f"{name}.json"

    def read(self, cells: Iterable[Cell]) -> Contents:
        """Every finished cell, checked; damaged and foreign files are named."""
        present = {path.name for path in self.cells_folder.iterdir()} if self.cells_folder.is_dir() else set()
        contents = Contents({}, {}, {}, [])
        for cell in cells:
            names = {cell.name + ending for ending in ENDINGS}
            if names & present:
                self._read_cell(cell, names & present, contents)
                present -= names
        strangers = sorted(name for name in present if not name.endswith(TEMPORARY))
        contents.problems.extend(f"{name} belongs to no cell here; it is left and ignored" for name in strangers)
        return contents

    def _read_cell(self, cell: Cell, present: set[str], contents: Contents) -> None:
        if cell.name + FAILED in present:
            self._read_failure(cell, contents)
        if f"{cell.name}.json" not in present:
            return  # rows without a record: killed between the two writes
        try:
            record = self._checked_record(cell)
            content = self._rows_path(cell.name).read_bytes()
            if checksum(content) != record["checksum"]:
                raise StudyError("its rows differ from their checksum")
            contents.tables[cell.name] = decode(content)
            contents.records[cell.name] = record
        except FileNotFoundError:
            contents.problems.append(f"cell {cell.name!r} is redone: its rows are missing")
        except OSError as error:
            contents.problems.append(f"cell {cell.name!r} is redone: {error.strerror}")
        except StudyError as error:
            contents.problems.append(f"cell {cell.name!r} is redone: {str(error).rstrip('.')}")

    def _read_failure(self, cell: Cell, contents: Contents) -> None:
        try:
            record = read_json(self.cells_folder / (cell.name + FAILED))
            contents.failures[cell.name] = {"error": str(record["error"]), "traceback": str(record["traceback"])}
        except (StudyError, KeyError, TypeError):
            contents.problems.append(f"the failure of cell {cell.name!r} is unreadable; the cell is redone")

    def _checked_record(self, cell: Cell) -> dict[str, Any]:
        path = self._record_path(cell.name)
        try:
            record = json.loads(path.read_bytes())
        except ValueError:
            raise StudyError("its record is damaged") from None
        if not isinstance(record, dict) or not isinstance(record.get("checksum"), str):
            raise StudyError("its record is damaged")
        if record.get("format") != FORMAT:
            raise StudyError(f"it was written in format {record.get('format')}, this version reads {FORMAT}")
        if record.get("digest") != self.setting.digest or record.get("cell") != cell.name:
            raise StudyError("it belongs to another setting")
        if record.get("seed") != cell.seed or record.get("parameters") != json.loads(json.dumps(dict(cell.parameters))):
            raise StudyError("the study's seed or parameters of this cell have changed")
        own, versions = provenance.versions()["score-sensitivity"], record.get("versions")
        written = versions.get("score-sensitivity") if isinstance(versions, dict) else None
        if written != own:
            raise StudyError(f"it was computed by version {written}, this is {own}")
        return record


def check_format(manifest: dict[str, Any], path: Path) -> None:
    """Refuse a store that this version cannot read.

    Raises:
        StudyError: another format.
    """
    if manifest.get("format") != FORMAT:
        raise StudyError(
            f"{path} is of format {manifest.get('format')} and this version reads format {FORMAT}; "
            "install the version that wrote it or choose another folder with --out."
        )


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a result folder; the operating system lets go when the process ends, however it ends.

    Raises:
        StudyError: another run holds it.
    """
    handle = filelock.FileLock(folder / "lock")
    try:
        handle.acquire(timeout=WAIT_SECONDS)
    except filelock.Timeout:
        raise StudyError(
            f"another run is writing to {folder}; wait until it ends, or choose another folder with --out."
        ) from None
    except OSError as error:
        raise StudyError(explain(error, folder / "lock")) from error
    try:
        yield
    finally:
        handle.release()


def held(folder: Path) -> bool:
    """Whether a run holds the folder now."""
    handle = filelock.FileLock(folder / "lock")
    try:
        with handle.acquire(timeout=0):
            return False
    except (filelock.Timeout, OSError):
        return True
