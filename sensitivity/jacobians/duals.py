"""Dual numbers: forward mode by rules of our own, for the tangent of the state alone.

A `Dual` stands for a tensor `v` with K tangents `t_k`, which lie behind one another in one tensor, the *joint*
`(v, t_1, …, t_K)` of shape `(1 + K, *v.shape)`. A network that is called with one computes its value and its
derivatives together: what is linear in the state (convolutions, matrix products, views) runs once on the joint, as on
a larger batch, and what is not has a rule that takes both from the same intermediate results. Torch's forward mode runs
three convolutions for each one, since it also carries a tangent of zeros for the weight, and composite normalisations
and activations, operation by operation.

Rules are registered by `rule`; the modules `dual_algebra`, `dual_pointwise`, `dual_reductions`, `dual_views` and
`dual_layers` hold them, and the last brings the others. Any other function is pushed forward by `torch.func.jvp`, one
operation at a time, so that every network that forward mode can differentiate runs here too. Functions that write into
their arguments are refused: a caller then takes torch's forward mode instead.
Rules are made of differentiable operations, so that derivatives in parameters and second derivatives pass through; they
write into fresh memory only where nothing is recorded.

Nothing is patched: torch hands an operation to this class because one of its arguments is a Dual, for as long as that
argument lives.

Source: Griewank & Walther, Evaluating Derivatives, 2008, section 3.1 (vector forward mode).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn import functional
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from sensitivity._checks import transformed

__all__ = ["Dual", "Tally", "aligned", "alone", "counted", "lifted", "push", "rule", "rule_of", "unrecorded"]

_RULES: dict[Any, Callable[..., Any]] = {}
_SPACES = (torch, Tensor, functional, torch._C._nn, torch.special)
# Evaluated at the value: shapes and kinds, comparisons, constants of the same shape, and what cuts the derivative.
_CONSTANT = {
    *(
        "size",
        "dim",
        "ndimension",
        "numel",
        "nelement",
        "stride",
        "is_floating_point",
        "is_complex",
        "is_contiguous",
        "element_size",
        "get_device",
        "__len__",
    ),
    *("gt", "lt", "ge", "le", "eq", "ne", "__gt__", "__lt__", "__ge__", "__le__", "__eq__", "__ne__"),
    *("isfinite", "isnan", "isinf", "argmax", "argmin", "argsort"),
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
    *("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"),
    *("detach", "is_tensor", "result_type", "is_same_size"),
}
_WRITES = ("__setitem__", "__iadd__", "__isub__", "__imul__", "__idiv__", "__itruediv__", "__ipow__", "__delitem__")


def _places() -> dict[Any, int]:
    """Where the functions of `torch.nn.functional` that can work in place are told so."""
    places = {}
    for function in vars(functional).values():
        if inspect.isfunction(function):
            names = list(inspect.signature(function).parameters)
            if "inplace" in names:
                places[function] = names.index("inplace")
    return places


_IN_PLACE = _places()


class Dual(torch.Tensor):
    """A tensor with K tangents.

    Attributes:
        joint: value and tangents, (1 + K, *shape).
    """

    joint: Tensor

    @staticmethod
    def __new__(cls, joint: Tensor) -> Dual:
        wrapper = torch.Tensor._make_wrapper_subclass(cls, joint.shape[1:], dtype=joint.dtype, device=joint.device)
        wrapper.joint = joint
        return wrapper

    @classmethod
    def of(cls, value: Tensor, tangents: Tensor) -> Dual:
        """From a value and its tangents (K, *shape), which take the value's dtype."""
        return cls(torch.cat([value.unsqueeze(0), tangents.to(value.dtype)]))

    @classmethod
    def sloped(cls, value: Tensor, slope: Tensor, tangents: Tensor) -> Dual:
        """From a value and the products of a slope, which broadcasts to it, with tangents (K, *shape)."""
        if not unrecorded() or tangents.dtype != value.dtype or slope.dtype != value.dtype:
            return cls.of(value, slope * tangents)
        joint = value.new_empty(1 + len(tangents), *value.shape)
        joint[0] = value
        torch.mul(slope, tangents, out=joint[1:])
        return cls(joint)

    # Read without the detour through torch's dispatch, which takes longer than many an operation on a small state.
    @property
    def shape(self) -> torch.Size:  # type: ignore[override]
        """Of the value."""
        return self.joint.shape[1:]

    @property
    def ndim(self) -> int:  # type: ignore[override]
        """Number of axes of the value."""
        return self.joint.ndim - 1

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """Of value and tangents."""
        return self.joint.dtype

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Of value and tangents."""
        return self.joint.device

    @property
    def layout(self) -> torch.layout:  # type: ignore[override]
        """Of value and tangents."""
        return self.joint.layout

    @property
    def value(self) -> Tensor:
        """v."""
        return self.joint[0]

    @property
    def tangents(self) -> Tensor:
        """t_k, (K, *shape)."""
        return self.joint[1:]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        _check_recording()
        known = _RULES.get(func)
        if known is not None:
            result = known(*args, **kwargs)
            if result is not NotImplemented:
                _count(func, True)
                return result
        return _without_rule(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own is a placeholder without a class
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise NotImplementedError(f"{func} was reached below torch's functions, where dual numbers have no rule.")


@dataclass
class Tally:
    """How many operations had a rule of their own, and how many were pushed forward by torch."""

    ruled: int = 0
    pushed: int = 0


_tally: ContextVar[Tally | None] = ContextVar("tally", default=None)


@contextmanager
def counted() -> Iterator[Tally]:
    """Count the operations on dual numbers inside."""
    tally = Tally()
    token = _tally.set(tally)
    try:
        yield tally
    finally:
        _tally.reset(token)


def _count(func: Any, ruled: bool) -> None:
    tally = _tally.get()
    if tally is not None:
        tally.ruled += ruled
        tally.pushed += not ruled


def push(function: Callable[[Tensor], Tensor], x: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """`(f(x), ∇f t_k)` for tangents (K, *x.shape), in one call.

    Raises:
        NotImplementedError, RuntimeError: for a function without a forward mode, or one that works in place.

    Example:
        >>> x, t = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        >>> push(lambda y: y.square().sum(), x, t)
        (tensor(5.), tensor([2., 6.]))
    """
    token = _entry.set(_recording())
    try:
        # What the function closes over may be dual too, with as many tangents, such as a network's parameters.
        out = function(Dual.of(x, tangents))
    finally:
        _entry.reset(token)
    if isinstance(out, Dual):
        return out.value, out.tangents
    return out, out.new_zeros(len(tangents), *out.shape)


_entry: ContextVar[tuple[bool, int]] = ContextVar("entry", default=(False, 0))


def _recording() -> tuple[bool, int]:
    """Whether a graph is recorded, and how many transforms are active."""
    peek = torch._C._functorch.peek_interpreter_stack()
    return torch.is_grad_enabled(), 0 if peek is None else peek.level()


def _check_recording() -> None:
    """An operation that its caller's graph or transform would not see, inside `no_grad` or a hand-written rule.

    Raises:
        NotImplementedError: there, since derivatives of the product would be lost.
    """
    graph, level = _entry.get()
    if not (graph or level):  # nothing recorded at the entry, nothing to lose
        return
    now_graph, now_level = _recording()
    if (graph and not now_graph) or now_level < level:
        raise NotImplementedError("derivatives of dual numbers do not pass through no_grad or autograd.Function.")


def rule(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a rule for the functions and methods of these names; one that returns NotImplemented declines."""

    return rule_of(*(getattr(space, name) for name in names for space in _SPACES if hasattr(space, name)))


