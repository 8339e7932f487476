"""Rules of dual numbers for arithmetic, views, reductions and pointwise functions (see `sensitivity.jacobians.duals`).

Symbols: a joint `(v, t_1, …, t_K)` has the value and its tangents along its first axis. Linear functions act on the
whole joint; `v + c` changes the value alone; `u v` has the tangents `u̇ v + u v̇`; `f(v)` has `f'(v) t_k`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn import functional
from torch.utils._pytree import tree_map

from sensitivity.jacobians.duals import Dual, lifted, rule, rule_of, unrecorded

__all__ = ["aligned"]

_aten = torch.ops.aten


def aligned(joint: Tensor, ndim: int) -> Tensor:
    """The joint of a tensor with axes of length one put in front, so that it has `ndim` of them."""
    missing = ndim + 1 - joint.ndim
    return joint.reshape(len(joint), *[1] * missing, *joint.shape[1:]) if missing > 0 else joint


def _axes(other: Any) -> int:
    return other.ndim if isinstance(other, Tensor) else 0


def _promoted(*arguments: Any) -> bool:
    """Whether a 0-d dual meets another dtype: promotion would tell it from its joint."""
    if not any(isinstance(each, Dual) and each.joint.ndim == 1 for each in arguments):
        return False
    return len({each.dtype for each in arguments if isinstance(each, Tensor)}) > 1


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
        return Dual(_before(first, behind))
    ahead = aligned(first.joint, ndim)
    product, turned = _times(ahead, behind[0]), _before(ahead[0], behind[1:])
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


def _before(matrix: Tensor, joint: Tensor) -> Tensor:
    """`M t_k`, tangents as further columns."""
    if matrix.ndim == 2:
        return torch.matmul(matrix, joint)
    columns = joint.movedim(0, -2)
    product = torch.matmul(matrix, columns.flatten(-2, -1))
    return product.unflatten(-1, columns.shape[-2:]).movedim(-2, 0)


@rule("__rmatmul__")
def _rmatmul(first: Any, second: Any) -> Any:
    return _matmul(second, first)


def _pointwise(name: str, slope: Callable[[Tensor, Tensor], Tensor]) -> None:
    function = getattr(torch, name)

    @rule(name)
    def _(dual: Dual, *args: Any, **kwargs: Any) -> Any:
        if args or any(kwargs.values()):
            return NotImplemented
        value = function(dual.value)
        return Dual.sloped(value, slope(dual.value, value), dual.tangents)


_pointwise("exp", lambda v, y: y)
_pointwise("log", lambda v, y: 1 / v)
_pointwise("log1p", lambda v, y: 1 / (1 + v))
_pointwise("sqrt", lambda v, y: 0.5 / y)
_pointwise("rsqrt", lambda v, y: -0.5 * y / v)
_pointwise("reciprocal", lambda v, y: -y * y)
_pointwise("square", lambda v, y: 2 * v)
_pointwise("sin", lambda v, y: torch.cos(v))
_pointwise("cos", lambda v, y: -torch.sin(v))
_pointwise("tanh", lambda v, y: 1 - y * y)
_pointwise("sigmoid", lambda v, y: y * (1 - y))
_pointwise("relu", lambda v, y: (v > 0).to(v.dtype))


@rule("pow", "__pow__")
def _pow(dual: Any, exponent: Any) -> Any:
    if not isinstance(dual, Dual) or isinstance(exponent, Tensor) or exponent in (0, 1):
        return NotImplemented
    value = dual.value
    return Dual.sloped(value**exponent, exponent * value ** (exponent - 1), dual.tangents)


@rule("silu")
def _silu(input: Dual, inplace: bool = False) -> Any:
    if inplace:
        return NotImplemented
    value = input.value
    if unrecorded():
        out = torch.empty_like(input.joint)
        _aten.silu.out(value, out=out[0])
        _aten.silu_backward.grad_input(input.tangents, value.expand_as(input.tangents), grad_input=out[1:])
        return Dual(out)
    share = torch.sigmoid(value)
    return Dual.of(functional.silu(value), share * (1 + value * (1 - share)) * input.tangents)


@rule("gelu")
def _gelu(input: Dual, *, approximate: str = "none") -> Dual:
    value = input.value
    if unrecorded():
        out = torch.empty_like(input.joint)
        _aten.gelu.out(value, approximate=approximate, out=out[0])
        repeated = value.expand_as(input.tangents)
        _aten.gelu_backward.grad_input(input.tangents, repeated, approximate=approximate, grad_input=out[1:])
        return Dual(out)
    slope = _gelu_slope(value) if approximate == "none" else _gelu_tanh_slope(value)
    return Dual.of(functional.gelu(value, approximate=approximate), slope * input.tangents)


def _gelu_slope(v: Tensor) -> Tensor:
    """Φ(v) + v φ(v)."""
    return 0.5 * (1 + torch.erf(v / math.sqrt(2))) + v * torch.exp(-0.5 * v * v) / math.sqrt(2 * math.pi)


def _gelu_tanh_slope(v: Tensor) -> Tensor:
    """Of ½ v (1 + tanh √(2/π)(v + .044715 v³))."""
    root = math.sqrt(2 / math.pi)
    bent = torch.tanh(root * (v + 0.044715 * v**3))
    return 0.5 * (1 + bent) + 0.5 * v * (1 - bent * bent) * root * (1 + 3 * 0.044715 * v * v)


@rule("softmax")
def _softmax(input: Dual, dim: int | None = None, *rest: Any, dtype: Any = None, **kwargs: Any) -> Any:
    if dim is None or rest or dtype is not None:
        return NotImplemented
    value = torch.softmax(input.value, dim)
    along = dim % input.ndim - input.ndim  # counted from the end, where the joint has no axis more
    weighted = Dual.sloped(value, value, input.tangents)
    sums = weighted.tangents.sum(along, keepdim=True)
    if not unrecorded():
        return Dual.of(value, weighted.tangents - value * sums)
    weighted.tangents.addcmul_(value, sums, value=-1)
    return weighted


def _behind(dim: int) -> int:
    """The same axis of the joint."""
    return dim + 1 if dim >= 0 else dim


def _sizes(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arguments[0]) if len(arguments) == 1 and not isinstance(arguments[0], int) else arguments


@rule("reshape", "view")
def _reshape(input: Dual, *shape: Any, **kwargs: Any) -> Any:
    if kwargs or isinstance(shape[0], torch.dtype):
        return NotImplemented
    return Dual(input.joint.reshape(len(input.joint), *_sizes(shape)))


@rule("flatten")
def _flatten(input: Dual, start_dim: int = 0, end_dim: int = -1) -> Any:
    return Dual(input.joint.flatten(_behind(start_dim), _behind(end_dim))) if input.ndim else NotImplemented


@rule("unflatten")
def _unflatten(input: Dual, dim: int, sizes: Any) -> Dual:
    return Dual(input.joint.unflatten(_behind(dim), sizes))


@rule("permute")
def _permute(input: Dual, *dims: Any, **kwargs: Any) -> Any:
    if kwargs:
        return NotImplemented
    return Dual(input.joint.permute(0, *(dim % input.ndim + 1 for dim in _sizes(dims))))


@rule("transpose", "swapaxes", "swapdims")
def _transpose(input: Dual, dim0: int, dim1: int) -> Dual:
    return Dual(input.joint.transpose(_behind(dim0), _behind(dim1)))


@rule("unsqueeze")
def _unsqueeze(input: Dual, dim: int) -> Dual:
    return Dual(input.joint.unsqueeze(_behind(dim)))


def _parts(name: str) -> None:
    method = getattr(Tensor, name)

    @rule(name)
    def _(input: Dual, number: Any, dim: int = 0) -> tuple[Dual, ...]:
        return tuple(Dual(part) for part in method(input.joint, number, dim=_behind(dim)))


for _name in ("chunk", "split", "tensor_split"):
    _parts(_name)


@rule("__getitem__")
def _getitem(input: Any, index: Any) -> Any:
    places = index if isinstance(index, tuple) else (index,)
    simple = all(place is None or place is Ellipsis or type(place) in (int, slice) for place in places)
    if not (simple and isinstance(input, Dual)):
        return NotImplemented
    return Dual(input.joint[(slice(None), *places)])


def _whole(name: str) -> None:
    method = getattr(Tensor, name)

    @rule(name)
    def _(input: Dual, *args: Any, **kwargs: Any) -> Dual:
        """The same conversion of the joint."""
        return Dual(method(input.joint, *args, **kwargs))


for _name in ("clone", "contiguous", "float", "double", "half", "bfloat16"):
    _whole(_name)


@rule("to", "type_as")
def _to(input: Any, *args: Any, **kwargs: Any) -> Any:
    if not isinstance(input, Dual):
        return NotImplemented
    args = tuple(each.value if isinstance(each, Dual) else each for each in args)
    joint = input.joint.to(*args, **kwargs)
    return Dual(joint) if joint.is_floating_point() else joint[0]


@rule("cat", "concat", "concatenate")
def _cat(tensors: Any, dim: int = 0, **kwargs: Any) -> Any:
    if kwargs or not all(isinstance(each, Tensor) for each in tensors):
        return NotImplemented
    count = next(len(each.joint) for each in tensors if isinstance(each, Dual)) - 1
    joints = [each.joint if isinstance(each, Dual) else lifted(each, count) for each in tensors]
    return Dual(torch.cat(joints, _behind(dim)))


@rule("where")
def _where(condition: Any, *branches: Any) -> Any:
    if len(branches) != 2 or isinstance(condition, Dual) or not all(isinstance(each, Tensor) for each in branches):
        return NotImplemented
    count = next(len(each.joint) for each in branches if isinstance(each, Dual)) - 1
    ndim = max(condition.ndim, *(each.ndim for each in branches))
    joints = [aligned(each.joint if isinstance(each, Dual) else lifted(each, count), ndim) for each in branches]
    return Dual(torch.where(condition, joints[0], joints[1]))


def _reduced(input: Dual, dim: Any) -> list[int]:
    """Axes of the joint; no axes are all axes."""
    dims = [dim] if isinstance(dim, int) else list(dim or range(input.ndim))
    return [each % input.ndim + 1 for each in dims]


def _reduction(name: str) -> None:
    method = getattr(Tensor, name)

    @rule(name)
    def _(input: Dual, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, **kwargs: Any) -> Any:
        keepdim, dim = kwargs.pop("keepdims", keepdim), kwargs.pop("axis", dim)  # NumPy's names, which torch takes too
        if kwargs or dtype is not None or not input.ndim:
            return NotImplemented
        return Dual(method(input.joint, _reduced(input, dim), keepdim=keepdim))


for _name in ("sum", "mean"):
    _reduction(_name)


def _extreme(name: str) -> None:
    method = getattr(Tensor, name)

    @rule(name)
    def _(input: Dual, dim: Any = (), keepdim: bool = False, **kwargs: Any) -> Any:
        """Where several entries are the largest, the mean of their tangents."""
        keepdim, dim = kwargs.pop("keepdims", keepdim), kwargs.pop("axis", dim)
        if kwargs or not input.ndim:
            return NotImplemented
        dims, tangents = _reduced(input, dim), input.tangents
        value = method(input.value, [each - 1 for each in dims], keepdim=True)
        chosen = (input.value == value).to(value.dtype)
        shares = chosen / chosen.sum([each - 1 for each in dims], keepdim=True)
        # Not a product: zero times an infinite tangent is no number.
        moved = torch.where(shares > 0, shares * tangents, 0.0).sum(dims, keepdim=True)
        joint = torch.cat([value.unsqueeze(0), moved])
        return Dual(joint if keepdim else joint.squeeze(tuple(dims)))


for _name in ("amax", "amin"):
    _extreme(_name)


def _linear_map(name: str) -> None:
    """A linear function that is rare, or whose arguments count axes in many ways, by torch's batching rule."""
    for space in (torch, Tensor, functional):
        function = getattr(space, name, None)
        if function is not None:
            _by_batching(function)


def _by_batching(function: Callable[..., Any]) -> None:
    @rule_of(function)
    def _(input: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(input, Dual) or any(isinstance(each, Dual) for each in (*args, *kwargs.values())):
            return NotImplemented
        return tree_map(Dual, vmap(lambda each: function(each, *args, **kwargs))(input.joint))


for _name in (
    *("movedim", "squeeze", "expand", "unbind", "roll", "flip", "narrow", "select"),
    *("repeat", "tile", "pixel_shuffle", "pixel_unshuffle"),
):
    _linear_map(_name)


def _images(name: str) -> None:
    """Pooling and resizing of (batch, channels, …), for which the joint is a larger batch."""
    function = getattr(functional, name)

    @rule(name)
    def _(input: Dual, *args: Any, **kwargs: Any) -> Any:
        least = 2 if name == "interpolate" else int(name[-2]) + 1
        if input.ndim <= least:
            return NotImplemented
        batched = function(input.joint.flatten(0, 1), *args, **kwargs)
        return Dual(batched.unflatten(0, input.joint.shape[:2]))


for _name in ("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool2d", "interpolate"):
    _images(_name)
