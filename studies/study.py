"""What a study is: a module with a frozen configuration, cells, rows, claims and figures.

A study module defines

- `NAME`, `QUESTION`: its name and the question it answers, one sentence;
- `Config`: a frozen dataclass of JSON-able fields with class methods `smoke`, `quick`, `full`, `paper`;
- `cells(config)`: the independent pieces of work;
- `run_cell(cell, context)`: the rows of one cell, flat dictionaries of scalars, strings and short lists;
- `claims(rows, config)`: what the study asserts, with measured values, intervals and bounds (`studies.claim_bounds`);
- `figures(rows, config)`: Matplotlib figures by name, each with a text alternative in the attribute `alt`.

Three attributes are optional: `VERSION` (an integer; raising it sets aside rows stored by older code), `SERIAL`
(`True` for timings: one cell at a time, nothing beside it) and `TORCH` (`False` when cells do not use torch, which is
then not loaded).
"""

from __future__ import annotations

import ast
import difflib
import importlib
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, final

from studies.claim_bounds import Bound, Condition, Judgement, Verdict, all_of
from studies.errors import StudyError
from studies.running.foreign import ForeignError, contained

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    from studies.cache import Cache
    from studies.statistics import Interval

__all__ = ["LEVELS", "STUDIES", "Cell", "Claim", "Context", "Study", "available", "configuration", "load", "question"]

LEVELS = ("smoke", "quick", "full", "paper")

STUDIES: dict[str, str] = {
    "convergence": "studies.convergence",
    "retraining": "studies.retraining",
    "retraining_pairs": "studies.retraining.pairs",
    "selective_underfitting": "studies.selective_underfitting",
    "selective_underfitting_far": "studies.selective_underfitting.far",
    "low_noise": "studies.low_noise",
    "low_noise_length": "studies.low_noise.length",
    "density_formula": "studies.density_formula",
    "cost": "studies.cost",
    "single_pass": "studies.single_pass",
    "single_pass_long": "studies.single_pass.long",
    "conformance": "studies.conformance",
    "attribution": "studies.attribution",
    "responses": "studies.responses",
    "responses_networks": "studies.responses.networks",
    "groups": "studies.groups",
    "groups_copies": "studies.groups.copies",
    "groups_networks": "studies.groups.networks",
    "photographs": "studies.photographs",
}
NOWHERE = Path()


@dataclass(frozen=True)
class Cell:
    """One independent piece of work.

    Attributes:
        name: unique in the study and safe as a file name (letters, digits, `. _ = + , -`).
        parameters: what distinguishes this cell, JSON-able.
        seed: the only source of randomness of this cell, so that rows do not depend on where or when it runs.

    Example:
        >>> Cell("d=2-eta=0.01", {"dimension": 2, "eta": 0.01}, seed=7).rng().integers(10) in range(10)
        True
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def rng(self) -> np.random.Generator:
        """A fresh NumPy generator seeded by the cell."""
        import numpy as np

        return np.random.default_rng(self.seed)


@final
@dataclass(frozen=True)
class Claim:
    """A statement held against measurement; its bound alone decides the verdict.

    Attributes:
        statement: what is claimed, one sentence.
        measured: the measured value (or a sentence that says why there is none).
        interval: its uncertainty (low, high), or None where there is none.
        bound: what theory or the paper predicts, made by a function of `studies.claim_bounds`.
        source: the paper and equation or section, or the kind of control.
        conditions: what else must be true for the claim to hold.

    Raises:
        TypeError: a bound that is not one of `studies.claim_bounds`.

    Example:
        >>> from studies.claim_bounds import above
        >>> claim = Claim("pigs fly", 0.3, (-0.5, 1.1), above(0, interval=True), "folklore")
        >>> claim.holds, str(claim.verdict), claim.expected
        (False, 'open', '> 0 (interval decides)')
    """

    statement: str
    measured: float | str
    interval: tuple[float, float] | None
    bound: Bound
    source: str
    conditions: tuple[Condition, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.bound, Bound):
            raise TypeError(
                f"the bound of the claim {self.statement!r} is {self.bound!r}; make it by a function of "
                "studies.claim_bounds, such as at_most(0.1) or above(0, interval=True)."
            )

    @classmethod
    def of(
        cls, statement: str, estimate: Interval, bound: Bound, source: str, *, conditions: tuple[Condition, ...] = ()
    ) -> Claim:
        """A claim on an estimate with its interval, as `studies.statistics` gives it."""
        interval = None if math.isnan(estimate.low) or math.isnan(estimate.high) else estimate.bounds
        return cls(statement, estimate.estimate, interval, bound, source, conditions=conditions)

    @property
    def judgement(self) -> Judgement:
        """The verdict and, where it is open, what would decide it."""
        judgement = self.bound.judge(self.measured, self.interval)
        return all_of([judgement, *(condition.judge() for condition in self.conditions)])

    @property
    def verdict(self) -> Verdict:
        """Holds, fails or open (too little was measured)."""
        return self.judgement.verdict

    @property
    def holds(self) -> bool:
        """Whether the measurement agrees; neither a failing nor an open claim does."""
        return self.verdict is Verdict.HOLDS

    @property
    def expected(self) -> str:
        """The bound in words, with what else must be true."""
        return "; ".join(map(str, (self.bound, *self.conditions)))

    @property
    def smallest(self) -> float:
        """The smallest effect that could have been seen, see `Bound.smallest`."""
        return self.bound.smallest(self.measured, self.interval)


@dataclass(frozen=True)
class Context:
    """What a cell may use beside its own parameters.

    Attributes:
        config: the study's configuration.
        device: torch device name.
        folder: the result folder; a cell may save arrays below `folder / "arrays"` (shared by all workers).
        level: `smoke`, `quick`, `full` or `paper`.
    """

    config: Any
    device: str = "cpu"
    folder: Path = NOWHERE
    level: str = "quick"

    @property
    def cache(self) -> Cache:
        """Trained networks and arrays kept between runs, shared by all configurations of the study.

        Raises:
            StudyError: the context has no folder, and the current one would be littered.
        """
        from studies.cache import Cache

        if self.folder == NOWHERE:
            raise StudyError("this context has no folder to keep networks in; give Context(config, folder=...).")
        return Cache(self.folder.parent / "cache")


class Study(Protocol):
    """The attributes every study module has (see the module's docstring)."""

    __name__: str
    NAME: str
    QUESTION: str
    Config: type

    def cells(self, config: Any) -> list[Cell]: ...
    def run_cell(self, cell: Cell, context: Context) -> list[dict[str, Any]]: ...
    def claims(self, rows: pd.DataFrame, config: Any) -> list[Claim]: ...
    def figures(self, rows: pd.DataFrame, config: Any) -> dict[str, Figure]: ...


REQUIRED = ("NAME", "QUESTION", "Config", "cells", "run_cell", "claims", "figures")


def available() -> list[str]:
    """Names of the registered studies that are present."""
    return [name for name, module in STUDIES.items() if _source(module) is not None]


def _source(module: str) -> Path | None:
    """The file of a module of an imported package; looking for a submodule's spec would import what it lies in."""
    top, *parts = module.split(".")
    place = Path(str(sys.modules[top].__file__)).parent.joinpath(*parts)
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def question(name: str) -> str:
    """The question of a registered study, read from its source: importing a study loads torch and its networks.

    Raises:
        StudyError: a study whose source gives `QUESTION` no plain string.

    Example:
        >>> question("cost")
        'What do sensitivities cost, in time, memory and network evaluations, beside sampling itself?'
    """
    source = _source(STUDIES[name])
    if source is not None:
        for statement in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Assign) and "QUESTION" in map(ast.unparse, statement.targets):
                return str(ast.literal_eval(statement.value))
    raise StudyError(f"the study {name!r} has no plain string QUESTION; write one at the top of {STUDIES[name]}.")


