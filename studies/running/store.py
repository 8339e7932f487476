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

from studies.errors import StudyError
from studies.files import TEMPORARY, checksum, explain, leftovers, make_folder, read, write
from studies.running import provenance, records, text
from studies.running.locks import lock
from studies.running.records import FORMAT, FormatError
from studies.running.setting import Setting
from studies.running.tables import CELL, decode
from studies.study import Cell

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from studies.running.execution import Outcome

__all__ = ["ENDINGS", "FAILED", "Contents", "Store"]

FAILED = ".failed.json"
ENDINGS = (".parquet", ".json", FAILED)  # of a cell's files


@dataclass(frozen=True)
class Contents:
    """What a store holds of a list of cells.

    Attributes:
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
        code: digest of the code that new rows come from (`studies.running.code`); only needed to write.
    """

    def __init__(self, folder: Path, setting: Setting, code: str = "") -> None:
        self.setting = setting
        self.code = code
        self.folder = folder
        self.cells_folder = folder / "cells"

    @classmethod
    def below(cls, out: Path, setting: Setting, code: str = "") -> Store:
        """The store of a setting in the folder of all results."""
        return cls(out / setting.study / setting.folder_name, setting, code)

    def open(self, module: str) -> None:
        """Check that the folder is this setting's and write the manifest. Call with the lock held.

        Args:
            module: the study's module: the name that it is to be called by for a report.

        Raises:
            StudyError: another setting's or a newer version's folder, or one that cannot be written.
        """
        manifest = self.folder / "manifest.json"
        known = self._manifest(manifest)
        created = known.get("created", time.time())
        header = {"format": FORMAT, "digest": self.setting.digest, "module": module, "created": created}
        content = header | {"setting": self.setting.describe(), "environment": provenance.environment()}
        records.write(manifest, records.MANIFEST, content)

    def _manifest(self, path: Path) -> dict[str, Any]:
        # A missing, damaged or older manifest is written anew: every cell's record says by itself where it belongs.
        try:
            known = records.parse(path)
        except StudyError:
            return {}
        if not isinstance(known, dict):
            return {}
        version = known.get("format")
        if isinstance(version, int) and version > FORMAT:
            raise FormatError(path, version)
        if known.get("digest") != self.setting.digest:
            raise StudyError(f"{self.folder} holds results of another setting; choose another folder with --out.")
        return known if not records.fault(known, records.MANIFEST) else {}

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
            for path in leftovers(folder):
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
            records.write(failed, records.FAILURE, record)
            return record
        record |= {"rows": outcome.rows, "checksum": checksum(outcome.content)}
        write(self._rows_path(cell.name), outcome.content)
        records.write(self._record_path(cell.name), records.RECORD, record)
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
            "code": self.code,
            "finished": time.time(),
        }

    def _rows_path(self, name: str) -> Path:
        return self.cells_folder / f"{name}.parquet"

    def _record_path(self, name: str) -> Path:
        return self.cells_folder / f"{name}.json"

    def read(self, cells: Iterable[Cell]) -> Contents:
        """Every finished cell, checked; damaged and foreign files are named.

        Raises:
            StudyError: the folder of cells cannot be read.
        """
        present = self._present()
        contents = Contents({}, {}, {}, [])
        for cell in cells:
            names = {cell.name + ending for ending in ENDINGS}
            if names & present:
                self._read_cell(cell, names & present, contents)
                present -= names
        strangers = sorted(text.line(name) for name in present if not name.endswith(TEMPORARY))
        contents.problems.extend(f"{name} belongs to no cell here; it is left and ignored" for name in strangers)
        return contents

    def _present(self) -> set[str]:
        try:
            return {path.name for path in self.cells_folder.iterdir()} if self.cells_folder.is_dir() else set()
        except OSError as error:
            raise StudyError(explain(error, self.cells_folder)) from error

    def _read_cell(self, cell: Cell, present: set[str], contents: Contents) -> None:
        if cell.name + FAILED in present:
            self._read_failure(cell, contents)
        if f"{cell.name}.json" not in present:
            return  # rows without a record: killed between the two writes
        try:
            record = self._checked_record(cell)
            if f"{cell.name}.parquet" not in present:
                raise StudyError("its rows are missing")
            contents.tables[cell.name] = self._checked_rows(cell, record)
            contents.records[cell.name] = record
        except StudyError as error:
            contents.problems.append(f"cell {cell.name!r} is redone: {text.line(error).rstrip('.')}")

    def _checked_rows(self, cell: Cell, record: dict[str, Any]) -> pa.Table:
        content = read(self._rows_path(cell.name))
        if checksum(content) != record["checksum"]:
            raise StudyError("its rows differ from their checksum")
        table = decode(content)
        names = table[CELL].to_pylist() if CELL in table.column_names else None
        if names is None or set(names) - {cell.name}:
            raise StudyError("its rows are of another cell")
        if len(names) != record["rows"]:
            raise StudyError(f"it holds {len(names)} rows, and its record tells of {record['rows']}")
        return table

    def _read_failure(self, cell: Cell, contents: Contents) -> None:
        try:
            record = records.read(self.cells_folder / (cell.name + FAILED), records.FAILURE)
            contents.failures[cell.name] = {"error": record["error"], "traceback": record["traceback"]}
        except StudyError:
            contents.problems.append(f"the failure of cell {cell.name!r} is unreadable; the cell is redone")

    def _checked_record(self, cell: Cell) -> dict[str, Any]:
        record = self._record_of(cell)
        if record["digest"] != self.setting.digest or record["cell"] != cell.name:
            raise StudyError("it belongs to another setting")
        if record["seed"] != cell.seed or record["parameters"] != json.loads(json.dumps(dict(cell.parameters))):
            raise StudyError("the study's seed or parameters of this cell have changed")
        here, written = (versions.get("score-sensitivity") for versions in (provenance.versions(), record["versions"]))
        # Files that were taken along without being installed have no version: their commit stands for it.
        if written != here and not (written == provenance.ABSENT and record["commit"]):
            raise StudyError(f"it was computed by version {written}, this is {here}")
        return record

    def _record_of(self, cell: Cell) -> dict[str, Any]:
        path = self._record_path(cell.name)
        try:
            return records.read(path, records.RECORD)
        except FormatError as error:
            raise StudyError(f"it was written in format {error.found}, this version reads {FORMAT}") from None
        except StudyError:
            raise StudyError("its record is damaged") from None
