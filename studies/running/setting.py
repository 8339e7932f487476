"""What identifies a set of results: study, configuration, seed and device, and the digest that names its folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.errors import StudyError
from studies.running.foreign import ForeignError, contained
from studies.running.names import safe
from studies.study import Cell, Study, configuration

__all__ = ["Setting", "jsonable"]


def jsonable(config: Any) -> dict[str, Any]:
    """A configuration dataclass as JSON-able fields (tuples become lists).

    Raises:
        StudyError: `config` is not a dataclass or holds something that JSON cannot.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise StudyError(f"the configuration {config!r} is not a dataclass instance; decorate it with @dataclass.")
    try:
        return json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StudyError(f"the configuration of {type(config).__module__} is not JSON-able: {error}.") from error


@dataclass(frozen=True)
class Setting:
    """Everything that the rows depend on.

    Attributes:
        study: the study's name.
        level: the configuration's name.
        config: the configuration.
        version: the study's `VERSION`.
        seed: shifts the seeds of all cells; 0 leaves them as the study wrote them.
        device: torch device name.
    """

    study: str
    level: str
    config: Any
    version: int = 1
    seed: int = 0
    device: str = "cpu"

    @classmethod
    def of(cls, study: Study, level: str, *, seed: int = 0, device: str = "cpu") -> Setting:
        config = configuration(study, level)
        return cls(safe(study.NAME, "study's NAME"), level, config, getattr(study, "VERSION", 1), seed, device)

    def describe(self) -> dict[str, Any]:
        """The same as JSON-able fields."""
        return {
            "study": self.study,
            "level": self.level,
            "version": self.version,
            "seed": self.seed,
            "device": self.device,
            "config": jsonable(self.config),
        }

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with anything the rows depend on."""
        text = json.dumps(self.describe(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def folder_name(self) -> str:
        return f"{self.level}-{self.digest}"

    def cells(self, study: Study) -> list[Cell]:
        """The study's cells with their seeds shifted by `seed`, checked.

        Raises:
            StudyError: a name that is not unique or not safe as a file name, or parameters that JSON cannot hold.
        """
        try:
            with contained(StudyError):
                cells = list(study.cells(self.config))
        except ForeignError as error:
            raise StudyError(f"the cells of {self.study!r} could not be listed: {error.line.rstrip('.')}.") from error
        cells = [_checked(cell) for cell in cells]
        _unique(cells)
        return [dataclasses.replace(cell, seed=_shift(cell.seed, self.seed)) for cell in cells]


def _checked(cell: Cell) -> Cell:
    safe(cell.name, "cell name")
    try:
        json.dumps(dict(cell.parameters), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StudyError(f"the parameters of cell {cell.name!r} are not JSON-able: {error}.") from error
    return cell


def _unique(cells: list[Cell]) -> None:
    # Compared without case: two names that differ in case alone are one file on some systems.
    seen: set[str] = set()
    for cell in cells:
        if cell.name.lower() in seen:
            raise StudyError(f"two cells are named {cell.name!r} (case ignored); cell names must be unique.")
        seen.add(cell.name.lower())


def _shift(seed: int, by: int) -> int:
    if by == 0:
        return int(seed)
    return int(np.random.SeedSequence([seed, by]).generate_state(1, np.uint32)[0])