def load(name: str) -> Study:
    """The study of that name, or a module of the user's own.

    Args:
        name: a registered name, `package.module` importable from the current folder, a module in it, or `FILE.py`.

    Raises:
        StudyError: unknown name (near ones are suggested), a module that cannot be imported or is not a study.
    """
    module = importlib.import_module(STUDIES[name]) if name in available() else _own(name)
    missing = [attribute for attribute in REQUIRED if not hasattr(module, attribute)]
    if missing:
        raise StudyError(f"{name!r} is not a study: it lacks {', '.join(missing)}; see the docstring of studies.study.")
    return cast(Study, module)


def _own(name: str) -> Any:
    file = _file_of(name)
    if file is None and ("." not in name or not all(part.isidentifier() for part in name.split("."))):
        raise StudyError(f"there is no study {name!r}; {suggestion(name, available())}.")
    # Workers import the module by its name, so that a file is found through its folder.
    first_on_path(Path.cwd() if file is None else file.parent)
    module_name = name if file is None else file.stem
    try:
        with contained(ModuleNotFoundError):  # a script without a main guard may exit
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise StudyError(
            f"the study module {name!r} could not be imported ({error}); run from the folder that contains it."
        ) from error
    except ForeignError as error:
        raise StudyError(f"importing the study module {name!r} failed with {error.line.rstrip('.')}.") from error
    if file is not None and Path(getattr(module, "__file__", None) or "").resolve() != file:
        raise StudyError(f"another module is already called {module_name!r}; give the file {str(file)!r} another name.")
    return module


def _file_of(name: str) -> Path | None:
    """The file that a name stands for: `FILE.py`, a path with or without the ending, or a module of this folder.

    Raises:
        StudyError: a path where no file is, or one whose name cannot be imported.
    """
    named = name.endswith(".py") or any(mark in name for mark in "/\\")
    path = Path(name if name.endswith(".py") else f"{name}.py")
    if path.is_file() and path.stem.isidentifier():
        return path.resolve()
    if path.is_file():
        raise StudyError(f"the file {name!r} cannot be imported by its name; use letters, digits and underscores.")
    if named:
        raise StudyError(f"there is no file {str(path)!r}; name a study, a module or a file that exists.")
    return None


def first_on_path(folder: Path) -> None:
    """Put a folder first where Python looks for modules, here and in processes that are started from here."""
    place = str(folder)
    if sys.path[:1] != [place]:
        sys.path[:] = [place, *(entry for entry in sys.path if entry != place)]


def suggestion(name: str, known: Iterable[str]) -> str:
    """Name what was probably meant, or everything there is.

    Example:
        >>> suggestion("convergance", ["convergence", "cost"])
        "did you mean 'convergence'"
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(repr(match) for match in near)
    return "choose one of " + ", ".join(known)


def configuration(study: Study, level: str) -> Any:
    """The study's configuration at a level.

    Raises:
        StudyError: unknown level, or one that the study does not define.
    """
    if level not in LEVELS:
        raise StudyError(f"there is no level {level!r}; {suggestion(level, LEVELS)}.")
    make = getattr(study.Config, level, None)
    if make is None:
        raise StudyError(f"the study {study.NAME!r} has no {level} configuration; choose another level.")
    return make()
