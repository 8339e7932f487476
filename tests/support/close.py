"""One comparison for the whole suite: shape, kind, dtype and every element; NaN is equal to nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

TOLERANCES = {"float64": (1e-10, 1e-12), "float32": (2e-5, 1e-6), "bfloat16": (2e-2, 2e-2)}


def assert_close(actual: Any, expected: Any, *, rtol: float | None = None, atol: float | None = None) -> None:
    """Fail unless `|actual - expected| <= atol + rtol |expected|` element by element, in equal shape and dtype.

    The default tolerances belong to the coarser dtype of the two. Python and NumPy numbers on the expected side take
    the dtype of `actual`; arrays must agree in dtype. No broadcasting, and NaN never passes.
    """
    got, wanted = _array(actual), _array(expected)
    if got.shape != wanted.shape:
        raise AssertionError(f"shape {got.shape} is not {wanted.shape}")
    if hasattr(expected, "shape") and wanted.ndim and got.dtype != wanted.dtype:
        raise AssertionError(f"dtype {got.dtype} is not {wanted.dtype}")
    default = TOLERANCES.get(str(got.dtype), (0.0, 0.0))
    rtol = default[0] if rtol is None else rtol
    atol = default[1] if atol is None else atol
    _compare(got, wanted, rtol, atol)


def relative_error(actual: Any, expected: Any, *, axis: int | None = -1) -> np.ndarray:
    """`|actual - expected| / |expected|` in the 2-norm over `axis` (NaN stays NaN)."""
    got, wanted = _array(actual).astype(float), _array(expected).astype(float)
    return np.linalg.norm(got - wanted, axis=axis) / np.linalg.norm(wanted, axis=axis)


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        return value.float().numpy() if str(value.dtype) == "torch.bfloat16" else value.numpy()
    return np.asarray(value)


def _compare(got: np.ndarray, wanted: np.ndarray, rtol: float, atol: float) -> None:
    same = got == wanted  # equal infinities
    with np.errstate(invalid="ignore"):
        near = np.abs(got - wanted) <= atol + rtol * np.abs(wanted)
    bad = ~(same | (near & np.isfinite(got) & np.isfinite(wanted)))
    if bad.any():
        at = np.unravel_index(int(np.argmax(bad)), bad.shape)
        raise AssertionError(
            f"{int(bad.sum())} of {bad.size} elements differ beyond rtol={rtol:g}, atol={atol:g}; "
            f"first at {tuple(int(i) for i in at)}: {got[at]!r} is not {wanted[at]!r}"
        )
