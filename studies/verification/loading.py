"""Finding an estimator named `MODULE:CALLABLE`, from the current folder first, or `FILE.py:CALLABLE`.

A file's own folder comes first where it imports, and the file is registered as a module, as Python does with a script:
its siblings are found, and dataclasses with postponed annotations can be made.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from studies.errors import StudyError
from studies.running.foreign import ForeignError, contained
from studies.study import first_on_path, suggestion

__all__ = ["load_estimator"]


def load_estimator(name: str) -> Callable[[Any], Any]:
    """The callable that `MODULE:CALLABLE` names; attributes may be dotted.

    Args:
        name: such as `mine:log_density`, `package.mine:Class.method` or `path/mine.py:log_density`.

    Raises:
        StudyError: no colon, no such module, an exception while importing it, no such attribute, not callable, or a
            class.

    Example:
        >>> load_estimator("math:sqrt")(4.0)
        2.0
    """
    module_name, colon, path = name.rpartition(":")  # the last one: C:\\me\\mine.py:f has two
    if not (colon and module_name and path) or any(mark in path for mark in "/\\"):
        raise StudyError(f"{name!r} names no estimator; write MODULE:CALLABLE, such as mine:log_density.")
    target: Any = _import(module_name)
    for part in path.split("."):
        if not hasattr(target, part):
            raise StudyError(f"{module_name!r} has no {part!r}; {suggestion(part, _public(target))}.")
        target = getattr(target, part)
    if isinstance(target, type):
        raise StudyError(f"{name!r} is a class; name a function of one problem, or an instance that can be called.")
    if not callable(target):
        raise StudyError(f"{name!r} is not callable but {type(target).__name__}; name a function of one problem.")
    return target


def _public(module: Any) -> list[str]:
    return [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")] or ["nothing"]


def _import(name: str) -> ModuleType:
    try:
        with contained(StudyError, ModuleNotFoundError):  # a script without a main guard may exit
            return _from_file(Path(name)) if name.endswith(".py") else _from_path(name)
    except StudyError:
        raise
    except ModuleNotFoundError as error:
        if error.name in (name, name.split(".")[0]):
            raise StudyError(f"there is no module {name!r}; run from the folder that contains it.") from error
        raise StudyError(f"the module {name!r} needs {error.name!r}, which is not installed.") from error
    except ForeignError as error:
        raise StudyError(f"importing {name!r} failed with {error.line.rstrip('.')}.") from error


def _from_path(name: str) -> ModuleType:
    first_on_path(Path.cwd())
    importlib.invalidate_caches()  # the file may be newer than the folder's cached listing
    return importlib.import_module(name)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise StudyError(f"there is no file {str(path)!r}; name a module or a file that exists.")
    name = _free_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StudyError(f"the file {str(path)!r} cannot be imported; give it a name that ends in .py.")
    first_on_path(path.resolve().parent)
    importlib.invalidate_caches()
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _free_name(path: Path) -> str:
    """The file's stem, or one beside it where another module has that name."""
    other = sys.modules.get(path.stem)
    same = other is not None and _same_file(getattr(other, "__file__", None), path)
    taken = path.stem in sys.stdlib_module_names or (other is not None and not same)
    return f"{path.stem}_of_{path.resolve().parent.name or 'root'}" if taken else path.stem


def _same_file(known: str | None, path: Path) -> bool:
    return known is not None and Path(known).resolve() == path.resolve()
