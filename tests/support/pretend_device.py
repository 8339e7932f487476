"""An accelerator that is not there: tensors report the device `pretend:0`, compute on the CPU and refuse mixing.

What a GPU would refuse is refused here too: an operation on tensors of both devices (0-d CPU tensors pass, as they do
on CUDA), a CPU generator for a draw on the device, a conversion to NumPy. Values are those of the CPU to the last bit.
It stands on private parts of torch (a wrapper subclass and the PrivateUse1 backend), so that tests skip where they are
absent; `AVAILABLE` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretend"
_aten = torch.ops.aten
# Moving data between devices, and indexing by CPU indices, is legal.
_MAY_MIX = {
    _aten._to_copy.default,
    _aten.copy_.default,
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
    _aten.lift_fresh.default,
    _aten.set_.source_Tensor,
}


def _register() -> torch.library.Library | None:
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

        _setup_privateuseone_for_python_backend(NAME)
        library = torch.library.Library("aten", "IMPL")
        library.impl("empty_strided", _empty_strided, "PrivateUse1")
        library.impl("_copy_from", _copy_from, "PrivateUse1")
    except (ImportError, AttributeError, RuntimeError):
        return None
    return library


class PretendTensor(torch.Tensor):
    """A tensor on `pretend:0` around one on the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> PretendTensor:
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=torch.device(NAME, 0),
        )
        wrapper.inner = inner
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"pretend({self.inner!r})"

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert pretend:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, PretendTensor) else value


def _here(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> PretendTensor:
    return PretendTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    _inner(target).copy_(_inner(source))
    return target


def _refuse_mixing(func: Any, tensors: list[torch.Tensor], here: bool) -> None:
    if not here or func in _MAY_MIX:
        return
    if any(not isinstance(t, PretendTensor) and t.dim() > 0 for t in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {NAME}:0 and cpu! ({func})")


def _refuse_generator(kwargs: dict[str, Any], on_device: bool) -> None:
    generator = kwargs.get("generator")
    if on_device and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")


def _call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if func is _aten._efficientzerotensor.default:
        func = _aten.zeros.default
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    here, asked = any(isinstance(t, PretendTensor) for t in tensors), kwargs.get("device")
    _refuse_mixing(func, tensors, here)
    on_device = _here(asked) or (here and asked is None)
    _refuse_generator(kwargs, on_device)
    plain = dict(kwargs)
    if asked is not None:
        plain["device"] = torch.device("cpu")
    result = func(*tree_map(_inner, args), **tree_map(_inner, plain))
    if func._schema.is_mutable and here:
        return _changed(func, args, kwargs)
    return tree_map(_outer, result) if on_device else result


def _outer(value: Any) -> Any:
    return PretendTensor(value) if isinstance(value, torch.Tensor) and not isinstance(value, PretendTensor) else value


def _changed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation in place returns the very wrappers that it changed."""
    written = [
        args[i] if i < len(args) else kwargs.get(argument.name)
        for i, argument in enumerate(func._schema.arguments)
        if argument.alias_info and argument.alias_info.is_write
    ]
    tensors = [value for value in written if isinstance(value, torch.Tensor)]
    if not func._schema.returns:
        return None
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


class _Mode(TorchDispatchMode):
    """Lets factories such as `torch.zeros(device="pretend")` make pretend tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


_LIBRARY = _register()
AVAILABLE = _LIBRARY is not None


@contextmanager
def pretend_device() -> Iterator[Callable[[Any], Any]]:
    """Inside, `move(tree)` puts every tensor of a tree on the pretend device."""
    with _Mode():
        yield lambda tree: tree_map(lambda leaf: leaf.to(NAME) if isinstance(leaf, torch.Tensor) else leaf, tree)
