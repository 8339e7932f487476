"""Rules of dual numbers for arithmetic: sums, products, quotients, products of matrices.

Symbols: a joint `(v, t_1, …, t_K)` has the value and its tangents along its first axis, see
`sensitivity.jacobians.duals`. A constant's multiple acts on the whole joint; `v + c` changes the value alone; `u v` has
the tangents `u̇ v + u v̇`, and `u/v` the tangents `(u̇ − (u/v) v̇)/v`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sensitivity.jacobians.duals import Dual, aligned, rule, unrecorded


def _axes(other: Any) -> int:
    return other.ndim if isinstance(other, Tensor) else 0


def _promoted(*arguments: Any) -> bool:
    """Whether a 0-d dual meets another dtype: promotion would tell it from its joint."""
    for each in arguments:
        if isinstance(each, Dual) and each.joint.ndim == 1:
            return len({one.dtype for one in arguments if isinstance(one, Tensor)}) > 1
    return False


@rule("add", "__add__", "__radd__")
def _add(first: Any, second: Any, *, alpha: Any = 1) -> Any:
    if not isinstance(first, Dual):
        if alpha != 1:
            return NotImplemented
        first, second = second, first
    if _promoted(first, second):
        return NotImplemented
    if not isinstance(second, Dual):
        return _shifted(first, second if alpha == 1 else alpha * second)
    ndim = max(first.ndim, second.ndim)
    return Dual(torch.add(aligned(first.joint, ndim), aligned(second.joint, ndim), alpha=alpha))


def _shifted(dual: Dual, constant: Any) -> Dual:
    """v + c, which may broadcast the tangents too."""
    if unrecorded() and _within(constant, dual.joint):
        joint = dual.joint.clone()
        joint[0].add_(constant)
        return Dual(joint)
    value = dual.value + constant
    tangents = dual.tangents
    if value.shape != dual.shape:
        tangents = aligned(tangents, value.ndim).expand(-1, *value.shape)
    return Dual.of(value, tangents)


def _within(constant: Any, joint: Tensor) -> bool:
    """Whether a sum with the value keeps its shape and dtype, so that it can be written into a copy of the joint."""
    if not isinstance(constant, Tensor):
        return isinstance(constant, int | float)
    shape, missing = joint.shape[1:], joint.ndim - 1 - constant.ndim
    if missing < 0 or constant.dtype != joint.dtype:
        return False
    return all(mine in (1, other) for mine, other in zip(constant.shape, shape[missing:], strict=True))


@rule("sub", "subtract", "__sub__")
def _sub(first: Any, second: Any, *, alpha: Any = 1) -> Any:
    if isinstance(first, Dual) and isinstance(second, Dual):
        return _add(first, second, alpha=-alpha)
    if _promoted(first, second):
        return NotImplemented
    return _shifted(first, -alpha * second) if isinstance(first, Dual) else _shifted(Dual(-alpha * second.joint), first)


@rule("rsub", "__rsub__")
def _rsub(first: Any, second: Any, *, alpha: Any = 1) -> Any:
    return _sub(second, first) if alpha == 1 else NotImplemented


@rule("neg", "negative", "__neg__")
def _neg(dual: Dual) -> Dual:
    return Dual(-dual.joint)


@rule("mul", "multiply", "__mul__", "__rmul__")
def _mul(first: Any, second: Any) -> Any:
    if not isinstance(first, Dual):
        first, second = second, first
    if _promoted(first, second):
        return NotImplemented
    if not isinstance(second, Dual):
        return Dual(aligned(first.joint, _axes(second)) * second)
    ndim = max(first.ndim, second.ndim)
    ahead, behind = aligned(first.joint, ndim), aligned(second.joint, ndim)
    product = ahead * behind[0]
    if unrecorded():
        product[1:].addcmul_(ahead[0], behind[1:])
        return Dual(product)
    return Dual.of(product[0], product[1:] + ahead[0] * behind[1:])


@rule("div", "divide", "true_divide", "__truediv__", "__div__")
def _div(first: Any, second: Any, *, rounding_mode: Any = None) -> Any:
    if rounding_mode is not None or _promoted(first, second):
        return NotImplemented
    if not isinstance(second, Dual):
        return Dual(aligned(first.joint, _axes(second)) / second)
    value = (first.value if isinstance(first, Dual) else first) / second.value
    turned = -value * aligned(second.tangents, value.ndim)
    if isinstance(first, Dual):
        turned = turned + aligned(first.tangents, value.ndim)
    return Dual.of(value, turned / second.value)


@rule("__rdiv__", "__rtruediv__")
def _rdiv(first: Any, second: Any) -> Any:
    return _div(second, first)


@rule("matmul", "__matmul__", "bmm", "mm")
def _matmul(first: Any, second: Any) -> Any:
    if min(first.ndim, second.ndim) < 2:
        return NotImplemented
    ndim = max(first.ndim, second.ndim)
    if not isinstance(second, Dual):
        return Dual(_times(aligned(first.joint, ndim), second))
    behind = aligned(second.joint, ndim)
    if not isinstance(first, Dual):
        return Dual(before(first, behind))
    ahead = aligned(first.joint, ndim)
    product, turned = _times(ahead, behind[0]), before(ahead[0], behind[1:])
    if not unrecorded():
        return Dual.of(product[0], product[1:] + turned)
    product[1:].add_(turned)
    return Dual(product)


def _times(joint: Tensor, matrix: Tensor) -> Tensor:
    """`t_k M`. Tangents stand as further rows: broadcasting would copy a batch of matrices for each of them."""
    if matrix.ndim == 2:
        return torch.matmul(joint, matrix)
    rows = joint.movedim(0, -3)
    product = torch.matmul(rows.flatten(-3, -2), matrix)
    return product.unflatten(-2, rows.shape[-3:-1]).movedim(-3, 0)


def before(matrix: Tensor, joint: Tensor) -> Tensor:
    """`M t_k`, tangents as further columns."""
    if matrix.ndim == 2:
        return torch.matmul(matrix, joint)
    columns = joint.movedim(0, -2)
    product = torch.matmul(matrix, columns.flatten(-2, -1))
    return product.unflatten(-1, columns.shape[-2:]).movedim(-2, 0)


@rule("__rmatmul__")
def _rmatmul(first: Any, second: Any) -> Any:
    return _matmul(second, first)