def rule_of(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The same for functions given as such."""

    def registered(handler: Callable[..., Any]) -> Callable[..., Any]:
        _RULES.update(dict.fromkeys(functions, handler))
        return handler

    return registered


def unrecorded() -> bool:
    """Whether results may be written into fresh memory: no graph and no transform would miss it."""
    return not (torch.is_grad_enabled() or transformed())


def alone(value: Tensor) -> Tensor:
    """The same tensor in memory of its own.

    Forward mode refuses values whose entries share memory, and gives each of K tangents as much as its value's whole
    storage: for the value of a joint that would be K² times its size.
    """
    return value.clone() if 0 in value.stride() or value.numel() < _stored(value) else value


def _stored(value: Tensor) -> int:
    """How many numbers the storage has; none is known of inside a transform."""
    return 0 if transformed() else value.untyped_storage().nbytes() // value.element_size()


def lifted(value: Tensor, count: int) -> Tensor:
    """The joint of a constant: K = count tangents of zeros."""
    return torch.cat([value.unsqueeze(0), value.new_zeros(count, *value.shape)])


def aligned(joint: Tensor, ndim: int) -> Tensor:
    """The joint of a tensor with axes of length one put in front, so that it has `ndim` of them."""
    missing = ndim + 1 - joint.ndim
    return joint.reshape(len(joint), *[1] * missing, *joint.shape[1:]) if missing > 0 else joint


def _without_rule(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return _attribute(func, args[0])
    if name in _CONSTANT:
        args, kwargs = tree_map(_value, (args, kwargs))
        return func(*args, **kwargs)
    if _writes(func, name, args, kwargs):
        raise NotImplementedError(f"{name} works in place, for which dual numbers have no rule.")
    _count(func, False)
    return _pushed(func, args, kwargs)


def _writes(func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a function changes an argument."""
    if name in _WRITES or "out" in kwargs or (name.endswith("_") and not name.endswith("__")):
        return True
    place = _IN_PLACE.get(func)
    return place is not None and bool(kwargs.get("inplace", len(args) > place and args[place]))


def _value(leaf: Any) -> Any:
    return leaf.value if isinstance(leaf, Dual) else leaf


def _attribute(getter: Any, dual: Dual) -> Any:
    """Attributes are those of the value, except views of it; `.data` cuts the derivative, as it does elsewhere."""
    if getter.__self__.__name__ in ("T", "mT", "H", "mH", "real"):
        return Dual(vmap(getter)(dual.joint))
    return getter(dual.value)


def _pushed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """A function without a rule, by torch's forward mode at this operation alone."""
    leaves, spec = tree_flatten((args, kwargs))
    duals = {place: leaf for place, leaf in enumerate(leaves) if isinstance(leaf, Dual)}

    def call(*values: Tensor) -> Any:
        filled = dict(zip(duals, values, strict=True))
        inner_args, inner_kwargs = tree_unflatten([filled.get(k, leaf) for k, leaf in enumerate(leaves)], spec)
        return func(*inner_args, **inner_kwargs)

    values = tuple(alone(dual.value) for dual in duals.values())
    tangents = tuple(dual.tangents for dual in duals.values())
    value, moved = _jvp(call, values, tangents)
    return tree_map(lambda v, t: Dual.of(v, t) if v.is_floating_point() else v, value, moved)


def _jvp(call: Callable[..., Any], values: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Any:
    places: Any = (None, 0)  # the value has no axis of tangents
    if len(tangents[0]) > 1:
        return vmap(lambda *each: jvp(call, values, each), out_dims=places)(*tangents)
    pair: Any = jvp(call, values, tuple(each[0] for each in tangents))
    value, moved = pair
    return value, tree_map(lambda leaf: leaf.unsqueeze(0), moved)
