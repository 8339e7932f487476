"""What an estimator does beside its answer is undone and reported: settings, random state, folder, inputs, printing.

A call must not depend on the one before it, nor the next estimator on what this one left behind. Global
random numbers are seeded with the problem's own seed, so that an estimator that draws from them can be repeated.
"""

from __future__ import annotations

import io
import os
import random
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from studies.running import text
from studies.verification.backends import to_numpy
from studies.verification.problem import Anchor, Problem

__all__ = ["undone"]

SHOWN = 60  # characters of what was printed


@dataclass(frozen=True)
class Setting:
    """Something global: how it is read and put back, and what its change is called."""

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], Any]


def _settings() -> list[Setting]:
    settings = [
        Setting("the current folder", os.getcwd, os.chdir),
        Setting("NumPy's handling of errors", np.geterr, lambda value: np.seterr(**value)),
    ]
    torch = sys.modules.get("torch")
    if torch is not None:
        settings += [
            Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
            Setting("torch's default device", torch.get_default_device, torch.set_default_device),
            Setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
            Setting("whether torch records gradients", torch.is_grad_enabled, torch.set_grad_enabled),
        ]
    return settings


def _generators() -> list[tuple[Setting, Callable[[int], Any]]]:
    """Global random states, and how they are seeded."""
    python = Setting("Python's global random numbers", random.getstate, random.setstate)
    numpy = Setting("NumPy's global random numbers", np.random.get_state, np.random.set_state)
    generators: list[tuple[Setting, Callable[[int], Any]]] = [
        (python, random.seed),
        (numpy, lambda seed: np.random.seed(seed % 2**32)),  # noqa: NPY002  # what estimators use
    ]
    torch = sys.modules.get("torch")
    if torch is not None:
        here = Setting("torch's global random numbers", torch.get_rng_state, torch.set_rng_state)
        generators.append((here, torch.default_generator.manual_seed))
    return generators


@contextmanager
def undone(problem: Problem) -> Iterator[list[str]]:
    """Undo what a call does beside its answer; the list that is yielded says afterwards what that was.

    Example:
        >>> with undone(Problem("plane", "score", {"seed": 1})) as beside:
        ...     print("so far")
        ...     _ = np.random.standard_normal()
        >>> beside
        ["drew from NumPy's global random numbers", "printed 'so far'"]
    """
    beside: list[str] = []
    inputs, settings, generators = _prints(problem), _settings(), _generators()
    before = [setting.read() for setting in settings]
    states = [generator.read() for generator, _ in generators]
    for _, seeded in generators:
        seeded(int(getattr(problem, "seed", 0)))
    fresh = [_plain(generator.read()) for generator, _ in generators]
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(printed):
            filters = list(warnings.filters)
            try:
                yield beside
            finally:
                beside += ["changed the filters of warnings"] if list(warnings.filters) != filters else []
    finally:
        beside[:0] = [*_changed(settings, before), *_drawn(generators, states, fresh)]
        beside += [f"wrote into its input {name}" for name, value in _prints(problem).items() if inputs[name] != value]
        beside += _printed(printed.getvalue())


def _changed(settings: list[Setting], before: list[Any]) -> list[str]:
    beside = []
    for setting, value in zip(settings, before, strict=True):
        if _now(setting) != value:
            beside.append(f"changed {setting.name}")
            setting.restore(value)
    return beside


def _now(setting: Setting) -> Any:
    try:
        return setting.read()
    except OSError:  # the current folder may be gone
        return None


def _drawn(generators: list[tuple[Setting, Callable[[int], Any]]], states: list[Any], fresh: list[Any]) -> list[str]:
    beside = []
    for (generator, _), state, seeded in zip(generators, states, fresh, strict=True):
        if _plain(generator.read()) != seeded:
            beside.append(f"drew from {generator.name}")
        generator.restore(state)
    return beside


def _plain(state: Any) -> Any:
    """A random state as something that compares."""
    if isinstance(state, tuple):
        return tuple(_plain(part) for part in state)
    if isinstance(state, np.ndarray):
        return state.tobytes()
    return state.numpy().tobytes() if hasattr(state, "numpy") else state  # a tensor, where torch was imported at all


def _printed(words: str) -> list[str]:
    lines = [line for line in words.splitlines() if line.strip()]
    if not lines:
        return []
    more = f" and {len(lines) - 1} lines more" if len(lines) > 1 else ""
    return [f"printed {text.line(lines[0], SHOWN)!r}{more}"]


def _prints(problem: Problem) -> dict[str, int]:
    """A checksum of every array of the problem, by its name."""
    prints: dict[str, int] = {}
    for name in dir(problem):
        prints |= {at: _checksum(value) for at, value in _arrays(name, getattr(problem, name))}
    return prints


def _arrays(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    # An array of whichever library the problem was posed in.
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        yield name, value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _arrays(f"{name}.{field.name}", getattr(value, field.name))
    elif isinstance(value, Anchor):
        yield from _arrays(f"{name}.mean", value.mean)
        yield from _arrays(f"{name}.covariance", value.covariance)


def _checksum(array: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(to_numpy(array)).tobytes())
