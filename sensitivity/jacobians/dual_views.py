"""Rules of dual numbers for views and their like: shapes, axes, parts, joins, choices, conversions, resampling.

Symbols: a joint `(v, t_1, …, t_K)` has the value and its tangents along its first axis, see
`sensitivity.jacobians.duals`. All are linear in v, so each runs once on the whole joint, whose axes are counted one on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn import functional
from torch.utils._pytree import tree_map

from sensitivity.jacobians.duals import Dual, aligned, lifted, rule, rule_of


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
