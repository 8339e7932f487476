"""SymPy expressions as functions of arrays: NumPy, PyTorch or mpmath, common subexpressions shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import array_api_compat as compat
import numpy as np
import sympy as sp

BACKENDS = ("numpy", "torch", "mpmath")


def compiled(
    entries: list[sp.Expr], shape: tuple[int, ...], arguments: Mapping[str, sp.Array], backend: str
) -> Callable[..., Any]:
    """The function of keyword arguments that evaluates `entries` and arranges them in `shape`."""
    if backend not in BACKENDS:
        raise ValueError(f"backend = {backend!r} must be one of {', '.join(BACKENDS)}")
    symbols, places = _places(arguments)
    function = sp.lambdify(symbols, entries, modules=backend, cse=True)

    def evaluate(**values: Any) -> Any:
        _check_names(values, arguments)
        given = {name: _prepared(value, backend, _reference(values)) for name, value in values.items()}
        for name, symbols in arguments.items():
            _check_shape(given[name], symbols.shape, name)
        numbers = function(*(_entry(given[name], index) for name, index in places))
        return _arranged(numbers, shape, backend, given)

    return evaluate


def _places(arguments: Mapping[str, sp.Array]) -> tuple[list[sp.Symbol], list[tuple[str, tuple[int, ...]]]]:
    """Each symbol once, and where its value is: a symmetric matrix's symbols are read above the diagonal."""
    places: dict[sp.Symbol, tuple[str, tuple[int, ...]]] = {}
    for name, symbols in arguments.items():
        for index in np.ndindex(*symbols.shape):
            symbol = symbols[index] if index else symbols[()]
            if symbol != 0:
                places.setdefault(symbol, (name, index))
    return list(places), list(places.values())


def _check_names(values: Mapping[str, Any], arguments: Mapping[str, sp.Array]) -> None:
    missing, unknown = sorted(set(arguments) - set(values)), sorted(set(values) - set(arguments))
    if missing or unknown:
        raise TypeError(f"arguments must be {', '.join(arguments)}; missing: {missing}, unknown: {unknown}")


def _reference(values: Mapping[str, Any]) -> Any:
    """The first tensor among the values, which fixes dtype and device for the torch backend."""
    return next((v for v in values.values() if compat.is_torch_array(v)), None)


def _prepared(value: Any, backend: str, reference: Any) -> Any:
    if backend == "mpmath":
        return np.array(value, dtype=object)
    if backend == "numpy":
        return np.asarray(value, dtype=float)
    import torch

    like = torch.zeros((), dtype=torch.float64) if reference is None else reference
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def _check_shape(value: Any, needed: tuple[int, ...], name: str) -> None:
    shape = tuple(value.shape)
    if shape[len(shape) - len(needed) :] != needed or (name != "x" and shape != needed):
        leading = " after leading axes" if name == "x" else ""
        raise ValueError(f"{name} has shape {shape}; it must be {needed}{leading}")


def _entry(value: Any, index: tuple[int, ...]) -> Any:
    return value[(..., *index)] if index else value[()]


def _arranged(numbers: list[Any], shape: tuple[int, ...], backend: str, given: Mapping[str, Any]) -> Any:
    if backend == "mpmath":
        return numbers if shape else numbers[0]
    batch = tuple(given["x"].shape[:-1])
    if backend == "numpy":
        flat = np.stack([np.broadcast_to(np.asarray(n, dtype=float), batch) for n in numbers], -1)
        return flat.reshape(*batch, *shape)
    import torch

    parts = [torch.as_tensor(n, dtype=given["x"].dtype, device=given["x"].device).expand(batch) for n in numbers]
    return torch.stack(parts, -1).reshape((*batch, *shape))
